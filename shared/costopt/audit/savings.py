"""What an application's levers have saved so far: a report of a ledger, and how document compressors get into it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

from costopt.audit.charge import Charges
from costopt.audit.ledger import Ledger
from costopt.audit.levers import LEVERS, Lever, Note, Saving
from costopt.audit.totals import Totals
from costopt.pricing import Price, Usage

__all__ = ["LeftOut", "SavingsReport", "savings"]


@dataclass(frozen=True, slots=True)
class SavingsReport:
    """What was spent, what it would have been without the levers, and what each of them saved; `print` shows it.

    Whatever is not known is in `unpriced` and in the levers' `unknown`, and in no sum of dollars: savings are those
    that are known. No dollar is in two levers.

    Attributes:
        path: The ledger's file.
        since: The first UTC day that it has, or that was asked for, as "2026-11-22"; None if there is nothing.
        requests: How many there were; attempts at one request are one.
        attempts: Calls of models and answers of caches.
        spent: US dollars that the attempts cost, as far as they are known.
        unpriced: Attempts with tokens, and a cost that is not known.
        estimated: Attempts whose tokens are an estimate, because their provider did not say.
        levers: What each lever saved.

    Example:
        >>> report = SavingsReport(Path("ledger.db"), "2026-11-22", 4, 4, Decimal("0.03"), levers={
        ...     "cache": Saving(1, 900, Decimal("0.01"))})
        >>> report.saved, report.without, report.share
        (Decimal('0.01'), Decimal('0.04'), 0.25)
    """

    path: Path
    since: str | None
    requests: int
    attempts: int
    spent: Decimal
    unpriced: int = 0
    estimated: int = 0
    levers: Mapping[Lever, Saving] = field(default_factory=dict)

    @property
    def saved(self) -> Decimal:
        """US dollars that the levers saved together; below 0 if they cost more than they saved."""
        return sum((saving.dollars for saving in self.levers.values()), Decimal(0))

    @property
    def without(self) -> Decimal:
        """US dollars that the same requests would have cost without the levers."""
        return self.spent + self.saved

    @property
    def share(self) -> float:
        """The saved part of what it would have cost, in [0, 1]; 0 if that is nothing."""
        return float(self.saved / self.without) if self.without > 0 else 0.0

    def as_dict(self) -> dict[str, Any]:
        """As plain JSON-like data; amounts are text."""
        levers = {
            lever: {**{name: getattr(saving, name) for name in saving.__slots__}, "dollars": str(saving.dollars)}
            for lever, saving in self.levers.items()
        }
        own = {name: getattr(self, name) for name in ("since", "requests", "attempts", "unpriced", "estimated")}
        amounts = {name: str(getattr(self, name)) for name in ("spent", "saved", "without")}
        return {"ledger": str(self.path), **own, **amounts, "share": self.share, "levers": levers}

    def __str__(self) -> str:
        from costopt.audit.savings_text import plain

        return plain(self)


def savings(ledger: Ledger, since: float | None = None) -> SavingsReport:
    """What the levers have saved, by the ledger: over whole UTC days, from the one that holds `since`.

    Args:
        ledger: Where `CostTracker`s write.
        since: Seconds since 1970; None: from the first.

    Raises:
        StoreError: If the file cannot be read.

    Example:
        >>> from costopt.audit import Attempt
        >>> ledger = Ledger(tmp / "ledger.db")
        >>> ledger.record(Attempt("gpt-4o-mini", cache="exact", cost=Decimal(0), avoided_cost=Decimal("0.01")))
        >>> report = savings(ledger)
        >>> report.levers["cache"].requests, report.saved
        (1, Decimal('0.01'))
    """
    days = ledger.totals_by("day", since)
    found = ledger.savings(since)
    whole = sum(days.values(), Totals())
    if found and not days:  # documents were compressed, and no model was asked yet
        days = {f"{datetime.now(UTC):%Y-%m-%d}": whole}
    return SavingsReport(
        ledger.path,
        min(days, default=None),
        whole.attempts - found.get("again", Saving()).requests,
        whole.attempts,
        whole.cost,
        whole.unpriced,
        whole.estimated,
        {lever: found.get(lever, Saving()) for lever in LEVERS},
    )


class LeftOut:
    """Tells a ledger what a compressor of documents left out: give it as ``told=`` to one.

    Documents are compressed before there is a prompt, so that no attempt can be found to which they belong. They are
    taken to have been sent once, at the model's price of input that no prompt cache has.

    Args:
        ledger: The ledger.
        model: Name of the model that reads the documents.
        price: Of the model; the price list's if None.
        tenant: Whose requests they are.

    Example:
        >>> told = LeftOut(Ledger(tmp / "ledger.db"), "gpt-4o-mini")
        >>> told(2_000_000, 1_000_000)
        >>> savings(told.ledger).levers["compression"].dollars == Decimal("0.15")
        True
    """

    def __init__(self, ledger: Ledger, model: str, *, price: Price | None = None, tenant: str | None = None) -> None:
        self.ledger = ledger
        self._model = model
        self._tenant = tenant
        self._charges = Charges({model: price} if price else None)

    def __call__(self, before: int, after: int) -> None:
        """So many tokens came in, and so many went out; returns at once, and never raises."""
        if after < before:
            saving = Saving(1, before - after, unknown=1)
            self.ledger.note(Note("compression", saving, time.time(), self._tenant), self._priced)

    def _priced(self, note: Note) -> Note:
        """In the ledger's thread, for the price list is long."""
        cost = self._charges.of(self._model, Usage(note.saving.tokens), when=note.started).cost
        return note if cost is None else replace(note, saving=replace(note.saving, dollars=cost, unknown=0))
