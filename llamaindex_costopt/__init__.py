"""costopt for LlamaIndex: `CompressorPostprocessor(target_ratio=0.3)`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_costopt.compressor_postprocessor import CompressorPostprocessor
    from llamaindex_costopt.quantized import QuantizedLLM

__all__ = ["CompressorPostprocessor", "QuantizedLLM"]

_HOMES = {
    "QuantizedLLM": "llamaindex_costopt.quantized",
    "CompressorPostprocessor": "llamaindex_costopt.compressor_postprocessor",
}


def __getattr__(name: str) -> Any:
    # At first use: importing this package must not import LlamaIndex.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
