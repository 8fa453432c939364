"""What waits to be written, and the thread that writes it: whoever records something never waits for a disk."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from decimal import Decimal
from typing import Any

from costopt.audit.attempt import Attempt
from costopt.audit.levers import Note
from costopt.errors import CostOptError, StoreTimeoutError

__all__ = ["Fill", "Row", "WriteQueue"]

_log = logging.getLogger("costopt.audit")

_AT_ONCE = 500
_LINGER_S = 0.02  # so that what comes close together is written together
_IDLE_S = 0.5  # after which the thread ends; the next record starts another
_RETRY_S = (0.05, 0.1, 0.2, 0.5, 1.0)

_ZERO = Decimal(0)

Row = Attempt | Note
Fill = Callable[[Any], Row]


class WriteQueue:
    """A bounded queue with a thread of its own, which lives only while there is something to write.

    Args:
        write: Writes these, all or none; raises `CostOptError` if it cannot now.
        written: Told of what was written, when it waits no longer.
        max_waiting: How many may wait; of more, the newest are dropped, counted and logged once.
        max_waiting_chars: How many characters of prompts, tools and answers may wait.
    """

    def __init__(
        self,
        write: Callable[[Sequence[Row]], None],
        written: Callable[[Sequence[Row]], None],
        *,
        max_waiting: int,
        max_waiting_chars: int,
    ) -> None:
        self._write = write
        self._tell_of = written
        self._max_waiting = max_waiting
        self._max_chars = max_waiting_chars
        self._changed = threading.Condition(threading.Lock())
        self._raw: deque[tuple[Row, Fill]] = deque()  # whose prompts are still to be hashed
        self._ready: deque[Row] = deque()
        self._chars = 0
        # How many were ever taken in; of those: how many are completed, how many written or given up.
        self._put = self._filled = self._done = 0
        self._urgent = False
        self._thread: threading.Thread | None = None
        self._told: set[str] = set()
        self._cost = _ZERO
        self.dropped = 0
        self.failures = 0
        self.hopeless = False  # whether the last try failed for a reason that does not go by itself

    @property
    def waiting(self) -> int:
        """How many are not written yet."""
        return self._put - self._done

    @property
    def waiting_cost(self) -> Decimal:
        """Dollars of what is not written yet; a router's calls are counted by its budget."""
        return self._cost

    def put(self, attempt: Row, fill: Fill | None = None) -> bool:
        """Take one in; False if there is no room.

        Args:
            attempt: The attempt, or a note of a saving.
            fill: Completes it, in the writing thread.
        """
        cost = _cost(attempt)
        with self._changed:
            if self.waiting >= self._max_waiting:
                self._drop("full", "the file cannot be written, and too many rows wait: new ones are dropped")
                return False
            self._cost += cost
            self._put += 1
            self._raw.append((attempt, fill or _as_it_is))
            if self._thread is None:
                self._start()
            elif len(self._raw) == 1:
                self._changed.notify_all()
        return True

    def flush(self, timeout: float) -> bool:
        """Wait until all that was put before is written; False if it is not within the time."""
        return self._until(lambda: self._done, timeout)

    def filled(self, timeout: float) -> bool:
        """Wait until all that was put before is completed, whether it can be written or not."""
        return self._until(lambda: self._filled, timeout)

    def _until(self, count: Callable[[], int], timeout: float) -> bool:
        deadline = time.monotonic() + timeout
        with self._changed:
            target = self._put
            while count() < target:
                self._urgent = True
                if self._thread is None:
                    self._start()
                self._changed.notify_all()
                left = deadline - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(min(left, 0.1))
        return True

    def refuse(self, reason: str) -> None:
        """Count one that can never be written."""
        with self._changed:
            self._drop("refused", reason)

    def _start(self) -> None:
        thread = threading.Thread(target=self._run, name="costopt-ledger", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # the interpreter is ending, or no thread is to be had: `flush` tries again
            return
        self._thread = thread

    def _run(self) -> None:
        tries = 0
        while self._awaited(tries):
            self._fill()
            batch = [self._ready[i] for i in range(min(_AT_ONCE, len(self._ready)))]
            try:
                if batch:
                    self._write(batch)
            except CostOptError as error:
                self._failed(error)
                self.hopeless = not isinstance(error, StoreTimeoutError)
                tries += 1
                continue
            except Exception as error:  # a bug of ours: it must not keep all that follows from being written
                self._failed(error)
                self.dropped += len(batch)
            tries, self.hopeless = 0, False
            self._written(batch)
            self._tell_of(batch)

    def _awaited(self, tries: int) -> bool:
        """Wait for something to write; False if the thread may end."""
        with self._changed:
            if tries:
                self._changed.wait(_RETRY_S[min(tries, len(_RETRY_S)) - 1])
            elif not self.waiting:
                self._urgent = False
                self._changed.wait(_IDLE_S)
            if not self.waiting:
                self._thread = None
                return False
            if not (tries or self._urgent or self.waiting >= _AT_ONCE):
                self._changed.wait(_LINGER_S)
            return True

    def _fill(self) -> None:
        while self._raw:
            attempt, fill = self._raw[0]
            try:
                filled = fill(attempt)
            except Exception as error:  # a prompt of a kind that we do not know: its cost counts all the same
                filled = attempt
                self._failed(error)
            with self._changed:
                self._raw.popleft()
                self._filled += 1
                self._cost += _cost(filled) - _cost(attempt)
                self._chars += _chars(filled)
                if self._chars > self._max_chars and self._ready:
                    self._chars -= _chars(filled)
                    self._drop("full", "the file cannot be written, and too much text waits: new rows are dropped")
                    self._gone(filled)
                else:
                    self._ready.append(filled)
                if not self._raw:
                    self._changed.notify_all()

    def _written(self, batch: Sequence[Row]) -> None:
        with self._changed:
            for attempt in batch:
                self._ready.popleft()
                self._chars -= _chars(attempt)
                self._gone(attempt)
            self._told.clear()
            self._changed.notify_all()

    def _gone(self, attempt: Row) -> None:
        self._done += 1
        self._cost -= _cost(attempt)

    def _failed(self, error: Exception) -> None:
        with self._changed:
            self.failures += 1
            self._tell(type(error).__name__, str(error))

    def _drop(self, kind: str, why: str) -> None:
        self.dropped += 1
        self._tell(kind, why)

    def _tell(self, kind: str, what: str) -> None:
        if kind not in self._told:
            self._told.add(kind)
            _log.warning("costopt: the ledger steps aside: %s", what)


def _as_it_is(row: Row) -> Row:
    return row


def _cost(row: Row) -> Decimal:
    return _ZERO if isinstance(row, Note) or row.cost is None or row.route is not None else row.cost


def _chars(row: Row) -> int:
    if isinstance(row, Note):
        return 0
    return len(row.prompt or "") + len(row.tools or "") + len(row.answer or "")
