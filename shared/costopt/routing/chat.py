"""A chat as the router looks at it; every framework's messages come down to `Turn`s."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from costopt.conversation import conversation_of
from costopt.routing.request import RouteRequest
from costopt.routing.sticky import conversation_id
from costopt.tokens import count_tokens, most_tokens

__all__ = ["Turn", "chat_request", "mean_logprob", "said_in"]

_MOST_OUTPUT = ("max_completion_tokens", "max_tokens", "max_output_tokens", "num_predict")


@dataclass(frozen=True, slots=True)
class Turn:
    """One message.

    Attributes:
        said: As tokens are counted: {"role", "content", "name", "tool_calls", "tool_call_id"}, as far as it has them.
        text: Its text, without what is not text.
        asks: Whether it is the user's.
        answers: Whether it is the model's.
        calls: Ids of the tool calls in it.
        images: Whether there are any.
    """

    said: Mapping[str, Any]
    text: str
    asks: bool = False
    answers: bool = False
    calls: tuple[str, ...] = ()
    images: bool = False


def chat_request(turns: Sequence[Turn], given: Mapping[str, Any], **known: Any) -> RouteRequest:
    """What is to be routed.

    Args:
        turns: Of the chat.
        given: Arguments of the call: tools, response format, limits.
        known: Fields of `RouteRequest` that the caller knows better.

    Example:
        >>> turns = [Turn({"content": "Be brief."}, "Be brief."), Turn({"content": "Why?"}, "Why?", asks=True)]
        >>> request = chat_request(turns, {"max_tokens": 50})
        >>> request.text, request.max_output_tokens, request.tools
        ('Why?', 50, False)
    """
    said = [turn.said for turn in turns]
    tools = list(given.get("tools") or given.get("functions") or ())
    forms = [given[name] for name in ("response_format", "structured") if given.get(name)]
    extra = _json([tools, forms]) if tools or forms else ""
    limits = [given[name] for name in _MOST_OUTPUT if isinstance(given.get(name), int)]
    fields: dict[str, Any] = {
        "text": _asked(turns),
        "size": most_tokens(said) + len(extra.encode("utf-8", "replace")),
        "count": lambda model: count_tokens([*said, {"content": extra}] if extra else said, model),
        "tools": bool(tools) or any(turn.said.get("tool_calls") or turn.said.get("tool_call_id") for turn in turns),
        "vision": any(turn.images for turn in turns),
        "json": bool(given.get("response_format")),
        "max_output_tokens": limits[0] if limits else None,
        "generations": given["n"] if isinstance(given.get("n"), int) else 1,
    }
    fields |= {name: value for name, value in known.items() if value is not None}
    if fields.get("conversation") is None:
        fields |= _conversation(turns)
    return RouteRequest(**fields)


def said_in(context: Mapping[str, Any]) -> dict[str, Any]:
    """What the application says of a call's conversation, regions and tags, as fields of `RouteRequest`.

    Example:
        >>> said_in({"thread_id": 7, "costopt_regions": "eu"})
        {'conversation': '7', 'regions': frozenset({'eu'}), 'tags': None}
    """
    return {
        "conversation": conversation_of(context),
        "regions": _names(context.get("costopt_regions")),
        "tags": _names(context.get("costopt_required_tags")),
    }


def mean_logprob(said: Any) -> float | None:
    """The mean of the tokens' log-probabilities, where they are given in OpenAI's way.

    Example:
        >>> mean_logprob({"content": [{"token": "a", "logprob": -0.5}, {"token": "b", "logprob": -1.5}]})
        -1.0
    """
    tokens = said.get("content") if isinstance(said, Mapping) else None
    values = [token["logprob"] for token in tokens or () if isinstance(token, Mapping) and "logprob" in token]
    return sum(values) / len(values) if values else None


def _asked(turns: Sequence[Turn]) -> str:
    """The last turn of the user; what stands last if there is none."""
    asked = next((turn for turn in reversed(turns) if turn.asks), None)
    return (asked or turns[-1]).text if turns else ""


def _conversation(turns: Sequence[Turn]) -> dict[str, Any]:
    """A conversation is known by its first question and the first answer to it, which must be there for that."""
    first = next((i for i, turn in enumerate(turns) if turn.asks), None)
    if first is None:
        return {}
    question = turns[first].text
    answer = next((turn for turn in turns[first + 1 :] if turn.answers), None)
    if answer is not None:
        return {"conversation": conversation_id(question, answer.text, answer.calls)}
    return {"next_conversation": lambda reply: conversation_id(question, reply.text, reply.calls)}


def _names(value: Any) -> frozenset[str] | None:
    if value is None:
        return None
    return frozenset([value] if isinstance(value, str) else map(str, value))


def _json(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"))
