"""Caches over each store, asked in each of the two ways; patient, because what is tested here is not speed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from costopt import Answer, CacheHit, CacheRequest, LocalStore, RedisStore, SemanticCache
from costopt.caching import Store
from tests.faults.words import Words, said


class Asker:
    """A cache, and which way it is asked: blocking, or awaited in an event loop of its own.

    Args:
        cache: The cache.
        runner: The event loop; None to block.
    """

    def __init__(self, cache: SemanticCache, runner: asyncio.Runner | None) -> None:
        self.cache = cache
        self.runner = runner

    def request(self, text: str, system: str = "") -> CacheRequest:
        """The request for a question; of another system prompt, in another scope."""
        turns = [{"role": "system", "content": system}, {"role": "user", "content": text}]
        return self.cache.request(turns, model="m")

    def ask(self, text: str, system: str = "") -> CacheHit | None:
        request = self.request(text, system)
        return self.cache.lookup(request) if self.runner is None else self.runner.run(self.cache.alookup(request))

    def tell(self, text: str, answer: str | Answer = "", system: str = "") -> None:
        """Store an answer, which names its question if it is not given."""
        made = answer if isinstance(answer, Answer) else said(answer or f"answer to {text}")
        request = self.request(text, system)
        if self.runner is None:
            self.cache.update(request, made)
        else:
            self.runner.run(self.cache.aupdate(request, made))

    def answered(self, text: str, system: str = "") -> str | None:
        """The question whose answer is served in the semantic tier."""
        hit = self.ask(text, system)
        assert hit is None or hit.tier == "semantic"
        return None if hit is None else hit.cached

    def failures(self) -> dict[str, int]:
        return dict(self.cache.stats().failures)

    def close(self) -> None:
        if self.runner is not None:
            self.runner.run(self.cache.aclose())
            self.runner.close()
        self.cache.close()


OpenCache = Callable[..., Asker]


@pytest.fixture(params=["local", "redis"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store: a path, or the URL of a real Redis."""
    if request.param == "local":
        return str(tmp_path / "cache.db")
    request.getfixturevalue("redis_client")
    return str(request.getfixturevalue("redis_url"))


def store_at(place: str) -> Store:
    """A store at this address."""
    return RedisStore(place, timeout=5.0) if "://" in place else LocalStore(place)


@pytest.fixture(params=["blocking", "awaiting"])
def open_cache(request: pytest.FixtureRequest, place: str) -> Iterator[OpenCache]:
    """A function that makes caches over one store; options are those of `SemanticCache`."""
    made: list[Asker] = []

    def make(**options: Any) -> Asker:
        whole = hasattr(options.get("judge"), "judge")
        plain = {} if whole else {"guards": False}
        cache = SemanticCache(store_at(place), **{"embedder": Words(), "time_budget": 10.0, **plain, **options})
        cache.store.open()  # and not `warm`, which reads models
        made.append(Asker(cache, asyncio.Runner() if request.param == "awaiting" else None))
        return made[-1]

    yield make
    for asker in made:
        asker.close()
