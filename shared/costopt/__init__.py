"""Cut what an application pays for model calls, and prove that the answers stayed as good.

For LangChain import `langchain_costopt`, for LlamaIndex `llamaindex_costopt`; this is the core they share.
"""

from typing import TYPE_CHECKING

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
from costopt.lazy import lazy

if TYPE_CHECKING:
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
    from costopt.local import (
        GenerationRequest,
        LocalBatchRunner,
        MemoryPlan,
        OpenAICompatibleEngine,
        TransformersEngine,
    )
    from costopt.optimizer import Optimizer
    from costopt.pricing import Price, Usage
    from costopt.routing import Budget, Cascade, RouteDecision, Router, RouteRequest, Tier
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "costopt.audit": "Ledger SpendingLimit",
            "costopt.caching": "Answer CacheHit CacheRequest CacheStats CrossEncoderJudge LocalStore Policy RedisStore "
            "SemanticCache SimilarityJudge",
            "costopt.compression": "CompressionResult Compressor",
            "costopt.embedding": "Embedder MiniLMEmbedder SharedEmbedder default_embedder",
            "costopt.local": "GenerationRequest LocalBatchRunner MemoryPlan OpenAICompatibleEngine TransformersEngine",
            "costopt.optimizer": "Optimizer",
            "costopt.pricing": "Price Usage",
            "costopt.routing": "Budget Cascade RouteDecision Router RouteRequest Tier",
        },
        modules="audit batch caching compression embedding local optimizer pricing routing tokens usage",
    )

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
    "Optimizer",
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
