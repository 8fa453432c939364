"""costopt for LlamaIndex: `Settings.llm = CachedLLM(RouterLLM([...]))`, `CompressorPostprocessor(target_ratio=0.3)`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_costopt.batch_runner import BatchRunner
    from llamaindex_costopt.cached import CachedLLM
    from llamaindex_costopt.compressor_postprocessor import CompressorPostprocessor
    from llamaindex_costopt.cost_tracker import CostTracker
    from llamaindex_costopt.quantized import QuantizedLLM
    from llamaindex_costopt.router import RouterLLM
    from llamaindex_costopt.spending_gate import SpendingGate
    from llamaindex_costopt.wrapper import WrapperLLM

__all__ = [
    "BatchRunner",
    "CachedLLM",
    "CompressorPostprocessor",
    "CostTracker",
    "QuantizedLLM",
    "RouterLLM",
    "SpendingGate",
    "WrapperLLM",
]

_HOMES = {
    "BatchRunner": "llamaindex_costopt.batch_runner",
    "CachedLLM": "llamaindex_costopt.cached",
    "CompressorPostprocessor": "llamaindex_costopt.compressor_postprocessor",
    "CostTracker": "llamaindex_costopt.cost_tracker",
    "QuantizedLLM": "llamaindex_costopt.quantized",
    "RouterLLM": "llamaindex_costopt.router",
    "SpendingGate": "llamaindex_costopt.spending_gate",
    "WrapperLLM": "llamaindex_costopt.wrapper",
}


def __getattr__(name: str) -> Any:
    # At first use: importing this package must not import LlamaIndex.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
