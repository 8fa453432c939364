"""Semantic caching: never pay twice for one question. See `SemanticCache`."""

from costopt.caching.answer import Answer
from costopt.caching.judge import CrossEncoderJudge, Judge, PairModel, SimilarityJudge, Verdict
from costopt.caching.local_store import LocalStore
from costopt.caching.policy import Policy
from costopt.caching.redis_store import RedisStore
from costopt.caching.request import CacheRequest, build_request
from costopt.caching.results import CacheHit, CacheStats
from costopt.caching.semantic import SemanticCache
from costopt.caching.store import Store, StoreSize

__all__ = [
    "Answer",
    "CacheHit",
    "CacheRequest",
    "CacheStats",
    "CrossEncoderJudge",
    "Judge",
    "LocalStore",
    "PairModel",
    "Policy",
    "RedisStore",
    "SemanticCache",
    "SimilarityJudge",
    "Store",
    "StoreSize",
    "Verdict",
    "build_request",
]
