"""A request as the tokens that its model wants to see: the chat template applied once, special tokens once."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Mapping
from typing import Any

from costopt.errors import ConfigError
from costopt.local.engine import GenerationRequest

__all__ = ["knows_tools", "prompt_tokens", "tells_of_tools"]


def prompt_tokens(tokenizer: Any, request: GenerationRequest) -> list[int]:
    """The tokens to go on from.

    What users wrote never becomes a control token (where transformers can tell, from 5.20 on): a message that says
    "<|im_end|>" ends nothing.

    Args:
        tokenizer: Of transformers.
        request: Its messages are written down by the tokenizer's chat template; its prompt is taken as it is.

    Raises:
        ConfigError: If there is no chat template, if it refuses the messages, or cannot tell of tools.
    """
    if request.prompt is not None:
        bos = tokenizer.bos_token
        doubled = bool(bos) and request.prompt.startswith(bos)
        return list(tokenizer(request.prompt, add_special_tokens=not doubled)["input_ids"])
    if not tokenizer.chat_template:
        raise ConfigError(
            "this model has no chat template: give prompt= in place of messages, or use the chat (instruct) variant"
        )
    offered = _offered(tokenizer, request)
    options: dict[str, Any] = {"tools": offered} if offered else {}
    if "sanitize_control_tokens" in inspect.signature(tokenizer.apply_chat_template).parameters:
        options["sanitize_control_tokens"] = True
    messages = [_plain(message) for message in request.messages]
    try:
        tokens = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=False, **options,
            **request.template_options,
        )  # fmt: skip
    except Exception as error:  # a template raises whatever jinja2 does, or TypeError at a content it does not expect
        raise ConfigError(
            f"the model's chat template refuses these messages: {error}; change them, or chat_template.jinja"
        ) from error
    return [int(token) for token in tokens]


def knows_tools(tokenizer: Any) -> bool:
    """Whether the chat template tells the model of tools."""
    return tells_of_tools(tokenizer.chat_template)


def tells_of_tools(template: Any) -> bool:
    """Whether this template, or one of these by name, tells the model of tools."""
    if isinstance(template, Mapping):
        return "tool_use" in template or any("tools" in text for text in template.values())
    return isinstance(template, str) and "tools" in template


def _offered(tokenizer: Any, request: GenerationRequest) -> list[Any] | None:
    if not request.tools or request.tool_choice == "none":
        return None
    if knows_tools(tokenizer):
        return [dict(tool) for tool in request.tools]
    if request.tool_choice == "auto":
        raise ConfigError(
            "this model's chat template has no place for tools: use tool_choice='required' or a tool's name, "
            "which work with every model, or a model that was trained to call tools"
        )
    return None  # what must be called is enforced token by token, whether the model was told or not


def _plain(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message as templates expect it: content a text, arguments of tool calls an object."""
    plain = dict(message)
    if not isinstance(plain.get("role"), str):
        raise ConfigError(f"a message must have a role: {message!r:.200}")
    if plain.get("content") is not None:
        plain["content"] = _text(plain["content"])
    else:
        plain["content"] = ""  # a template that joins texts cannot join None
    if plain.get("tool_calls"):
        plain["tool_calls"] = [_call(call) for call in plain["tool_calls"]]
    return plain


def _text(content: Any) -> str:
    if isinstance(content, str):
        return content
    parts = []
    for block in content:
        text = block if isinstance(block, str) else block.get("text")
        if not isinstance(text, str):
            raise ConfigError(f"this model reads text only, and cannot look at {block.get('type', block)!r:.80}")
        parts.append(text)
    return "".join(parts)


def _call(call: Mapping[str, Any]) -> dict[str, Any]:
    function = dict(call.get("function") or {})
    written = function.get("arguments")
    if isinstance(written, str):
        with contextlib.suppress(ValueError):  # else as the model wrote it, which it may have to be told is wrong
            function["arguments"] = json.loads(written) if written else {}
    return {**call, "function": function}
