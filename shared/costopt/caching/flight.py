"""Single flight: of many callers who ask the same at once, one pays and all are served.

The cache is told of a question (lookup) and, if all goes well, of its answer (update); nobody tells it when
the model call in between fails. So a flight knows its caller: a thread that is still inside the function
that asked, or a task that is not done. Callers wait for a flight only while its caller lives.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
import threading
import time
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import FrameType
from typing import Any, NamedTuple

__all__ = ["Caller", "Flight", "Flights", "Landed"]

_POLL_S = 0.05
# Calls that failed leave their flight behind until the question is asked again, or there are this many.
_SWEEP_AT = 256


class Caller:
    """Who will make the model call if the cache cannot answer.

    Args:
        frame: The function that asked, in a thread.
        task: The task that asked; takes precedence.
    """

    __slots__ = ("_code", "_frame", "_task", "thread")

    def __init__(self, frame: FrameType | None = None, task: asyncio.Task[Any] | None = None) -> None:
        self.thread = threading.get_ident()
        # The frame's id, and not the frame: holding it would keep the caller's messages alive.
        self._frame = id(frame)
        self._code = None if frame is None else frame.f_code
        # Weakly: a finished task holds its result, or its exception with every frame of it.
        self._task = None if task is None else weakref.ref(task)

    def same(self, other: Caller) -> bool:
        """Whether both are one thread of control, which must never wait for itself."""
        if self._task is not None or other._task is not None:
            return self._task == other._task
        return self.thread == other.thread

    def replaces(self, other: Caller) -> bool:
        """Whether this is another call in the same place of memory, so that `other` is over."""
        return self._task is None and other._task is None and (self.thread, self._frame) == (other.thread, other._frame)

    def blocks(self, other: Caller) -> bool:
        """Whether this one, by waiting in its thread, would keep `other`'s task from running."""
        return self._task is None and other._task is not None and self.thread == other.thread

    def alive(self) -> bool:
        """Whether an answer may still come from this caller."""
        if self._task is not None:
            task = self._task()
            return task is not None and not task.done()
        frame = sys._current_frames().get(self.thread)
        while frame is not None:
            if id(frame) == self._frame and frame.f_code is self._code:
                return True
            frame = frame.f_back
        return False


class Landed(NamedTuple):
    """What became of a flight: an encoded entry, and why it answers the question."""

    data: bytes
    similarity: float
    reason: str


@dataclass(slots=True, eq=False)
class Flight:
    """One question on its way; `landed` gives its answer, or None if none came of it."""

    key: str
    caller: Caller
    landed: Future[Landed | None] = field(default_factory=Future)


class Flights:
    """The questions of this process that are on their way.

    Args:
        max_wait: Longest time in seconds that anybody waits for somebody else's call.
    """

    def __init__(self, max_wait: float) -> None:
        self._max_wait = max_wait
        self._lock = threading.Lock()
        self._flights: dict[str, Flight] = {}

    def join(self, key: str, caller: Caller) -> Flight | None:
        """The flight to wait for, or None if `caller` shall make the call (it then leads the flight).

        A caller who leads a flight never waits for another one (two of them could wait for each other),
        nor does one whose waiting would hold up the leader.
        """
        with self._lock:
            flight = self._flights.get(key)
            if flight is not None and flight.caller.alive() and not flight.caller.same(caller):
                if caller.blocks(flight.caller) or self._leads(caller):
                    return None
                return flight
            if flight is not None:
                _land(flight, None)
            # A function that asks anew, in a frame that lies where another one lay, is not that one.
            for old in [old for old, other in self._flights.items() if caller.replaces(other.caller)]:
                _land(self._flights.pop(old), None)
            if len(self._flights) >= _SWEEP_AT:
                self._sweep()
            self._flights[key] = Flight(key, caller)
            return None

    def land(self, key: str, entry: Landed | None) -> bool:
        """Give everybody who waits for `key` its entry (None: go and ask yourselves); False if nobody led one."""
        with self._lock:
            flight = self._flights.pop(key, None)
        if flight is not None:
            _land(flight, entry)
        return flight is not None

    def wait(self, flight: Flight) -> Landed | None:
        """Block until the flight lands; None if it never will, or takes too long."""
        give_up = time.monotonic() + self._max_wait
        while not flight.landed.done() and self._worth_waiting(flight, give_up):
            with contextlib.suppress(TimeoutError):
                return flight.landed.result(timeout=_POLL_S)
        return flight.landed.result() if flight.landed.done() else None

    async def await_(self, flight: Flight) -> Landed | None:
        """`wait`, without blocking the event loop."""
        give_up = time.monotonic() + self._max_wait
        landed = asyncio.wrap_future(flight.landed)
        while not flight.landed.done() and self._worth_waiting(flight, give_up):
            # `asyncio.wait` does not cancel what it waits for: cancelling would land everybody's flight.
            await asyncio.wait((landed,), timeout=_POLL_S)
        return flight.landed.result() if flight.landed.done() else None

    def _worth_waiting(self, flight: Flight, give_up: float) -> bool:
        if flight.caller.alive() and time.monotonic() < give_up:
            return True
        with self._lock:
            if self._flights.get(flight.key) is flight and not flight.caller.alive():
                del self._flights[flight.key]
                _land(flight, None)
        return False

    def _sweep(self) -> None:
        for key, flight in list(self._flights.items()):
            if not flight.caller.alive():
                _land(self._flights.pop(key), None)

    def _leads(self, caller: Caller) -> bool:
        return any(flight.caller.same(caller) and flight.caller.alive() for flight in self._flights.values())


def _land(flight: Flight, entry: Landed | None) -> None:
    if not flight.landed.done():
        flight.landed.set_result(entry)
