"""Between LangChain's calls and the router's flow: who asks, what came back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, NamedTuple

from langchain_core.messages import AIMessage, AIMessageChunk, message_chunk_to_message
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from langchain_core.outputs.chat_generation import merge_chat_generation_chunks
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config

from costopt.routing import chat
from costopt.routing.cascade import Reply
from costopt.routing.decision import RouteDecision
from costopt.routing.router import Router
from costopt.routing.serving import Ask, Served
from langchain_costopt.router_binding import Child
from langchain_costopt.router_messages import Produced, reply_of, shows
from langchain_costopt.streaming import _as_chunk

__all__ = [
    "CALL",
    "Call",
    "as_chunk",
    "called",
    "chunk_shows",
    "common_profile",
    "from_tier",
    "last_chunk",
    "reply",
    "result",
    "said_in",
    "summed",
]

_ABILITIES = ("tool_calling", "structured_output", "image_inputs")


class Call(NamedTuple):
    """What is known of a call before `_generate` is reached, which LangChain does not tell of its config."""

    router: Router
    conversation: str | None
    regions: frozenset[str] | None
    tags: frozenset[str] | None
    plan: RouteDecision | None


CALL: ContextVar[Call | None] = ContextVar("costopt_router_call", default=None)


@contextmanager
def called(router: Router, config: RunnableConfig | None, plan: RouteDecision | None = None) -> Iterator[None]:
    """Let what is called inside know the config, and the plan if there is one."""
    token = CALL.set(Call(router, **said_in(ensure_config(config)), plan=plan))
    try:
        yield
    finally:
        CALL.reset(token)


def said_in(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a config says of conversation, regions and tags."""
    return chat.said_in({**(config.get("metadata") or {}), **(config.get("configurable") or {})})


def reply(step: Ask, made: ChatResult) -> Reply:
    """What the router looks at in the answer of a call."""
    first, *others = made.generations
    message = first.message if isinstance(first.message, AIMessage) else None
    return reply_of(Produced([made], step.tier.name, message), others, first.generation_info)


def result(served: Served) -> ChatResult:
    """The answer, with the decision in it."""
    made: ChatResult = served.reply.raw[0]
    said = served.decision.as_dict()
    for generation in made.generations:
        metadata = generation.message.response_metadata
        generation.message = generation.message.model_copy(update={"response_metadata": {**metadata, "costopt": said}})
    return made


def chunk_shows(chunk: ChatGenerationChunk) -> bool:
    """Whether a chunk holds anything that a reader sees."""
    return shows(chunk.message)


def summed(step: Ask, chunks: list[ChatGenerationChunk]) -> Reply:
    """What the router looks at in a stream, or in what came of it. The chunks are made ready to be shown, too."""
    merged = merge_chat_generation_chunks(chunks) if chunks else None
    if merged is None:
        return Reply(raw=Produced(chunks, step.tier.name, None))
    message = message_chunk_to_message(merged.message)
    assert isinstance(message, AIMessage)
    return reply_of(Produced(chunks, step.tier.name, message), (), merged.generation_info)


def last_chunk(served: Served) -> ChatGenerationChunk:
    """The end of a stream: the decision, which only then knows what the answer cost."""
    metadata = {"costopt": served.decision.as_dict()}
    return ChatGenerationChunk(
        message=AIMessageChunk(content="", response_metadata=metadata, chunk_position="last"),
    )


def from_tier(step: Ask) -> Callable[[ChatGenerationChunk], ChatGenerationChunk]:
    """Makes the chunks of a tier's stream ours: none is our last, and the first says whose they are.

    Of a stream that breaks off nobody sees the decision. LangChain adds up what each chunk says, so one says it.
    """
    said = [{"tier": step.tier.name, "model": step.tier.model_name}]

    def ours(chunk: ChatGenerationChunk) -> ChatGenerationChunk:
        message = chunk.message
        if isinstance(message, AIMessageChunk):
            message.chunk_position = None
        if said:
            known = message.response_metadata.get("costopt") or {}
            message.response_metadata = {**message.response_metadata, "costopt": {**known, **said.pop()}}
        return chunk

    return ours


def as_chunk(made: ChatResult) -> ChatGenerationChunk:
    """The answer of a model that does not stream."""
    return _as_chunk(made.generations[0])


def common_profile(children: Iterable[Child]) -> dict[str, Any] | None:
    """What at least one of the models can do; who cannot is not asked for it."""
    said: list[Mapping[str, Any] | None] = [getattr(child.model, "profile", None) for child in children]
    profiles = [profile for profile in said if profile]
    if not profiles:
        return None
    windows = [profile["max_input_tokens"] for profile in profiles if profile.get("max_input_tokens")]
    found: dict[str, Any] = {"max_input_tokens": max(windows)} if windows else {}
    for ability in _ABILITIES:
        able = [profile[ability] for profile in profiles if ability in profile]
        if able:
            found[ability] = any(able)
    return found
