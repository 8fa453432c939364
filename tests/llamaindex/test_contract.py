"""Every LLM of `llamaindex_costopt` goes through the suite; the real SDK first, so that the suite is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import LLM

from costopt import LocalStore, SemanticCache
from llamaindex_costopt import CachedLLM, QuantizedLLM, RouterLLM, WrapperLLM
from tests.llamaindex.contract import KEY, MODELS, LLMContract, openai_like

# Of LlamaIndex itself: some of its modules use what pydantic or Python have since deprecated.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20")


def routed(url: str) -> RouterLLM:
    return RouterLLM(tiers=[openai_like(url, model) for model in MODELS])


class TestOpenAILike(LLMContract):
    keeps_no_secrets = False
    closes_at_once = False

    def make(self, url: str, folder: Path) -> LLM:
        return openai_like(url)


class TestWrapperLLM(LLMContract):
    closes_at_once = False

    def make(self, url: str, folder: Path) -> LLM:
        return WrapperLLM(openai_like(url))


class TestQuantizedLLM(LLMContract):
    wraps = False

    def make(self, url: str, folder: Path) -> LLM:
        return QuantizedLLM(model=MODELS[0], base_url=url, api_key=KEY, max_retries=0)


class TestRouterLLM(LLMContract):
    def make(self, url: str, folder: Path) -> LLM:
        return routed(url)


class Caching(LLMContract):
    def cached(self, llm: LLM, folder: Path) -> LLM:
        return CachedLLM(llm, cache=SemanticCache(LocalStore(folder / "cache.db")))

    def close(self, llm: Any) -> None:
        llm.cache.close()


class TestCachedLLM(Caching):
    def make(self, url: str, folder: Path) -> LLM:
        return self.cached(openai_like(url), folder)


class TestCachedRouterLLM(Caching):
    def make(self, url: str, folder: Path) -> LLM:
        return self.cached(routed(url), folder)
