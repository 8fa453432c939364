"""costopt for LangChain: `set_llm_cache(SemanticCache())`."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from langchain_costopt.cache import SemanticCache

__all__ = ["SemanticCache"]


def __getattr__(name: str) -> Any:
    # At first use: importing this package must not cost what using it does.
    if name == "SemanticCache":
        from langchain_costopt.cache import SemanticCache

        return SemanticCache
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
