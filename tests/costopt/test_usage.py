"""Whoever reports usage, and however: no token is counted twice, and none is left out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from openai.types import CompletionUsage
from openai.types.responses import ResponseUsage

from costopt import Usage
from costopt.audit import usage_of

COUNTS = st.integers(0, 10**7)


@pytest.mark.parametrize(
    ("reported", "usage"),
    [
        ({"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}, Usage(30, 12)),
        ({"prompt_tokens": 30, "total_tokens": 30}, Usage(30)),  # embeddings
        ({"prompt_tokens": 9, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 8}}, Usage(9, 2, 8)),
        (
            {"prompt_tokens": 3, "completion_tokens": 12, "completion_tokens_details": {"reasoning_tokens": 9}},
            Usage(3, 12, reasoning_tokens=9),
        ),
        ({"prompt_tokens": 3, "completion_tokens": 1, "prompt_tokens_details": None}, Usage(3, 1)),
        # the Responses API
        (
            {
                "input_tokens": 30,
                "output_tokens": 12,
                "input_tokens_details": {"cached_tokens": 20},
                "output_tokens_details": {"reasoning_tokens": 9},
            },
            Usage(30, 12, 20, reasoning_tokens=9),
        ),
        # Anthropic's own API leaves both parts out of its input
        ({"input_tokens": 30, "output_tokens": 12}, Usage(30, 12)),
        (
            {
                "input_tokens": 30,
                "output_tokens": 12,
                "cache_read_input_tokens": 100,
                "cache_creation_input_tokens": 50,
                "cache_creation": {"ephemeral_5m_input_tokens": 10, "ephemeral_1h_input_tokens": 40},
            },
            Usage(180, 12, 100, 50, 40),
        ),
        ({"input_tokens": 30, "output_tokens": 12, "cache_read_input_tokens": None}, Usage(30, 12)),
        (
            {"input_tokens": 3, "output_tokens": 12, "cache_read_input_tokens": 4,
             "output_tokens_details": {"thinking_tokens": 9}},
            Usage(7, 12, 4, reasoning_tokens=9),
        ),
        # LangChain counts them in, and langchain-anthropic tells the two kinds of writes apart
        (
            {
                "input_tokens": 180,
                "output_tokens": 12,
                "total_tokens": 192,
                "input_token_details": {"cache_read": 100, "cache_creation": 0, "ephemeral_5m_input_tokens": 10,
                                        "ephemeral_1h_input_tokens": 40},
                "output_token_details": {"reasoning": 7},
            },
            Usage(180, 12, 100, 50, 40, 7),
        ),
        ({"input_tokens": 35, "output_tokens": 1, "input_token_details": {"cache_creation": 5}}, Usage(35, 1, 0, 5)),
        # a gateway that adds Anthropic's fields to OpenAI's, whose total holds them
        (
            {"prompt_tokens": 180, "completion_tokens": 12, "cache_read_input_tokens": 100,
             "cache_creation_input_tokens": 50},
            Usage(180, 12, 100, 50),
        ),
        ({"prompt_tokens": 30, "completion_tokens": 12, "prompt_cache_hit_tokens": 20}, Usage(30, 12, 20)),
    ],
)  # fmt: skip
def test_one_usage_from_each_shape(reported: dict[str, Any], usage: Usage) -> None:
    assert usage_of(reported) == usage


def test_objects_of_the_sdks_are_read_as_their_json_is() -> None:
    chat = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    assert usage_of(CompletionUsage.model_validate(chat)) == usage_of(chat) == Usage(30, 12)
    response = {
        "input_tokens": 9,
        "output_tokens": 5,
        "total_tokens": 14,
        "input_tokens_details": {"cached_tokens": 3, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 4},
    }
    assert usage_of(ResponseUsage.model_validate(response)) == Usage(9, 5, 3, reasoning_tokens=4)


@pytest.mark.parametrize(
    "nothing", [None, {}, "12", 7, [], {"tokens": 3}, {"input_tokens": None}, {"input_tokens": "9"}]
)
def test_what_says_nothing_is_none_and_not_zero(nothing: Any) -> None:
    assert usage_of(nothing) is None


@settings(max_examples=60)
@given(
    st.dictionaries(
        st.sampled_from(
            "prompt_tokens completion_tokens input_tokens output_tokens cache_read_input_tokens cached_tokens "
            "cache_creation_input_tokens prompt_tokens_details input_token_details output_token_details "
            "completion_tokens_details cache_creation".split()
        ),
        st.one_of(
            st.none(),
            st.integers(-(10**20), 10**20),
            st.floats(),
            st.text(),
            st.dictionaries(
                st.sampled_from("cached_tokens reasoning_tokens cache_read cache_creation reasoning".split()),
                st.one_of(st.none(), st.integers(-(10**20), 10**20), st.floats(), st.text()),
            ),
        ),
    )
)
def test_parts_are_within_their_wholes_whatever_was_said(reported: dict[str, Any]) -> None:
    usage = usage_of(reported)
    if usage is None:
        return
    assert min(getattr(usage, name) for name in usage.__slots__) >= 0
    assert usage.cached_tokens + usage.cache_write_tokens <= usage.input_tokens
    assert usage.cache_write_1h_tokens <= usage.cache_write_tokens
    assert usage.reasoning_tokens <= usage.output_tokens


@given(COUNTS, COUNTS, COUNTS, COUNTS)
def test_anthropic_and_langchain_say_the_same_of_one_call(fresh: int, read: int, stored: int, written: int) -> None:
    raw = {"input_tokens": fresh, "output_tokens": written, "cache_read_input_tokens": read,
           "cache_creation_input_tokens": stored}  # fmt: skip
    details = {"cache_read": read, "cache_creation": stored}
    theirs = {"input_tokens": fresh + read + stored, "output_tokens": written, "input_token_details": details}
    assert usage_of(raw) == usage_of(theirs)
