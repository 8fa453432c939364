"""What a router asks of the model that it chose: a chat, a completion, or an object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM
from llama_index.core.tools import BaseTool
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags

from costopt.routing.decision import RouteDecision
from costopt.routing.router import Router
from costopt.routing.serving import Ask

__all__ = ["Asked", "Chat", "Completion", "OfferedTools", "tagged"]

# Of `chat_with_tools`; to a model that cannot call tools they are nothing.
_OF_TOOLS = frozenset(("tools", "tool_choice", "tool_required", "allow_parallel_tool_calls", "verbose"))


class Asked(Protocol):
    """Something that can be asked of any LLM, in four ways."""

    def begin(self, model: LLM, way: str) -> Any:
        """What the model's own method gives back.

        Args:
            model: Whom to ask.
            way: "", "a", "stream_" or "astream_", as LlamaIndex's methods begin.
        """


class OfferedTools(list[Any]):
    """Tools as a list of dicts, for whoever looks on; and as they were given, for the model that writes them down."""

    def __init__(self, tools: Sequence[BaseTool]) -> None:
        super().__init__(tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools)
        self.given = list(tools)


@dataclass(frozen=True, slots=True)
class Chat:
    """A chat; tools that were offered are written down by the model that is asked, in its own way."""

    messages: Sequence[ChatMessage]
    given: Mapping[str, Any]

    def begin(self, model: LLM, way: str) -> Any:
        """See `Asked`."""
        tools = self.given.get("tools")
        if not isinstance(tools, OfferedTools):
            return getattr(model, f"{way}chat")(self.messages, **self.given)
        if not isinstance(model, FunctionCallingLLM):
            plain = {name: value for name, value in self.given.items() if name not in _OF_TOOLS}
            return getattr(model, f"{way}chat")(self.messages, **plain)
        own = {name: value for name, value in self.given.items() if name != "tools"}
        return getattr(model, f"{way}chat_with_tools")(tools.given, chat_history=list(self.messages), **own)


@dataclass(frozen=True, slots=True)
class Completion:
    """A text that is to be completed."""

    prompt: str
    formatted: bool
    given: Mapping[str, Any]

    def begin(self, model: LLM, way: str) -> Any:
        """See `Asked`."""
        return getattr(model, f"{way}complete")(self.prompt, formatted=self.formatted, **self.given)


def tagged(router: Router, decision: RouteDecision, step: Ask) -> AbstractContextManager[None]:
    """Let handlers of LlamaIndex's events know which request a call is for, and why it goes where it goes."""
    route = {"id": decision.id, "tier": step.tier.name, "why": step.why}
    if not step.hold:  # of one that may be given to the next tier nobody knows if it is the answer
        route["default"] = router.tiers[router.default].model_name
    return instrument_tags({**active_instrument_tags.get(), "costopt_route": route})
