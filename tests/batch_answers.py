"""What the server of batches answers to a body: it depends on nothing else, so that a test can tell a right answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from typing import Any, Literal

__all__ = ["USAGE_OF_INPUT", "Fate", "answer_to", "anthropic_answer", "anthropic_row", "openai_answer", "openai_row"]

Fate = Literal["ok", "invalid", "overloaded", "expired", "missing"]
USAGE_OF_INPUT = 7  # characters of a body that count as one token


def answer_to(body: dict[str, Any]) -> str:
    """What the model says; it depends on what is asked alone, and holds what trips up a reader of lines."""
    asked = body["input"] if "input" in body else body["messages"]
    digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:12]
    return f"answer\u2028{digest}"


def openai_answer(body: dict[str, Any]) -> dict[str, Any]:
    """A chat completion; a response, if that is what is asked for."""
    text, asked = answer_to(body), len(json.dumps(body, sort_keys=True)) // USAGE_OF_INPUT
    if "input" in body:
        return _response(body["model"], text, asked)
    message = {"role": "assistant", "content": text, "refusal": None}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion",
        "created": 1_700_000_000,
        "model": body["model"],
        "choices": [{"index": 0, "finish_reason": "stop", "message": message}],
        "usage": {"prompt_tokens": asked, "completion_tokens": len(text), "total_tokens": asked + len(text)},
    }


def _response(model: str, text: str, asked: int) -> dict[str, Any]:
    content = [{"type": "output_text", "text": text, "annotations": []}]
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": content}
    usage = {"input_tokens": asked, "output_tokens": len(text), "total_tokens": asked + len(text)}
    details = {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 0}}
    about = {"id": "resp_1", "object": "response", "created_at": 1_700_000_000, "model": model, "status": "completed"}
    more = {"parallel_tool_calls": True, "tool_choice": "auto", "tools": [], "output": [message]}
    return about | more | {"usage": usage | details}


def anthropic_answer(body: dict[str, Any]) -> dict[str, Any]:
    """A message."""
    text = answer_to(body)
    asked = len(json.dumps(body, sort_keys=True)) // USAGE_OF_INPUT
    return {
        "id": "msg_1",
        "type": "message",
        "role": "assistant",
        "model": body["model"],
        "content": [{"type": "text", "text": text}],
        "stop_reason": "end_turn",
        "stop_sequence": None,
        "usage": {"input_tokens": asked, "output_tokens": len(text)},
    }


def openai_row(
    custom_id: str, body: dict[str, Any], fate: Fate, answer: Callable[[dict[str, Any]], dict[str, Any]] = openai_answer
) -> dict[str, Any] | None:
    if fate == "missing":
        return None
    row: dict[str, Any] = {"id": f"batch_req_{custom_id}", "custom_id": custom_id, "response": None, "error": None}
    if fate == "expired":
        return row | {"error": {"code": "batch_expired", "message": "This request was not executed in time."}}
    if fate == "ok":
        return row | {"response": {"status_code": 200, "request_id": "req", "body": answer(body)}}
    status = 400 if fate == "invalid" else 503
    error = {"error": {"message": f"the row is {fate}", "type": "invalid_request_error", "code": fate}}
    return row | {"response": {"status_code": status, "request_id": "req", "body": error}}


def anthropic_row(custom_id: str, body: dict[str, Any], fate: Fate) -> dict[str, Any]:
    if fate in ("expired", "missing"):
        return {"custom_id": custom_id, "result": {"type": "canceled" if fate == "missing" else "expired"}}
    if fate == "ok":
        return {"custom_id": custom_id, "result": {"type": "succeeded", "message": anthropic_answer(body)}}
    kind = "invalid_request_error" if fate == "invalid" else "overloaded_error"
    error = {"type": "error", "error": {"type": kind, "message": f"the row is {fate}"}, "request_id": "req"}
    return {"custom_id": custom_id, "result": {"type": "errored", "error": error}}
