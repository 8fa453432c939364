"""`CachedLLM` with a store or embedder that fails, a stream that ends early, many callers at once: nobody notices."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from llama_index.llms.openai import OpenAI

from costopt import LocalStore, RedisStore, SemanticCache
from llamaindex_costopt import CachedLLM
from tests.faults.words import MOST_ADDED_S, NEAR, Words, wait_for
from tests.llamaindex.served import tier, user
from tests.openai_server import Behaviour, OpenAIServer
from tests.proxies import SlowProxy
from tests.servers import RedisServer
from tests.timed import timed

CALLERS = 30
QUESTION = "how old is the moon"
REWORDED = "the moon is how old"


@pytest.fixture
def embedder() -> Words:
    return Words()


@pytest.fixture
def cache(embedder: Words, tmp_path: Path) -> Iterator[SemanticCache]:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), embedder=embedder, judge=NEAR, time_budget=10.0)
    yield cache.warm()
    cache.close()


def llm_with(cache: SemanticCache, server: OpenAIServer) -> CachedLLM:
    inner = OpenAI("gpt-4o-mini", api_base=server.url, api_key="sk-none", max_retries=0)
    return CachedLLM(inner, cache=cache)


@pytest.fixture
def llm(cache: SemanticCache, server: OpenAIServer) -> CachedLLM:
    return llm_with(cache, server)


@pytest.fixture
async def awaited(llm: CachedLLM) -> AsyncIterator[CachedLLM]:
    yield llm
    await llm.cache.aclose()


class Way:
    """An LLM that is asked, blocking or awaited, and how long that takes."""

    def __init__(self, llm: CachedLLM, runner: asyncio.Runner | None) -> None:
        self.llm = llm
        self.runner = runner

    def ask(self, text: str) -> tuple[Any, float]:
        started = time.perf_counter()
        llm, messages = self.llm, user(text)
        response = llm.chat(messages) if self.runner is None else self.runner.run(llm.achat(messages))
        return response, time.perf_counter() - started


@pytest.fixture(params=["blocking", "awaiting"])
def way(request: pytest.FixtureRequest) -> Iterator[Callable[[CachedLLM], Way]]:
    with asyncio.Runner() as runner:
        caches = []

        def make(llm: CachedLLM) -> Way:
            caches.append(llm.cache)
            return Way(llm, None if request.param == "blocking" else runner)

        yield make
        for cache in caches:
            runner.run(cache.aclose())


# -- stores and embedders that fail ------------------------------------------------------------------------

Break = Callable[[RedisServer, SlowProxy], object]
FAULTS: dict[str, tuple[Break, Break]] = {
    "killed": (lambda server, proxy: server.kill(), lambda server, proxy: server.start()),
    "stopped": (lambda server, proxy: server.stop(), lambda server, proxy: server.resume()),
    "hanging": (lambda server, proxy: proxy.hang(), lambda server, proxy: proxy.restore()),
    "slow": (
        lambda server, proxy: setattr(proxy, "delay", 0.5),
        lambda server, proxy: setattr(proxy, "delay", 0.0),
    ),
    "flushed": (lambda server, proxy: server.client().flushall(), lambda server, proxy: None),
}


@timed
@pytest.mark.parametrize("name", FAULTS)
def test_a_redis_that_fails_is_stepped_over(
    name: str, redis_server: RedisServer, server: OpenAIServer, embedder: Words, way: Callable[[CachedLLM], Way]
) -> None:
    inflict, mend = FAULTS[name]
    with SlowProxy(redis_server) as proxy:
        cache = SemanticCache(RedisStore(proxy.url), embedder=embedder, judge=NEAR).warm()
        asked = way(llm_with(cache, server))
        asked.ask(QUESTION)
        wait_for(lambda: tier(asked.ask(REWORDED)[0]) == "semantic", "the cache works")
        inflict(redis_server, proxy)
        paid = len(server.requests)
        answers = [asked.ask(f"during {i}: how long did a llama sleep") for i in range(5)]
        assert len(server.requests) == paid + 5
        assert len({response.message.content for response, _ in answers}) == 5
        assert max(seconds for _, seconds in answers) <= MOST_ADDED_S
        mend(redis_server, proxy)
        wait_for(lambda: tier(asked.ask("after it: which way is up")[0]) == "exact", "the cache works again", 30)
        cache.close()


@timed
@pytest.mark.parametrize("content", [b"", b"no database", b"SQLite format 3\0" + b"\xff" * 4096])
def test_a_file_that_is_no_database_is_stepped_over(
    content: bytes, tmp_path: Path, server: OpenAIServer, embedder: Words, way: Callable[[CachedLLM], Way]
) -> None:
    path = tmp_path / "broken.db"
    path.write_bytes(content)
    cache = SemanticCache(LocalStore(path), embedder=embedder, judge=NEAR)
    asked = way(llm_with(cache, server))
    answers = [asked.ask(f"which way is {i}") for i in range(4)]
    assert len({response.message.content for response, _ in answers}) == 4
    assert max(seconds for _, seconds in answers) <= MOST_ADDED_S
    cache.close()


def _raise(texts: Any) -> Any:
    raise ConnectionError("the embedding service is down")


BROKEN: dict[str, Callable[[Any], Any]] = {
    "raises": _raise,
    "hangs": lambda texts: time.sleep(3),
    "NaN": lambda texts: np.full((len(texts), Words.dimension), np.nan, np.float32),
}


@timed
@pytest.mark.parametrize("name", BROKEN)
def test_an_embedder_that_fails_costs_the_semantic_tier_only(
    name: str, tmp_path: Path, server: OpenAIServer, embedder: Words, way: Callable[[CachedLLM], Way]
) -> None:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), embedder=embedder, judge=NEAR).warm()
    asked = way(llm_with(cache, server))
    asked.ask(QUESTION)
    embedder.fault = BROKEN[name]
    answers = [asked.ask(text) for text in (REWORDED, "how far is the sun", "how far is the sun", QUESTION)]
    assert [tier(response) for response, _ in answers] == [None, None, "exact", "exact"]
    assert max(seconds for _, seconds in answers) <= MOST_ADDED_S
    cache.close()


# -- streams that end early --------------------------------------------------------------------------------


def test_a_stream_that_its_reader_leaves_is_not_kept(llm: CachedLLM, server: OpenAIServer) -> None:
    stream = llm.stream_chat(user(QUESTION))
    assert next(stream).delta == "answer"
    stream.close()
    next(llm.stream_complete(QUESTION))
    llm.stream_chat(user(QUESTION))  # not even begun
    assert llm.stats().stored == 0
    assert [piece.delta for piece in llm.stream_chat(user(QUESTION))][:2] == ["answer", " 3"]
    assert llm.stats().stored == 1


async def test_an_awaited_stream_that_its_reader_leaves_is_not_kept(awaited: CachedLLM) -> None:
    stream = await awaited.astream_chat(user(QUESTION))
    assert (await anext(stream)).delta == "answer"
    await stream.aclose()
    reader = asyncio.create_task(_read(awaited))
    await asyncio.sleep(0)
    reader.cancel()
    await asyncio.wait((reader,))
    assert awaited.stats().stored == 0
    await _read(awaited)
    assert awaited.stats().stored == 1


async def _read(llm: CachedLLM) -> list[Any]:
    return [piece async for piece in await llm.astream_chat(user(QUESTION))]


@pytest.mark.parametrize(
    "behaviour",
    [Behaviour(cut_after=1), Behaviour(error_after=1), Behaviour(finish="length"), Behaviour(status=500)],
    ids=["cut", "error", "truncated", "refused"],
)
async def test_a_stream_that_fails_is_not_kept_and_its_error_comes_through(
    awaited: CachedLLM, server: OpenAIServer, behaviour: Behaviour
) -> None:
    server.behaviours["gpt-4o-mini"] = behaviour
    errors = () if behaviour.finish == "length" else (openai.OpenAIError, httpx.HTTPError)
    for read in (_read(awaited), asyncio.to_thread(lambda: list(awaited.stream_chat(user(QUESTION))))):
        with pytest.raises(errors) if errors else contextlib.nullcontext():
            await read
    assert awaited.stats().stored == 0
    server.behaviours.clear()
    assert tier((await _read(awaited))[-1]) is None
    assert tier((await _read(awaited))[-1]) == "exact"


# -- many at once ------------------------------------------------------------------------------------------


def test_threads_share_one_call(llm: CachedLLM, server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=0.4)
    together = threading.Barrier(CALLERS)

    def call(_: int) -> Any:
        together.wait()
        return llm.chat(user(QUESTION))

    with ThreadPoolExecutor(CALLERS) as pool:
        answers = list(pool.map(call, range(CALLERS)))
    assert {answer.message.content for answer in answers} == {"answer 1"}
    assert (len(server.requests), llm.stats().in_flight) == (1, CALLERS - 1)
    assert len({id(answer.message) for answer in answers}) == CALLERS


async def test_tasks_share_one_call(awaited: CachedLLM, server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = Behaviour(seconds=0.4)
    answers = await asyncio.gather(*(awaited.acomplete(QUESTION) for _ in range(CALLERS)))
    assert {answer.text for answer in answers} == {"answer 1"}
    assert len(server.requests) == 1


def test_when_the_call_fails_the_others_go_on(llm: CachedLLM, server: OpenAIServer) -> None:
    server.behaviours["gpt-4o-mini"] = lambda number: Behaviour(seconds=0.3, status=500 if number == 1 else 200)
    with ThreadPoolExecutor(5) as pool:
        futures = [pool.submit(llm.chat, user(QUESTION)) for _ in range(5)]
        failed = [future for future in futures if future.exception()]
    assert (len(failed), llm.stats().stored >= 1) == (1, True)
    assert llm.stats().refused == {"failed": 1}


@timed
async def test_who_waits_goes_on_when_the_leader_gives_up_but_lives(awaited: CachedLLM, server: OpenAIServer) -> None:
    """A time limit inside a task leaves the task alive: it will not answer, and nobody may wait for its end."""
    server.behaviours["gpt-4o-mini"] = lambda number: Behaviour(seconds=3 if number == 1 else 0)

    async def leader() -> None:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await awaited.achat(user(QUESTION))
        await asyncio.sleep(10)

    leading = asyncio.create_task(leader())
    await asyncio.sleep(0.1)
    started = time.perf_counter()
    answer = await awaited.achat(user(QUESTION))
    assert (answer.message.content, len(server.requests)) == ("answer 2", 2)
    assert time.perf_counter() - started < 1.5
    leading.cancel()
    await asyncio.wait((leading,))


@timed
async def test_a_hanging_store_does_not_hold_up_the_loop(
    redis_server: RedisServer, server: OpenAIServer, embedder: Words
) -> None:
    with SlowProxy(redis_server) as proxy:
        cache = SemanticCache(RedisStore(proxy.url), embedder=embedder, judge=NEAR).warm()
        llm, ticks = llm_with(cache, server), [time.perf_counter()]
        await llm.achat(user("what came first"))
        proxy.hang()

        async def tick() -> None:
            while True:
                await asyncio.sleep(0.01)
                ticks.append(time.perf_counter())

        ticking = asyncio.create_task(tick())
        await asyncio.gather(*(llm.achat(user(f"which way is {i}")) for i in range(5)))
        ticking.cancel()
        assert max(np.diff(ticks)) < 0.15
        await cache.aclose()
        cache.close()
