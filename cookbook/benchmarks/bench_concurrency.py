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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_redis import RedisSemanticCache

import costopt
from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options, model
from cookbook.benchmarks.peers import OurEmbeddings
from cookbook.benchmarks.stage import COSINE, KINDS, Stage, stage
from cookbook.benchmarks.timing import interleave
from costopt import LocalStore, RedisStore, SharedEmbedder
from costopt.caching import Store
from costopt.caching.request import CacheRequest
from langchain_costopt import SemanticCache

__all__ = ["CountingChatModel", "run"]

_AT_ONCE, _CALLERS = 64, 100
_THINKING_S = 0.3
_SHORT = 80  # characters
_JUDGED_BURSTS = 3
_SETTLE_S = 1.1  # a breaker that one burst opened must not spoil the next

Ask = Callable[[costopt.SemanticCache, list[CacheRequest]], int]


_COLUMNS = [
    "store",
    "callers",
    "one at a time, lookups/s",
    f"{_AT_ONCE} at once, lookups/s",
    "ratio",
    "answered in 250 ms",
    "the same, default judge",
]
_NOTES = [
    (
        "Throughput: other wordings of stored questions, none asked before, each embedded and searched for; 64 "
        "threads, or 64 tasks of one event loop, let go together. A lookup's budget is raised to 10 s, so that "
        "all may be answered, and only those that were are counted; "
        "the last columns are the share of a burst that is answered in the usual 250 ms. "
        "`SimilarityJudge(0.9)` decides, but in the last column, whose wordings both judges accept."
    ),
    f"Identical questions go through a chat model that takes {_THINKING_S} s to answer.",
]


def run(options: Options) -> dict[str, Any]:
    """Throughput, then single flight."""
    board = stage(options)
    rows, bars = [], []
    needed = options.rounds * (2 * _repeats(board) + 1) * _AT_ONCE
    requests = [probe.request for probe in board.probes("one", options.sizes[1], KINDS[0], needed, _SHORT)]
    # Four sides, each with bursts of its own.
    fresh = board.probes("one", options.sizes[1], KINDS[0], 4 * _JUDGED_BURSTS * _AT_ONCE, _SHORT, judged=True)
    judged = iter([probe.request for probe in fresh])
    for store in ("redis", "local"):
        for way, measure in (("threads", _threads), ("asyncio", _tasks)):
            found = measure(board, board.cache(store, "one", options.sizes[1]).core.store, requests, judged)
            rows.append(
                [
                    store,
                    way,
                    f"{found.alone:,.0f}",
                    f"{found.together:,.0f}",
                    f"{found.ratio:.2f}",
                    f"{found.in_time:.1%}",
                    f"{found.in_time_judged:.1%}",
                ]
            )
            demand = f"throughput of {_AT_ONCE} lookups at once to one at a time, {store}, {way}"
            bars.append(at_least(demand, found.ratio, 3, "×"))
    flights, flight_bars = _single_flight(board.server.url)
    return {
        "bars": bars + flight_bars,
        "tables": [
            table(f"Lookups of new short texts in {options.sizes[1]:,} entries", _COLUMNS, rows),
            table(
                f"{_CALLERS} identical questions at the same moment, nothing cached",
                ["cache", "callers", "model calls"],
                flights,
            ),
        ],
        "notes": _NOTES,
    }


def _repeats(board: Stage) -> int:
    """Bursts a round, the first of them to warm up."""
    return 2 if board.options.quick else 3


def _threads(board: Stage, store: Store, requests: list[CacheRequest], judged: Iterator[CacheRequest]) -> Throughput:
    with ThreadPoolExecutor(_AT_ONCE) as pool:

        def alone(cache: costopt.SemanticCache, requests: list[CacheRequest]) -> int:
            return sum(cache.lookup(request) is not None for request in requests)

        def together(cache: costopt.SemanticCache, requests: list[CacheRequest]) -> int:
            gate = threading.Barrier(_AT_ONCE)

            def one(request: CacheRequest) -> bool:
                gate.wait()
                return cache.lookup(request) is not None

            return sum(pool.map(one, requests))

        return _measured(board, store, (requests, judged), alone, together)


def _tasks(board: Stage, store: Store, requests: list[CacheRequest], judged: Iterator[CacheRequest]) -> Throughput:
    async def alone(cache: costopt.SemanticCache, requests: list[CacheRequest]) -> int:
        return sum([await cache.alookup(request) is not None for request in requests])

    async def together(cache: costopt.SemanticCache, requests: list[CacheRequest]) -> int:
        return sum(hit is not None for hit in await asyncio.gather(*map(cache.alookup, requests)))

    with asyncio.Runner() as loop:
        return _measured(
            board, store, (requests, judged), lambda c, r: loop.run(alone(c, r)), lambda c, r: loop.run(together(c, r))
        )


def _measured(
    board: Stage,
    store: Store,
    requests: tuple[list[CacheRequest], Iterator[CacheRequest]],
    alone: Ask,
    together: Ask,
) -> Throughput:
    rounds, repeats = board.options.rounds, _repeats(board)
    # Never the same question again: what one side has embedded, the other must not find.
    unasked, judged = iter(requests[0]), requests[1]
    patient, usual = (
        costopt.SemanticCache(store, embedder=SharedEmbedder(model()), judge=COSINE, time_budget=budget)
        for budget in (10.0, 0.25)
    )
    served = {"alone": 0, "together": 0}

    def side(name: str, ask: Ask) -> Callable[[int], None]:
        def lookup(_: int) -> None:
            served[name] += ask(patient, list(itertools.islice(unasked, _AT_ONCE)))

        return lookup

    sides = {"alone": side("alone", alone), "together": side("together", together)}
    timed = interleave(sides, lambda _: range(repeats), rounds)
    answered = {name: count / (rounds * repeats * _AT_ONCE) for name, count in served.items()}
    in_time = _in_time(usual, unasked, rounds, together)
    default = costopt.SemanticCache(store, embedder=SharedEmbedder(model())).warm()
    in_time_judged = _in_time(default, judged, _JUDGED_BURSTS, together)
    return Throughput(
        _AT_ONCE / timed.median("alone") * answered["alone"],
        _AT_ONCE / timed.median("together") * answered["together"],
        timed.ratio("alone", "together") * answered["together"] / max(answered["alone"], 0.01),
        in_time,
        in_time_judged,
    )


def _in_time(cache: costopt.SemanticCache, unasked: Iterator[CacheRequest], bursts: int, together: Ask) -> float:
    """Share of what is asked in bursts that is answered within the usual budget."""
    served = 0
    for _ in range(bursts):
        time.sleep(_SETTLE_S)
        served += together(cache, list(itertools.islice(unasked, _AT_ONCE)))
    return served / (bursts * _AT_ONCE)


@dataclass(frozen=True, slots=True)
class Throughput:
    """Answered lookups a second, one at a time and together, their ratio, and the shares of a burst done in 250 ms."""

    alone: float
    together: float
    ratio: float
    in_time: float
    in_time_judged: float


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
                    bars.append(
                        at_most(
                            f"model calls for {_CALLERS} identical cold questions, {name}, {way}", len(chat.calls), 1
                        )
                    )
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
