"""One thread that answers whatever is queued together, so that 64 callers cost a few passes of a model and not 64."""

from __future__ import annotations

import contextlib
import queue
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, TypeVar

__all__ = ["Batcher"]

Q = TypeVar("Q")
A = TypeVar("A")

_STOP_S = 5.0


class Batcher(Generic[Q, A]):
    """Hands questions to a function in batches, on one daemon thread that starts with the first question.

    A caller waits by `.result(timeout)` and gives up by `.cancel()`: what nobody waits for is not computed. If a
    batch fails, each of its questions is tried alone, so that one bad question spoils no other.

    Args:
        answer: Answers a list of questions, in order.
        max_batch: Most questions at once.

    Example:
        >>> batcher = Batcher(lambda numbers: [number * 2 for number in numbers])
        >>> batcher.submit(21).result(timeout=60)
        42
    """

    def __init__(self, answer: Callable[[list[Q]], Sequence[A]], max_batch: int = 16) -> None:
        self._answer = answer
        self._max_batch = max_batch
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._passes = [0]  # shared with the thread, which does not know `self`

    @property
    def passes(self) -> int:
        """Batches answered so far; whoever waits in vain can tell a long queue from a function that hangs."""
        return self._passes[0]

    def submit(self, question: Q) -> Future[A]:
        """Ask, and return at once; the future fails with whatever the function raised."""
        future: Future[A] = Future()
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                # The thread does not know `self`, so that a dropped batcher can go.
                arguments = (self._queue, self._answer, self._max_batch, self._passes)
                self._thread = threading.Thread(target=_serve, args=arguments, name="costopt-judge", daemon=True)
                self._thread.start()
                weakref.finalize(self, _stop, self._queue, self._thread)
        self._queue.put((question, future))
        return future


def _serve(
    items: queue.SimpleQueue[Any],
    answer: Callable[[list[Any]], Sequence[Any]],
    max_batch: int,
    passes: list[int],
) -> None:
    while (item := items.get()) is not None:
        batch = [item]
        with contextlib.suppress(queue.Empty):
            while len(batch) < max_batch and batch[-1] is not None:
                batch.append(items.get_nowait())
        if batch[-1] is None:
            items.put(None)  # the order to stop, for the next turn
            batch.pop()
        _settle([(question, future) for question, future in batch if future.set_running_or_notify_cancel()], answer)
        passes[0] += 1


def _settle(batch: list[tuple[Any, Future[Any]]], answer: Callable[[list[Any]], Sequence[Any]]) -> None:
    if not batch:
        return
    try:
        answers = list(answer([question for question, _ in batch]))
        if len(answers) != len(batch):
            raise ValueError(f"{len(answers)} answers to {len(batch)} questions")
    except BaseException as error:  # whoever waits must hear of it, and the thread live on
        if len(batch) == 1:
            batch[0][1].set_exception(error if isinstance(error, Exception) else RuntimeError(repr(error)))
            return
        for one in batch:
            _settle([one], answer)
        return
    for (_, future), value in zip(batch, answers, strict=True):
        future.set_result(value)


def _stop(items: queue.SimpleQueue[Any], thread: threading.Thread) -> None:
    """Runs when a batcher is dropped, and at exit: a thread killed inside torch aborts the process."""
    with contextlib.suppress(queue.Empty):
        while True:
            item = items.get_nowait()
            if item is not None and thread.is_alive():  # after a fork nobody waits, and the lock may be held
                item[1].cancel()  # or whoever waits for it would wait for ever
    items.put(None)
    if thread is not threading.current_thread():
        thread.join(timeout=_STOP_S)
