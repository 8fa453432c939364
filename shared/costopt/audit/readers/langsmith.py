"""Runs exported from LangSmith, one a line: the fields of its run data format.

Runs of type "llm" are model calls; chains, tools and retrievers are counted and passed over. Token counts hold their
details, as LangChain's do.
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
from costopt.conversation import CONVERSATION_IDS

__all__ = ["LANGSMITH"]

_FIELDS = frozenset(
    "id name inputs run_type start_time end_time extra error outputs events tags trace_id dotted_order status "
    "child_run_ids direct_child_run_ids parent_run_ids parent_run_id feedback_stats reference_example_id total_tokens "
    "prompt_tokens completion_tokens total_cost prompt_cost completion_cost first_token_time session_id in_dataset "
    "is_in_dataset app_path share_token manifest_id serialized child_runs attachments prompt_token_details "
    "completion_token_details prompt_cost_details completion_cost_details inputs_preview outputs_preview "
    "manifest_s3_id inputs_s3_urls outputs_s3_urls s3_urls trace_tier trace_upgrade last_queued_at price_model_id "
    "thread_id execution_order latency_seconds metadata is_root error_preview messages".split()
)
# Of a call's parameters, what neither shapes the answer nor is part of the prompt.
_NOT_PARAMS = frozenset(("_type", "stream", "model", "model_name", "tools", "functions", "api_key"))


def _fits(row: Mapping[str, Any]) -> bool:
    return "run_type" in row and ("inputs" in row or "outputs" in row or "start_time" in row)


def _read(row: Mapping[str, Any]) -> Record | None:
    if row.get("run_type") != "llm":
        return None
    extra = _map(row.get("extra"))
    metadata = {**_map(row.get("metadata")), **_map(extra.get("metadata"))}
    params = _map(extra.get("invocation_params"))
    inputs, outputs = _map(row.get("inputs")), _map(row.get("outputs"))
    model = _model(metadata, params, outputs)
    if model is None:
        raise ValueError('no model: neither "ls_model_name" in its metadata nor "invocation_params"')
    started, ended = moment(row.get("start_time")), moment(row.get("end_time"))
    record = Record(started, model, text(metadata.get("ls_provider")))
    if started is not None and ended is not None and ended >= started:
        record.latency_s = ended - started
    record.messages = messages_of(inputs.get("messages") or inputs.get("prompts") or inputs.get("prompt"))
    tools = params.get("tools") or params.get("functions") or inputs.get("tools")
    record.tools = tools if isinstance(tools, list) else None
    record.params = {name: value for name, value in params.items() if name not in _NOT_PARAMS}
    message = _message(outputs)
    record.answer, record.called = text_answer(message), called_tools(message)
    _put_usage(record, row, outputs, message)
    record.cost = number(row.get("total_cost"))
    record.ok = not row.get("error") and row.get("status") not in ("error", "interrupted", "pending")
    record.tags = words(row.get("tags"))
    record.session = next((said for name in CONVERSATION_IDS if (said := text(metadata.get(name)))), None)
    record.tenant, record.name = text(metadata.get("tenant")), text(row.get("name"))
    record.stream = bool(row["first_token_time"]) if "first_token_time" in row else None
    record.hit = _hit(outputs, message)
    return record


def _map(value: Any) -> Mapping[str, Any]:
    value = parsed(value)
    return value if isinstance(value, dict) else {}


def _model(metadata: Mapping[str, Any], params: Mapping[str, Any], outputs: Mapping[str, Any]) -> str | None:
    said = (metadata.get("ls_model_name"), params.get("model"), params.get("model_name"), outputs.get("model"))
    return next((each for each in said if isinstance(each, str) and each), None)


def _message(outputs: Mapping[str, Any]) -> Any:
    """The answer, in LangChain's generations, OpenAI's choices, Anthropic's content or a bare message."""
    generations = outputs.get("generations")
    while isinstance(generations, list) and generations:
        generations = generations[0]
    if isinstance(generations, dict):
        return generations.get("message") or generations
    choices = outputs.get("choices")
    if isinstance(choices, list) and choices and isinstance(choices[0], dict):
        return choices[0].get("message")
    messages = outputs.get("messages")
    if isinstance(messages, list) and messages:
        return messages[-1]
    return outputs.get("message") or outputs.get("output") or outputs


def _put_usage(record: Record, row: Mapping[str, Any], outputs: Mapping[str, Any], message: Any) -> None:
    inner = _map(message.get("kwargs")) if isinstance(message, dict) else {}
    said = (
        outputs.get("usage_metadata"),
        inner.get("usage_metadata"),
        message.get("usage_metadata") if isinstance(message, dict) else None,
        outputs.get("usage"),
        _map(outputs.get("llm_output")).get("token_usage"),
    )
    for usage in said:
        if isinstance(usage, dict) and usage:
            put_usage(record, usage)
            return
    if row.get("total_tokens"):  # 0 is what a run without usage has
        details = _map(row.get("prompt_token_details"))
        put_usage(
            record,
            {
                "input_tokens": number(row.get("prompt_tokens")),
                "output_tokens": number(row.get("completion_tokens")),
                "input_token_details": {**details, "cache_creation": details.get("cache_creation", 0)},
            },
        )
        record.tells_cached = bool(details)


def _hit(outputs: Mapping[str, Any], message: Any) -> bool:
    """Whether the answer came out of a cache: ours says so in the message's metadata."""
    inner = _map(message.get("kwargs", message)) if isinstance(message, dict) else {}
    said = _map(_map(inner.get("response_metadata")).get("costopt")).get("cache")
    return said is not None or bool(outputs.get("cached"))


LANGSMITH = Format("langsmith", _FIELDS, _fits, _read)
