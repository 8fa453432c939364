"""The report for a terminal: one screen, the five questions, the levers."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.markup import escape as _escape
from rich.table import Table

from costopt.audit.figures import compact, count, percent, shown, usd
from costopt.audit.report import CostReport

__all__ = ["print_report"]

_UNKNOWN = "unknown"


def print_report(report: CostReport, out: Console) -> None:
    """Print it.

    Args:
        report: The report.
        out: Where.
    """
    data = report.as_dict()
    source, spend, together = data["source"], data["spend"], data["together"]
    when = f", {source['from'][:10]} to {source['to'][:10]}" if source["from"] else ""
    _line(out, f"{count(source['calls'])} calls of {source['file']} ({source['format']}{when})")
    _line(
        out,
        f"spent {usd(spend['usd'])} on {compact(spend['input_tokens'])} tokens in and "
        f"{compact(spend['output_tokens'])} out; {count(spend['failed'])} failed, {count(spend['unpriced'])} without a "
        f"known cost, tokens of {count(spend['estimated'])} estimated",
    )
    for title, text in _answers(data["questions"]):
        out.print(f"[bold]{title}[/]  {escape(text)}", soft_wrap=True)
    out.print(_levers(data))
    _line(
        out,
        f"All together: {usd(together['before'])} would have been {usd(together['after'])}, "
        f"{percent(together['share'])} less ({percent(together['share_low'])} to {percent(together['share_high'])})",
    )
    for note in data["notes"]:
        out.print(escape(note), style="yellow", soft_wrap=True)
    if source["unknown_fields"]:
        named = ", ".join(f"{name} ({times:,})" for name, times in list(source["unknown_fields"].items())[:12])
        out.print(escape(f"Unknown fields: {named}"), style="dim", soft_wrap=True)
    for bad in source["skipped_first"][:5]:
        out.print(escape(f"line {bad['line']}: {bad['reason']}"), style="dim", soft_wrap=True)


def escape(text: str) -> str:
    """Text of a log for a terminal: no markup, no commands to it, nothing that it cannot encode."""
    plain = "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)
    return _escape(plain)


def _line(out: Console, text: str) -> None:
    out.print(escape(text), soft_wrap=True)


def _answers(found: dict[str, Any]) -> list[tuple[str, str]]:
    routing, repeats, context = found["routing"], found["repeats"], found["context"]
    waiting, gpu = found["waiting"], found["gpu"]
    over = f"unknown, at most {percent(routing['share_high'])} of the calls; {routing['note']}"
    if routing["known"]:
        over = (
            f"{percent(routing['share'])} of the calls ({percent(routing['share_low'])} to "
            f"{percent(routing['share_high'])}) could have gone to a cheaper model; {routing['note']}"
        )
    avoidable = ", ".join(
        f"{name} {percent(part['share'])}" for name, part in context["avoidable"].items() if part["tokens"]
    )
    busy = gpu["status"] if gpu["utilisation"] is None else f"{percent(gpu['utilisation'])} busy during local calls"
    return [
        ("over-routed", over),
        (
            "repeats    ",
            (
                f"cache hit rate {percent(repeats['cache_hit_rate'])}; exact repeats "
                f"{percent(repeats['exact_share'])}, reworded ones {shown(repeats['semantic_share'], 'percent')}"
            ),
        ),
        (
            "context    ",
            (
                f"{shown(context['mean'], 'count')} tokens on average, half up to {shown(context['p50'], 'count')}, "
                f"nine in ten up to {shown(context['p90'], 'count')}; avoidable of the input: "
                f"{avoidable or 'nothing found'}"
            ),
        ),
        (
            "could wait ",
            (
                f"{percent(waiting['marked_share'])} marked so, {percent(waiting['bursts_share'])} in bursts; "
                f"{percent(waiting['already_share'])} went by batch"
            ),
        ),
        ("GPU        ", busy),
    ]


def _levers(data: dict[str, Any]) -> Table:
    table = Table()
    table.add_column("lever, by itself")
    for name in ("saves", "at least", "at most", "own cost", "calls"):
        table.add_column(name, justify="right")
    for lever in data["levers"]:
        known = bool(lever["known"])
        table.add_row(
            lever["name"],
            usd(lever["likely"]) if known else _UNKNOWN,
            usd(lever["low"]),
            _UNKNOWN if lever["high"] is None else usd(lever["high"]),
            usd(lever["own_cost"]) if known else _UNKNOWN,
            count(lever["calls"]) if known else _UNKNOWN,
        )
    return table
