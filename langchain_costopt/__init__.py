"""costopt for LangChain.

`set_llm_cache(SemanticCache())`, `RouterRunnable(tiers=[cheap, strong])`, `DocumentCompressor(target_ratio=0.3)`.
"""

from typing import TYPE_CHECKING

from costopt.lazy import lazy

if TYPE_CHECKING:
    from langchain_costopt.app import LangChainApp
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
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "langchain_costopt.app": "LangChainApp",
            "langchain_costopt.batch_runner": "BatchRunner",
            "langchain_costopt.quantized": "ChatQuantized",
            "langchain_costopt.compression_middleware": "CompressionMiddleware",
            "langchain_costopt.cost_tracker": "CostTracker",
            "langchain_costopt.document_compressor": "DocumentCompressor",
            "langchain_costopt.history_compressor": "HistoryCompressor",
            "langchain_costopt.router_middleware": "RouterMiddleware",
            "langchain_costopt.router": "RouterRunnable",
            "langchain_costopt.cache": "SemanticCache",
            "langchain_costopt.streaming": "StreamCache",
        },
        needs=("langchain_core", "langchain"),
    )

__all__ = [
    "BatchRunner",
    "ChatQuantized",
    "CompressionMiddleware",
    "CostTracker",
    "DocumentCompressor",
    "HistoryCompressor",
    "LangChainApp",
    "RouterMiddleware",
    "RouterRunnable",
    "SemanticCache",
    "StreamCache",
]
