"""The one thread that owns a model: loads it, warms it up, and sees to it that every request ends."""

from __future__ import annotations

import contextlib
import functools
import gc
import logging
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from costopt.errors import CostOptError, EngineClosedError, EngineError
from costopt.local.channel import Channel
from costopt.local.engine import EngineStats, GenerationRequest
from costopt.local.loading import Loaded
from costopt.local.prepare import Limits, Preparation
from costopt.local.sequence import Sequence

__all__ = ["Arrival", "Batch", "Ready", "Worker"]

_log = logging.getLogger("costopt.local")

_POLL_S = 0.2
_CLOSED = "the engine was closed before the answer was whole"


class Batch(Protocol):
    """Runs sequences together: `costopt.local.rows`, or transformers' continuous batching."""

    @property
    def steps(self) -> int: ...
    @property
    def restarts(self) -> int: ...
    @property
    def watched(self) -> bool: ...  # whether a thread of its own runs, which would keep the interpreter from ending
    @property
    def sequences(self) -> list[Sequence]: ...
    @property
    def cache_bytes(self) -> int: ...
    def takes(self, sequence: Sequence) -> bool: ...
    def has_room(self, sequence: Sequence) -> bool: ...
    def add(self, sequence: Sequence) -> None: ...
    def step(self) -> None: ...
    def still(self) -> AbstractContextManager[None]: ...
    def fail(self, error: BaseException) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Arrival:
    """A request that has come, and where its answer goes."""

    request: GenerationRequest
    channel: Channel


@dataclass(frozen=True, slots=True)
class Ready:
    """A model that is loaded and warm: its limits, and what runs its sequences, the first that takes one."""

    loaded: Loaded
    limits: Limits
    batches: tuple[Batch, ...]


class Worker:
    """What the thread does, and all that it shares with others; it does not know its engine, which so can go.

    Args:
        start: Loads the model; called in the thread, and again at the next request if it fails.
    """

    def __init__(self, start: Callable[[], Ready]) -> None:
        self._start = start
        self._inbox: queue.SimpleQueue[Arrival | Future[None] | None] = queue.SimpleQueue()
        self._waiting: deque[Arrival | Sequence] = deque()
        self._running: list[Sequence] = []
        self._ready: Ready | None = None
        self._preparation: Preparation | None = None
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._process = os.getpid()
        self._stopping = False
        self._counts = dict.fromkeys(("requests", "finished", "failed", "cancelled", "prompt", "completion"), 0)

    def submit(self, item: Arrival | Future[None]) -> None:
        """Hand in a request, or a future that is done once the model is loaded."""
        problem = self._put(item)
        if problem is None:
            return
        if isinstance(item, Arrival):
            item.channel.fail(problem)
        else:
            item.set_exception(problem)

    def _put(self, item: Arrival | Future[None]) -> CostOptError | None:
        if os.getpid() != self._process:  # the thread, and what it held, stayed behind; so may have the lock
            return EngineError("this process was forked from the one that has the model: make the engine after forking")
        with self._lock:
            if self._stopping:
                return EngineClosedError("the engine is closed: make another one")
            if isinstance(item, Arrival):
                self._counts["requests"] += 1
            self._inbox.put(item)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="costopt-model", daemon=True)
                self._thread.start()
        return None

    def nudge(self) -> None:
        """Have the thread look again, because somebody gave up; safe to call from the garbage collector."""
        self._inbox.put(None)

    def stop(self, timeout: float | None = 30.0) -> None:
        """End every request with an error, and the thread; gives the model's memory back."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._stopping = True
            thread = self._thread
        self._inbox.put(None)
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def stats(self) -> EngineStats:
        """What was done so far."""
        ready, counts = self._ready, dict(self._counts)
        batches = ready.batches if ready else ()
        running = sum(not sequence.over for sequence in list(self._running))
        over = counts["finished"] + counts["failed"] + counts["cancelled"]
        return EngineStats(
            requests=counts["requests"],
            finished=counts["finished"],
            failed=counts["failed"],
            cancelled=counts["cancelled"],
            waiting=max(0, counts["requests"] - over - running),
            running=running,
            prompt_tokens=counts["prompt"],
            completion_tokens=counts["completion"],
            steps=sum(batch.steps for batch in batches),
            restarts=sum(batch.restarts for batch in batches),
            weight_bytes=ready.loaded.weight_bytes if ready else 0,
            cache_bytes=sum(batch.cache_bytes for batch in batches),
            unquantised=ready.loaded.unquantised if ready else (),
        )

    @property
    def ready(self) -> Ready | None:
        """The model, if it is loaded."""
        return self._ready

    def _run(self) -> None:
        try:
            # A thread of a batch keeps the interpreter from ending: when the main thread has ended, so must that.
            while not self._stopping and threading.main_thread().is_alive():
                self._receive()
                self._admit()
                self._step()
        finally:
            self._end()

    def _receive(self) -> None:
        """Take in what has come; wait for it if there is nothing else to do."""
        busy = bool(self._waiting or self._running)
        loads: list[Future[None]] = []
        with contextlib.suppress(queue.Empty):
            item = self._inbox.get(block=not busy, timeout=self._patience())
            while True:
                if isinstance(item, Arrival):
                    self._waiting.append(item)
                elif item is not None:
                    loads.append(item)
                item = self._inbox.get_nowait()
        if loads or self._waiting:
            self._load(loads)

    def _patience(self) -> float | None:
        batches = self._ready.batches if self._ready else ()
        return _POLL_S if any(batch.watched for batch in batches) else None

    def _load(self, loads: list[Future[None]]) -> None:
        problem: CostOptError | None = EngineClosedError(_CLOSED) if self._stopping else None
        if self._ready is None and problem is None:
            try:
                ready = self._start()
                self._preparation = Preparation(ready.loaded, ready.limits)
                self._ready = ready
            except Exception as error:
                problem = _as_ours("the model could not be loaded", error)
                for item in self._waiting:
                    item.channel.fail(problem)
                self._counts["failed"] += len(self._waiting)
                self._waiting.clear()
        for future in filter(Future.set_running_or_notify_cancel, loads):
            if problem is None:
                future.set_result(None)
            else:
                future.set_exception(problem)

    def _admit(self) -> None:
        """Hand on as many as there is room for, in the order in which they came."""
        while self._waiting and self._ready is not None:
            head = self._prepared(self._waiting[0])
            if head is not None:
                batch = next(batch for batch in self._ready.batches if batch.takes(head))
                if not batch.has_room(head):
                    self._waiting[0] = head
                    return
                head.on_end = functools.partial(self._count, head)
                try:
                    batch.add(head)
                    self._running.append(head)
                except Exception as error:  # e.g. no memory for its keys and values
                    head.fail(error)
            self._waiting.popleft()

    def _prepared(self, item: Arrival | Sequence) -> Sequence | None:
        """The sequence; None if the request is over before it began."""
        if item.channel.closed:
            self._counts["cancelled"] += 1
            return None
        if isinstance(item, Sequence) or self._preparation is None:
            return item if isinstance(item, Sequence) else None
        try:
            return self._preparation.sequence(item.request, item.channel)
        except Exception as error:
            item.channel.fail(_as_ours("the request could not be prepared", error))
            self._counts["failed"] += 1
            return None

    def _step(self) -> None:
        batches = self._ready.batches if self._ready else ()
        for batch in batches:
            if not batch.sequences:
                continue
            with contextlib.ExitStack() as stack:
                try:
                    for other in batches:
                        if other is not batch:
                            stack.enter_context(other.still())
                    batch.step()
                except Exception as error:
                    _log.exception("costopt: the batch failed; its requests end, the engine goes on")
                    batch.fail(error)
        self._sweep()

    def _count(self, sequence: Sequence) -> None:
        self._counts[sequence.outcome] += 1
        if sequence.outcome == "finished":
            self._counts["prompt"] += len(sequence.prompt)
            self._counts["completion"] += len(sequence.made)

    def _sweep(self) -> None:
        """Let go of those that are over; who gave up is counted here, who was answered is already."""
        for sequence in self._running:
            if sequence.over and not sequence.finished:
                sequence.on_end = None  # which holds the sequence, and so all that waits for it
                self._count(sequence)
        self._running = [sequence for sequence in self._running if not sequence.over]

    def _end(self) -> None:
        """Nobody may wait for ever, whatever has happened."""
        with self._lock:
            self._stopping = True
        closed = EngineClosedError(_CLOSED)
        for batch in self._ready.batches if self._ready else ():
            with contextlib.suppress(Exception):
                batch.fail(closed)
                batch.close()
        self._sweep()
        left: list[Arrival | Sequence | Future[None] | None] = [*self._waiting, *self._running]
        with contextlib.suppress(queue.Empty):
            while True:
                left.append(self._inbox.get_nowait())
        for item in left:
            if isinstance(item, Arrival | Sequence):
                item.channel.fail(closed)
                self._counts["failed"] += 1
            elif item is not None:
                item.set_exception(closed)
        self._waiting.clear()
        self._running = []
        self._ready = self._preparation = None
        _give_back()


def _as_ours(what: str, error: Exception) -> CostOptError:
    if isinstance(error, CostOptError):
        return error
    ours = EngineError(f"{what}: {type(error).__name__}: {error}")
    ours.__cause__ = error
    return ours


def _give_back() -> None:
    """Hand the memory of a model that is gone to the system."""
    gc.collect()
    torch = sys.modules.get("torch")  # a model of another make needs none
    if torch is not None and torch.cuda.is_available():
        torch.cuda.empty_cache()
