"""costopt for LangChain.

`set_llm_cache(SemanticCache())`, `RouterRunnable(tiers=[cheap, strong])`, `DocumentCompressor(target_ratio=0.3)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_costopt.batch_runner import BatchRunner
    from langchain_costopt.cache import SemanticCache
    from langchain_costopt.compression_middleware import CompressionMiddleware
    from langchain_costopt.cost_tracker import CostTracker
    from langchain_costopt.document_compressor import DocumentCompressor
    from langchain_costopt.history_compressor import HistoryCompressor
    from langchain_costopt.quantized import ChatQuantized
    from langchain_costopt.router import RouterRunnable
    from langchain_costopt.router_middleware import RouterMiddleware
    from langchain_costopt.streaming import StreamCache

__all__ = [
    "BatchRunner",
    "ChatQuantized",
    "CompressionMiddleware",
    "CostTracker",
    "DocumentCompressor",
    "HistoryCompressor",
    "RouterMiddleware",
    "RouterRunnable",
    "SemanticCache",
    "StreamCache",
]

_HOMES = {
    "BatchRunner": "langchain_costopt.batch_runner",
    "ChatQuantized": "langchain_costopt.quantized",
    "CompressionMiddleware": "langchain_costopt.compression_middleware",
    "CostTracker": "langchain_costopt.cost_tracker",
    "DocumentCompressor": "langchain_costopt.document_compressor",
    "HistoryCompressor": "langchain_costopt.history_compressor",
    "RouterMiddleware": "langchain_costopt.router_middleware",
    "RouterRunnable": "langchain_costopt.router",
    "SemanticCache": "langchain_costopt.cache",
    "StreamCache": "langchain_costopt.streaming",
}


def __getattr__(name: str) -> Any:
    # At first use: importing this package must not cost what using it does.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
