"""Tokens that carry nothing are found, and only those."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.audit.columns import Flag
from costopt.audit.context import context_of
from costopt.audit.waste import Meter, Waste, duplicates, shorter
from costopt.compression import Compressor
from costopt.tokens import count_tokens
from tests.costopt.audit.rows import START, log_of, record

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=10),
    lambda inner: st.lists(inner, min_size=1, max_size=3) | st.dictionaries(st.text(max_size=5), inner, min_size=1),
    max_leaves=10,
)
# A list of a few numbers may be a citation.
BLOCKS = st.lists(VALUES, min_size=4, max_size=6) | st.dictionaries(st.text(max_size=5), VALUES, min_size=1, max_size=3)


@given(value=BLOCKS, indent=st.none() | st.integers(1, 8))
def test_shorter_json_says_the_same(value: Any, indent: int | None) -> None:
    text = json.dumps(value, indent=indent)
    found = shorter(f"See here:\n{text}\nWell?")
    assert [block for block, _ in found] == [text]
    assert json.loads(found[0][1]) == value
    assert len(found[0][1]) < len(text)


@pytest.mark.parametrize(
    "text", ['{"a":1}', "{\n no JSON }", "[\n", "if (a) {\n  b();\n}", "{\n" * 5_000, "\\begin{a}\n{\nx}"]
)
def test_what_is_no_json_with_blanks_stays(text: str) -> None:
    assert shorter(text) == []


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"name": "Ada", "born": [1815, 12, 10], "died": None}),
        '{"a": 1,\n  "a": 2}',
        'As told: {"rate": 1.50e3}.\n```\n{"a": 1}\n```',
    ],
    ids=["one line", "keys twice", "code"],
)
def test_blanks_in_json_are_what_a_compressor_leaves_out(text: str) -> None:
    assert Waste().of([text], "gpt-4o")[0] > 0
    short = text
    for block, instead in shorter(text):
        short = short.replace(block, instead, 1)
    assert short == Compressor().compress(text).text


PASSAGE = "The lighthouse was built in the year of the flood, and its keeper wrote down every ship that passed it. " * 3


def test_the_same_passage_twice_is_found_whatever_lies_between() -> None:
    texts = [f"{PASSAGE}\n\nSomething else, which is short.\n\n{PASSAGE}", "A question?", PASSAGE]
    assert [text.strip() for text in duplicates(texts)] == [PASSAGE.strip()] * 2


def test_a_passage_with_a_word_changed_is_nearly_the_same_and_another_one_is_not() -> None:
    words = [f"word{i}" for i in range(200)]
    changed = [*words[:100], "other", *words[101:]]
    near, far = " ".join(words), " ".join(f"term{i}" for i in range(200))
    assert list(duplicates([f"{near}\n\n{far}\n\n{' '.join(changed)}"])) == [" ".join(changed)]


def test_tokens_are_counted_by_the_model_and_by_ratio_once_there_are_many() -> None:
    meter = Meter(most=2)
    exact = [meter.tokens("json", text, "gpt-4o") for text in ("one two three", "four five six")]
    assert exact == [count_tokens("one two three", "gpt-4o").tokens, count_tokens("four five six", "gpt-4o").tokens]
    assert meter.tokens("json", "x" * 26, "gpt-4o") == 6, "as many to the character as the others had"


def test_short_and_plain_prompts_have_no_waste() -> None:
    assert Waste().of(["You are kind.", "How are you?" * 50], "gpt-4o") == (0, 0)


def test_the_parts_of_a_prompt_add_up_to_its_input() -> None:
    tools = [{"name": "look", "description": "Looks." * 20}]
    turns = [
        {"role": "system", "content": "You are kind. " * 40},
        {"role": "user", "content": "Hello " * 30},
        {"role": "assistant", "content": "Good day. " * 30},
        {"role": "user", "content": "Why?"},
    ]
    log = log_of([record(messages=turns, tools=tools, input_tokens=600), record()])
    found = context_of(log)
    parts = found.system + found.tools + found.history + found.question
    assert parts.tolist() == log["input"].tolist()
    assert found.system[0] == count_tokens("You are kind. " * 40, "gpt-4o").tokens
    assert found.history[0] > found.question[0] > 0
    assert found.unused[0] == found.tools[0] > 0, "it was never called"


def test_a_prompt_cache_has_what_was_asked_minutes_ago_and_nothing_short() -> None:
    long, short = "You are kind. " * 400, "You are kind."
    rows = [
        record(f"What is {i}?", at=START + at, input_tokens=2_000,
               messages=[{"role": "system", "content": system}, {"role": "user", "content": f"What is {i}?"}])
        for i, (at, system) in enumerate([(0, long), (60, long), (1_000, long), (1_010, short), (1_020, short)])
    ]  # fmt: skip
    found = context_of(log_of(rows))
    size = count_tokens(long, "gpt-4o").tokens
    assert found.prefix.tolist() == [0, size, 0, 0, 0]
    assert found.opening.tolist() == [size, 0, size, 0, 0]


def test_a_conversation_that_goes_on_is_read_from_the_prompt_cache_but_for_its_last_turn() -> None:
    first = [{"role": "system", "content": "You are kind. " * 400}, {"role": "user", "content": "Hello " * 300}]
    second = [*first, {"role": "assistant", "content": "Good day."}, {"role": "user", "content": "Why?"}]
    other = [{"role": "system", "content": "You are kind. " * 400}, {"role": "user", "content": "Bye " * 300},
             *second[2:]]  # fmt: skip
    log = log_of(
        [record(messages=turns, at=START + i, input_tokens=3_000) for i, turns in enumerate((first, second, other))]
    )
    found = context_of(log)
    size = int(found.system[0])
    assert found.prefix.tolist() == [0, size + int(found.history[1]), size]
    assert log.has(Flag.TURNS).tolist() == [False, True, True]
