"""Caches on one local file."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from costopt import LocalStore, SemanticCache
from tests.faults.words import NEAR, Words


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
