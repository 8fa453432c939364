"""What README.md says was measured: all levers together in a sentence, and of RESULTS.md's table a part."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from cookbook.benchmarks.claims import CLAIMS, verdict
from cookbook.benchmarks.findings import percent
from cookbook.benchmarks.recorded import Record
from cookbook.benchmarks.savings import Line, lines

__all__ = ["with_figures"]

_COLUMNS = ("lever", "measured on", "claimed", "saved", "quality", "the claim, here")
_TOGETHER = "combined"


def with_figures(text: str, records: Mapping[str, Record]) -> str:
    """The README with what was measured between its marks."""
    every = lines(records)
    return _between(_between(text, "together", _sentence(every)), "savings", _table(every))


def _between(text: str, mark: str, written: str) -> str:
    before, begin, rest = text.partition(f"<!-- {mark}: written by make bench -->")
    _, end, after = rest.partition(f"<!-- /{mark} -->")
    return f"{before}{begin}\n\n{written}\n\n{end}{after}"


def _sentence(every: Sequence[Line]) -> str:
    """What the application with the most levers has saved."""
    [*_, last] = (line for line in every if line.section == _TOGETHER)
    about, _, _ = last.data.partition(":")
    saved, change = f"{percent(last.saved)} of {last.of}", percent(last.change, sign=True)
    return (
        f"Measured on {about}, public data whose right answers are known: all levers together saved\n"
        f"**{saved}**, at {change} {last.quality} (in brackets 95 % intervals).\n"
        "What each lever saves, what it costs in quality, and where a textbook promises more:\n"
        "[what was measured](#what-was-measured)."
    )


def _table(every: Sequence[Line]) -> str:
    """For each lever its first line, and all of the one application that has every lever."""
    rows = [_COLUMNS, ["---"] * len(_COLUMNS), *map(_row, _chosen(every))]
    table = "\n".join("| " + " | ".join(row) + " |" for row in rows)
    said = [verdict(CLAIMS[line.lever], line.saved, line.change) for line in every if line.lever in CLAIMS]
    holds, fails = (sum(words.startswith(start) for words in said) for start in ("holds", "**does not hold**"))
    unsure = len(said) - holds - fails
    return (
        f"{table}\n\nIn brackets 95 % intervals. Claimed is a textbook's word. Of all {len(said)} lines that are held "
        f"against it in\nRESULTS.md, with what peers do on the same data, {holds} hold, {fails} do not, and of "
        f"{unsure} it cannot be told. `make bench` wrote this."
    )


def _chosen(every: Sequence[Line]) -> Iterator[Line]:
    seen = set()
    for line in every:
        if line.lever not in seen or line.section == _TOGETHER:
            yield line
        seen.add(line.lever)


def _row(line: Line) -> list[str]:
    claim = CLAIMS.get(line.lever)
    judged = verdict(claim, line.saved, line.change)
    saved, quality = f"{percent(line.saved)} of {line.of}", f"{percent(line.change, sign=True)} {line.quality}"
    return [line.lever, line.data, claim.words if claim else "the most", saved, quality, judged]
