"""An embedder that raises, hangs or returns nonsense costs the semantic tier, and nothing else."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costopt import CostOptError, LocalStore, RedisStore
from costopt import SemanticCache as Core
from langchain_costopt import SemanticCache
from tests.faults.support import Model, aask, answer_to, ask, median_lookup_s, questions, tier
from tests.faults.words import MOST_ADDED_S, NEAR, Words, found, keep, wait_for
from tests.timed import timed

pytestmark = timed

BREAKER_OPEN_S = 0.001
RECOVERY_S = 30.0
hung = threading.Event()


def fail(error: BaseException) -> Callable[[Sequence[str]], Any]:
    def embed(texts: Sequence[str]) -> Any:
        raise error

    return embed


def fill(value: float, width: int = Words.dimension) -> Callable[[Sequence[str]], Any]:
    return lambda texts: np.full((len(texts), width), value, np.float32)


FAULTS: dict[str, Callable[[Sequence[str]], Any]] = {
    "raises": fail(ConnectionError("the embedding service is down")),
    "exits": fail(SystemExit(1)),
    "out of memory": fail(MemoryError()),
    "hangs": lambda texts: hung.wait(20),
    "NaN": fill(np.nan),
    "infinite": fill(np.inf),
    "zero": fill(0),
    "too wide": fill(1, 65),
    "too narrow": fill(1, 1),
    "one row too many": lambda texts: np.ones((len(texts) + 1, 64), np.float32),
    "no rows": lambda texts: np.ones((0, 64), np.float32),
    "flat": lambda texts: np.ones(64, np.float32),
    "None": lambda texts: None,
    "words": lambda texts: ["not", "numbers"],
}

LASTING = ("raises", "hangs", "NaN")


@pytest.fixture
def embedder() -> Iterator[Words]:
    hung.clear()
    yield Words()
    hung.set()


@pytest.fixture
def cache(embedder: Words, tmp_path: Path) -> Iterator[SemanticCache]:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), embedder=embedder, judge=NEAR).warm()
    yield cache
    cache.close()


def is_stepped_over(
    cache: SemanticCache, model: Model, embedder: Words, fault: Any, question_of: Callable[[str], Any]
) -> None:
    """The whole story: what was known, what is asked meanwhile, and what is served afterwards."""
    question_of("how old is the moon")
    assert tier(question_of("the moon is how old")[0]) == "semantic"
    embedder.fault = fault
    added = []
    for question in questions("during", 5):
        answer, seconds = question_of(question)
        assert (tier(answer), answer.content) == (None, answer_to(question))
        assert tier(question_of(question)[0]) == "exact"
        added.append(seconds)
    assert max(added) <= MOST_ADDED_S, added
    assert median_lookup_s(cache, "open") < BREAKER_OPEN_S
    assert model.calls == 6


def is_got_over(cache: SemanticCache, embedder: Words, question_of: Callable[[str], Any]) -> None:
    embedder.fault = None
    hung.set()
    mended = time.monotonic()
    numbers = iter(range(10_000))

    def served() -> bool:
        number = next(numbers)
        question_of(f"what about afterwards {number}")
        return tier(question_of(f"afterwards {number} what about")[0]) == "semantic"

    wait_for(served, "the semantic tier is back", RECOVERY_S)
    assert time.monotonic() - mended < RECOVERY_S


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_stepped_over(name: str, cache: SemanticCache, embedder: Words) -> None:
    model = Model(cache=cache)
    is_stepped_over(cache, model, embedder, FAULTS[name], lambda question: ask(model, question))
    if name in LASTING:  # a second each, and all end alike
        is_got_over(cache, embedder, lambda question: ask(model, question))


@pytest.mark.parametrize("name", LASTING)
def test_a_fault_is_stepped_over_in_asyncio(name: str, cache: SemanticCache, embedder: Words) -> None:
    model = Model(cache=cache)
    with asyncio.Runner() as runner:
        is_stepped_over(cache, model, embedder, FAULTS[name], lambda question: runner.run(aask(model, question)))
        is_got_over(cache, embedder, lambda question: runner.run(aask(model, question)))


def test_a_hanging_embedder_does_not_hold_up_the_loop(cache: SemanticCache, embedder: Words) -> None:
    model = Model(cache=cache)
    embedder.fault = FAULTS["hangs"]
    longest = 0.0

    async def tick(done: asyncio.Event) -> None:
        nonlocal longest
        while not done.is_set():
            started = time.perf_counter()
            await asyncio.sleep(0.005)
            longest = max(longest, time.perf_counter() - started)

    async def main() -> None:
        done = asyncio.Event()
        ticking = asyncio.create_task(tick(done))
        await asyncio.gather(*(model.ainvoke(question) for question in questions("loop", 5)))
        done.set()
        await ticking

    asyncio.run(main())
    assert longest < 0.1


@pytest.mark.parametrize("name", [name for name in FAULTS if name != "hangs"])
def test_warm_says_what_is_wrong(name: str, tmp_path: Path, embedder: Words) -> None:
    embedder.fault = FAULTS[name]
    cache = Core(LocalStore(tmp_path / "cache.db"), embedder=embedder)
    with pytest.raises(CostOptError, match="words"):
        cache.warm()
    cache.close()


def test_an_embedder_that_cannot_be_loaded(tmp_path: Path) -> None:
    class Missing(Words):
        loaded = False

    embedder = Missing()
    embedder.fault = FAULTS["raises"]
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), embedder=embedder)
    model = Model(cache=cache)
    taken = [ask(model, question)[1] for question in questions("missing", 5)]
    assert max(taken) <= MOST_ADDED_S
    cache.close()


@pytest.mark.parametrize("place", ["local", "redis"])
def test_an_embedder_of_another_width_under_the_same_name(
    place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    class Wider(Words):
        dimension = 128

    if place == "redis":
        request.getfixturevalue("redis_client")
    url = request.getfixturevalue("redis_url") if place == "redis" else ""
    for kind in (Words, Wider, Words):
        store = RedisStore(url) if url else LocalStore(tmp_path / "cache.db")
        cache = Core(store, embedder=kind(), judge=NEAR).warm()
        keep(cache, f"how old is the {kind.__name__} moon")
        assert found(cache, f"the {kind.__name__} moon is how old") == (
            "semantic",
            f"answer to how old is the {kind.__name__} moon",
        )
        assert not cache.stats().failures
        cache.close()
