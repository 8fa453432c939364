"""One thread for all questions: batches, and what becomes of those that go wrong."""

from __future__ import annotations

import gc
import threading
from collections.abc import Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor

import pytest

from costopt.caching.batcher import Batcher

WAIT_S = 30.0


class Doubling:
    """Doubles numbers, but not before it may go on; strings spoil a batch."""

    def __init__(self) -> None:
        self.batches: list[list[object]] = []
        self.threads: set[threading.Thread] = set()
        self.started = threading.Event()
        self.go = threading.Event()

    def __call__(self, numbers: list[object]) -> Sequence[object]:
        self.batches.append(numbers)
        self.threads.add(threading.current_thread())
        self.started.set()
        assert self.go.wait(WAIT_S)
        for number in numbers:
            if isinstance(number, BaseException):
                raise number
        return [number * 2 for number in numbers]  # type: ignore[operator]

    def busy(self, batcher: Batcher[object, object]) -> None:
        """Keep the thread on a first question, so that what is asked now is queued."""
        batcher.submit(0)
        assert self.started.wait(WAIT_S)


def test_what_is_queued_meanwhile_is_answered_together_in_order() -> None:
    work = Doubling()
    batcher: Batcher[object, object] = Batcher(work, max_batch=16)
    work.busy(batcher)
    futures = [batcher.submit(i) for i in range(20)]
    work.go.set()
    assert [future.result(WAIT_S) for future in futures] == [i * 2 for i in range(20)]
    assert work.batches == [[0], [*range(16)], [*range(16, 20)]]


def test_everybody_gets_the_answer_to_their_own_question_from_one_thread() -> None:
    work = Doubling()
    work.go.set()
    batcher: Batcher[object, object] = Batcher(work)
    with ThreadPoolExecutor(32) as pool:
        assert list(pool.map(lambda i: batcher.submit(i).result(WAIT_S), range(500))) == [i * 2 for i in range(500)]
    assert len(work.threads) == 1


def test_what_nobody_waits_for_is_not_computed() -> None:
    work = Doubling()
    batcher: Batcher[object, object] = Batcher(work)
    work.busy(batcher)
    futures = [batcher.submit(i) for i in range(4)]
    assert futures[1].cancel()
    assert futures[2].cancel()
    work.go.set()
    assert (futures[0].result(WAIT_S), futures[3].result(WAIT_S)) == (0, 6)
    assert work.batches == [[0], [0, 3]]


@pytest.mark.parametrize(
    ("bad", "raised"),
    [(OSError("broken"), OSError), (SystemExit(3), RuntimeError), (KeyboardInterrupt(), RuntimeError)],
)
def test_a_bad_question_spoils_no_other_and_ends_no_thread(bad: BaseException, raised: type[Exception]) -> None:
    work = Doubling()
    batcher: Batcher[object, object] = Batcher(work)
    work.busy(batcher)
    futures = [batcher.submit(question) for question in (1, bad, 2)]
    work.go.set()
    assert (futures[0].result(WAIT_S), futures[2].result(WAIT_S)) == (2, 4)
    with pytest.raises(raised, match=r"broken|SystemExit|KeyboardInterrupt"):
        futures[1].result(WAIT_S)
    assert batcher.submit(3).result(WAIT_S) == 6
    assert len(work.threads) == 1


def test_a_wrong_number_of_answers_answers_nobody() -> None:
    silent: Batcher[int, int] = Batcher(lambda questions: [])
    talking: Batcher[int, int] = Batcher(lambda questions: [1] * (len(questions) + 1))
    with pytest.raises(ValueError, match="0 answers to 1 questions"):
        silent.submit(1).result(WAIT_S)
    with pytest.raises(ValueError, match="2 answers to 1 questions"):
        talking.submit(1).result(WAIT_S)


def test_a_dropped_batcher_stops_its_thread_and_leaves_nobody_waiting() -> None:
    """Whoever still waited for a queued question waited for ever."""
    work = Doubling()
    batcher: Batcher[object, object] = Batcher(work)
    work.busy(batcher)
    waiting = batcher.submit(1)
    threading.Timer(0.2, work.go.set).start()
    del batcher
    gc.collect()
    (thread,) = work.threads
    thread.join(WAIT_S)
    assert not thread.is_alive()
    with pytest.raises(CancelledError):
        waiting.result(0)
