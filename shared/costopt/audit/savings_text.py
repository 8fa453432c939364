"""A report of savings as text, for pipes and logs, and as a table, for terminals."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import TYPE_CHECKING

from costopt.audit.levers import Saving
from costopt.audit.savings import SavingsReport

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["EMPTY", "money", "plain", "table"]

EMPTY = (
    "No model call is in {path} yet. A row is written for each call of `app.llm` of an Optimizer that has this ledger, "
    "and of any model with a CostTracker on it: make one, then look again."
)
_COLUMNS = ("lever", "requests", "tokens", "saved")


def money(amount: Decimal) -> str:
    """Dollars with as many digits as say something.

    Example:
        >>> money(Decimal("1234.5")), money(Decimal("0.25")), money(Decimal("-0.000007"))
        ('$1,234.50', '$0.2500', '-$0.000007')
    """
    size = abs(amount)
    digits = 2 if size >= 100 or not size else 4 if size >= Decimal("0.01") else 6
    return f"{'-' if amount < 0 else ''}${size:,.{digits}f}"


def plain(report: SavingsReport) -> str:
    """Lines of text, without colours and frames.

    Example:
        >>> from pathlib import Path
        >>> print(plain(SavingsReport(Path("ledger.db"), "2026-11-22", 4, 5, Decimal("0.03"), levers={
        ...     "cache": Saving(1, 900, Decimal("0.01")), "routing": Saving()})))
        Saved $0.0100 of $0.0400 (25.0%) since 2026-11-22.
        4 requests, 5 attempts, $0.0300 spent.
        lever        requests        tokens       saved
        cache               1           900     $0.0100
        routing             0             0       $0.00
    """
    if report.since is None:
        return EMPTY.format(path=report.path)
    rows = [_COLUMNS, *_rows(report)]
    lines = [f"{lever:<12} {requests:>8} {tokens:>13} {saved:>11}" for lever, requests, tokens, saved in rows]
    return "\n".join([_headline(report), _spent(report), *lines, *_unknown(report)])


def table(report: SavingsReport) -> RenderableType:
    """The same for a terminal."""
    from rich.console import Group
    from rich.markup import escape
    from rich.table import Table
    from rich.text import Text

    if report.since is None:
        return Text(EMPTY.format(path=report.path), style="yellow")
    made = Table(box=None, pad_edge=False, header_style="dim")
    for name in _COLUMNS:
        made.add_column(name, justify="left" if name == "lever" else "right", no_wrap=True)
    for name, *cells in _rows(report):
        made.add_row(escape(name), *cells, style=None if report.levers[name].requests else "dim")  # type: ignore[index]
    headline = Text(_headline(report), style="bold green" if report.saved > 0 else "bold")
    unknown = [Text(line, style="yellow") for line in _unknown(report)]
    return Group(headline, Text(_spent(report)), made, *unknown)


def _headline(report: SavingsReport) -> str:
    since = f"since {report.since}"
    if report.saved < 0:
        return f"The levers cost {money(-report.saved)} more than they saved {since}."
    return f"Saved {money(report.saved)} of {money(report.without)} ({report.share:.1%}) {since}."


def _spent(report: SavingsReport) -> str:
    return f"{report.requests:,} requests, {report.attempts:,} attempts, {money(report.spent)} spent."


def _rows(report: SavingsReport) -> Iterator[tuple[str, str, str, str]]:
    for lever, saving in report.levers.items():
        yield lever, f"{saving.requests:,}", f"{saving.tokens:,}", _saved(saving)


def _saved(saving: Saving) -> str:
    return "not known" if saving.unknown and saving.unknown == saving.requests else money(saving.dollars)


def _unknown(report: SavingsReport) -> Iterator[str]:
    """What is in no sum of dollars."""
    if report.unpriced:
        yield (
            f"Not known: what {report.unpriced:,} attempts cost, for their model has no price. Give "
            "Tier(model, price=Price(input, output))."
        )
    for lever, saving in report.levers.items():
        if saving.unknown:
            yield f"Not known: what {lever} saved on {saving.unknown:,} of {saving.requests:,} requests."
    if report.estimated:
        yield f"Estimated: the tokens of {report.estimated:,} attempts, of which their provider did not tell."
