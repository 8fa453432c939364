"""Observations exported from Langfuse, one a line: from its blob storage (snake case) or its API (camel case).

Generations are model calls; spans, events and the others are counted and passed over. The kinds of tokens in
`usage_details` exclude each other: "input" is what no cache had to do with, so all that are named "input..." or
"cache..." make up the input, and all that are named "output..." or tell of reasoning the output.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costopt.audit.readers.fields import called_tools, messages_of, moment, number, parsed, text, text_answer, words
from costopt.audit.readers.formats import Format
from costopt.audit.record import Record

__all__ = ["LANGFUSE"]

_SNAKE = (
    "id trace_id project_id environment type parent_observation_id start_time end_time name metadata level "
    "status_message version input output provided_model_name model model_parameters usage_details cost_details "
    "completion_start_time prompt_name prompt_version total_cost latency time_to_first_token model_id created_at "
    "updated_at prompt_id tool_calls tool_call_names tool_definitions usage_pricing_tier_id usage_pricing_tier_name "
    "input_price output_price total_price user_id session_id trace_name tags release bookmarked public "
    "internal_model_id provided_usage_details provided_cost_details usage"
).split()
_OWN = (
    "calculatedInputCost calculatedOutputCost calculatedTotalCost inputPrice outputPrice totalPrice promptTokens "
    "completionTokens totalTokens unit modelId inputCost outputCost inputUsage outputUsage totalUsage"
).split()


def _camel(name: str) -> str:
    first, *others = name.split("_")
    return first + "".join(part.capitalize() for part in others)


_CAMEL = {name: _camel(name) for name in _SNAKE}
_FIELDS = frozenset((*_SNAKE, *_CAMEL.values(), *_OWN))
_CALLS = frozenset(("GENERATION", "EMBEDDING"))
_TYPES = frozenset("SPAN GENERATION EVENT AGENT TOOL CHAIN RETRIEVER EVALUATOR EMBEDDING GUARDRAIL".split())


def _fits(row: Mapping[str, Any]) -> bool:
    return row.get("type") in _TYPES and (
        "trace_id" in row or "traceId" in row or "start_time" in row or "startTime" in row
    )


def _read(row: Mapping[str, Any]) -> Record | None:
    if row.get("type") not in _CALLS:
        return None

    def said(name: str) -> Any:
        value = row.get(name)
        return row.get(_CAMEL[name]) if value is None else value

    model = text(said("provided_model_name")) or text(said("model"))
    if model is None:
        raise ValueError("a generation without a model")
    started, ended = moment(said("start_time")), moment(said("end_time"))
    record = Record(started, model)
    if started is not None and ended is not None and ended >= started:
        record.latency_s = ended - started
    asked = parsed(said("input"))
    record.messages = messages_of(asked)
    record.tools = _tools(asked, parsed(said("tool_definitions")))
    params = parsed(said("model_parameters"))
    record.params = params if isinstance(params, dict) else {}
    output = parsed(said("output"))
    record.answer = text_answer(output)
    record.called = words(said("tool_call_names")) or called_tools(output)
    _put_usage(record, parsed(said("usage_details")), row)
    record.cost = _cost(said("total_cost"), parsed(said("cost_details")), row)
    record.ok = said("level") != "ERROR"
    metadata = parsed(said("metadata"))
    about: Mapping[str, Any] = metadata if isinstance(metadata, dict) else {}
    record.tags = words(said("tags")) or words(about.get("tags"))
    record.session, record.tenant = text(said("session_id")), text(about.get("tenant"))
    record.name = text(said("prompt_name")) or text(said("name"))
    record.stream = said("completion_start_time") is not None
    record.hit = about.get("cache_hit") is True
    return record


def _tools(asked: Any, defined: Any) -> list[Any] | None:
    inner = asked.get("tools") if isinstance(asked, dict) else None
    if isinstance(inner, list) and inner:
        return inner
    if isinstance(defined, dict) and defined:
        return [{"name": name, "definition": parsed(value)} for name, value in defined.items()]
    return defined if isinstance(defined, list) and defined else None


def _put_usage(record: Record, details: Any, row: Mapping[str, Any]) -> None:
    if isinstance(details, dict) and details:
        counts = {name: int(count) for name, value in details.items() if (count := number(value)) is not None}
        put = _sums(counts)
        record.input_tokens, record.output_tokens, record.cached_tokens, record.cache_write_tokens = put
        record.tells_cached = any("cache" in name for name in counts)
        return
    older = row.get("usage")
    usage = older if isinstance(older, dict) else {}
    read = number(usage.get("input", row.get("promptTokens")))
    written = number(usage.get("output", row.get("completionTokens")))
    if read or written:
        record.input_tokens, record.output_tokens = int(read or 0), int(written or 0)


def _sums(counts: Mapping[str, int]) -> tuple[int, int, int, int]:
    """(input, output, read from cache, written to cache) of kinds that exclude each other."""
    read = written = cached = stored = 0
    for name, value in counts.items():
        count = max(0, value)
        if name == "total":
            continue
        if name.startswith("output") or "reasoning" in name or name in ("completion", "completion_tokens"):
            written += count
        elif name.startswith(("input", "cache", "prompt")) or "cached" in name:
            read += count
            if "creation" in name or "write" in name:
                stored += count
            elif "cache" in name:
                cached += count
    return read, written, cached, stored


def _cost(total: Any, details: Any, row: Mapping[str, Any]) -> float | None:
    cost = number(total)
    if cost is None:
        cost = number(row.get("calculatedTotalCost"))
    if cost is None and isinstance(details, dict):
        cost = number(details.get("total"))
    # Without a price it writes 0.
    return cost or None


LANGFUSE = Format("langfuse", _FIELDS, _fits, _read)
