"""Spans with the names of OpenTelemetry's conventions, where they belong, and nothing where it is not installed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.semconv._incubating.attributes import gen_ai_attributes
from opentelemetry.trace import SpanKind, StatusCode

from costopt import Usage
from costopt.audit import Attempt, Ledger
from costopt.audit.otel import Spans, attributes_of
from costopt.audit.recorder import Answered, Call, Recorder

ATTEMPT = Attempt(
    "gpt-4o-mini",
    provider="openai",
    started=1_700_000_000.25,
    latency_s=1.5,
    first_token_s=0.2,
    usage=Usage(900, 100, 300, 200, 0, 40),
    cost=Decimal("0.0002"),
    cost_source="given",
    session="s-1",
    streamed=True,
    tags=("nightly",),
)


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Iterator[InMemorySpanExporter]:
    provider, exporter = TracerProvider(), InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    monkeypatch.setattr(trace, "get_tracer", lambda *names: provider.get_tracer(*names))
    yield exporter
    provider.shutdown()


def test_an_attempt_is_a_span_of_its_own_time(exporter: InMemorySpanExporter) -> None:
    Spans().emit(ATTEMPT)
    (span,) = exporter.get_finished_spans()
    assert (span.name, span.kind) == ("chat gpt-4o-mini", SpanKind.CLIENT)
    assert span.start_time == 1_700_000_000_250_000_000
    assert span.end_time is not None
    assert span.end_time - span.start_time == 1_500_000_000
    assert span.attributes is not None
    assert span.attributes["gen_ai.usage.input_tokens"] == 900
    assert span.attributes["gen_ai.usage.cache_read.input_tokens"] == 300
    assert span.attributes["gen_ai.usage.cache_creation.input_tokens"] == 200
    assert span.attributes["gen_ai.usage.reasoning.output_tokens"] == 40
    assert span.attributes["costopt.cost.usd"] == "0.0002"
    assert span.status.status_code is StatusCode.UNSET


def test_every_name_is_of_the_conventions() -> None:
    known = {value for name, value in vars(gen_ai_attributes).items() if name.startswith("GEN_AI_")}
    ours = {name for name in attributes_of(ATTEMPT) if name.startswith("gen_ai.")}
    assert len(ours) == 12
    assert ours <= known


def test_a_failure_is_an_error(exporter: InMemorySpanExporter) -> None:
    Spans().emit(Attempt("m", status="timeout", error="APITimeoutError"))
    (span,) = exporter.get_finished_spans()
    assert (span.status.status_code, span.status.description) == (StatusCode.ERROR, "APITimeoutError")
    assert span.attributes is not None
    assert span.attributes["error.type"] == "APITimeoutError"


def test_it_belongs_to_the_span_in_which_the_call_was_made(exporter: InMemorySpanExporter, tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        recorder = Recorder(ledger)
        with trace.get_tracer("application").start_as_current_span("answer the customer") as outer:
            recorder.answered(Call("1", "gpt-4o-mini", messages=list), Answered(usage=Usage(9, 1)))
        assert recorder.totals().attempts == 1
    ours = next(span for span in exporter.get_finished_spans() if span.name.startswith("chat"))
    assert ours.parent is not None
    assert ours.parent.span_id == outer.get_span_context().span_id


def test_a_provider_of_spans_that_fails_costs_no_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*names: str) -> None:
        raise RuntimeError("no provider")

    monkeypatch.setattr(trace, "get_tracer", fail)
    with Ledger(tmp_path / "ledger.db") as ledger:
        recorder = Recorder(ledger)
        for name in "12":
            recorder.answered(Call(name, "gpt-4o-mini", messages=list), Answered(usage=Usage(9, 1)))
        assert [row.cost for row in ledger.attempts()] == [Decimal("0.00000195")] * 2
        assert ledger.stats().failures == 0
    assert caplog.text.count("no provider") == 1


def test_no_words_are_in_a_span() -> None:
    assert "secret" not in str(attributes_of(Attempt("m", prompt="secret", answer="secret", tools="secret")))


def test_without_opentelemetry_nothing_happens(tmp_path: Path) -> None:
    code = """
import sys, importlib.abc
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry": raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
from costopt import Usage
from costopt.audit.recorder import Answered, Call, Recorder
recorder = Recorder(sys.argv[1])
recorder.answered(Call("1", "gpt-4o-mini", messages=list), Answered(usage=Usage(9, 1)))
print(recorder.totals().attempts, recorder.ledger.stats().failures)
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path / "l.db"], capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["1", "0"], done.stderr
