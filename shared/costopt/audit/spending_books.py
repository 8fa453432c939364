"""What a spending limit has kept and settled: in the ledger's file, and in memory while that cannot be used."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import TypeVar
from weakref import WeakKeyDictionary

from costopt.audit.ledger import Ledger
from costopt.audit.ledger_sql import SCHEMA
from costopt.audit.totals import DAY_S
from costopt.errors import CostOptError
from costopt.sqlite import Connection, errors, transaction

__all__ = ["Span", "SpendingBooks", "first_unpriced", "is_limited"]

_log = logging.getLogger("costopt.audit")

_FRESH_S = 0.2  # for so long what other processes wrote is not looked for
_WAL_PAGES = 8_000
_HOLD_S = 900.0  # after which what a process that died had kept is free again
# Whoever finds the file locked has waited for it; after so many times in a row nobody does, for a while.
_MOST_MISSES = 3
_REST_S = 0.5
_ZERO = Decimal(0)

# Ledgers on which limits count, and the models without a price that were told of: a limit may be made for each request.
_LIMITED: WeakKeyDictionary[Ledger, set[str]] = WeakKeyDictionary()

T = TypeVar("T")


def is_limited(ledger: Ledger) -> bool:
    """Whether a limit of this process counts on this object, so that what is recorded must be known at once."""
    return ledger in _LIMITED


def first_unpriced(ledger: Ledger, model: str) -> bool:
    """Whether it was not told yet that this model counts nothing on this ledger; asked once, it is told."""
    told = _LIMITED.setdefault(ledger, set())
    new = model not in told
    told.add(model)
    return new


@dataclass(frozen=True, slots=True)
class Span:
    """A UTC day or month: its name, and its first moment and the one after its last, in seconds since 1970."""

    name: str
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class _Seen:
    """What the file said of a period when it was last used: settled, and the holds in it."""

    name: str = ""
    settled: Decimal = _ZERO
    held: Mapping[str, Decimal] = field(default_factory=dict)


class SpendingBooks:
    """The account of a limit. While the file cannot be used, this process goes on from what it last knew.

    Args:
        ledger: The ledger in whose file it is.
        account: Its name.
        tenant: Whose rows of the ledger count; None: all.
    """

    def __init__(self, ledger: Ledger, account: str, tenant: str | None) -> None:
        self._ledger = ledger
        self._account = account
        self._tenant = tenant
        _LIMITED.setdefault(ledger, set())
        self.start()

    def start(self) -> None:
        """Begin, in a process that has nothing under way."""
        self._lock = threading.Lock()
        # The ledger's own thread writes its log into the file; here somebody waits for an answer.
        self.file = Connection(self._ledger.path, SCHEMA, wal_pages=_WAL_PAGES)
        self._days: tuple[float, int, str, Decimal] | None = None  # when it was read, after how many writes, of what
        self._seen = _Seen()
        self._own: dict[str, Decimal] = {}  # holds that are not in the file
        self._late: dict[str, Decimal] = {}  # by period: settled, and not in the file yet
        self._ended: dict[str, Decimal] = {}  # holds that are still in the file, and over
        self._misses = 0
        self._rests_until = 0.0

    def sums(self, span: Span) -> tuple[Decimal, Decimal]:
        """(spent, held) in this period; what other processes did may be known some time later."""
        if self._late or self._ended:
            found = self._write(lambda db: self._read(db, span, may_be_old=True))
        else:
            found = self._try(lambda db: self._read(db, span, may_be_old=True), self._reading)
        if found is not None:
            return found
        with self._lock:
            return self._remembered(span.name)

    def keep(self, hold: str, amount: Decimal, span: Span, now: float, most: Decimal | None) -> bool:
        """Keep dollars for a call, in one step with the check; False if more than `most` would be spent and held."""

        def do(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM held WHERE until < ?", (now,))
            spent, held = self._read(db, span)
            if most is not None and spent + held + amount > most:
                return False
            row = (hold, self._account, span.name, str(amount), now + _HOLD_S)
            db.execute("INSERT INTO held VALUES (?, ?, ?, ?, ?)", row)
            self._seen = replace(self._seen, held={**self._seen.held, hold: amount})
            return True

        kept = self._write(do)
        if kept is not None:
            return kept
        with self._lock:
            spent, held = self._remembered(span.name)
            if most is not None and spent + held + amount > most:
                return False
            self._own[hold] = amount
            return True

    def stored(self, hold: str) -> bool:
        """Whether other processes know of a hold."""
        return hold not in self._own

    def settle(self, hold: str, amount: Decimal, actual: Decimal, period: str, span: Span) -> None:
        """A call for which `amount` was kept in `period` cost `actual`."""

        def do(db: sqlite3.Connection) -> bool:
            db.execute("DELETE FROM held WHERE id = ?", (hold,))
            self._add(db, period, actual)
            self._read(db, span, may_be_old=True)
            return True

        written = self._write(do)
        with self._lock:
            own = self._own.pop(hold, None)
            if written is None:
                self._late[period] = self._late.get(period, _ZERO) + actual
                if own is None:
                    self._ended[hold] = amount

    def first_to_tell(self, period: str, share: float) -> bool:
        """Whether nobody has told of this share yet; told twice is better than not at all."""

        def do(db: sqlite3.Connection) -> bool:
            cursor = db.execute("INSERT OR IGNORE INTO alerts VALUES (?, ?, ?)", (self._account, period, share))
            return cursor.rowcount == 1

        return self._write(do) is not False

    # -- the file ----------------------------------------------------------------------------------------

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with errors(self._ledger.path), self.file as db:
            yield db

    def _writing(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self._ledger.path, self.file)

    def _write(self, do: Callable[[sqlite3.Connection], T]) -> T | None:
        """As `_try`, in a transaction, with what could not be written before."""
        late: dict[str, Decimal] = {}
        ended: dict[str, Decimal] = {}

        def all_of_it(db: sqlite3.Connection) -> T:
            with self._lock:
                late.update(self._late)
                ended.update(self._ended)
                self._late, self._ended = {}, {}
            db.executemany("DELETE FROM held WHERE id = ?", [(hold,) for hold in ended])
            for period, amount in late.items():
                self._add(db, period, amount)
            return do(db)

        found: T | None = None
        try:
            found = self._try(all_of_it, self._writing)
            return found
        finally:
            if found is None:
                with self._lock:
                    self._ended |= ended
                    for period, amount in late.items():
                        self._late[period] = self._late.get(period, _ZERO) + amount

    def _try(
        self,
        do: Callable[[sqlite3.Connection], T],
        opened: Callable[[], AbstractContextManager[sqlite3.Connection]],
    ) -> T | None:
        """What `do` makes of the file; None if it cannot be used, or could not a moment ago."""
        if time.monotonic() < self._rests_until:
            return None
        try:
            with opened() as db:
                found = do(db)
        except CostOptError as error:
            if not self._misses:
                _log.warning("costopt: a spending limit counts this process only: %s", error)
            self._misses += 1
            if self._misses >= _MOST_MISSES:
                self._rests_until = time.monotonic() + _REST_S
            return None
        self._misses = 0
        return found

    def _read(self, db: sqlite3.Connection, span: Span, *, may_be_old: bool = False) -> tuple[Decimal, Decimal]:
        # In this order: what is written meanwhile is counted twice for a moment, rather than not at all.
        waiting = self._ledger.waiting_cost
        days = self._of_days(db, span, may_be_old)
        where = "WHERE account = ? AND period = ?", (self._account, span.name)
        row = db.execute(f"SELECT amount FROM settled {where[0]}", where[1]).fetchone()
        held = dict(db.execute(f"SELECT id, amount FROM held {where[0]}", where[1]))
        with self._lock:
            self._seen = _Seen(
                span.name,
                Decimal(row[0]) if row else _ZERO,
                {hold: Decimal(amount) for hold, amount in held.items()},
            )
            return self._together(self._seen, days + waiting)

    def _together(self, seen: _Seen, of_ledger: Decimal) -> tuple[Decimal, Decimal]:
        """(spent, held): what the file says, and what it does not know yet."""
        held = sum((amount for hold, amount in seen.held.items() if hold not in self._ended), _ZERO)
        spent = of_ledger + seen.settled + self._late.get(seen.name, _ZERO)
        return spent, held + sum(self._own.values(), _ZERO)

    def _of_days(self, db: sqlite3.Connection, span: Span, may_be_old: bool) -> Decimal:
        """Dollars of the ledger's rows that no router made."""
        known, now, writes = self._days, time.monotonic(), self._ledger.writes
        if may_be_old and known is not None and known[1:3] == (writes, span.name) and now - known[0] < _FRESH_S:
            return known[3]
        rows = db.execute(
            "SELECT cost FROM days WHERE day >= ? AND day < ? AND routed = 0 AND (?3 IS NULL OR tenant = ?3)",
            (round(span.start / DAY_S), round(span.end / DAY_S), self._tenant),
        )
        spent = sum((Decimal(cost) for (cost,) in rows), _ZERO)
        self._days = now, writes, span.name, spent
        return spent

    def _remembered(self, name: str) -> tuple[Decimal, Decimal]:
        """(spent, held) as far as this process knows, while the file cannot be read."""
        days = self._days[3] if self._days is not None and self._days[2] == name else _ZERO
        seen = self._seen if self._seen.name == name else _Seen(name)
        return self._together(seen, days + self._ledger.waiting_cost)

    def _add(self, db: sqlite3.Connection, period: str, amount: Decimal) -> None:
        where = "WHERE account = ? AND period = ?"
        row = db.execute(f"SELECT amount FROM settled {where}", (self._account, period)).fetchone()
        total = amount + (Decimal(row[0]) if row else _ZERO)
        db.execute("INSERT OR REPLACE INTO settled VALUES (?, ?, ?)", (self._account, period, str(total)))
