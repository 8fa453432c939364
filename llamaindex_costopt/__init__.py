"""costopt for LlamaIndex: `Settings.llm = QuantizedLLM(model="...")`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_costopt.quantized import QuantizedLLM

__all__ = ["QuantizedLLM"]

_HOMES = {"QuantizedLLM": "llamaindex_costopt.quantized"}


def __getattr__(name: str) -> Any:
    # At first use: importing this package must not cost what using it does.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
