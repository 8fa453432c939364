"""LiteLLM's logs, one call a line: its standard logging payload, and the rows of its table of spending.

Token counts are OpenAI's, whoever the provider: the prompt's hold what was read from and written to a cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costopt.audit.readers.fields import (
    called_tools,
    messages_of,
    moment,
    number,
    parsed,
    put_usage,
    text,
    text_answer,
    words,
)
from costopt.audit.readers.formats import Format
from costopt.audit.record import Record

__all__ = ["LITELLM"]

_FIELDS = frozenset(
    "id trace_id call_id call_type stream response_cost cost_breakdown response_cost_failure_debug_info status "
    "status_fields custom_llm_provider total_tokens prompt_tokens completion_tokens startTime endTime "
    "completionStartTime response_time model_map_information model model_id model_group api_base metadata cache_hit "
    "cache_key saved_cache_cost request_tags end_user requester_ip_address user_agent messages response error_str "
    "error_information model_parameters hidden_params guardrail_information standard_built_in_tools_params "
    "request_id api_key spend user team_id organization_id agent_id session_id proxy_server_request "
    "mcp_namespaced_tool_name request_duration_ms".split()
)
# Calls whose answer is no text: embeddings, images, speech, moderation, and keeping house.
_OTHERS = ("embedding", "image", "speech", "transcription", "moderation", "rerank", "batch", "file", "get_", "list_")


def _fits(row: Mapping[str, Any]) -> bool:
    return "call_type" in row and any(name in row for name in ("spend", "response_cost", "startTime", "model_group"))


def _read(row: Mapping[str, Any]) -> Record | None:
    kind = row.get("call_type")
    if isinstance(kind, str) and any(word in kind for word in _OTHERS):
        return None
    model = text(row.get("model")) or text(row.get("model_group"))
    if model is None:
        raise ValueError('no "model"')
    started, ended = moment(row.get("startTime")), moment(row.get("endTime"))
    record = Record(started, model, text(row.get("custom_llm_provider")))
    if started is not None and ended is not None and ended >= started:
        record.latency_s = ended - started
    params = _map(row.get("model_parameters"))
    request = _map(row.get("proxy_server_request"))
    record.messages = messages_of(row.get("messages") or request.get("messages"))
    tools = params.get("tools") or request.get("tools")
    record.tools = tools if isinstance(tools, list) else None
    record.params = {name: value for name, value in params.items() if name not in ("tools", "stream", "user")}
    metadata = _map(row.get("metadata"))
    _put_answer(record, _map(row.get("response")), row.get("response"))
    _put_usage(record, row, metadata)
    cost = number(row["response_cost"] if "response_cost" in row else row.get("spend"))
    record.hit = row.get("cache_hit") in (True, "True", "true")
    # It writes 0 where it does not know the price, too.
    record.cost = cost if cost or record.hit else None
    record.ok = row.get("status") not in ("failure", "error") and not row.get("error_str")
    record.tags = words(row.get("request_tags"))
    record.session = text(row.get("session_id")) or text(row.get("trace_id"))
    record.tenant = text(row.get("team_id")) or text(metadata.get("user_api_key_team_id"))
    streamed = row.get("stream")
    record.stream = streamed if isinstance(streamed, bool) else None
    return record


def _map(value: Any) -> Mapping[str, Any]:
    value = parsed(value)
    return value if isinstance(value, dict) else {}


def _put_answer(record: Record, answer: Mapping[str, Any], whole: Any) -> None:
    choices = answer.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        message = choices[0].get("message")
        record.answer, record.called = text_answer(message), called_tools(message)
    elif isinstance(whole, str):
        record.answer = whole


def _put_usage(record: Record, row: Mapping[str, Any], metadata: Mapping[str, Any]) -> None:
    inner = _map(row.get("response")).get("usage") or metadata.get("usage_object")
    if isinstance(inner, dict) and inner:
        put_usage(record, inner)
    elif row.get("prompt_tokens") or row.get("completion_tokens"):
        counts = {name: row.get(name) for name in ("prompt_tokens", "completion_tokens")}
        put_usage(record, counts)


LITELLM = Format("litellm", _FIELDS, _fits, _read)
