"""Requests and answers as OpenAI's chat API writes them: to ask a server, to read and write batch files."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from costopt.errors import ConfigError
from costopt.local.engine import Generation, GenerationRequest, TokenLogprob

__all__ = ["arguments_of", "chat_body", "completion_body", "completion_of", "logprob_rows", "request_of"]

# Fields of a request's body that say how to deliver or file the answer, and change nothing about it.
_IGNORED = frozenset(
    ("metadata", "model", "n", "parallel_tool_calls", "service_tier", "store", "stream", "stream_options", "user")
)
_ANY_OBJECT: dict[str, Any] = {"type": "object"}
_SAME = ("temperature", "top_p", "seed")


def chat_body(request: GenerationRequest, model: str) -> dict[str, Any]:
    """The body that asks a server for a chat completion.

    Example:
        >>> from costopt.local.engine import GenerationRequest
        >>> chat_body(GenerationRequest.chat("Hello", max_tokens=8), "m")
        {'model': 'm', 'messages': [{'role': 'user', 'content': 'Hello'}], 'max_tokens': 8}
    """
    body = {"model": model, "messages": [dict(message) for message in request.messages], **_settings(request)}
    if request.tools:
        body |= {"tools": [dict(tool) for tool in request.tools], "tool_choice": _choice(request)}
    if request.logprobs is not None:
        body |= {"logprobs": True, "top_logprobs": request.logprobs}
    if request.response_schema is not None:
        body["response_format"] = _form(request.response_schema)
    if request.template_options:
        body["chat_template_kwargs"] = dict(request.template_options)
    return body


def completion_body(request: GenerationRequest, model: str) -> dict[str, Any]:
    """The body that asks a server to go on from a text."""
    body = {"model": model, "prompt": request.prompt, **_settings(request)}
    if request.logprobs is not None:
        body["logprobs"] = request.logprobs
    return body


def request_of(body: Mapping[str, Any]) -> GenerationRequest:
    """The request that such a body asks for.

    Raises:
        ConfigError: If it asks for what no engine here does, or for something impossible.

    Example:
        >>> request_of({"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stop": "."}).stop
        ('.',)
    """
    known = {"messages", "prompt", "max_tokens", "max_completion_tokens", "stop", "logprobs", "top_logprobs", *_SAME}
    known |= {"tools", "tool_choice", "response_format", "chat_template_kwargs"}
    unknown = sorted(name for name, value in body.items() if name not in known | _IGNORED and value is not None)
    if unknown or body.get("n") not in (None, 1):
        raise ConfigError(f"a local model has no {', '.join(unknown) or 'n'}: leave it out")
    stop = body.get("stop")
    try:
        return GenerationRequest(
            messages=_messages(body.get("messages")),
            prompt=body.get("prompt"),
            max_tokens=body.get("max_completion_tokens") or body.get("max_tokens"),
            stop=(stop,) if isinstance(stop, str) else tuple(stop or ()),
            logprobs=_logprobs(body),
            tools=tuple(body.get("tools") or ()),
            tool_choice=_chosen(body.get("tool_choice")),
            response_schema=_schema(body.get("response_format")),
            template_options=body.get("chat_template_kwargs") or {},
            **{name: body.get(name) for name in _SAME},
        )
    except (TypeError, AttributeError, KeyError) as error:
        raise ConfigError(f"this is no request for a chat completion: {type(error).__name__}: {error}") from error


def completion_of(generation: Generation, model: str, *, name: str, created: int) -> dict[str, Any]:
    """The body of the answer: a chat completion.

    Args:
        generation: The answer.
        model: What it names as the model.
        name: Its id.
        created: Seconds since 1970.
    """
    calls = [
        {"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in generation.tool_calls
    ]
    content = None if calls and not generation.text else generation.text
    message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
    choice: dict[str, Any] = {
        "index": 0,
        "message": {**message, "tool_calls": calls} if calls else message,
        "finish_reason": generation.finish_reason,
        "logprobs": {"content": logprob_rows(generation.logprobs)} if generation.logprobs else None,
    }
    usage = generation.usage
    body = {"id": name, "object": "chat.completion", "created": created, "model": model, "choices": [choice]}
    if usage is not None:
        prompt, completion = usage.prompt_tokens, usage.completion_tokens
        body["usage"] = {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
        }
    return body


def logprob_rows(logprobs: Iterable[TokenLogprob]) -> list[dict[str, Any]]:
    """Log-probabilities, one row for each token."""
    return [
        {
            "token": each.token,
            "logprob": each.logprob,
            "bytes": list(each.token.encode()),
            "top_logprobs": [
                {"token": token, "logprob": value, "bytes": list(token.encode())} for token, value in each.top
            ],
        }
        for each in logprobs
    ]


def _settings(request: GenerationRequest) -> dict[str, Any]:
    stop = list(request.stop) or None
    settings = {"max_tokens": request.max_tokens, "stop": stop, **{name: getattr(request, name) for name in _SAME}}
    return {name: value for name, value in settings.items() if value is not None}


def _form(schema: Mapping[str, Any]) -> dict[str, Any]:
    if schema == _ANY_OBJECT:
        return {"type": "json_object"}
    named = {"name": str(schema.get("title") or "answer"), "schema": schema, "strict": True}
    return {"type": "json_schema", "json_schema": named}


def _choice(request: GenerationRequest) -> Any:
    if request.tool_choice in ("auto", "none", "required"):
        return request.tool_choice
    return {"type": "function", "function": {"name": request.tool_choice}}


def _chosen(choice: Any) -> str:
    if isinstance(choice, Mapping):
        return str(choice["function"]["name"])
    return "auto" if choice is None else str(choice)


def _messages(given: Any) -> tuple[Mapping[str, Any], ...]:
    found = given if isinstance(given, list) else [] if given is None else [given]
    if not all(isinstance(each, dict) and isinstance(each.get("role"), str) for each in found):
        raise ConfigError('messages must be a list of {"role": "...", "content": "..."}')
    return tuple(found)


def _logprobs(body: Mapping[str, Any]) -> int | None:
    asked = body.get("logprobs")
    if asked is True:
        return int(body.get("top_logprobs") or 0)
    return None if asked is None or asked is False else int(asked)


def _schema(form: Any) -> Mapping[str, Any] | None:
    kind = (form or {}).get("type", "text")
    if kind == "text":
        return None
    if kind == "json_schema":
        schema: Mapping[str, Any] = form["json_schema"].get("schema") or {}
        return schema
    if kind == "json_object":
        return _ANY_OBJECT
    raise ConfigError(f'response_format of type {kind!r}: use "text", "json_object" or "json_schema"')


def arguments_of(written: str) -> dict[str, Any] | None:
    """The arguments of a tool call; None if they are no JSON object."""
    try:
        read = json.loads(written or "{}")
    except ValueError:
        return None
    return read if isinstance(read, dict) else None
