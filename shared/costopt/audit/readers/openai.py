"""Requests and answers as OpenAI's API has them, one JSON object a line, in the ways in which people log them.

    {"model", "messages", ..., "usage" or "response" or "answer"}        request and answer side by side
    {"request" or "body": {...}, "response": {...}}                      each for itself
    {"custom_id", "response": {"status_code", "body"}, "error"}          what the Batch API hands out

Anthropic's messages (a "system" beside the messages, usage without the cached tokens in it) are read likewise.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from costopt.audit.readers.fields import (
    called_tools,
    messages_of,
    moment,
    number,
    put_usage,
    text,
    text_answer,
    words,
)
from costopt.audit.readers.formats import Format
from costopt.audit.record import Record
from costopt.conversation import CONVERSATION_IDS

__all__ = ["OPENAI"]

# Shape the answer, and are part of what must be equal for a cache to answer.
_PARAMS = frozenset((
    "temperature", "top_p", "top_k", "max_tokens", "max_completion_tokens", "max_output_tokens", "n", "seed", "stop",
    "stop_sequences", "response_format", "tool_choice", "reasoning_effort", "reasoning", "thinking", "text",
    "frequency_penalty", "presence_penalty", "logit_bias",
))  # fmt: skip
_STARTED = ("started", "start_time", "timestamp", "time", "created_at", "created", "at", "startTime", "ts", "date")
_ENDED = ("end_time", "ended", "completed_at", "endTime")
_LATENCY = (("latency_s", 1.0), ("latency", 1.0), ("duration", 1.0), ("response_time", 1.0),
            ("latency_ms", 0.001), ("duration_ms", 0.001))  # fmt: skip
_FIELDS = frozenset(
    (*_PARAMS, *_STARTED, *_ENDED, *(name for name, _ in _LATENCY), "id", "custom_id", "model", "messages", "prompt",
     "input", "instructions", "system", "tools", "functions", "request", "body", "response", "choices", "output",
     "answer", "completion", "content", "usage", "error", "status", "status_code", "stream", "tags", "metadata",
     "session", "session_id", "conversation_id", "thread_id", "tenant", "user", "user_id", "name", "cost", "cost_usd",
     "provider", "cache", "cache_hit", "batch", "service_tier", "object", "method", "url", "request_id", "kind",
     "stop_reason", "role", "type", "system_fingerprint", "answer_id", "app", "store")
)  # fmt: skip
_LABELS = frozenset(
    ("session", "session_id", "conversation_id", "thread_id", "tenant", "name", "app", "tags", "metadata", "cost",
     "cost_usd", "cache", "cache_hit", "batch", "service_tier")
)  # fmt: skip
_FAILURES = ("error", "failed", "failure", "timeout", "cancelled")
_TELLING = frozenset(("error", "status"))
_MARKS = frozenset(("stream", "custom_id"))
# Most rows of a log have the same fields: which of them matter is found out once for each set of fields.
_MOST_PLANS = 10_000


@dataclass(frozen=True, slots=True)
class _Plan:
    direct: bool
    told: bool
    marked: bool
    started: tuple[str, ...]
    latency: tuple[tuple[str, float], ...]
    ended: tuple[str, ...]
    params: tuple[str, ...]
    labelled: bool


_plans: dict[tuple[str, ...], _Plan] = {}


def _plan(row: Mapping[str, Any]) -> _Plan:
    fields = tuple(row)
    known = _plans.get(fields)
    if known is None:
        known = _Plan(
            "messages" in row,
            not _TELLING.isdisjoint(row),
            not _MARKS.isdisjoint(row),
            tuple(name for name in _STARTED if name in row),
            tuple((name, unit) for name, unit in _LATENCY if name in row),
            tuple(name for name in _ENDED if name in row),
            tuple(sorted(_PARAMS.intersection(row))),
            not _LABELS.isdisjoint(row),
        )
        if len(_plans) < _MOST_PLANS:
            _plans[fields] = known
    return known


def _fits(row: Mapping[str, Any]) -> bool:
    body = _body(row)
    asks = any(name in body for name in ("messages", "prompt", "input"))
    return asks or isinstance(row.get("response"), dict) or ("usage" in row and "model" in row)


def _read(row: Mapping[str, Any]) -> Record | None:
    plan = _plan(row)
    body = row if plan.direct else _body(row)
    answer, failed = _answered(row, told=plan.told)
    model = answer.get("model") or body.get("model") or row.get("model")
    if not isinstance(model, str) or not model:
        raise ValueError('no "model"')
    started = _started(row, answer, plan)
    record = Record(started, model, text(row.get("provider")))
    record.messages = _messages(body)
    put_usage(record, answer.get("usage") or row.get("usage"))
    record.ok = not failed
    tools = body.get("tools") or body.get("functions")
    if isinstance(tools, list):
        record.tools = tools
    given = plan.params if body is row else _plan(body).params
    if given:
        record.params = {name: body[name] for name in given}
    _put_answer(record, row, answer)
    if plan.marked or not plan.direct:
        _put_marks(record, row, body)
    record.batch = record.batch or answer.get("service_tier") == "batch"
    if plan.labelled:
        _put_labels(record, row)
    record.latency_s = _latency(row, started, plan)
    return record


def _body(row: Mapping[str, Any]) -> Mapping[str, Any]:
    if "messages" in row:
        return row
    for name in ("request", "body"):
        inner = row.get(name)
        if isinstance(inner, dict):
            deeper = inner.get("body")
            return deeper if isinstance(deeper, dict) else inner
    return row


def _answered(row: Mapping[str, Any], *, told: bool) -> tuple[Mapping[str, Any], bool]:
    """The answer as the API gave it (empty if there is none), and whether the call failed."""
    answer = row.get("response")
    failed = told and (bool(row.get("error")) or row.get("status") in _FAILURES)
    if isinstance(answer, dict):
        status = answer.get("status_code")
        inner = answer.get("body")
        if isinstance(inner, dict):
            answer = inner
        failed = failed or bool(answer.get("error")) or (isinstance(status, int) and status >= 400)
        return answer, failed
    return (row if "choices" in row or "output" in row else {}), failed


def _started(row: Mapping[str, Any], answer: Mapping[str, Any], plan: _Plan) -> float | None:
    for name in plan.started:
        found = moment(row[name])
        if found is not None:
            return found
    return moment(answer.get("created", answer.get("created_at")))


def _latency(row: Mapping[str, Any], started: float | None, plan: _Plan) -> float | None:
    for name, unit in plan.latency:
        seconds = number(row[name])
        return None if seconds is None or seconds < 0 else seconds * unit
    for name in plan.ended:
        ended = moment(row[name])
        if ended is not None and started is not None and ended >= started:
            return ended - started
    return None


def _messages(body: Mapping[str, Any]) -> Any:
    found = messages_of(body.get("messages"))
    if found is None:
        found = messages_of(body.get("input") or body.get("prompt"))
    system = found and (body.get("system") or body.get("instructions"))
    if found and system and found[0].get("role") != "system":
        return [{"role": "system", "content": system}, *found]
    return found


def _put_answer(record: Record, row: Mapping[str, Any], answer: Mapping[str, Any]) -> None:
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        if type(message) is dict and type(said := message.get("content")) is str and len(message) == 2:
            record.answer = said  # the usual one, which calls nothing
            return
        record.answer = text_answer(message if message is not None else choices[0])
        record.called = called_tools(message)
        return
    output = answer.get("output")
    if isinstance(output, list):  # the Responses API: messages and calls side by side
        record.answer = "\n".join(said for each in output if (said := text_answer(each))) or None
        record.called = called_tools({"content": output})
        return
    for name in ("answer", "completion", "content", "output", "response"):
        said = answer.get(name, row.get(name))
        if said is not None and not (name == "response" and isinstance(said, dict)):
            record.answer = text_answer({"content": said})
            record.called = called_tools({"content": said})
            return


def _put_marks(record: Record, row: Mapping[str, Any], body: Mapping[str, Any]) -> None:
    stream = body.get("stream")
    record.stream = stream if isinstance(stream, bool) else None
    handed_out = "custom_id" in row and isinstance(row.get("response"), dict)
    record.batch = handed_out and row.get("provider") != "local"  # as a machine of one's own writes its answers, too


def _put_labels(record: Record, row: Mapping[str, Any]) -> None:
    metadata = row.get("metadata")
    about: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    for name in ("session", *CONVERSATION_IDS):
        record.session = record.session or text(row.get(name)) or text(about.get(name))
    record.tenant = text(row.get("tenant")) or text(about.get("tenant"))
    record.name = text(row.get("name")) or text(row.get("app")) or text(about.get("name"))
    record.tags = words(row.get("tags") or about.get("tags"))
    record.cost = number(row.get("cost_usd", row.get("cost")))
    cache = row.get("cache_hit", row.get("cache"))
    record.hit = cache is True or (isinstance(cache, str) and cache.lower() in ("true", "exact", "semantic", "hit"))
    record.batch = record.batch or bool(row.get("batch")) or row.get("service_tier") == "batch"


OPENAI = Format("openai", _FIELDS, _fits, _read)
