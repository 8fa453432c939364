"""What a call pays when Redis hangs or dies."""

from __future__ import annotations

import itertools
import statistics
import time
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel

from cookbook.benchmarks.bench_concurrency import CountingChatModel
from cookbook.benchmarks.findings import table
from cookbook.benchmarks.material import Options, model
from costopt import RedisStore, SharedEmbedder
from langchain_costopt import SemanticCache
from tests.servers import RedisServer

__all__ = ["run"]

_CALLS = 20
_ROUNDS = 5
_fresh = itertools.count()


def run(options: Options) -> dict[str, Any]:
    """Both faults, on a server of their own."""
    rows = []
    with RedisServer() as server:
        plain = CountingChatModel(thinking_s=0, cache=False)
        bare = statistics.median(_ask(plain) for _ in range(50))
        for fault, strike, mend in (
            ("SIGSTOP", server.stop, server.resume),
            ("SIGKILL", server.kill, server.start),
        ):
            rounds = [_round(server.url, strike, mend) for _ in range(2 if options.quick else _ROUNDS)]
            healthy, first, later, worst = (
                [(seconds - bare) * 1000 for seconds in column] for column in zip(*rounds, strict=True)
            )
            rows.append(
                [
                    fault,
                    f"{statistics.median(healthy):.1f}",
                    f"{statistics.median(first):.1f} (worst {max(first):.1f})",
                    f"{statistics.median(later):.2f} (worst {max(worst):.1f})",
                ]
            )
    columns = ["fault", "healthy, ms", "first call, ms", "with the breaker open, ms"]
    return {
        "bars": [],
        "tables": [table("Time added to a call by the cache when Redis is frozen or killed", columns, rows)],
        "notes": [
            (
                f"`.invoke` of a chat model that answers at once, every question new, less the {bare * 1000:.2f} ms it "
                f"takes without a cache; lookup and update together. {len(rounds)} rounds, a new cache object each. "
                f"With the breaker open: {_CALLS} calls in a row. No call failed."
            )
        ],
    }


def _round(url: str, strike: Callable[[], None], mend: Callable[[], None]) -> tuple[float, float, float, float]:
    """Seconds of a call before the fault (median), of the first after it, of those after that (median, worst)."""
    cache = SemanticCache(RedisStore(url, namespace="faults"), embedder=SharedEmbedder(model())).warm()
    chat = CountingChatModel(thinking_s=0, cache=cache)
    healthy = statistics.median(_ask(chat) for _ in range(_CALLS))
    strike()
    try:
        first = _ask(chat)
        later = [_ask(chat) for _ in range(_CALLS)]
    finally:
        mend()
    return healthy, first, statistics.median(later), max(later)


def _ask(chat: BaseChatModel) -> float:
    question = f"Which shelf holds part {next(_fresh)}?"
    started = time.perf_counter()
    chat.invoke(question)
    return time.perf_counter() - started
