"""From what a framework hands a chat model to a request: settings of the model, overridden by those of the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from costopt.errors import ConfigError
from costopt.local.engine import Generation, GenerationRequest, Handle

__all__ = ["SETTINGS", "answer_in", "request_for", "tool_choice_of"]

SETTINGS = ("temperature", "max_tokens", "top_p", "seed", "logprobs", "stop")
"""What both a model and a single call may set."""

_OF_A_CALL = frozenset(
    (*SETTINGS, "model", "tools", "tool_choice", "response_schema", "template_options", "top_logprobs")
)
# What frameworks send along, and what changes nothing about an answer.
_IGNORED = frozenset(
    (
        "allow_parallel_tool_calls",
        "ls_structured_output_format",
        "parallel_tool_calls",
        "stream",
        "stream_usage",
        "strict",
        "tool_required",
        "verbose",
    )
)


def request_for(
    asked: Sequence[Mapping[str, Any]] | str, settings: Mapping[str, Any], call: Mapping[str, Any]
) -> GenerationRequest:
    """The request that a call makes.

    Args:
        asked: Messages as OpenAI has them; or a text to go on from.
        settings: Of the model; any of `SETTINGS`.
        call: Of this call, which go first.

    Raises:
        ConfigError: If the call has an option that is none, or a value that cannot be meant.

    Example:
        >>> request_for("Once upon", {"max_tokens": 100, "seed": 1}, {"max_tokens": 8}).max_tokens
        8
    """
    unknown = sorted(name for name in set(call) - _OF_A_CALL - _IGNORED if call[name] is not None)
    if unknown:
        known = ", ".join(sorted(_OF_A_CALL))
        raise ConfigError(f"there is no option {', '.join(unknown)} of a call: use {known}")
    chosen = {name: call.get(name, settings.get(name)) for name in SETTINGS}
    stop, logprobs = chosen.pop("stop"), chosen.pop("logprobs")
    tools = tuple(_closed(tool) for tool in call.get("tools") or ())
    names = [tool.get("function", {}).get("name") for tool in tools]
    return GenerationRequest(
        messages=() if isinstance(asked, str) else tuple(asked),
        prompt=asked if isinstance(asked, str) else None,
        stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
        logprobs=_alternatives(logprobs, call.get("top_logprobs")),
        tools=tools,
        tool_choice=tool_choice_of(call.get("tool_choice"), names) or "auto",
        response_schema=call.get("response_schema"),
        template_options=call.get("template_options") or {},
        **chosen,
    )


def answer_in(timeout: float | None, handle: Handle) -> Generation:
    """The whole answer of a call.

    A call that is left before has nobody who would ask again: the request is cancelled, and makes no more tokens.

    Raises:
        TimeoutError: If it is not whole in so many seconds.
        CostOptError: What the engine failed with.
    """
    try:
        return handle.result(timeout)
    finally:
        handle.cancel()  # nothing if the answer is whole


def tool_choice_of(asked: str | bool | Mapping[str, Any] | None, names: Sequence[str]) -> str | None:
    """A tool choice as an engine has it, from all the ways that frameworks say it; None: they did not.

    Args:
        asked: "auto", "none", "any", "required", True, a name, or OpenAI's {"type": "function", "function": {"name"}}.
        names: Of the tools on offer.

    Raises:
        ConfigError: If it names a tool that is not on offer.

    Example:
        >>> tool_choice_of("any", ["add"]), tool_choice_of({"function": {"name": "add"}}, ["add"])
        ('required', 'add')
    """
    if asked is None or asked is False:
        return None
    if asked is True or asked in ("any", "required"):
        return "required"
    name = asked["function"]["name"] if isinstance(asked, Mapping) else asked
    if name not in ("auto", "none", *names):
        offered = ", ".join(map(repr, names)) or "no tool at all"
        raise ConfigError(f'tool_choice={name!r}: use "auto", "none", "any" or what is on offer: {offered}')
    return str(name)


def _closed(tool: Mapping[str, Any]) -> Mapping[str, Any]:
    """A tool that takes no arguments but those it declares: some frameworks drop the word that says so.

    Where a call must be made, a model could otherwise go on making up arguments.
    """
    function = tool.get("function") or {}
    parameters = function.get("parameters")
    if not isinstance(parameters, Mapping) or "additionalProperties" in parameters:
        return tool
    return {**tool, "function": {**function, "parameters": {**parameters, "additionalProperties": False}}}


def _alternatives(asked: bool | int | None, more: int | None) -> int | None:
    if asked is None or asked is False:
        return None
    return (more or 0) if asked is True else int(asked)
