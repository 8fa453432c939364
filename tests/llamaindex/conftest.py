"""A server that speaks OpenAI's protocol, and LLMs of LlamaIndex before it that ask a cache first.

What is served is decided by similarity, for what is tested here is not the judge; patient, for it is not speed, either.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from llama_index.llms.openai import OpenAI

from costopt import LocalStore, SemanticCache, SimilarityJudge
from llamaindex_costopt import CachedLLM
from tests.openai_server import OpenAIServer

NEAR = SimilarityJudge(0.9)
MakeLLM = Callable[..., CachedLLM]
MakeCache = Callable[..., SemanticCache]


@pytest.fixture
def make_cache(tmp_path: Path) -> Iterator[MakeCache]:
    """A function that makes caches on one file; options are those of `SemanticCache`."""
    made: list[SemanticCache] = []

    def make(**options: Any) -> SemanticCache:
        given = {"judge": NEAR, "time_budget": 10.0, **options}
        made.append(SemanticCache(LocalStore(tmp_path / "cache.db"), **given).warm())
        return made[-1]

    yield make
    for cache in made:
        cache.close()


@pytest.fixture
def cache(make_cache: MakeCache) -> SemanticCache:
    return make_cache()


@pytest.fixture
def make_llm(server: OpenAIServer, cache: SemanticCache) -> MakeLLM:
    """A function that makes LLMs with one cache; options are those of `OpenAI`."""

    def make(*, asked: SemanticCache | None = cache, **options: Any) -> CachedLLM:
        return CachedLLM(openai(server, **options), cache=asked)

    return make


def openai(server: OpenAIServer, **options: Any) -> OpenAI:
    """LlamaIndex's own LLM, with the real SDK, before the server."""
    given: dict[str, Any] = {"api_base": server.url, "api_key": "sk-none", "max_retries": 0, "model": "gpt-4o-mini"}
    return OpenAI(**given | options)
