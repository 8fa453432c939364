"""The way an answer takes from the thread that makes it to the thread or event loop that reads it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Iterator

from costopt.errors import CostOptError, EngineError, GenerationCancelledError
from costopt.local.engine import Delta, Generation, joined

__all__ = ["Channel", "StreamHandle"]


class Channel:
    """The maker's end: pieces go in, until one has a finish reason, an error goes in, or nobody wants more.

    Args:
        on_cancel: Called at most once, from any thread and even from the garbage collector, when the reader gives up.

    Example:
        >>> channel = Channel()
        >>> channel.put(Delta("Hello", finish_reason="stop"))
        >>> StreamHandle(channel).result().text
        'Hello'
    """

    def __init__(self, on_cancel: Callable[[], None] | None = None) -> None:
        # Re-entrant: the garbage collector may drop a handle, and so cancel, in a thread that holds it.
        self._condition = threading.Condition(threading.RLock())
        self._on_cancel = on_cancel
        self._pieces: deque[Delta] = deque()
        self._error: CostOptError | None = None
        self._closed = False
        self._wake: Callable[[], object] | None = None
        self._process = os.getpid()

    @property
    def closed(self) -> bool:
        """Whether nothing more may come: the answer is whole, has failed, or is not wanted any more."""
        return self._closed

    def put(self, delta: Delta) -> None:
        """Add a piece; the one with a finish reason is the last."""
        with self._condition:
            if self._closed:
                return
            self._pieces.append(delta)
            self._closed = delta.finish_reason is not None
            self._notify()

    def fail(self, error: CostOptError) -> None:
        """End with an error, which the reader sees after the pieces that came before it."""
        with self._condition:
            if not self._closed:
                self._error, self._closed = error, True
                self._notify()

    def cancel(self) -> None:
        """Give up; nothing if the answer is whole already."""
        if os.getpid() != self._process:
            return
        with self._condition:
            if self._closed:
                return
            self._error = GenerationCancelledError("the request was cancelled before its answer was whole")
            self._closed = True
            self._notify()
        if self._on_cancel is not None:
            self._on_cancel()

    def take(self, timeout: float | None = None) -> Delta | None:
        """The next piece, waiting for it; None after the last.

        Raises:
            TimeoutError: If none came in time.
            CostOptError: What the engine failed with.
        """
        self._check_process()
        with self._condition:
            if not self._condition.wait_for(self._ready, timeout):
                raise TimeoutError(f"no piece of the answer came within {timeout:.3g} s")
            return self._next()

    async def atake(self) -> Delta | None:
        """`take`, without blocking the event loop."""
        self._check_process()
        loop = asyncio.get_running_loop()
        while True:
            came = asyncio.Event()
            with self._condition:
                if self._ready():
                    return self._next()
                self._wake = lambda event=came: loop.call_soon_threadsafe(event.set)
            await came.wait()

    def _check_process(self) -> None:
        # After a fork nobody is left to make the answer, and a thread that is gone may hold the lock.
        if os.getpid() != self._process:
            raise EngineError("this process was forked from the one that asked: ask again with an engine made here")

    def _ready(self) -> bool:
        return bool(self._pieces) or self._closed

    def _next(self) -> Delta | None:
        if self._pieces:
            return self._pieces.popleft()
        if self._error is not None:
            raise self._error
        return None

    def _notify(self) -> None:
        self._condition.notify_all()
        wake, self._wake = self._wake, None
        if wake is not None:
            with contextlib.suppress(RuntimeError):  # the reader's event loop was closed
                wake()


class StreamHandle:
    """The reader's end of a `Channel`: a `costopt.local.engine.Handle`.

    Dropping it, or leaving its iteration early, cancels the request. `result` may be asked for again, or after
    reading the pieces one by one.
    """

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._read: list[Delta] = []
        self._whole = False

    def __iter__(self) -> Iterator[Delta]:
        try:
            while (delta := self._keep(self._channel.take())) is not None:
                yield delta
        finally:
            self.cancel()

    async def __aiter__(self) -> AsyncIterator[Delta]:
        try:
            while (delta := self._keep(await self._channel.atake())) is not None:
                yield delta
        finally:
            self.cancel()

    def result(self, timeout: float | None = None) -> Generation:
        """The whole answer, waiting for it.

        Raises:
            TimeoutError: If it is not whole in time; the request goes on, and may be asked again or cancelled.
            CostOptError: What the engine failed with.
        """
        until = None if timeout is None else time.monotonic() + timeout
        while not self._whole:
            self._keep(self._channel.take(None if until is None else max(0.0, until - time.monotonic())))
        return joined(self._read)

    async def aresult(self) -> Generation:
        """`result`, without blocking the event loop; cancelling the task cancels the request."""
        try:
            while not self._whole:
                self._keep(await self._channel.atake())
        except asyncio.CancelledError:
            self.cancel()
            raise
        return joined(self._read)

    def cancel(self) -> None:
        """Give up; nothing if the answer is whole already."""
        self._channel.cancel()

    def __del__(self) -> None:
        self._channel.cancel()

    def _keep(self, delta: Delta | None) -> Delta | None:
        if delta is None:
            self._whole = True
        else:
            self._read.append(delta)
        return delta
