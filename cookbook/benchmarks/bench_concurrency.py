"""Many at once: throughput of 64 lookups, and how many model calls 100 identical questions cost."""

from __future__ import annotations

import asyncio
import itertools
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_redis import RedisSemanticCache

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options, model
from cookbook.benchmarks.peers import OurEmbeddings
from cookbook.benchmarks.stage import Stage, stage
from cookbook.benchmarks.timing import interleave
from costopt import LocalStore, RedisStore, SharedEmbedder
from langchain_costopt import SemanticCache

__all__ = ["CountingChatModel", "run"]

_AT_ONCE, _CALLERS = 64, 100
_THINKING_S = 0.3
_fresh = itertools.count()


def run(options: Options) -> dict[str, Any]:
    """Throughput, then single flight."""
    board = stage(options)
    rows, bars = [], []
    for store in ("redis", "local"):
        for way, measure in (("threads", _threads), ("asyncio", _tasks)):
            alone, together, ratio = measure(board, store)
            rows.append([store, way, f"{_AT_ONCE / alone:,.0f}", f"{_AT_ONCE / together:,.0f}", f"{ratio:.2f}"])
            bars.append(at_least(f"throughput of {_AT_ONCE} lookups at once to one at a time, {store}, {way}", ratio, 3, "×"))
    failures = {kind: dict(board.cache(kind, "one", options.sizes[1]).stats().failures) for kind in ("redis", "local")}
    flights, flight_bars = _single_flight(board.server.url)
    columns = ["store", "callers", "one at a time, lookups/s", f"{_AT_ONCE} at once, lookups/s", "ratio"]
    return {
        "bars": bars + flight_bars,
        "tables": [
            table(f"Lookups of new short texts in {options.sizes[1]:,} entries", columns, rows),
            table(f"{_CALLERS} identical questions at the same moment, nothing cached", ["cache", "callers", "model calls"], flights),
        ],
        "notes": [
            "Throughput: distinct texts that nobody has asked before, each embedded and searched for; 64 threads, or "
            "64 tasks of one event loop, let go together.",
            f"Lookups that ran out of their time budget or failed in this: {failures}.",
            f"Identical questions go through a chat model that takes {_THINKING_S} s to answer.",
        ],
    }


def _texts(count: int) -> list[str]:
    return [f"Where do I find the manual of device {next(_fresh)}?" for _ in range(count)]


def _threads(board: Stage, store: str) -> tuple[float, float, float]:
    cache = board.cache(store, "one", board.options.sizes[1])
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def alone(texts: list[str]) -> None:
            for text in texts:
                cache.core.lookup(board.request(text, None, cache))

        def together(texts: list[str]) -> None:
            gate = threading.Barrier(_AT_ONCE)

            def one(text: str) -> None:
                gate.wait()
                cache.core.lookup(board.request(text, None, cache))

            list(pool.map(one, texts))

        return _measured(board.options, alone, together)


def _tasks(board: Stage, store: str) -> tuple[float, float, float]:
    cache = board.cache(store, "one", board.options.sizes[1])

    async def alone(texts: list[str]) -> None:
        for text in texts:
            await cache.core.alookup(board.request(text, None, cache))

    async def together(texts: list[str]) -> None:
        await asyncio.gather(*(cache.core.alookup(board.request(text, None, cache)) for text in texts))

    with asyncio.Runner() as loop:
        return _measured(board.options, lambda t: loop.run(alone(t)), lambda t: loop.run(together(t)))


def _measured(options: Options, alone: Callable[[Any], None], together: Callable[[Any], None]) -> tuple[float, float, float]:
    """Seconds for 64 lookups one after another, seconds together, and how many times the throughput that is."""
    # Texts are made where they are used: neither side may find what the other has embedded.
    sides = {"alone": lambda _: alone(_texts(_AT_ONCE)), "together": lambda _: together(_texts(_AT_ONCE))}
    timed = interleave(sides, lambda _: range(4), options.rounds)
    return timed.median("alone"), timed.median("together"), timed.ratio("alone", "together")


class CountingChatModel(BaseChatModel):
    """A chat model that takes its time and counts its calls."""

    thinking_s: float = _THINKING_S
    calls: list[float] = []  # noqa: RUF012 - pydantic copies it

    @property
    def _llm_type(self) -> str:
        return "counting"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": "gpt-4o-mini"}

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.calls.append(time.perf_counter())
        time.sleep(self.thinking_s)
        return _result(messages)

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        self.calls.append(time.perf_counter())
        await asyncio.sleep(self.thinking_s)
        return _result(messages)


def _result(messages: list[BaseMessage]) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=AIMessage(f"an answer to: {messages[-1].content}"))])


def _single_flight(url: str) -> tuple[list[list[str]], list[dict[str, Any]]]:
    rows, bars = [], []
    question = "What do a hundred callers ask at once?"
    for way in ("threads", "asyncio"):
        with _caches(url) as caches:
            for name, cache in caches.items():
                chat = CountingChatModel(cache=cache)
                if way == "threads":
                    with ThreadPoolExecutor(_CALLERS) as pool:
                        list(pool.map(chat.invoke, [question] * _CALLERS))
                else:
                    asyncio.run(_ask_together(chat, question))
                rows.append([name, way, str(len(chat.calls))])
                if name.startswith("costopt"):
                    bars.append(at_most(f"model calls for {_CALLERS} identical cold questions, {name}, {way}", len(chat.calls), 1))
    return rows, bars


async def _ask_together(chat: BaseChatModel, question: str) -> None:
    await asyncio.gather(*(chat.ainvoke(question) for _ in range(_CALLERS)))


@contextmanager
def _caches(url: str) -> Iterator[dict[str, BaseCache | bool]]:
    with tempfile.TemporaryDirectory() as folder:
        ours = {
            "costopt, Redis": RedisStore(url, namespace="flights"),
            "costopt, local": LocalStore(Path(folder) / "cache.db"),
        }
        caches = {name: SemanticCache(store, embedder=SharedEmbedder(model())).warm() for name, store in ours.items()}
        peer = RedisSemanticCache(OurEmbeddings(), redis_url=url, name="flightpeer")
        try:
            yield {"no cache": False, "langchain-redis": peer, **caches}
        finally:
            peer.clear()
            for cache in caches.values():
                cache.clear()
                cache.close()
