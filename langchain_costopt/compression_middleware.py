"""Compression of the chat's history as a middleware of LangChain's agents."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Unpack

from costopt.compression.books import Books, CompressionStats
from costopt.compression.history import HistoryCompressor as Core
from costopt.errors import MissingExtraError
from costopt.routing.tier import Tier
from langchain_costopt.history_compressor import HistoryOptions, ashortened, core_of, shortened

try:
    from langchain.agents.middleware import AgentMiddleware, ModelRequest, ModelResponse
except ImportError as error:
    raise MissingExtraError("langchain.agents", "langchain", "pip install langchain, where its agents are") from error

__all__ = ["CompressionMiddleware"]

_DEFAULT_MODEL = "gpt-4o"


class CompressionMiddleware(AgentMiddleware[Any, Any, Any]):
    """Sends the model of an agent its history with old tool results and long turns shortened.

    The agent's state is left as it is: there everything is in full, for users, tools and checkpoints. What was
    shortened once stays so in all later calls, and messages wait where the provider's prompt cache would make it
    dearer: see `costopt.compression.HistoryCompressor`. If anything fails, the chat is sent as it is.

    Args:
        core: A `costopt.compression.HistoryCompressor` to use instead of making one, e.g. to share it.
        options: Those of `costopt.compression.HistoryCompressor`. Without `model` (or `compressor`) tokens and prices
            are those of the model that is called.

    Raises:
        ConfigError: If an option is out of range.
        MissingExtraError: If the embedder's extra is not installed.

    Example:
        >>> from langchain.agents import create_agent
        >>> llm = SimulatedChatModel(model_name="gpt-4o-mini")
        >>> agent = create_agent(model=llm, tools=[], middleware=[CompressionMiddleware(max_tool_tokens=200)])
        >>> agent.invoke({"messages": [("user", "What is the capital of France?")]})["messages"][-1].type
        'ai'
    """

    def __init__(self, *, core: Core | None = None, **options: Unpack[HistoryOptions]) -> None:
        super().__init__()
        self._options: dict[str, Any] = dict(options)
        self._core = core_of("CompressionMiddleware", core, options)
        self._by_model = core is None and not {"model", "compressor"} & options.keys()
        self._cores = {_DEFAULT_MODEL: self._core}
        self._books = Books("CompressionMiddleware")

    def wrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], ModelResponse[Any]]
    ) -> ModelResponse[Any]:
        """Called by the agent: make the call, with a shorter history."""
        shorter: list[Any] = shortened(self._books, list(request.messages), lambda: self._core_for(request))
        return handler(request.override(messages=shorter))

    async def awrap_model_call(
        self, request: ModelRequest[Any], handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]]
    ) -> ModelResponse[Any]:
        """`wrap_model_call`, without blocking the event loop."""
        shorter: list[Any] = await ashortened(self._books, list(request.messages), lambda: self._core_for(request))
        return await handler(request.override(messages=shorter))

    def stats(self) -> CompressionStats:
        """What this object has done so far; `print(middleware.stats())` says it in a line."""
        return self._books.stats()

    def _core_for(self, request: ModelRequest[Any]) -> Core:
        """The core that counts as the model does that is called."""
        if not self._by_model:
            return self._core
        name = Tier(request.model, name="agent").model_name or _DEFAULT_MODEL
        if name not in self._cores:
            self._cores[name] = Core(**{**self._options, "model": name})
        return self._cores[name]
