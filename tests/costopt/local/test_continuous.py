"""transformers' continuous batching behind our seam: the same answers, and what it does not do is done."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costopt.errors import ConfigError, EngineError, GenerationCancelledError
from costopt.local import batching_v5
from costopt.local.engine import GenerationRequest
from costopt.local.transformers_engine import TransformersEngine
from tests.tiny_models import FACTS, answer, question


def ask(name: str, **options: Any) -> GenerationRequest:
    return GenerationRequest.chat(question(name), **{"max_tokens": 20, **options})


@pytest.fixture(scope="module")
def continuous(facts_model: Path) -> Iterator[TransformersEngine]:
    with TransformersEngine(facts_model, quantization="none", dtype="float32", batching="continuous") as engine:
        yield engine


def running(engine: TransformersEngine) -> Any:
    """The batch that runs transformers' loop."""
    ready = engine._worker.ready
    assert ready is not None
    return ready.batches[0]


def test_the_same_answers_as_in_rows_in_fewer_passes_than_tokens(
    continuous: TransformersEngine, engine: TransformersEngine
) -> None:
    handles = [[each.submit(ask(name)) for name in FACTS] for each in (continuous, engine)]
    answers = [[handle.result(60) for handle in each] for each in handles]
    assert answers[0] == answers[1]
    assert sum(found.text == answer(name) for found, name in zip(answers[0], FACTS, strict=True)) == len(FACTS)
    stats = continuous.stats()
    assert stats.steps < stats.completion_tokens / 4
    assert stats.cache_bytes > 0


def test_what_it_does_not_do_runs_beside_it(continuous: TransformersEngine) -> None:
    plain = [continuous.submit(ask(name)) for name in list(FACTS)[:20]]
    with_probabilities = [continuous.submit(ask(name, logprobs=0)) for name in list(FACTS)[:20]]
    drawn = [continuous.submit(ask("Anna", temperature=2.0, seed=5)).result(60).text for _ in range(2)]
    assert [handle.result(60).text for handle in plain] == [handle.result(60).text for handle in with_probabilities]
    assert drawn[0] == drawn[1]


def test_a_stop_text_ends_the_request_and_its_tokens(continuous: TransformersEngine) -> None:
    name = next(iter(FACTS))
    found = continuous.submit(ask(name, stop=(" has",))).result(60)
    assert (found.text, found.finish_reason) == (name, "stop")
    assert found.usage is not None
    assert found.usage.completion_tokens < 8


def test_it_is_streamed_token_by_token(continuous: TransformersEngine) -> None:
    pieces = list(continuous.submit(ask(next(iter(FACTS)))))
    assert len([piece for piece in pieces if piece.text]) >= 3


def test_a_cancelled_request_leaves_its_place_to_others(continuous: TransformersEngine) -> None:
    long = [continuous.submit(GenerationRequest.chat("Well?", max_tokens=400)) for _ in range(40)]
    for handle in long:
        handle.cancel()
    assert continuous.submit(ask(next(iter(FACTS)))).result(60).text
    with pytest.raises(GenerationCancelledError):
        long[0].result()


def test_a_loop_that_ends_fails_its_requests_and_is_started_again(
    facts_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with TransformersEngine(facts_model, quantization="none", batching="continuous") as engine:
        name = next(iter(FACTS))
        assert engine.submit(ask(name)).result(60).text == answer(name)
        model = running(engine)._model
        broken = True

        def explode(*_: Any) -> None:
            if broken:
                raise RuntimeError("boom")

        hook = model.model.layers[0].register_forward_pre_hook(explode)
        for handle in [engine.submit(ask(name)) for _ in range(5)]:
            with pytest.raises(EngineError, match="boom"):
                handle.result(60)
        broken = False
        assert engine.submit(ask(name)).result(60).text == answer(name)
        hook.remove()
        stats = engine.stats()
        assert stats.restarts >= 1
        assert (stats.finished, stats.failed) == (2, 5)
    assert "started again" in caplog.text


def test_with_another_transformers_rows_are_taken_unless_it_was_asked_for(
    facts_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batching_v5, "version", lambda name: "6.0.0")
    strict = TransformersEngine(facts_model, quantization="none", batching="continuous")
    with pytest.raises(ConfigError, match=r"transformers 6\.0\.0 is not one of those"):
        strict.load()
    with TransformersEngine(facts_model, quantization="none", batching="auto") as engine:
        assert engine.submit(ask(next(iter(FACTS)))).result(60).text
    assert batching_v5.missing(None)


def test_models_that_it_cannot_run_are_told(reference: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, _ = reference
    assert batching_v5.missing(model) == ""
    monkeypatch.setattr(model.config, "_attn_implementation_internal", "eager")
    assert "attention" in batching_v5.missing(model)
    assert "no continuous batching" in batching_v5.missing(object())
