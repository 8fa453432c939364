"""An engine under all that goes wrong: every request ends, the engine lives, nothing hangs, memory returns."""

from __future__ import annotations

import asyncio
import gc
import random
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from costopt.errors import (
    ContextLengthError,
    EngineClosedError,
    EngineError,
    GenerationCancelledError,
)
from costopt.local.engine import GenerationRequest
from costopt.local.transformers_engine import TransformersEngine
from tests.tiny_models import FACTS, answer, question

NAMES = list(FACTS)
# As good as any token is as likely as the one that ends the answer.
LONG = GenerationRequest.chat("Tell me everything.", max_tokens=480, temperature=100.0, seed=1)
PATIENCE_S = 120.0


def ask(name: str, **options: Any) -> GenerationRequest:
    return GenerationRequest.chat(question(name), **{"max_tokens": 20, **options})


OPTIONS: Any = {"quantization": "none", "dtype": "float32", "max_rows": 16}


@pytest.fixture(params=["rows", "continuous"], scope="module")
def engine(request: pytest.FixtureRequest, facts_model: Path) -> Iterator[TransformersEngine]:
    with TransformersEngine(facts_model, batching=request.param, **OPTIONS) as engine:
        yield engine.load()


@pytest.fixture(autouse=True)
def _it_works_afterwards(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test has done to it, the engine answers, and holds nothing."""
    engine = request.getfixturevalue("engine") if "engine" in request.fixturenames else None
    yield
    if engine is None:
        return
    assert engine.submit(ask(NAMES[0])).result(PATIENCE_S).text == answer(NAMES[0])
    rows = engine._worker.ready.batches[-1]  # type: ignore[union-attr]
    until = time.monotonic() + PATIENCE_S
    while (engine.stats().running or rows.cache_bytes) and time.monotonic() < until:
        time.sleep(0.01)
    stats = engine.stats()
    assert (stats.running, stats.waiting, rows.cache_bytes) == (0, 0, 0)
    assert stats.requests == stats.finished + stats.failed + stats.cancelled


def test_an_oversize_request_fails_alone(engine: TransformersEngine) -> None:
    handles = [engine.submit(ask(name)) for name in NAMES[:10]]
    large = [engine.submit(GenerationRequest(prompt="x " * 2_000)), engine.submit(ask(NAMES[0], max_tokens=100_000))]
    handles += [engine.submit(ask(name)) for name in NAMES[10:20]]
    for handle in large:
        with pytest.raises(ContextLengthError, match="context length exceeded"):
            handle.result(PATIENCE_S)
    assert [handle.result(PATIENCE_S).text for handle in handles] == list(map(answer, NAMES[:20]))


def test_an_exception_inside_the_model_ends_the_requests_that_it_struck(engine: TransformersEngine) -> None:
    model = engine._worker.ready.loaded.model  # type: ignore[union-attr]
    calls = 0

    def explode(*_: Any) -> None:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise RuntimeError("boom")

    hook = model.model.layers[-1].register_forward_pre_hook(explode)
    handles = [engine.submit(ask(name)) for name in NAMES[:40]]
    outcomes = []
    for handle, name in zip(handles, NAMES, strict=False):
        try:
            assert handle.result(PATIENCE_S).text == answer(name)
        except EngineError as error:
            outcomes.append(str(error))
    hook.remove()
    assert 1 <= len(outcomes) < 40
    assert all("boom" in outcome for outcome in outcomes)


@pytest.mark.parametrize("how", ["cancel", "drop", "leave the stream", "cancel the task", "close the loop"])
def test_a_client_that_goes_away_costs_nobody_else(engine: TransformersEngine, how: str) -> None:
    before = engine.stats().cancelled

    async def leave() -> None:
        task = asyncio.create_task(engine.submit(LONG).aresult())
        await asyncio.sleep(0.05)
        if how == "cancel the task":
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        # else the loop is closed over it

    for _ in range(5):
        if how in ("cancel the task", "close the loop"):
            asyncio.run(leave())
            continue
        handle = engine.submit(LONG)
        next(iter(handle)) if how == "leave the stream" else None
        if how == "cancel":
            handle.cancel()
            with pytest.raises(GenerationCancelledError):
                handle.result(PATIENCE_S)
        del handle
    handles = [engine.submit(ask(name)) for name in NAMES[:20]]
    assert [handle.result(PATIENCE_S).text for handle in handles] == list(map(answer, NAMES[:20]))
    assert engine.stats().cancelled == before + 5


def test_a_thousand_requests_are_all_answered(engine: TransformersEngine) -> None:
    names = [random.Random(i).choice(NAMES) for i in range(1_000)]
    with ThreadPoolExecutor(8) as threads:
        handles = list(threads.map(lambda name: engine.submit(ask(name)), names))
    for handle in handles[500::7]:  # some think better of it
        handle.cancel()
    given_up = set(range(500, 1_000, 7))
    for i, (handle, name) in enumerate(zip(handles, names, strict=True)):
        try:
            assert handle.result(PATIENCE_S).text == answer(name)
        except GenerationCancelledError:
            assert i in given_up


@pytest.mark.parametrize("loaded", [True, False], ids=["at work", "while it loads"])
@pytest.mark.parametrize("batching", ["rows", "continuous"])
def test_shutting_down_under_load_ends_every_request(facts_model: Path, batching: Any, loaded: bool) -> None:
    engine = TransformersEngine(facts_model, batching=batching, **OPTIONS)
    if loaded:
        engine.load()
    handles: list[Any] = []
    stop = threading.Event()

    def submit(seed: int) -> None:
        while not stop.is_set():
            handles.append(engine.submit(LONG))
            time.sleep(0.002)

    threads = [threading.Thread(target=submit, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    time.sleep(0.3 if loaded else 0.05)
    engine.close()
    time.sleep(0.05)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert len(handles) > 4
    ends = []
    for handle in handles:
        try:
            handle.result(PATIENCE_S)
            ends.append("answered")
        except EngineClosedError:
            ends.append("closed")
    assert ends.count("closed") > 0
    assert engine.stats().weight_bytes == 0


def test_memory_is_given_back(facts_model: Path) -> None:
    import psutil

    process = psutil.Process()

    def round_() -> int:
        with TransformersEngine(facts_model, **OPTIONS) as engine:
            handles = [engine.submit(ask(name)) for name in NAMES[:40]]
            for handle in handles:
                handle.result(PATIENCE_S)
            assert engine.stats().cache_bytes < 64 * 2**20
        gc.collect()
        return int(process.memory_info().rss)

    round_()
    first = round_()
    for _ in range(4):
        last = round_()
    assert last - first < 30 * 2**20


def test_weights_that_are_rearranged_at_the_first_pass_stay_right(facts_model: Path, tmp_path: Path) -> None:
    """Where the processor has AVX512-BF16, bitsandbytes rearranges four-bit weights in place at their first use.

    Ten times a fresh copy of the weights, whose first forty requests come from threads, from tasks, and through two
    objects that share them, all at once.
    """
    options: Any = {"quantization": "nf4", "cache_dir": tmp_path}
    with TransformersEngine(facts_model, **options) as engine:
        expected = {name: engine.submit(ask(name)).result(PATIENCE_S).text for name in NAMES[:40]}
    assert sum(expected[name] == answer(name) for name in expected) >= 39
    wrong = 0
    for _ in range(10):
        wrong += _round(facts_model, options, expected)
    assert wrong == 0


def _round(facts_model: Path, options: Any, expected: dict[str, str]) -> int:
    start = threading.Barrier(9)
    found: dict[str, str] = {}
    held: list[TransformersEngine] = []

    def by_thread(names: list[str]) -> None:
        start.wait()
        held.append(TransformersEngine.shared(facts_model, **options))
        for name in names:
            found[name] = held[-1].submit(ask(name)).result(PATIENCE_S).text

    async def by_task(name: str) -> None:
        found[name] = (await TransformersEngine.shared(facts_model, **options).submit(ask(name)).aresult()).text

    async def tasks() -> None:
        await asyncio.gather(*map(by_task, names[24:]))

    names = list(expected)
    threads = [threading.Thread(target=by_thread, args=(names[i:24:8],)) for i in range(8)]
    for thread in threads:
        thread.start()
    start.wait()
    asyncio.run(tasks())
    for thread in threads:
        thread.join(PATIENCE_S)
    assert len(set(map(id, held))) == 1
    held[0].close()
    return sum(found[name] != text for name, text in expected.items())
