"""Cut what an application pays for model calls, and prove that the answers stayed as good.

For LangChain import `langchain_costopt`, for LlamaIndex `llamaindex_costopt`; this is the core they share.
"""

from costopt.caching import (
    Answer,
    CacheHit,
    CacheRequest,
    CacheStats,
    CrossEncoderJudge,
    LocalStore,
    Policy,
    RedisStore,
    SemanticCache,
    SimilarityJudge,
)
from costopt.embedding import Embedder, MiniLMEmbedder, SharedEmbedder, default_embedder
from costopt.errors import (
    ConfigError,
    CostOptError,
    EmbeddingError,
    EntryError,
    MissingExtraError,
    StoreError,
)
from costopt.pricing import Usage

__all__ = [
    "Answer",
    "CacheHit",
    "CacheRequest",
    "CacheStats",
    "ConfigError",
    "CostOptError",
    "CrossEncoderJudge",
    "Embedder",
    "EmbeddingError",
    "EntryError",
    "LocalStore",
    "MiniLMEmbedder",
    "MissingExtraError",
    "Policy",
    "RedisStore",
    "SemanticCache",
    "SharedEmbedder",
    "SimilarityJudge",
    "StoreError",
    "Usage",
    "default_embedder",
]

__version__ = "0.1.0"
