"""Tokens are drawn by each request's own rules, whoever shares the pass."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from costopt.errors import ConfigError, TruncatedOutputError
from costopt.local.constrain import SchemaConstraints, call_schema, closed
from costopt.local.engine import GenerationRequest
from costopt.local.sampling import Sampling, choose
from costopt.local.transformers_engine import TransformersEngine

SCORES = st.lists(st.floats(-5, 5, width=32), min_size=3, max_size=8)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(scores=SCORES, others=st.integers(0, 3), seed=st.integers(0, 99), temperature=st.sampled_from([0.0, 0.5, 2.0]))
def test_a_row_draws_the_same_alone_and_among_others(
    scores: list[float], others: int, seed: int, temperature: float
) -> None:
    row = torch.tensor(scores)
    alone = choose(row[None], [Sampling(temperature, 0.9, 2, seeded(seed))])[0]
    rest = [Sampling(1.0, 1.0, None, seeded(seed + 1)) for _ in range(others)]
    among = choose(torch.stack([row, *[row.flip(0)] * others]), [Sampling(temperature, 0.9, 2, seeded(seed)), *rest])[0]
    assert alone == among


@given(scores=SCORES, top_p=st.floats(0.01, 0.99), seed=st.integers(0, 999))
def test_only_the_likeliest_tokens_that_together_have_top_p_are_drawn(
    scores: list[float], top_p: float, seed: int
) -> None:
    shares = torch.softmax(torch.tensor(scores).double(), 0)
    token = choose(torch.tensor([scores]), [Sampling(1.0, top_p, None, seeded(seed))])[0].token
    likelier = sum(share for share in shares.tolist() if share > float(shares[token]) + 1e-12)
    assert likelier < top_p + 1e-9


@given(scores=SCORES)
def test_log_probabilities_are_those_of_the_model(scores: list[float]) -> None:
    choice = choose(torch.tensor([scores]), [Sampling(0.7, 0.5, len(scores), seeded(1))])[0]
    assert math.isclose(sum(math.exp(value) for _, value in choice.top), 1.0, rel_tol=1e-4)
    assert [value for _, value in choice.top] == sorted((value for _, value in choice.top), reverse=True)
    assert choice.logprob == pytest.approx(dict(choice.top)[choice.token])


def test_a_hot_row_draws_other_tokens_with_other_seeds() -> None:
    scores = torch.zeros(1, 50)
    drawn = {choose(scores, [Sampling(1.0, 1.0, None, seeded(seed))])[0].token for seed in range(30)}
    assert len(drawn) > 10


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 6},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "kind": {"enum": ["cat", "dog"]},
    },
    "required": ["name", "age", "kind"],
    "additionalProperties": False,
}


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_an_answer_cannot_but_follow_its_schema(engine: TransformersEngine, temperature: float) -> None:
    request = GenerationRequest.chat(
        "Tell me of a pet.", response_schema=PERSON, max_tokens=80, temperature=temperature, seed=3
    )
    found = engine.submit(request).result(60)
    pet = json.loads(found.text)
    assert list(pet) == ["name", "age", "kind"]
    assert 0 <= pet["age"] <= 120
    assert len(pet["name"]) <= 6
    assert pet["kind"] in ("cat", "dog")
    assert found.finish_reason == "stop"


def test_a_structured_answer_that_is_cut_off_is_an_error_with_what_there_is(engine: TransformersEngine) -> None:
    request = GenerationRequest.chat("Tell me of a pet.", response_schema=PERSON, max_tokens=4)
    with pytest.raises(TruncatedOutputError, match="max_tokens=4") as caught:
        engine.submit(request).result(60)
    assert caught.value.text.startswith('{"')


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"$ref": "#/$defs/none"}, {"type": "object", "required": 3}])
def test_a_schema_that_cannot_be_enforced_is_refused(engine: TransformersEngine, schema: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="response_schema"):
        engine.submit(GenerationRequest.chat("x", response_schema=schema, max_tokens=9)).result(60)


def test_every_call_that_must_be_made_is_one_that_may_be_made(engine: TransformersEngine) -> None:
    pet: dict[str, Any] = {"type": "object", "properties": {"kind": {"$ref": "#/$defs/kind"}}, "required": ["kind"]}
    pet |= {"$defs": {"kind": {"enum": ["cat", "dog"]}}, "additionalProperties": False}
    tools = (
        {"type": "function", "function": {"name": "feed", "parameters": pet}},
        {"type": "function", "function": {"name": "rest"}},
    )
    for choice, names in (("required", {"feed", "rest"}), ("feed", {"feed"})):
        request = GenerationRequest.chat("Feed it.", tools=tools, tool_choice=choice, max_tokens=80)
        found = engine.submit(request).result(60)
        (call,) = found.tool_calls
        assert call.name in names
        assert found.finish_reason == "tool_calls"
        assert found.text == ""
        if call.name == "feed":
            assert json.loads(call.arguments)["kind"] in ("cat", "dog")
    nothing = {"type": "object", "properties": {}, "additionalProperties": False}
    assert call_schema(tools, "rest")["anyOf"][0]["properties"]["arguments"] == nothing


def test_a_tokenizer_that_cannot_be_constrained_is_named() -> None:
    with pytest.raises(ConfigError, match="tokenizer"):
        SchemaConstraints(object(), 10, {1}).follow({"type": "object"})


def test_an_object_holds_what_its_schema_names_and_nothing_else(engine: TransformersEngine) -> None:
    """A schema that says nothing of further properties; the model, which knows of none, would make some up."""
    open_ = {name: value for name, value in PERSON.items() if name != "additionalProperties"}
    pets = {"type": "object", "properties": {"pets": {"type": "array", "items": open_, "minItems": 2, "maxItems": 2}}}
    request = GenerationRequest.chat("Tell me.", response_schema=pets, max_tokens=200, temperature=1.5, seed=3)
    told = json.loads(engine.submit(request).result(60).text)
    assert set(told) <= {"pets"}
    assert all(set(pet) == {"name", "age", "kind"} for pet in told.get("pets", ()))
    tool = {"type": "function", "function": {"name": "now", "parameters": {"type": "object", "properties": {}}}}
    request = GenerationRequest.chat("When?", tools=(tool,), tool_choice="now", max_tokens=40)
    assert engine.submit(request).result(60).tool_calls[0].arguments == "{}"


A = {"type": "object", "properties": {"a": {"type": "integer"}}}
B = {"type": "object", "properties": {"b": {"type": "integer"}}}


@pytest.mark.parametrize(
    "schema",
    [
        {"allOf": [A, B]},
        {"allOf": [{"$ref": "#/$defs/a"}, B], "$defs": {"a": A}},
        {**A, "$ref": "#/$defs/b", "$defs": {"b": B}},
        {**A, "anyOf": [B, {"required": ["a"]}]},
        {**A, "additionalProperties": True},
        {**A, "patternProperties": {"^b": {"type": "integer"}}},
        {"not": A},
        {"type": "object"},
        {"const": {"type": "object", "properties": {}}},
        {"type": "object", "required": 3},
        {"type": "array", "items": True},
    ],
)
def test_a_schema_that_may_mean_more_stays_as_it_is(schema: dict[str, Any]) -> None:
    assert closed(schema) == schema


def test_objects_are_closed_wherever_they_are() -> None:
    shut = {**A, "additionalProperties": False}
    assert closed({"anyOf": [A, {"type": "null"}]}) == {"anyOf": [shut, {"type": "null"}]}
    assert closed({"$ref": "#/$defs/a", "$defs": {"a": A}}) == {"$ref": "#/$defs/a", "$defs": {"a": shut}}
    assert closed({"type": "array", "items": A}) == {"type": "array", "items": shut}
    named = {"type": "object", "properties": {"properties": A}}
    assert closed(named) == {"type": "object", "properties": {"properties": shut}, "additionalProperties": False}
