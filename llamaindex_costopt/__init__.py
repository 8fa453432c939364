"""costopt for LlamaIndex: `BatchRunner(llm).batch(prompts)`."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from llamaindex_costopt.batch_runner import BatchRunner
    from llamaindex_costopt.cost_tracker import CostTracker
    from llamaindex_costopt.spending_gate import SpendingGate

__all__ = ["BatchRunner", "CostTracker", "SpendingGate"]

_HOMES = {
    "BatchRunner": "llamaindex_costopt.batch_runner",
    "CostTracker": "llamaindex_costopt.cost_tracker",
    "SpendingGate": "llamaindex_costopt.spending_gate",
}


def __getattr__(name: str) -> Any:
    # At first use: importing this package must not cost what using it does.
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
