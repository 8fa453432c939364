"""costopt for LlamaIndex: `Settings.llm = CachedLLM(RouterLLM([...]))`, `CompressorPostprocessor(target_ratio=0.3)`."""

from typing import TYPE_CHECKING

from costopt.lazy import lazy

if TYPE_CHECKING:
    from llamaindex_costopt.app import LlamaIndexApp
    from llamaindex_costopt.batch_runner import BatchRunner
    from llamaindex_costopt.cached import CachedLLM
    from llamaindex_costopt.compressor_postprocessor import CompressorPostprocessor
    from llamaindex_costopt.cost_tracker import CostTracker
    from llamaindex_costopt.quantized import QuantizedLLM
    from llamaindex_costopt.router import RouterLLM
    from llamaindex_costopt.spending_gate import SpendingGate
    from llamaindex_costopt.wrapper import WrapperLLM
else:
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "llamaindex_costopt.app": "LlamaIndexApp",
            "llamaindex_costopt.batch_runner": "BatchRunner",
            "llamaindex_costopt.cached": "CachedLLM",
            "llamaindex_costopt.compressor_postprocessor": "CompressorPostprocessor",
            "llamaindex_costopt.cost_tracker": "CostTracker",
            "llamaindex_costopt.quantized": "QuantizedLLM",
            "llamaindex_costopt.router": "RouterLLM",
            "llamaindex_costopt.spending_gate": "SpendingGate",
            "llamaindex_costopt.wrapper": "WrapperLLM",
        },
        needs=("llama_index.core", "llamaindex"),
    )

__all__ = [
    "BatchRunner",
    "CachedLLM",
    "CompressorPostprocessor",
    "CostTracker",
    "LlamaIndexApp",
    "QuantizedLLM",
    "RouterLLM",
    "SpendingGate",
    "WrapperLLM",
]
