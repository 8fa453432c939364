"""The report as one HTML file that needs nothing else: no network, no library. Every figure in it is in the JSON.

Each figure stands in an element that names its place there (`data-figure`) and its form (`data-kind`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from typing import Any

from costopt.audit.figures import at, shown
from costopt.audit.report import CostReport

__all__ = ["html_report"]

_UNKNOWN = '<td class="n">unknown</td>'
_POLICY = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'"


def html_report(report: CostReport) -> str:
    """The page.

    Example:
        >>> from costopt.audit.report import audit
        >>> row = '{"model": "gpt-4o", "messages": [{"role": "user", "content": "Why?"}], "answer": "So."}'
        >>> _ = (tmp / "log.jsonl").write_text(row)
        >>> html_report(audit(tmp / "log.jsonl")).startswith("<!doctype html>")
        True
    """
    # By way of JSON, so that the page can show nothing that the JSON has not.
    page = _Page(json.loads(json.dumps(report.as_dict(), default=str)))
    parts = [page.head(), page.together(), page.spend(), page.routing(), page.repeats(), page.context(),
             page.waiting(), page.gpu(), page.templates(), page.small_print()]  # fmt: skip
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Cost audit: {escape(page.report['source']['file'])}</title>\n"
        f"<style>\n{_asset('report.css')}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + f"\n</main>\n<script>\n{_asset('report.js')}</script>\n</body>\n</html>\n"
    )


def _asset(name: str) -> str:
    return (resources.files("costopt.audit") / "assets" / name).read_text("utf-8")


class _Page:
    def __init__(self, report: dict[str, Any]) -> None:
        self.report = report

    # -- parts -----------------------------------------------------------------------------------------

    def head(self) -> str:
        source = self.report["source"]
        when = ""
        if source["from"]:
            when = f", {self.figure('source.from', 'date')} to {self.figure('source.to', 'date')}"
        boxes = "".join(
            f"<div>{label}<b{mark}>{self.figure(path, kind)}</b></div>"
            for label, path, kind, mark in (
                ("spent", "together.before", "usd", ""),
                ("with all levers", "together.after", "usd", ' class="good"'),
                ("saved", "together.share", "percent", ' class="good"'),
                ("calls", "source.calls", "count", ""),
                ("input tokens", "spend.input_tokens", "compact", ""),
                ("output tokens", "spend.output_tokens", "compact", ""),
            )
        )
        return (
            f"<h1>Cost audit of {self.figure('source.file', 'plain')}</h1>\n"
            f'<p class="faint">{self.figure("source.calls", "count")} calls, read as '
            f'{self.figure("source.format", "plain")}{when}</p>\n<div class="head">{boxes}</div>'
        )

    def together(self) -> str:
        steps = self.report["together"]["steps"]
        before = float(self.report["together"]["before"])
        rows = [("today", self.figure("together.before", "usd"), 0.0, before, "c")]
        left = before
        for place, step in enumerate(steps):
            saved = float(step["saves"])
            low, high = sorted((left - saved, left))
            rows.append((step["name"], self.figure(f"together.steps.{place}.saves", "usd"), low, high, "saved"))
            left -= saved
        rows.append(("optimised", self.figure("together.after", "usd"), 0.0, left, ""))
        meant = "".join(
            f"<li>{self.figure(f'levers.{i}.name', 'plain')}: {self.figure(f'levers.{i}.quality', 'plain')}</li>"
            for i in range(len(self.report["levers"]))
        )
        between = f"{self.figure('together.saves_low', 'usd')} to {self.figure('together.saves_high', 'usd')}"
        return self._section(
            "What the levers would have saved",
            f"<p>Replayed in the order of time, net of what the levers take themselves: "
            f"{self.figure('together.saves', 'usd')} ({between}).</p>",
            self._figure("From today's bill to the optimised one", self._bars(rows, before)),
            "<h3>Each lever by itself</h3>",
            self._levers(),
            "<h3>What it would have meant for the answers</h3>",
            f"<ul>{meant}</ul>",
        )

    def _levers(self) -> str:
        titles = ("saves", "at least", "at most", "own cost", "calls")
        rows = [
            [
                self._cell(f"levers.{i}.name", "plain"),
                self._cell(f"levers.{i}.likely", "usd") if lever["known"] else _UNKNOWN,
                self._cell(f"levers.{i}.low", "usd"),
                _UNKNOWN if lever["high"] is None else self._cell(f"levers.{i}.high", "usd"),
                self._cell(f"levers.{i}.own_cost", "usd") if lever["known"] else _UNKNOWN,
                self._cell(f"levers.{i}.calls", "count") if lever["known"] else _UNKNOWN,
            ]
            for i, lever in enumerate(self.report["levers"])
        ]
        return self._table("levers", [("lever", ""), *((title, "n") for title in titles)], rows)

    def spend(self) -> str:
        days, models = self.report["spend"]["days"], self.report["spend"]["models"]
        parts = [
            (
                f"<p>{self.figure('spend.usd', 'usd')} in {self.figure('spend.calls', 'count')} calls, of which "
                f"{self.figure('spend.failed', 'count')} failed ({self.figure('spend.failed_usd', 'usd')}). Costs: "
                f"{self.figure('spend.priced_by_log', 'count')} calls as the log has them, "
                f"{self.figure('spend.priced_by_list', 'count')} by the price list, "
                f"{self.figure('spend.unpriced', 'count')} not known. Tokens of "
                f"{self.figure('spend.estimated', 'count')} calls are estimates.</p>"
            )
        ]
        if len(days) > 1:
            parts.append(self._figure("Over time", self._columns(days)))
        top = max((float(model["usd"]) for model in models), default=0.0)
        rows = [
            (
                self.figure(f"spend.models.{i}.model", "plain"),
                self.figure(f"spend.models.{i}.usd", "usd"),
                0.0,
                float(model["usd"]),
                "",
            )
            for i, model in enumerate(models[:12])
        ]
        parts.append(self._figure("By model", self._bars(rows, top, raw=True)))
        unpriced = self.report["spend"]["unpriced_models"]
        if unpriced:
            named = ", ".join(f"{escape(name)} ({count:,})" for name, count in unpriced.items())
            parts.append(f'<p class="faint" data-figure="spend.unpriced_models">Without a known price: {named}.</p>')
        return self._section("Spend", *parts)

    def routing(self) -> str:
        found = self.report["questions"]["routing"]
        path = "questions.routing"
        if found["known"]:
            said = (
                f"<b>{self.figure(f'{path}.share', 'percent')}</b> of the calls went to an expensive model though a "
                f"cheaper one would have done ({self.figure(f'{path}.share_low', 'percent')} to "
                f"{self.figure(f'{path}.share_high', 'percent')}); on {self.figure(f'{path}.no_opinion', 'count')} the "
                "router has no opinion."
            )
        else:
            said = f"<b>Unknown</b>; at most {self.figure(f'{path}.share_high', 'percent')} of the calls."
        return self._section(
            "Was a cheaper model enough?",
            f"<p>{said}</p><p>{self.figure(f'{path}.expensive_calls', 'count')} of "
            f"{self.figure(f'{path}.calls', 'count')} calls went to a model to which there is a cheaper one, for "
            f"{self.figure(f'{path}.expensive_usd', 'usd')}.</p>",
            f'<p class="faint">{self.figure(f"{path}.note", "plain")}</p>',
        )

    def repeats(self) -> str:
        path, found = "questions.repeats", self.report["questions"]["repeats"]
        exact, worded = found["exact_share"], found["semantic_share"] or 0.0
        bars = (
            f'<div class="track"><i style="left:0;width:{exact:.2%}"></i>'
            f'<i class="b" style="left:{exact:.2%};width:{worded:.2%}"></i></div>'
            '<p class="key"><span><i style="background:var(--main)"></i>exact '
            f"{self.figure(f'{path}.exact_share', 'percent')}</span>"
            '<span><i style="background:var(--second)"></i>reworded '
            f"{self.figure(f'{path}.semantic_share', 'percent')}</span></p>"
        )
        reworded = ". Reworded ones were not looked for."
        if found["semantic"] is not None:
            reworded = (
                f" and {self.figure(f'{path}.semantic', 'count')} as reworded ones "
                f"({self.figure(f'{path}.semantic_share_low', 'percent')} to "
                f"{self.figure(f'{path}.semantic_share_high', 'percent')} of them)."
            )
        parts = [
            (
                f"<p>A cache answered {self.figure(f'{path}.cache_hit_rate', 'percent')} of "
                f"{self.figure(f'{path}.requests', 'count')} requests; those with a prompt are "
                f"{self.figure(f'{path}.distinct', 'count')} different ones. It could have answered "
                f"{self.figure(f'{path}.exact', 'count')} as exact repeats{reworded}</p>"
            ),
            self._figure("Requests that repeat an earlier one", bars),
        ]
        if found["examples"]:
            pairs = "".join(
                f'<li>{self.figure(f"{path}.examples.{i}.0", "plain")}<br><span class="faint">answered as '
                f"{self.figure(f'{path}.examples.{i}.1', 'plain')}</span></li>"
                for i in range(len(found["examples"]))
            )
            parts.append(f"<h3>Reworded repeats, for example</h3><ul>{pairs}</ul>")
        return self._section("How much is asked again?", *parts)

    def context(self) -> str:
        path, found = "questions.context", self.report["questions"]["context"]
        top = max((each["requests"] for each in found["histogram"]), default=0)
        last = max((i for i, each in enumerate(found["histogram"]) if each["requests"]), default=0)
        sizes = [
            (
                f"{self.figure(f'{path}.histogram.{i}.from', 'count')} +",
                self.figure(f"{path}.histogram.{i}.requests", "count"), 0.0, float(each["requests"]), "",
            )
            for i, each in enumerate(found["histogram"][: last + 1])
        ]  # fmt: skip
        tables = [
            self._table(
                name,
                [(title, ""), ("tokens", "n"), ("share of the input", "n")],
                [
                    [
                        f"<td>{escape(part)}</td>",
                        self._cell(f"{path}.{name}.{part}.tokens", "compact"),
                        self._cell(f"{path}.{name}.{part}.share", "percent"),
                    ]
                    for part in found[name]
                ],
            )
            for name, title in (("parts", "part"), ("avoidable", "avoidable"))
        ]
        unused = ", ".join(map(escape, found["unused_tools"]))
        said = f'<p data-figure="{path}.unused_tools">Tools that were never called: {unused}.</p>' if unused else ""
        return self._section(
            "How long are the prompts?",
            f"<p>On average {self.figure(f'{path}.mean', 'count')} tokens of input; half have at most "
            f"{self.figure(f'{path}.p50', 'count')}, nine in ten {self.figure(f'{path}.p90', 'count')}, the longest "
            f"{self.figure(f'{path}.max', 'count')}. {self.figure(f'{path}.cached_share', 'percent')} was read from a "
            "provider's prompt cache.</p>",
            self._figure("Requests by tokens of input", self._bars(sizes, float(top), raw=True)),
            "<h3>Of what they consist</h3>", tables[0], "<h3>What was avoidable</h3>", tables[1], said,
        )  # fmt: skip

    def waiting(self) -> str:
        path = "questions.waiting"
        rows = "".join(
            f"<li>{self.figure(f'{path}.{name}', 'count')} {label} "
            f"({self.figure(f'{path}.{name}_share', 'percent')} of the calls, "
            f"{self.figure(f'{path}.{name}_usd', 'usd')})</li>"
            for name, label in (
                ("already", "went through a batch API already"),
                ("marked", "are marked as work that nobody waits for"),
                ("bursts", "look like it: many of one template within few hours, not streamed"),
            )
        )
        short = (
            ""
            if self.report["questions"]["waiting"]["bursts_judged"]
            else ('<p class="faint">The log covers less than a day, too little to tell jobs from what people ask.</p>')
        )
        return self._section("What could have waited?", f"<ul>{rows}</ul>{short}")

    def gpu(self) -> str:
        path, found = "questions.gpu", self.report["questions"]["gpu"]
        if found["status"] == "measured":
            said = (
                f"Busy for {self.figure(f'{path}.utilisation', 'percent')} of the time while local models ran, "
                f"{self.figure(f'{path}.memory', 'percent')} of the memory in use "
                f"({self.figure(f'{path}.samples', 'count')} samples)."
            )
        else:
            said = (
                f"{self.figure(f'{path}.status', 'plain')}; {self.figure(f'{path}.local_calls', 'count')} local calls."
            )
        return self._section("How busy were the GPUs?", f"<p>{said}</p>")

    def templates(self) -> str:
        rows = [
            [
                self._cell(f"templates.{i}.rank", "count"),
                f'<td class="t">{self._prompt(i)}</td>',
                self._cell(f"templates.{i}.usd", "usd"),
                self._cell(f"templates.{i}.calls", "count"),
                self._cell(f"templates.{i}.usd_a_call", "usd"),
                self._cell(f"templates.{i}.input_tokens_a_call", "count"),
            ]
            for i in range(len(self.report["templates"]))
        ]
        columns = [
            ("no.", "n"),
            ("prompt", "t"),
            ("spent", "n"),
            ("calls", "n"),
            ("a call", "n"),
            ("tokens a call", "n"),
        ]
        return self._section("The ten dearest prompt templates", self._table("templates", columns, rows))

    def small_print(self) -> str:
        notes = "".join(f"<li>{self.figure(f'notes.{i}', 'plain')}</li>" for i in range(len(self.report["notes"])))
        source = self.report["source"]
        skipped = "".join(
            f"<li>line {self.figure(f'source.skipped_first.{i}.line', 'count')}: "
            f"{self.figure(f'source.skipped_first.{i}.reason', 'plain')}</li>"
            for i in range(len(source["skipped_first"]))
        )
        unknown = ", ".join(f"{escape(name)} ({count:,})" for name, count in source["unknown_fields"].items())
        return self._section(
            "Small print",
            f"<ul>{notes}</ul>" if notes else "",
            f"<p>Prices: {self.figure('source.prices', 'plain')}. {self.figure('source.other_rows', 'count')} rows are "
            f"no model calls; {self.figure('source.skipped', 'count')} lines could not be read.</p>",
            f"<ul>{skipped}</ul>" if skipped else "",
            f'<p data-figure="source.unknown_fields">Unknown fields: {unknown}.</p>' if unknown else "",
        )

    # -- pieces ----------------------------------------------------------------------------------------

    def figure(self, path: str, kind: str) -> str:
        """One figure, with its place."""
        text = shown(at(self.report, path), kind)
        return f'<span data-figure="{escape(path)}" data-kind="{kind}">{escape(text)}</span>'

    def _cell(self, path: str, kind: str) -> str:
        value = at(self.report, path)
        sort = "" if kind == "plain" or value is None else f' data-sort="{float(value)}"'
        return f'<td class="{"" if kind == "plain" else "n"}"{sort}>{self.figure(path, kind)}</td>'

    def _prompt(self, place: int) -> str:
        template = self.report["templates"][place]
        said = [name for name in ("name", "preview") if template[name]]
        return "<br>".join(self.figure(f"templates.{place}.{name}", "plain") for name in said) or "(not shown)"

    def _section(self, title: str, *parts: str) -> str:
        return f"<section>\n<h2>{escape(title)}</h2>\n" + "\n".join(part for part in parts if part) + "\n</section>"

    def _figure(self, caption: str, drawing: str) -> str:
        return f"<figure><figcaption>{escape(caption)}</figcaption>{drawing}</figure>"

    def _bars(self, rows: Iterable[tuple[str, str, float, float, str]], top: float, *, raw: bool = False) -> str:
        """Horizontal bars: (label, figure, from, to, class)."""
        made = []
        for label, figure, low, high, mark in rows:
            left, width = (100 * max(0.0, value) / top if top else 0.0 for value in (low, high - low))
            style = f"left:{min(left, 100):.2f}%;width:{min(width, 100):.2f}%"
            name = label if raw else escape(label)
            made.append(
                f'<div><span>{name}</span><div class="track"><i class="{mark}" style="{style}"></i></div>'
                f'<span class="n">{figure}</span></div>'
            )
        return f'<div class="bars">{"".join(made)}</div>'

    def _columns(self, days: Sequence[dict[str, Any]]) -> str:
        """Vertical bars over time."""
        top = max(float(day["usd"]) for day in days) or 1.0
        wide = 100 / len(days)
        rects = "".join(
            f'<rect x="{i * wide + wide * 0.08:.3f}" y="{100 - 100 * float(day["usd"]) / top:.3f}" '
            f'width="{wide * 0.84:.3f}" height="{100 * float(day["usd"]) / top:.3f}">'
            f"<title>{self.figure_text(f'spend.days.{i}.from', 'plain')}: "
            f"{self.figure_text(f'spend.days.{i}.usd', 'usd')}</title></rect>"
            for i, day in enumerate(days)
        )
        best = max(range(len(days)), key=lambda i: float(days[i]["usd"]))
        return (
            f'<svg viewBox="0 0 100 100" preserveAspectRatio="none" role="img" aria-label="Spend over time">'
            f"{rects}</svg>"
            f'<div class="ends">{self.figure("spend.days.0.from", "plain")}<span>most: '
            f"{self.figure(f'spend.days.{best}.usd', 'usd')}</span>"
            f"{self.figure(f'spend.days.{len(days) - 1}.from', 'plain')}</div>"
        )

    def figure_text(self, path: str, kind: str) -> str:
        """A figure where no element may stand."""
        return escape(shown(at(self.report, path), kind))

    def _table(self, name: str, columns: Sequence[tuple[str, str]], rows: Sequence[Sequence[str]]) -> str:
        heads = "".join(
            f'<th class="{mark}" scope="col"><button type="button">{escape(title)}</button></th>'
            for title, mark in columns
        )
        body = "\n".join(f"<tr>{''.join(row)}</tr>" for row in rows)
        return (
            f'<div class="wide"><table class="sortable" id="{escape(name)}"><thead><tr>{heads}</tr></thead>'
            f"<tbody>\n{body}\n</tbody></table></div>"
        )
