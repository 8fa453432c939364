"""Caches: LangChain's over either store, and the core's on one local file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import langchain_costopt
from costopt import LocalStore, RedisStore, SemanticCache
from tests.faults.words import NEAR, Words


@pytest.fixture(params=["local", "redis"])
def cache(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[langchain_costopt.SemanticCache]:
    """LangChain's."""
    if request.param == "redis":
        request.getfixturevalue("redis_client")
        cache = langchain_costopt.SemanticCache(
            RedisStore(request.getfixturevalue("redis_url"), timeout=2.0), time_budget=10.0
        )
    else:
        cache = langchain_costopt.SemanticCache(LocalStore(tmp_path / "cache.db"), time_budget=10.0)
    yield cache.warm()
    cache.close()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def open_cache(path: Path) -> Iterator[Callable[..., SemanticCache]]:
    """A function that makes caches on one file, each with a connection of its own."""
    with contextlib.ExitStack() as stack:

        def make(**store: Any) -> SemanticCache:
            cache = SemanticCache(LocalStore(path, **store), embedder=Words(), judge=NEAR)
            stack.callback(cache.close)
            return cache

        yield make
