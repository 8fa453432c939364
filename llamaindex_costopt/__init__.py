"""costopt for LlamaIndex: `CompressorPostprocessor(target_ratio=0.3)`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_costopt.batch_runner import BatchRunner
    from llamaindex_costopt.compressor_postprocessor import CompressorPostprocessor
    from llamaindex_costopt.cost_tracker import CostTracker
    from llamaindex_costopt.quantized import QuantizedLLM
    from llamaindex_costopt.spending_gate import SpendingGate

__all__ = ["BatchRunner", "CompressorPostprocessor", "CostTracker", "QuantizedLLM", "SpendingGate"]

_HOMES = {
    "BatchRunner": "llamaindex_costopt.batch_runner",
    "CompressorPostprocessor": "llamaindex_costopt.compressor_postprocessor",
    "CostTracker": "llamaindex_costopt.cost_tracker",
    "QuantizedLLM": "llamaindex_costopt.quantized",
    "SpendingGate": "llamaindex_costopt.spending_gate",
}


def __getattr__(name: str) -> Any:
    # At first use: importing this package must not import LlamaIndex.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
