"""A budget for a day or a month, kept on the ledger: alerts, and a hard stop for all processes that share it."""

from __future__ import annotations

import logging
import secrets
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal

from costopt.audit.attempt import Attempt
from costopt.audit.ledger import Ledger
from costopt.audit.ledger_sql import SCHEMA
from costopt.audit.totals import DAY_S
from costopt.errors import BudgetExceededError, ConfigError, CostOptError
from costopt.forks import fork_aware
from costopt.sqlite import Connection, errors, transaction

__all__ = ["Held", "SpendingAlert", "SpendingLimit"]

_log = logging.getLogger("costopt.audit")

_FRESH_S = 0.2  # for so long what other processes wrote is not looked for
_WAL_PAGES = 8_000
_HOLD_S = 900.0  # after which what a process that died had kept is free again
_ZERO = Decimal(0)

Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class SpendingAlert:
    """A share of a budget is spent.

    Attributes:
        share: The share that was passed, e.g. 0.8.
        spent: US dollars spent in the period so far.
        dollars: The budget.
        period: The UTC day or month, as "2026-11-23" or "2026-11".
        account: Whose budget it is.
    """

    share: float
    spent: Decimal
    dollars: Decimal
    period: str
    account: str

    def __str__(self) -> str:
        return f"{self.account}: ${self.spent:.2f} of ${self.dollars} for {self.period} is spent, over {self.share:.0%}"


class SpendingLimit:
    """So many dollars for each UTC day or month, counted on a ledger.

    It counts what its routers settle, as `Router(budget=...)`, and the ledger's rows that no router made, as a
    `CostTracker` writes them; rows of routers that do not have it are not in it. What a router is about to spend is
    kept first, in one step with the check and for all processes, so that they cannot overspend together. Given to a
    `CostTracker` it forbids calls once the budget is spent; calls that were under way then are over it. If the file
    cannot be written, this process goes on counting by itself.

    Args:
        ledger: The ledger.
        dollars: The budget of one period.
        period: "day" or "month".
        hard: Whether calls are refused when it is spent; if not, there are only alerts.
        alerts: Shares at which `on_alert` is called, each once a period, in one of the processes.
        on_alert: Called with a `SpendingAlert`, in a thread of its own; what it raises is passed over.
        tenant: Count this tenant's rows only; its router needs a limit of its own.
        account: Limits of one name share what is spent; by default by period and tenant.
        clock: Seconds since 1970.

    Raises:
        ConfigError: If an amount is not above 0, or the period is none of those.

    Example:
        >>> limit = SpendingLimit(Ledger(tmp / "ledger.db"), "0.01", "month")
        >>> first, second = limit.reserve(Decimal("0.006")), limit.reserve(Decimal("0.006"))
        >>> second is None
        True
        >>> first.settle(Decimal("0.002"))
        >>> limit.left
        Decimal('0.008')
    """

    def __init__(
        self,
        ledger: Ledger,
        dollars: Decimal | float | str,
        period: Period = "month",
        *,
        hard: bool = True,
        alerts: Iterable[float] = (0.5, 0.8, 1.0),
        on_alert: Callable[[SpendingAlert], object] | None = None,
        tenant: str | None = None,
        account: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.dollars = _amount(dollars)
        if period not in ("day", "month"):
            raise ConfigError(f"period={period!r}: give 'day' or 'month'")
        self.period = period
        self.hard = hard
        self.account = account or (f"{period} of {tenant}" if tenant else period)
        self._alerts = tuple(sorted(alerts))
        self._on_alert = on_alert
        self._tenant = tenant
        self._ledger = ledger
        self._clock = clock
        self._start()
        ledger.on_written(self._written)
        fork_aware(self)

    def _start(self) -> None:
        self._lock = threading.Lock()
        # The ledger's own thread writes its log into the file; here somebody waits for an answer.
        self._db = Connection(self._ledger.path, SCHEMA, wal_pages=_WAL_PAGES)
        self._known: tuple[float, int, str, Decimal] | None = None  # when it was read, after how many writes, of what
        self._unsaved: dict[str, Decimal] = {}  # by period, while the file cannot be written
        self._unsaved_held = _ZERO
        self._told: set[tuple[str, float]] = set()
        self._failed = False

    def before_fork(self) -> None:
        """Close the file: SQLite in the child would count on locks that only the parent has."""
        self._db.hold_closed()

    def after_fork_in_parent(self) -> None:
        """Allow it to be opened again."""
        self._db.let_open()

    def after_fork_in_child(self) -> None:
        """Start anew, for the locks of the parent's threads are theirs."""
        self._start()

    # -- what is left ----------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """The length of the period."""
        _, start, end = _span(self.period, self._clock())
        return end - start

    @property
    def frees_in(self) -> float:
        """Seconds until the next period."""
        now = self._clock()
        return _span(self.period, now)[2] - now

    @property
    def spent(self) -> Decimal:
        """Dollars spent in this period so far."""
        return self._spent_and_held()[0]

    @property
    def reserved(self) -> Decimal:
        """Dollars kept for calls under way, in all processes."""
        return self._spent_and_held()[1]

    @property
    def left(self) -> Decimal:
        """Dollars that may still be spent in this period; below 0 if it is overspent."""
        spent, held = self._spent_and_held()
        return self.dollars - spent - held

    def check(self) -> None:
        """Ask whether a call may be made, without keeping anything for it.

        Raises:
            BudgetExceededError: If the budget is hard, and spent.
        """
        if self.hard and self.left <= 0:
            raise BudgetExceededError(
                f"${self.spent:.4f} of ${self.dollars} for {_span(self.period, self._clock())[0]} (UTC) is spent; the "
                f"next {self.period} begins in {self.frees_in:.0f} s. Give a larger budget, or hard=False"
            )

    # -- for routers -----------------------------------------------------------------------------------

    def reserve(self, amount: Decimal) -> Held | None:
        """Keep this much for a call; None if the budget does not allow it now.

        Args:
            amount: The most that the call can cost, in dollars.
        """
        name, now = _span(self.period, self._clock())[0], self._clock()
        held = Held(self, secrets.token_hex(8), amount, name)
        try:
            with self._transaction() as db:
                db.execute("DELETE FROM held WHERE until < ?", (now,))
                spent, kept = self._read(db, name)
                if self.hard and spent + kept + amount > self.dollars:
                    return None
                db.execute(
                    "INSERT INTO held VALUES (?, ?, ?, ?, ?)", (held.id, self.account, name, str(amount), now + _HOLD_S)
                )
                return held
        except CostOptError as error:
            self._step_aside(error)
        with self._lock:
            spent, kept = self._remembered(name)
            if self.hard and spent + kept + amount > self.dollars:
                return None
            self._unsaved_held += amount
            held.stored = False
            return held

    def _settle(self, held: Held, actual: Decimal) -> None:
        if not held.stored:
            with self._lock:
                self._unsaved_held -= held.amount
        try:
            with self._lock:
                late = dict(self._unsaved)
            with self._transaction() as db:
                db.execute("DELETE FROM held WHERE id = ?", (held.id,))
                for name, amount in {**late, held.period: late.get(held.period, _ZERO) + actual}.items():
                    _add(db, self.account, name, amount)
            self._saved(late)
        except CostOptError as error:
            self._step_aside(error)
            with self._lock:
                self._unsaved[held.period] = self._unsaved.get(held.period, _ZERO) + actual
        self._alert()

    # -- counting --------------------------------------------------------------------------------------

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._ledger.path, self._db)

    def _spent_and_held(self) -> tuple[Decimal, Decimal]:
        """(spent, held) in this period; what other processes did may be known some time later."""
        name = _span(self.period, self._clock())[0]
        try:
            with errors(self._ledger.path), self._db as db:
                return self._read(db, name, may_be_old=True)
        except CostOptError as error:
            self._step_aside(error)
            with self._lock:
                return self._remembered(name)

    def _read(self, db: sqlite3.Connection, name: str, *, may_be_old: bool = False) -> tuple[Decimal, Decimal]:
        # In this order: what is written meanwhile is counted twice for a moment, rather than not at all.
        waiting = self._ledger.waiting_cost
        spent = self._of_ledger(db, name, may_be_old) + waiting
        row = db.execute("SELECT amount FROM settled WHERE account = ? AND period = ?", (self.account, name)).fetchone()
        rows = db.execute("SELECT amount FROM held WHERE account = ? AND period = ?", (self.account, name))
        held = sum((Decimal(amount) for (amount,) in rows), self._unsaved_held)
        return spent + (Decimal(row[0]) if row else _ZERO) + self._unsaved.get(name, _ZERO), held

    def _of_ledger(self, db: sqlite3.Connection, name: str, may_be_old: bool) -> Decimal:
        known, now, writes = self._known, time.monotonic(), self._ledger.writes
        if may_be_old and known is not None and known[1:3] == (writes, name) and now - known[0] < _FRESH_S:
            return known[3]
        _, start, end = _span(self.period, self._clock())
        rows = db.execute(
            "SELECT cost FROM days WHERE day >= ? AND day < ? AND routed = 0 AND (?3 IS NULL OR tenant = ?3)",
            (round(start / DAY_S), round(end / DAY_S), self._tenant),
        )
        spent = sum((Decimal(cost) for (cost,) in rows), _ZERO)
        self._known = now, writes, name, spent
        return spent

    def _remembered(self, name: str) -> tuple[Decimal, Decimal]:
        """(spent, held) as far as this process knows, while the file cannot be read."""
        known = self._known[3] if self._known is not None and self._known[2] == name else _ZERO
        return known + self._ledger.waiting_cost + self._unsaved.get(name, _ZERO), self._unsaved_held

    def _saved(self, late: dict[str, Decimal]) -> None:
        """What was settled while the file could not be written is in it now."""
        with self._lock:
            self._failed = False
            for name, amount in late.items():
                self._unsaved[name] -= amount

    def _step_aside(self, error: CostOptError) -> None:
        if not self._failed:
            self._failed = True
            _log.warning("costopt: a spending limit counts this process only: %s", error)

    # -- alerts ----------------------------------------------------------------------------------------

    def _written(self, attempts: Sequence[Attempt]) -> None:
        self._alert()

    def _alert(self) -> None:
        """Tell of each share that was passed, if nobody has; the callback runs in a thread of its own."""
        if self._on_alert is None:
            return
        name = _span(self.period, self._clock())[0]
        spent = self._spent_and_held()[0]
        for share in self._alerts:
            if spent < self.dollars * Decimal(str(share)) or (name, share) in self._told:
                continue
            self._told.add((name, share))
            if self._first_to_tell(name, share):
                alert = SpendingAlert(share, spent, self.dollars, name, self.account)
                threading.Thread(target=self._tell, args=(alert,), name="costopt-alert", daemon=True).start()

    def _first_to_tell(self, name: str, share: float) -> bool:
        try:
            with self._transaction() as db:
                db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?)", (self.account, name, share))
                return bool(db.execute("SELECT changes()").fetchone()[0])
        except CostOptError:
            return True  # told twice is better than not at all

    def _tell(self, alert: SpendingAlert) -> None:
        assert self._on_alert is not None
        with suppress(Exception):
            self._on_alert(alert)


class Held:
    """Dollars kept for one call, until `settle`."""

    def __init__(self, limit: SpendingLimit, name: str, amount: Decimal, period: str) -> None:
        self.id = name
        self.amount = amount
        self.period = period
        self.stored = True
        self._limit = limit
        self._lock = threading.Lock()
        self._open = True

    def settle(self, actual: Decimal) -> None:
        """Say what the call cost. The first word counts; a second one changes nothing, so no call is charged twice."""
        with self._lock:
            was, self._open = self._open, False
        if was:
            self._limit._settle(self, actual)


def _add(db: sqlite3.Connection, account: str, period: str, amount: Decimal) -> None:
    row = db.execute("SELECT amount FROM settled WHERE account = ? AND period = ?", (account, period)).fetchone()
    total = amount + (Decimal(row[0]) if row else _ZERO)
    db.execute("INSERT OR REPLACE INTO settled VALUES (?, ?, ?)", (account, period, str(total)))


def _span(period: Period, now: float) -> tuple[str, float, float]:
    """(name, beginning, end) of the UTC day or month that holds this moment."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return f"{day:%Y-%m-%d}", day.timestamp(), (day + timedelta(days=1)).timestamp()
    first = day.replace(day=1)
    return f"{day:%Y-%m}", first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp()


def _amount(dollars: Decimal | float | str) -> Decimal:
    try:
        amount = dollars if isinstance(dollars, Decimal) else Decimal(str(dollars))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not (amount.is_finite() and amount > 0):
        raise ConfigError(f"a budget of {dollars} dollars: give an amount above 0")
    return amount
