"""Cut what an application pays for model calls, and prove that the answers stayed as good.

For LangChain import `langchain_costopt`, for LlamaIndex `llamaindex_costopt`; this is the core they share.
"""

from costopt.audit import Ledger, SpendingLimit
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
from costopt.compression import CompressionResult, Compressor
from costopt.embedding import Embedder, MiniLMEmbedder, SharedEmbedder, default_embedder
from costopt.errors import (
    BatchError,
    BudgetExceededError,
    ConfigError,
    ContextLengthError,
    CostOptError,
    EmbeddingError,
    EngineClosedError,
    EngineError,
    EntryError,
    GenerationCancelledError,
    MissingExtraError,
    OutOfMemoryError,
    StoreError,
    TruncatedOutputError,
)
from costopt.local import (
    GenerationRequest,
    LocalBatchRunner,
    MemoryPlan,
    OpenAICompatibleEngine,
    TransformersEngine,
)
from costopt.pricing import Price, Usage
from costopt.routing import Budget, Cascade, RouteDecision, Router, RouteRequest, Tier

__all__ = [
    "Answer",
    "BatchError",
    "Budget",
    "BudgetExceededError",
    "CacheHit",
    "CacheRequest",
    "CacheStats",
    "Cascade",
    "CompressionResult",
    "Compressor",
    "ConfigError",
    "ContextLengthError",
    "CostOptError",
    "CrossEncoderJudge",
    "Embedder",
    "EmbeddingError",
    "EngineClosedError",
    "EngineError",
    "EntryError",
    "GenerationCancelledError",
    "GenerationRequest",
    "Ledger",
    "LocalBatchRunner",
    "LocalStore",
    "MemoryPlan",
    "MiniLMEmbedder",
    "MissingExtraError",
    "OpenAICompatibleEngine",
    "OutOfMemoryError",
    "Policy",
    "Price",
    "RedisStore",
    "RouteDecision",
    "RouteRequest",
    "Router",
    "SemanticCache",
    "SharedEmbedder",
    "SimilarityJudge",
    "SpendingLimit",
    "StoreError",
    "Tier",
    "TransformersEngine",
    "TruncatedOutputError",
    "Usage",
    "default_embedder",
]

__version__ = "0.1.0"
