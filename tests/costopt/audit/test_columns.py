"""Rows are told apart as a cache would tell them, and kept in the order of time."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.audit.columns import Columns, Flag
from costopt.audit.keys import keys_of
from costopt.audit.money import dollars, picodollars, total
from costopt.audit.record import Record
from costopt.caching.request import build_request
from tests.costopt.audit.rows import log_of, record

ROLES = st.sampled_from(["system", "user", "assistant"])
WORDS = st.sampled_from(["Why?", "why?", " Why?\r\n", "Why?\n", "How?", ""])
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": WORDS}), min_size=1, max_size=4)
PARAMS = st.sampled_from([{}, {"temperature": 0}, {"temperature": 0.5}, {"stop": ["a"]}, {"stop": ["b"]}])
REQUESTS = st.tuples(MESSAGES, PARAMS, st.sampled_from(["gpt-4o", "gpt-4o-mini"]), st.sampled_from([None, "acme"]))


def of_cache(messages: Any, params: Any, model: str, tenant: str | None) -> tuple[Any, Any, Any]:
    request = build_request(messages, model=model, params=repr(sorted(params.items())), tenant=tenant or "default")
    return request.key, request.scope if request.text else None, request.text


@given(requests=st.lists(REQUESTS, min_size=2, max_size=12))
def test_two_rows_are_one_request_exactly_where_they_are_to_the_cache(requests: list[Any]) -> None:
    for one, other in itertools.combinations(requests, 2):
        keys = [keys_of(Record(None, model, tenant=tenant, messages=messages, params=params), 0)
                for messages, params, model, tenant in (one, other)]  # fmt: skip
        ours, theirs = [(each.exact, each.scope, each.text) for each in keys], [of_cache(*one), of_cache(*other)]
        assert (ours[0][0] == ours[1][0]) == (theirs[0][0] == theirs[1][0])
        if ours[0][2] is not None and ours[1][2] is not None:
            assert (ours[0][1] == ours[1][1]) == (theirs[0][1] == theirs[1][1])
        assert [each[2] for each in ours] == [each[2] for each in theirs]


def test_ids_of_calls_keep_no_two_requests_apart() -> None:
    def turns(call: str) -> list[dict[str, Any]]:
        calls = [{"id": call, "name": "look", "args": "{}"}]
        return [
            {"role": "user", "content": "Look"},
            {"role": "assistant", "content": "", "tool_calls": calls},
            {"role": "tool", "content": "42", "tool_call_id": call},
        ]

    one, other = (keys_of(Record(None, "gpt-4o", messages=turns(call)), 0) for call in ("call_1", "call_2"))
    assert one.exact == other.exact
    assert one.upto == other.upto, "both begin with the same question"


def test_a_conversation_that_begins_with_words_and_goes_on_with_calls_is_one() -> None:
    first = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Look"}]
    calls = [{"id": "c", "name": "look", "args": "{}"}]
    second = [
        *first,
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "content": "42", "tool_call_id": "c"},
        {"role": "user", "content": "And?"},
    ]
    one, other = (keys_of(Record(None, "gpt-4o", messages=turns), 0) for turns in (first, second))
    assert one.upto == other.before != 0


@given(moments=st.lists(st.none() | st.floats(0, 1e9), min_size=1, max_size=30))
def test_rows_come_in_the_order_of_time_and_keep_their_company(moments: list[float | None]) -> None:
    log = log_of(record(at=at, input_tokens=i) for i, at in enumerate(moments))
    assert len(log) == len(moments)
    assert sorted(log["input"].tolist()) == list(range(len(moments)))
    if log.timed:
        assert (np.diff(log["started"]) >= 0).all()
        for row, number in enumerate(log["input"]):
            at = moments[number]
            assert at is None or log["started"][row] == pytest.approx(at)


def test_what_a_row_is_stands_in_its_flags() -> None:
    image = [{"role": "user", "content": [{"type": "text", "text": "What?"}, {"type": "image_url", "image_url": {}}]}]
    log = log_of(
        [
            record(ok=False),
            record(hit=True, stream=True, batch=True),
            record(tags=("Nightly",), tools=[{"name": "a"}], called=("a",)),
            record(messages=image, params={"response_format": {"type": "json_object"}}),
            record(input_tokens=-1, answer="So it is."),
            record(input_tokens=-1, messages=None),
        ]
    )
    wanted = [
        Flag.FAILED, Flag.HIT | Flag.STREAMED | Flag.BATCHED, Flag.PATIENT | Flag.OFFERS_TOOLS | Flag.CALLS_TOOLS,
        Flag.MEDIA | Flag.JSON, Flag.ESTIMATED, Flag.UNCOUNTED,
    ]  # fmt: skip
    assert [flags & ~Flag.PROMPT for flags in log["flags"].tolist()] == wanted
    assert log["output"][4] == 3, "nine characters at four a token"


def test_numbers_beyond_what_a_call_can_have_are_refused() -> None:
    columns = Columns()
    with pytest.raises(ValueError, match="beyond what a model call can have"):
        columns.add(record(input_tokens=1 << 40))
    assert len(columns) == 0


@given(amounts=st.lists(st.integers(0, (1 << 62) - 1), max_size=50))
def test_sums_of_money_are_exact_beyond_64_bits(amounts: list[int]) -> None:
    assert total(np.array(amounts, np.int64)) == sum(amounts)


def test_a_cent_is_a_cent() -> None:
    assert picodollars(0.01) == 10**10
    assert str(dollars(picodollars(0.1) + picodollars(0.2))) == "0.300000"
