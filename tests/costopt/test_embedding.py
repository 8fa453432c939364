"""The memo and the dispatcher around an embedder."""

import asyncio
import gc
import threading
import time
from concurrent.futures import CancelledError, ThreadPoolExecutor, wait

import numpy as np
import pytest

from costopt.embedding import Embedder, SharedEmbedder, fits
from costopt.errors import ConfigError, EmbeddingError, MissingExtraError
from tests.costopt.embedders import Letters, Odd, hold, python


def test_wrong_options():
    with pytest.raises(ConfigError, match="memo_size=-1"):
        SharedEmbedder(Letters(), memo_size=-1)
    with pytest.raises(ConfigError, match="max_batch=0"):
        SharedEmbedder(Letters(), max_batch=0)


def test_fits_falls_back_to_characters():
    assert fits(Letters(), "x" * 1_000)
    assert not fits(Letters(), "x" * 1_001)
    assert not SharedEmbedder(Letters()).fits("x" * 1_001)


# --- memo ---------------------------------------------------------------------------------------------


def test_memo_answers_without_a_forward_pass():
    shared = SharedEmbedder(Letters())
    first = shared.embed_one("hello")
    assert shared.embed_one("hello") is first
    future = shared.submit("hello")
    assert future.done()
    assert (shared.embed(["hello"])[0] == first).all()
    assert (shared.calls, shared.texts) == (1, 1)
    assert first == pytest.approx(Letters().one("hello"))


def test_memo_is_bounded_and_drops_the_least_recently_used():
    shared = SharedEmbedder(Letters(), memo_size=3)
    for text in ("a", "b", "c", "a", "d"):  # "b" goes
        shared.embed_one(text)
    assert len(shared._memo) == 3
    calls = shared.calls
    for text in ("a", "c", "d"):
        shared.embed_one(text)
    assert shared.calls == calls
    shared.embed_one("b")
    assert shared.calls == calls + 1


def test_memo_of_size_zero():
    shared = SharedEmbedder(Letters(), memo_size=0)
    shared.embed_one("a")
    shared.embed_one("a")
    assert shared.calls == 2


def test_memo_does_not_hold_long_texts():
    shared = SharedEmbedder(Letters())
    text = "a long text \ud800 " * 1_000
    assert shared.embed_one(text) is shared.embed_one(text)
    assert shared.embed_one(text + "!") is not shared.embed_one(text)
    assert all(len(key) <= 512 for key in shared._memo)


def test_returned_arrays_are_read_only():
    shared = SharedEmbedder(Letters())
    for array in (shared.embed_one("a"), shared.embed(["a", "b"]), shared.submit("c").result(5)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


# --- dispatcher ---------------------------------------------------------------------------------------


def test_is_an_embedder():
    shared: Embedder = SharedEmbedder(SharedEmbedder(Letters()))
    assert (shared.name, shared.dimension) == ("letters", 27)
    assert shared.embed([]).shape == (0, 27)
    texts = [f"text {'z' * (i % 7)} {i}" for i in range(300)] + ["twin", "twin"]
    assert shared.embed(texts) == pytest.approx(Letters().embed(texts))
    assert shared.ready


def test_concurrent_callers_share_forward_passes():
    embedder = Letters(delay_s=0.02)
    shared = SharedEmbedder(embedder)
    barrier = threading.Barrier(50)

    def ask(i: int) -> np.ndarray:
        barrier.wait(10)
        return shared.embed_one(f"text number {i}")

    with ThreadPoolExecutor(50) as pool:
        vectors = list(pool.map(ask, range(50)))
    assert shared.calls == len(embedder.batches) <= 15
    assert shared.texts == 50
    for i, vector in enumerate(vectors):
        assert vector == pytest.approx(Letters().one(f"text number {i}"))


def test_at_most_max_batch_texts_in_a_pass():
    embedder = Letters()
    shared = SharedEmbedder(embedder, max_batch=8)
    hold(embedder, shared)
    futures = [shared.submit(str(i)) for i in range(20)]
    embedder.may_go.set()
    wait(futures, 10)
    assert [len(batch) for batch in embedder.batches] == [1, 8, 8, 4]


def test_identical_texts_in_flight_are_computed_once():
    embedder = Letters()
    shared = SharedEmbedder(embedder, memo_size=0)
    first = hold(embedder, shared)
    again = shared.submit("the text that holds the dispatcher")  # joins the pass that runs
    queued = [shared.submit("twin") for _ in range(10)]
    embedder.may_go.set()
    assert again.result(10) is first.result(10)
    assert len({id(future.result(10)) for future in queued}) == 1
    assert embedder.batches == [["the text that holds the dispatcher"], ["twin"]]


def test_a_lone_request_does_not_wait_for_all_of_a_bulk_call():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    embedder.may_go.clear()
    with ThreadPoolExecutor(1) as pool:
        bulk = pool.submit(shared.embed, [f"{i:03}" for i in range(500)])
        assert embedder.running.wait(10)
        lone = shared.submit("me too")
        embedder.may_go.set()
        lone.result(10)
        bulk.result(10)
    assert next(i for i, batch in enumerate(embedder.batches) if "me too" in batch) <= 2


def test_texts_that_nobody_waits_for_are_skipped():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    held = hold(embedder, shared)
    given_up = [shared.submit(f"given up {i}") for i in range(5)]
    shared.submit("half").cancel()
    half = shared.submit("half")
    for future in given_up:
        assert future.cancel()
    again = shared.submit("given up 0")
    embedder.may_go.set()
    held.result(10)
    assert half.result(10) == pytest.approx(Letters().one("half"))
    assert again.result(10).shape == (27,)
    assert sorted(text for batch in embedder.batches[1:] for text in batch) == ["given up 0", "half"]
    with pytest.raises(CancelledError):
        given_up[1].result(1)
    assert not wait(given_up, 5).not_done
    assert not shared._waiting


def test_callers_that_time_out_leave_nothing_behind():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    held = hold(embedder, shared)
    for i in range(20):
        future = shared.submit(f"slow {i}")
        with pytest.raises(TimeoutError):
            future.result(0.001)
        future.cancel()
    embedder.may_go.set()
    held.result(10)
    shared.embed_one("after")
    assert not shared._waiting
    assert shared.texts == 2


def test_failure_reaches_every_waiter_and_the_next_call_works():
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    embedder.fail = RuntimeError("out of memory")
    held = hold(embedder, shared)
    twins = [shared.submit("twin") for _ in range(3)]
    others = [shared.submit(f"other {i}") for i in range(5)]
    embedder.may_go.set()
    for future in [held, *twins, *others]:
        with pytest.raises(EmbeddingError, match=r"'letters' failed: RuntimeError: out of memory") as caught:
            future.result(10)
        assert caught.value.__cause__ is embedder.fail
    with pytest.raises(EmbeddingError):
        shared.embed(["a", "b", "c"])
    embedder.fail = None
    assert not shared._memo
    assert not shared._waiting
    assert shared.embed_one("twin") == pytest.approx(Letters().one("twin"))


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), MissingExtraError("torch", "minilm")])
def test_dispatcher_survives_any_exception(error):
    embedder = Letters()
    shared = SharedEmbedder(embedder)
    embedder.fail = error
    with pytest.raises(MissingExtraError if isinstance(error, MissingExtraError) else EmbeddingError):
        shared.embed_one("a")
    thread = shared._thread
    embedder.fail = None
    shared.embed_one("a")
    assert shared._thread is thread


def test_a_text_that_is_no_text_fails_alone():
    shared = SharedEmbedder(Letters())
    with pytest.raises(TypeError, match="text must be str, not bytes"):
        shared.submit(b"x")


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([[1.0, 0.0, 0.0]], r"shape \(1, 3\), not \(1, 2\).*one row per text"),
        ([[1.0, 0.0], [0.0, 1.0]], r"shape \(2, 2\), not \(1, 2\)"),
        ([1.0, 0.0], r"shape \(2,\), not \(1, 2\)"),
        (None, r"shape \(\), not \(1, 2\)"),
        ([[1.0, float("nan")]], "zero or not finite.*must return vectors that have a direction"),
        ([[1.0, float("inf")]], "zero or not finite"),
        ([[1.0, 1e300]], "zero or not finite"),
        ([[0.0, 0.0]], "zero or not finite"),
        ([[1.0, "x"]], "failed: ValueError"),
    ],
)
def test_what_is_no_embedding_is_refused(rows, message):
    shared = SharedEmbedder(Odd(rows))
    with pytest.raises(EmbeddingError, match=message) as caught:
        shared.embed_one("a")
    assert "odd-model" in str(caught.value)
    assert not shared._memo


@pytest.mark.parametrize("rows", [[[3, 4]], np.array([[3e30, 4e30]]), np.array([[3e-30, 4e-30]])])
def test_rows_are_brought_to_unit_length(rows):
    vector = SharedEmbedder(Odd(rows)).embed_one("a")
    assert vector.dtype == np.float32
    assert vector == pytest.approx([0.6, 0.8])


def test_an_embedders_own_buffer_may_change():
    buffer = np.array([[0.6, 0.8]], np.float32)
    vector = SharedEmbedder(Odd(buffer)).embed_one("a")
    buffer[:] = 0
    assert vector == pytest.approx([0.6, 0.8])


async def test_asyncio():
    embedder = Letters(delay_s=0.02)
    shared = SharedEmbedder(embedder)
    texts = [f"async {i}" for i in range(40)]
    vectors = await asyncio.gather(*(asyncio.wrap_future(shared.submit(text)) for text in texts))
    assert np.stack(vectors) == pytest.approx(Letters().embed(texts))
    assert shared.calls <= 10
    embedder.may_go.clear()
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(asyncio.wrap_future(shared.submit("too slow")), 0.05)
    embedder.may_go.set()
    assert (await asyncio.wrap_future(shared.submit("next"))).shape == (27,)


def test_a_dropped_shared_embedder_answers_and_ends_its_thread():
    assert SharedEmbedder(Letters(delay_s=0.05)).submit("orphan").result(5).shape == (27,)
    shared = SharedEmbedder(Letters())
    shared.embed_one("a")
    thread = shared._thread
    del shared
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_a_hanging_embedder_does_not_keep_the_interpreter():
    script = """
import time
from costopt.embedding import SharedEmbedder
class Hanging:
    name, dimension = "hanging", 2
    def embed(self, texts):
        time.sleep(3600)
shared = SharedEmbedder(Hanging())
shared.submit("x")
"""
    started = time.perf_counter()
    python(script)
    assert time.perf_counter() - started < 20
