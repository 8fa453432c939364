"""Parameters in a form that is the same in every framework, for models that the user declares to be the same.

LangChain and LlamaIndex describe one model in different words: classes, clients, retries, addresses. Whether
two such descriptions mean one model, nobody but the user can tell. Of a model so declared, what counts is its name, the
settings that shape an answer under any framework, and everything that a call adds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

__all__ = ["portable_params"]

# Each setting, and the other names it goes by.
_NAMES = {
    "max_tokens": ("max_completion_tokens", "max_new_tokens", "max_output_tokens", "num_predict"),
    "stop": ("stop_sequences", "stop_words"),
    "reasoning_effort": ("effort",),
}
_PLAIN = (
    *("temperature", "top_p", "top_k", "min_p", "seed", "n", "presence_penalty", "frequency_penalty", "logit_bias"),
    *("logprobs", "top_logprobs", "response_format", "tools", "tool_choice", "parallel_tool_calls", "modalities"),
)
_CALLED: dict[str, str] = {other: name for name, others in _NAMES.items() for other in (name, *others)}
_CALLED |= {name: name for name in _PLAIN}
# Where frameworks put what they have no field for.
_BAGS = ("additional_kwargs", "extra_body", "model_kwargs")
# What a provider takes it for where it is left out.
_DEFAULTS: dict[str, Any] = {"n": 1, "logprobs": False, "top_logprobs": 0}
# How an answer is sent, and what it is filed under, is no part of what it says.
_NOT_ASKED = frozenset(("metadata", "stream", "stream_options", "stream_usage", "user"))


def portable_params(kind: str, settings: Mapping[str, Any], call: Mapping[str, Any]) -> str | None:
    """One string for equal parameters, whichever framework they come from.

    Args:
        kind: "chat" or "completion": their answers differ.
        settings: Fields of the model, by whatever names; those that no other framework knows are passed over.
        call: What the call adds to them, or sets otherwise; all of it counts.

    Returns:
        The string; None if a value is no plain data, so that nobody can tell whether another one is equal.

    Example:
        >>> ours = portable_params("chat", {"temperature": 0, "max_retries": 2}, {"stop": None})
        >>> ours == portable_params("chat", {"temperature": 0.0, "timeout": 60.0}, {})
        True
        >>> ours == portable_params("chat", {"temperature": 0.7}, {})
        False
    """
    given: dict[str, Any] = {}
    for bag in (settings, *(settings.get(name) or {} for name in _BAGS)):
        given.update({_CALLED[name]: value for name, value in bag.items() if name in _CALLED and value is not None})
    for name, value in call.items():
        if name in _BAGS and isinstance(value, Mapping):
            given.update({_CALLED.get(str(key), str(key)): each for key, each in value.items()})
        elif name not in _NOT_ASKED:
            given[_CALLED.get(name, name)] = value
    try:
        plain = {name: _plain(value) for name, value in given.items()}
        kept = {name: value for name, value in plain.items() if _counts(name, value)}
        return json.dumps([kind, kept], sort_keys=True, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        return None


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)  # of an enumeration, what it stands for
    if isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value


def _counts(name: str, value: Any) -> bool:
    return value not in (None, [], {}, "") and not (name in _DEFAULTS and value == _DEFAULTS[name])
