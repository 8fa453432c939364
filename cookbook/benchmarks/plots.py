"""Plots of what was recorded, as SVG: the same records give the same bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cookbook.benchmarks.recorded import Record, cells, number, share_of, titles
from cookbook.benchmarks.savings import RATIOS

__all__ = ["PLOTS", "draw", "drawn"]

PLOTS = {
    "combined": ("combined", "One stream: what is saved, and what becomes of the answers (95 % intervals; red: peers)"),
    "routing": ("routing", "Quality against share of strong calls"),
    "compression": ("compression", "Answers that survive"),
    "caches": ("stream", "Caches: hits, and answers that were wrong"),
}
"""By name: the section that it is of, and its title."""

# One that is legible on a light and on a dark page, for it brings its own paper.
_STYLE: Any = {
    "figure.facecolor": "#ffffff",
    "axes.facecolor": "#ffffff",
    "axes.edgecolor": "#57606a",
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "grid.color": "#d8dee4",
    "grid.linewidth": 0.6,
    "font.family": "DejaVu Sans",
    "font.size": 9.0,
    "svg.hashsalt": "costopt",
    "svg.fonttype": "path",
}
_SIZE = (7.6, 4.2)
_OURS, _THEIRS, _PLAIN, _THIRD = "#0969da", "#cf222e", "#57606a", "#bf8700"


def draw(records: Mapping[str, Record], folder: Path) -> None:
    """Write the plots of the sections that are there; those of others stay as they are."""
    folder.mkdir(exist_ok=True)
    for name, (section, title) in PLOTS.items():
        if section in records and _has(name, records[section]):
            with _figure(title, folder / f"{name}.svg") as figure:
                _DRAWING[name](records[section], figure)


def drawn(records: Mapping[str, Record], folder: Path) -> list[tuple[str, str]]:
    """(title, file name) of the plots that are there for these sections."""
    return [
        (title, f"{folder.name}/{name}.svg")
        for name, (section, title) in PLOTS.items()
        if section in records and (folder / f"{name}.svg").is_file()
    ]


def _has(name: str, record: Record) -> bool:
    """Whether a section was recorded with what the plot needs."""
    if name in ("combined", "routing"):
        return bool(record["found"].get("figures"))
    return bool(record["found"]["tables"])


@contextmanager
def _figure(title: str, path: Path) -> Iterator[Any]:
    import matplotlib as mpl  # no other section needs it
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with mpl.rc_context(_STYLE):
        figure = Figure(figsize=_SIZE, layout="constrained")
        FigureCanvasSVG(figure)
        figure.suptitle(title, x=0.01, ha="left", fontsize=11)
        yield figure
        figure.savefig(path, format="svg", metadata={"Date": None, "Creator": None})
    # It ends lines with blanks, which git complains of.
    path.write_text("\n".join(line.rstrip() for line in path.read_text("utf-8").splitlines()) + "\n", "utf-8")


def _combined(record: Record, figure: Any) -> None:
    figures = record["found"]["figures"]
    sides, peers = figures["sides"], figures["peers"]
    shown = [(name, _THEIRS if name in peers else _OURS) for name in sides if name != "nothing"]
    words = {"saved": "% of the bill saved", "change": "% more or fewer right answers"}
    for axes, (key, label) in zip(figure.subplots(1, 2, sharey=True), words.items(), strict=True):
        for row, (name, colour) in enumerate(shown):
            value, low, high = (100 * each for each in sides[name]["all"][key])
            axes.errorbar(value, row, xerr=[[value - low], [high - value]], fmt="o", color=colour, capsize=2)
        axes.axvline(0, color=_PLAIN, linewidth=1)
        axes.set_xlabel(label)
    figure.axes[0].set_yticks(range(len(shown)), [name for name, _ in shown])
    figure.axes[0].set_ylim(len(shown) - 0.5, -0.5)


def _routing(record: Record, figure: Any) -> None:
    axes = figure.subplots()
    found = record["found"]["figures"]["curves"]
    colours = {"GainEstimator": _OURS, "length": _THIRD, "random": _PLAIN, "oracle": "#1a7f37"}
    styles = {"GainEstimator": "-", "length": "--", "random": ":", "oracle": "-."}
    shares = [100 * share for share in found["shares"]]
    shade, low, high = zip(*found["bounds"], strict=True)
    axes.fill_between(*_percent(shade, low, high), color=_OURS, alpha=0.15, linewidth=0)
    for name, line in found["lines"].items():
        axes.plot(shares, [100 * each for each in line], styles[name], color=colours[name], label=name)
    kept = 95 * found["lines"]["GainEstimator"][-1]
    axes.axhline(kept, color=_PLAIN, linewidth=0.8)
    axes.annotate("95 % of the strong model's", (100, kept), (0, 3), textcoords="offset points", ha="right", fontsize=8)
    axes.set_ylim(top=100 * max(found["lines"]["length"]) + 4)
    axes.set_xlabel("% of the requests that go to the strong model (MMLU outcomes, 1,500 labels)")
    axes.set_ylabel("% right")
    axes.legend(loc="lower right", frameon=False)


def _compression(record: Record, figure: Any) -> None:
    rows = {
        "Compressor, with a question": ("Compressor", _OURS, "-"),
        "cosine only": ("cosine only", _THIRD, "--"),
        "LlamaIndex SentenceEmbeddingOptimizer": ("LlamaIndex's optimiser", _THEIRS, "-."),
        "random sentences": ("random sentences", _PLAIN, ":"),
    }
    tables = titles(record, "Answers that survive")[:2]
    for axes, title in zip(figure.subplots(1, len(tables), sharey=True, squeeze=False)[0], tables, strict=True):
        about, count = title.split(": ", 1)[1].rsplit(", ", 1)
        axes.set_title(about, fontsize=9)
        axes.set_xlabel("% of the tokens kept")
        for row, (name, colour, style) in rows.items():
            found = cells(record, title, row)
            points = [_survival(found[f"{ratio:g} of the tokens"], ratio, number(count)) for ratio in RATIOS if found]
            if points:
                kept, share, below, above = zip(*points, strict=True)
                mark = {"fmt": "o" + style, "color": colour, "markersize": 4, "capsize": 2, "linewidth": 1.2}
                axes.errorbar(kept, share, yerr=[below, above], label=name, **mark)
        axes.set_ylim(0, 104)
    axes.legend(loc="lower right", frameon=False, fontsize=8)
    figure.axes[0].set_ylabel("% of the answers")


def _survival(cell: str, ratio: float, asked: float) -> tuple[float, float, float, float]:
    kept = number(cell.split(" with ", 1)[1]) if " with " in cell else ratio
    share = share_of(round(number(cell) * asked), asked)
    return 100 * kept, 100 * share.value, 100 * (share.value - share.low), 100 * (share.high - share.value)


def _caches(record: Record, figure: Any) -> None:
    axes = figure.subplots()
    tables = titles(record, "")[:2]
    names = ["costopt as it is", "cosine ≥ 0.95, no guards", "cosine ≥ 0.9, no guards", "langchain-redis"]
    for title, filled in zip(tables, (True, False), strict=False):
        for name, colour in zip(names, (_OURS, _THIRD, "#8250df", _THEIRS), strict=True):
            found = cells(record, title, name)
            asked = number(found["requests"])
            hits, wrong = 100 * number(found["hit rate"]), share_of(number(found["wrong hits"]), asked)
            low, high = 100 * (wrong.value - wrong.low), 100 * (wrong.high - wrong.value)
            axes.errorbar(
                hits, 100 * wrong.value, yerr=[[low], [high]], fmt="o", color=colour, capsize=2, markersize=6,
                markerfacecolor=colour if filled else "w", label=name if filled else None,
            )  # fmt: skip
    axes.set_ylim(bottom=0)
    axes.set_xlabel("hits, % of the requests (filled: the whole stream; hollow: questions never trained on)")
    axes.set_ylabel("wrong answers, % of the requests")
    axes.legend(loc="upper left", frameon=False)


def _percent(*columns: Any) -> list[list[float]]:
    return [[100 * each for each in column] for column in columns]


_DRAWING: dict[str, Callable[[Record, Any], None]] = {
    "combined": _combined,
    "routing": _routing,
    "compression": _compression,
    "caches": _caches,
}
