"""LangChain's own suites for caches, on both stores."""

from __future__ import annotations

import pytest
from langchain_tests.integration_tests import AsyncCacheTestSuite, SyncCacheTestSuite

from langchain_costopt import SemanticCache
from tests.langchain.conftest import MakeCache


class TestSync(SyncCacheTestSuite):
    @pytest.fixture
    def cache(self, make_cache: MakeCache) -> SemanticCache:
        return make_cache()


class TestAsync(AsyncCacheTestSuite):
    @pytest.fixture
    async def cache(self, make_async_cache: MakeCache) -> SemanticCache:
        return make_async_cache()
