"""The ledger: one row per attempt, in one SQLite file that many processes may write."""

from __future__ import annotations

import atexit
import os
import sqlite3
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, Self

from costopt.audit.attempt import Attempt
from costopt.audit.ledger_queue import Fill, Row, WriteQueue
from costopt.audit.ledger_sql import SCHEMA, SELECT, attempt_of, insert, make_room, saved
from costopt.audit.levers import Note, Saving
from costopt.audit.totals import DAY_S, SUMMED, Totals, broken_days, summed, totals_of, whole_days
from costopt.errors import ConfigError
from costopt.forks import fork_aware
from costopt.sqlite import Connection, errors, transaction

__all__ = ["Ledger", "LedgerStats", "default_ledger_path"]

_PAGE = 1_000
_CLOSE_S = 5.0
_HOPELESS_S = 0.5  # for what could not be written a moment ago, and not because somebody else was writing
_READ_S = 10.0
_MAX_WAITING = 20_000
_MAX_WAITING_CHARS = 64 * 1024 * 1024
_BUSY_MS = 500  # of the writing thread, which nobody waits for
_FOREVER = float("inf")

By = Literal["model", "provider", "tenant", "day"]


@dataclass(frozen=True, slots=True)
class LedgerStats:
    """How a ledger fares.

    Attributes:
        rows: In the file.
        bytes: Of the file with its log.
        removed: Rows that were removed to make room, ever.
        waiting: Attempts recorded by this object and not written yet.
        dropped: Attempts that this object could not keep.
        failures: How often it could not write.
    """

    rows: int
    bytes: int
    removed: int
    waiting: int
    dropped: int
    failures: int


class Ledger:
    """Keeps what every attempt at a model call took and cost. Safe for many threads and many processes.

    What is recorded is written by a thread of its own within some hundredths of a second, all that came close together
    in one transaction: `record` takes microseconds, never waits for a disk and never raises. A process that is killed
    loses what it recorded in that time; one that ends writes it first. If the file cannot be written, rows wait; if too
    many wait, the newest are dropped and counted.

    Args:
        path: The file; it is made at first use, readable by its owner only. By default `COSTOPT_LEDGER`, else
            `ledger.db` in the user's data folder.
        keep_text: Whether prompts, tools and answers are kept in clear. If not, their hashes and sizes are.
        max_rows: Rows to keep; the oldest go. What each day cost stays known for two years.
        max_bytes: Size of rows to keep, likewise.

    Raises:
        ConfigError: If a limit is below 1.

    Example:
        >>> ledger = Ledger(tmp / "ledger.db")
        >>> ledger.record(Attempt("gpt-4o-mini", usage=Usage(900, 100), cost=Decimal("0.0002"), cost_source="given"))
        >>> print(ledger.totals())
        1 attempts (0 failed, 0 from a cache), 900 tokens in, 100 out, $0.0002, 0 without a known price
        >>> ledger.close()
    """

    def __init__(
        self,
        path: str | os.PathLike[str] | None = None,
        *,
        keep_text: bool = False,
        max_rows: int = 2_000_000,
        max_bytes: int = 2 * 1024**3,
    ) -> None:
        if max_rows < 1 or max_bytes < 1:
            raise ConfigError(f"max_rows={max_rows}, max_bytes={max_bytes}: give limits above 0")
        self.path = Path(path) if path is not None else default_ledger_path()
        self.keep_text = keep_text
        self._max_rows = max_rows
        self._max_bytes = max_bytes
        self.writes = 0  # how often this object has written
        self._listeners: dict[Hashable, Callable[[Sequence[Attempt]], None]] = {}
        self._start()
        fork_aware(self)
        _close_at_exit(self)

    def _start(self) -> None:
        self._writer = Connection(self.path, SCHEMA, busy_ms=_BUSY_MS)
        self._reader = Connection(self.path, SCHEMA)
        self._queue = WriteQueue(
            self._written, self._told, max_waiting=_MAX_WAITING, max_waiting_chars=_MAX_WAITING_CHARS
        )

    def before_fork(self) -> None:
        """Close the file: SQLite in the child would count on locks that only the parent has."""
        self._writer.hold_closed()
        self._reader.hold_closed()

    def after_fork_in_parent(self) -> None:
        """Allow it to be opened again."""
        self._reader.let_open()
        self._writer.let_open()

    def after_fork_in_child(self) -> None:
        """Start anew: what waits is the parent's to write."""
        self._start()

    # -- writing ---------------------------------------------------------------------------------------

    def record(self, attempt: Attempt, fill: Fill | None = None) -> None:
        """Keep an attempt. Returns at once, and never raises: what goes wrong is counted, and logged once.

        Args:
            attempt: The attempt.
            fill: Called in the writing thread to complete it, e.g. with the hash of a prompt; if it fails, the attempt
                is kept as it is.
        """
        self._put(attempt, fill)

    def note(self, note: Note, fill: Fill | None = None) -> None:
        """Keep a saving that is no attempt's, in the sums of its day; as `record` does, and as little felt."""
        self._put(note, fill)

    def _put(self, row: Row, fill: Fill | None) -> None:
        try:
            self._queue.put(row, fill)
        except Exception as error:
            self._queue.refuse(f"a row could not be recorded: {error!r}")

    def record_all(self, attempts: Iterable[Attempt]) -> None:
        """Keep these, and return when they are in the file: for commands and jobs, not for model calls.

        An attempt whose id is in the file already is passed over, so that it may be said again after a crash.

        Raises:
            StoreError: If the file cannot be written; what was written before stays.
        """
        batch: list[Attempt] = []
        for attempt in attempts:
            batch.append(attempt)
            if len(batch) == _PAGE:
                self._written(batch)
                self._told(batch)
                batch = []
        if batch:
            self._written(batch)
            self._told(batch)

    def flush(self, timeout: float = _CLOSE_S) -> bool:
        """Wait until everything recorded so far is in the file; False if it is not within so many seconds."""
        return self._queue.flush(timeout)

    def completed(self, timeout: float = _CLOSE_S) -> bool:
        """Wait until everything recorded so far is complete, though it may not be written yet; False if it is not."""
        return self._queue.filled(timeout)

    def close(self) -> None:
        """Write what waits and close the file; it is opened again if the ledger is used again."""
        self._queue.flush(_HOPELESS_S if self._queue.hopeless else _CLOSE_S)
        self._reader.close()
        self._writer.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def on_written(self, listener: Callable[[Sequence[Attempt]], None], name: Hashable = None) -> None:
        """Have `listener` called, by whoever wrote, with what was written; what it raises is passed over.

        Args:
            listener: Called, and kept, for as long as there is this object.
            name: It takes the place of who listened by this name before.
        """
        self._listeners[listener if name is None else name] = listener

    @property
    def waiting_cost(self) -> Decimal:
        """Dollars of what no router made and this object has recorded and not written yet, as far as they are known."""
        return self._queue.waiting_cost

    # -- reading ---------------------------------------------------------------------------------------

    def attempts(self, since: float | None = None, until: float | None = None) -> Iterator[Attempt]:
        """The attempts that started in [since, until), the earliest first, read a page at a time.

        Args:
            since: Seconds since 1970; None: from the first.
            until: Likewise; None: to the last.

        Raises:
            StoreError: If the file cannot be read.
        """
        self._queue.flush(_READ_S)
        after = (-_FOREVER if since is None else since, -1)
        end = _FOREVER if until is None else until
        while True:
            rows = self._read(
                f"{SELECT} WHERE (started, seq) > (?, ?) AND started < ? ORDER BY started, seq LIMIT {_PAGE}",
                (*after, end),
            )
            made = [attempt_of(row) for row in rows]
            yield from made
            if len(rows) < _PAGE:
                return
            after = (made[-1].started, rows[-1][0])

    def totals(
        self,
        since: float | None = None,
        until: float | None = None,
        *,
        tenant: str | None = None,
        routed: bool | None = None,
    ) -> Totals:
        """What the attempts that started in [since, until) took together.

        Whole UTC days are known for as long as the file lives; of a part of a day, rows that were removed are missing,
        and `Totals.complete` says so.

        Args:
            since: Seconds since 1970; None: from the first.
            until: Likewise; None: to the last.
            tenant: Of this tenant only.
            routed: Only what a router sent, or only what no router did.

        Raises:
            StoreError: If the file cannot be read.
        """
        found = self._days(since, until, tenant, routed).values()
        return sum(found, Totals()) + self._edges(since, until, tenant, routed)

    def totals_by(self, key: By, since: float | None = None, until: float | None = None) -> dict[str, Totals]:
        """`totals` by model, provider, tenant or UTC day (as "2026-11-22"), over whole days that touch [since, until).

        Raises:
            ConfigError: If `key` is none of those.
            StoreError: If the file cannot be read.

        Example:
            >>> ledger = Ledger(tmp / "ledger.db")
            >>> ledger.record(Attempt("gpt-4o-mini"))
            >>> ledger.totals_by("model")["gpt-4o-mini"].attempts
            1
        """
        if key not in ("model", "provider", "tenant", "day"):
            raise ConfigError(f"totals_by({key!r}): give 'model', 'provider', 'tenant' or 'day'")
        first = None if since is None else since // DAY_S * DAY_S
        last = None if until is None else -(-until // DAY_S) * DAY_S
        return self._days(first, last, None, None, by=key)

    def savings(self, since: float | None = None) -> dict[str, Saving]:
        """What each lever saved, over whole UTC days from the one that holds `since`; "again": further attempts.

        `costopt.audit.savings` makes a report of it.

        Raises:
            StoreError: If the file cannot be read.
        """
        self._queue.flush(_READ_S)
        first, _ = whole_days(None if since is None else since // DAY_S * DAY_S, None)
        return saved(
            self._read("SELECT lever, requests, tokens, dollars, unknown FROM savings WHERE day >= ?", (first,))
        )

    def stats(self) -> LedgerStats:
        """How much is in the file, and what could not be kept.

        Raises:
            StoreError: If the file cannot be read.
        """
        facts = dict(self._read("SELECT name, value FROM facts", ()))
        files = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal"))
        return LedgerStats(
            rows=int(facts["rows"]),
            bytes=sum(file.stat().st_size for file in files if file.exists()),
            removed=int(facts["pruned"]),
            waiting=self._queue.waiting,
            dropped=self._queue.dropped,
            failures=self._queue.failures,
        )

    # -- SQLite ----------------------------------------------------------------------------------------

    def _bare(self, attempt: Attempt) -> Attempt:
        if self.keep_text or (attempt.prompt is None and attempt.answer is None and attempt.tools is None):
            return attempt
        return replace(attempt, prompt=None, answer=None, tools=None)

    def _written(self, rows: Sequence[Row]) -> None:
        attempts = [self._bare(row) for row in rows if isinstance(row, Attempt)]
        with self._transaction() as db:
            refused = insert(db, attempts, [row for row in rows if isinstance(row, Note)])
            more = make_room(db, self._max_rows, self._max_bytes)
        self.writes += 1
        while more:  # in steps, so that other processes may write in between
            with self._transaction() as db:
                more = make_room(db, self._max_rows, self._max_bytes)
        for attempt in refused:
            self._queue.refuse(f"a row of model {attempt.model!r} cannot be kept")

    def _told(self, rows: Sequence[Row]) -> None:
        attempts = [row for row in rows if isinstance(row, Attempt)]
        for listener in tuple(self._listeners.values()):
            with suppress(Exception):
                listener(attempts)

    def _transaction(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self.path, self._writer)

    def _read(self, sql: str, values: tuple[Any, ...]) -> list[tuple[Any, ...]]:
        with errors(self.path), self._reader as db:
            return db.execute(sql, values).fetchall()

    def _days(
        self,
        since: float | None,
        until: float | None,
        tenant: str | None,
        routed: bool | None,
        by: By = "day",
    ) -> dict[str, Totals]:
        """Totals of the whole days in [since, until)."""
        self._queue.flush(_READ_S)
        first, last = whole_days(since, until)
        label = "date(day * 86400, 'unixepoch')" if by == "day" else by
        rows = self._read(
            f"SELECT {label}, {', '.join(SUMMED)} FROM days WHERE day >= ? AND day < ? AND (?3 IS NULL OR tenant = ?3) "
            "AND (?4 IS NULL OR routed = ?4) ORDER BY day",
            (first, last, tenant, routed),
        )
        found: dict[str, Totals] = {}
        for name, *values in rows:
            found[name] = found.get(name, Totals()) + totals_of(dict(zip(SUMMED, values, strict=True)))
        return found

    def _edges(self, since: float | None, until: float | None, tenant: str | None, routed: bool | None) -> Totals:
        """Totals of what is in [since, until), but in none of its whole days."""
        found = Totals()
        for start, end in broken_days(since, until):
            found += summed(
                attempt
                for attempt in self.attempts(start, end)
                if (tenant is None or (attempt.tenant or "") == tenant)
                and (routed is None or (attempt.route is not None) == routed)
            )
            pruned = self._read("SELECT value FROM facts WHERE name = 'pruned_until'", ())[0][0]
            found = replace(found, complete=found.complete and start > pruned)
        return found


def default_ledger_path() -> Path:
    """The file of the ledger where none is named: `COSTOPT_LEDGER`, else `ledger.db` in the user's data folder."""
    named = os.environ.get("COSTOPT_LEDGER")
    if named:
        return Path(named)
    from platformdirs import user_data_path

    return user_data_path("costopt") / "ledger.db"


def _close_at_exit(ledger: Ledger) -> None:
    held = weakref.ref(ledger)

    def close() -> None:
        alive = held()
        if alive is not None:
            with suppress(Exception):
                alive.close()

    atexit.register(close)
    weakref.finalize(ledger, atexit.unregister, close).atexit = False
