"""Attempts as OpenTelemetry spans, with the names of its conventions for generative AI."""

from __future__ import annotations

import importlib.util
import logging
from functools import cache
from typing import Any

from costopt.audit.attempt import Attempt
from costopt.pricing import Usage

__all__ = ["Spans"]

_log = logging.getLogger("costopt.audit")

_US = 1_000_000  # a float of this size tells microseconds apart, and no less


class Spans:
    """Emits a span for each attempt, where `opentelemetry-api` is installed; without it, does nothing.

    Where the spans go is a matter of the application's tracer provider: none set up, nothing is emitted. Prompts and
    answers are not in them.

    Example:
        >>> Spans().emit(Attempt("gpt-4o-mini", usage=Usage(900, 100)))
    """

    def __init__(self) -> None:
        self._tracer: Any = None
        self._failed = False

    def parent(self) -> Any:
        """Where a span made later belongs: call it where the model call is made."""
        if not _installed():
            return None
        from opentelemetry import context

        return context.get_current()

    def emit(self, attempt: Attempt, parent: Any = None) -> None:
        """Emit the span of an attempt that is over; what goes wrong with it is logged once.

        Args:
            attempt: The attempt.
            parent: What `parent` returned.
        """
        if not _installed():
            return
        try:
            self._emit(attempt, parent)
        except Exception as error:  # of a provider or processor of the application's
            if not self._failed:
                self._failed = True
                _log.warning("costopt: spans are not emitted: %r", error)

    def _emit(self, attempt: Attempt, parent: Any) -> None:
        from opentelemetry import trace
        from opentelemetry.trace import SpanKind, Status, StatusCode

        if self._tracer is None:
            from importlib.metadata import version

            self._tracer = trace.get_tracer("costopt", version("costopt"))
        start = round(attempt.started * _US) * 1000
        span = self._tracer.start_span(
            f"chat {attempt.model}", parent, SpanKind.CLIENT, attributes_of(attempt), start_time=start
        )
        if attempt.status != "ok":
            span.set_status(Status(StatusCode.ERROR, attempt.error))
        span.end(end_time=start + round((attempt.latency_s or 0.0) * _US) * 1000)


def attributes_of(attempt: Attempt) -> dict[str, Any]:
    """The attributes of an attempt's span: "gen_ai." where the conventions have a name, "costopt." where not.

    Example:
        >>> attributes_of(Attempt("gpt-4o-mini", usage=Usage(900, 100)))["gen_ai.usage.input_tokens"]
        900
    """
    known: dict[str, Any] = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": attempt.provider or "_OTHER",
        "gen_ai.request.model": attempt.model,
        "gen_ai.response.model": attempt.model if attempt.status == "ok" else None,
        "gen_ai.request.stream": attempt.streamed or None,
        "gen_ai.response.time_to_first_chunk": attempt.first_token_s,
        "gen_ai.conversation.id": attempt.session,
        "error.type": attempt.error,
        "costopt.attempt.id": attempt.id,
        "costopt.request.id": attempt.request_id,
        "costopt.status": attempt.status,
        # Text, as everywhere: a binary fraction is not what was charged.
        "costopt.cost.usd": None if attempt.cost is None else str(attempt.cost),
        "costopt.cost.source": attempt.cost_source or None,
        "costopt.avoided_cost.usd": None if attempt.avoided_cost is None else str(attempt.avoided_cost),
        "costopt.cache": attempt.cache,
        "costopt.route": attempt.route,
        "costopt.batch": attempt.batch,
        "costopt.tenant": attempt.tenant,
        "costopt.tags": attempt.tags or None,
    }
    if attempt.usage is not None:
        known |= _counts(attempt.usage)
        known["costopt.usage.estimated"] = attempt.usage_estimated or None
    return {name: value for name, value in known.items() if value is not None}


def _counts(usage: Usage) -> dict[str, int]:
    return {
        "gen_ai.usage.input_tokens": usage.input_tokens,
        "gen_ai.usage.output_tokens": usage.output_tokens,
        "gen_ai.usage.cache_read.input_tokens": usage.cached_tokens,
        "gen_ai.usage.cache_creation.input_tokens": usage.cache_write_tokens,
        "gen_ai.usage.reasoning.output_tokens": usage.reasoning_tokens,
    }


@cache
def _installed() -> bool:
    try:
        return importlib.util.find_spec("opentelemetry.trace") is not None
    except ImportError:
        return False
