"""LlamaIndex's messages and responses as the router looks at them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    MessageRole,
    TextBlock,
    ThinkingBlock,
    ToolCallBlock,
)

from costopt.routing.cascade import Reply
from costopt.routing.chat import Turn, mean_logprob
from costopt.routing.decision import RouteDecision
from costopt.routing.serving import Ask
from llamaindex_costopt.cached_asked import arguments_of
from llamaindex_costopt.cost_messages import answered_of
from llamaindex_costopt.raw import finish_of

__all__ = ["Response", "explained", "from_tier", "prompt_turn", "reply_of", "shows", "turn_of"]

Response = TypeVar("Response", ChatResponse, CompletionResponse)

_ANSWERS = (MessageRole.ASSISTANT, MessageRole.CHATBOT, MessageRole.MODEL)
# The finish reason and the usage may come in responses of their own, at the end.
_ENDING = 3


def turn_of(message: ChatMessage) -> Turn:
    """A message."""
    calls = [block for block in message.blocks if isinstance(block, ToolCallBlock)]
    content = [_content(block) for block in message.blocks if not isinstance(block, ToolCallBlock)]
    kwargs = message.additional_kwargs
    said = {
        "role": message.role.value,
        "content": content,
        "name": kwargs.get("name"),
        "tool_calls": [{"name": call.tool_name, "args": call.tool_kwargs} for call in calls],
        "tool_call_id": kwargs.get("tool_call_id"),
    }
    return Turn(
        said,
        message.content or "",
        asks=message.role == MessageRole.USER,
        answers=message.role in _ANSWERS,
        calls=_ids(calls),
        images=any(block.block_type == "image" for block in message.blocks),
    )


def prompt_turn(prompt: str) -> Turn:
    """A text that is to be completed, which belongs to no conversation."""
    return Turn({"role": "user", "content": prompt}, prompt)


def reply_of(made: Sequence[Response]) -> Reply:
    """What the router looks at in an answer.

    Args:
        made: The response; of a stream, all of them, or the last ones; none if it ended without any.
    """
    if not made:
        return Reply(raw=[])
    last, raw = made[-1], list(made)
    usages = (answered_of(response).usage for response in reversed(made[-_ENDING:]))
    finishes = (finish_of(response) for response in reversed(made[-_ENDING:]))
    usage = next((usage for usage in usages if usage is not None), None)
    finish = next((finish for finish in finishes if finish is not None), None)
    logprob = _logprob(last)
    if isinstance(last, CompletionResponse):
        return Reply(text=last.text, usage=usage, finish=finish, logprob=logprob, raw=raw)
    calls = [block for block in last.message.blocks if isinstance(block, ToolCallBlock)]
    return Reply(
        text=last.message.content or "",
        usage=usage,
        finish=finish,
        refused=bool(last.message.additional_kwargs.get("refusal") or _get(_get(_choice(last), "message"), "refusal")),
        calls=_ids(calls),
        broken=not all(arguments_of(call)[1] for call in calls),
        logprob=logprob,
        raw=raw,
    )


def explained(response: Response, decision: RouteDecision) -> Response:
    """The response with the decision in it."""
    return _with(response, decision.as_dict())


def from_tier(response: Response, step: Ask) -> Response:
    """The response, of which is known whose it is: who reads a tool call in mid-stream must know that."""
    return _with(response, {"chosen": step.tier.name})


def shows(response: ChatResponse | CompletionResponse) -> bool:
    """Whether there is anything in it that a reader sees."""
    if response.delta:
        return True
    if isinstance(response, CompletionResponse):
        return bool(response.text)
    return any(not isinstance(block, TextBlock) or block.text for block in response.message.blocks)


def _with(response: Response, said: dict[str, Any]) -> Response:
    return response.model_copy(update={"additional_kwargs": {**response.additional_kwargs, "costopt": said}})


def _content(block: Any) -> str | dict[str, Any]:
    """A block as tokens are counted; what is no text by its kind, whatever it holds."""
    if isinstance(block, TextBlock):
        return block.text
    if isinstance(block, ThinkingBlock):
        return block.content or ""
    return {"type": block.block_type}


def _ids(calls: Sequence[ToolCallBlock]) -> tuple[str, ...]:
    return tuple(call.tool_call_id or "" for call in calls)


def _logprob(response: ChatResponse | CompletionResponse) -> float | None:
    said = _get(_choice(response), "logprobs")
    dump = getattr(said, "model_dump", None)
    mean = mean_logprob(dump() if callable(dump) else said)
    if mean is not None:
        return mean
    firsts = [row[0].logprob for row in response.logprobs or () if row]
    return sum(firsts) / len(firsts) if firsts else None


def _choice(response: ChatResponse | CompletionResponse) -> Any:
    choices = _get(response.raw, "choices")
    return choices[0] if choices else None


def _get(holder: Any, name: str) -> Any:
    return holder.get(name) if isinstance(holder, Mapping) else getattr(holder, name, None)
