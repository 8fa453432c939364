"""The parts that decide, by themselves."""

from __future__ import annotations

import itertools
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError
from costopt.batch import Backoff, BatchRequest, Limits, OpenAIBatches
from costopt.batch.pace import Pace
from costopt.batch.protocol import body_of, key_of
from costopt.batch.rounds import Step
from costopt.batch.sdk import json_lines, translated
from costopt.batch.split import Row, row_bytes, split
from costopt.errors import BatchUnavailableError
from tests.costopt.batch.support import provider

ASK = provider("openai", "http://127.0.0.1:9")
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)
BODIES = st.dictionaries(st.text(max_size=4), JSON, max_size=4)
ROWS = st.lists(
    st.builds(
        Row, st.uuids().map(str), st.sampled_from(["/v1/a", "/v1/b"]), st.sampled_from("mno"), st.integers(0, 900)
    ),
    max_size=40,
    unique_by=lambda row: row.key,
)


@given(ROWS, st.integers(1, 6), st.integers(1200, 4000), st.booleans())
def test_lots_hold_every_row_once_in_order_and_within_the_limits(
    rows: list[Row], most: int, size: int, one_model: bool
) -> None:
    by_key = {row.key: row for row in rows}
    lots = list(split(rows, Limits(most, size, one_model)))
    assert sorted(key for _, keys in lots for key in keys) == sorted(by_key)
    for endpoint, keys in lots:
        held = [by_key[key] for key in keys]
        assert 1 <= len(held) <= most
        assert sum(map(row_bytes, held)) <= size
        assert {row.endpoint for row in held} == {endpoint}
        assert not one_model or len({row.model for row in held}) == 1
        assert keys == [row.key for row in rows if row.key in keys]


@given(ROWS, st.integers(1, 6))
def test_no_more_lots_than_are_needed(rows: list[Row], most: int) -> None:
    lots = list(split(rows, Limits(most, 10**9, one_model=False)))
    for endpoint in ("/v1/a", "/v1/b"):
        count = sum(row.endpoint == endpoint for row in rows)
        assert sum(each == endpoint for each, _ in lots) == -(-count // most)


@given(BODIES)
def test_a_body_is_sent_as_it_was_given(body: dict[str, Any]) -> None:
    assert json.loads(body_of(BatchRequest(body))) == body
    assert list(json.loads(body_of(BatchRequest(body)))) == list(body)


@given(BODIES, BODIES, st.randoms(use_true_random=False))
def test_equal_requests_have_equal_keys_and_others_do_not(a: dict[str, Any], b: dict[str, Any], chance: Any) -> None:
    items = list(a.items())
    chance.shuffle(items)
    assert key_of(ASK, BatchRequest(a, id="one")) == key_of(ASK, BatchRequest(dict(items), id="other"))
    same = json.dumps(a, sort_keys=True) == json.dumps(b, sort_keys=True)  # 1 and True are equal to Python only
    assert (key_of(ASK, BatchRequest(a)) == key_of(ASK, BatchRequest(b))) == same


def test_a_key_tells_who_is_asked_and_where() -> None:
    request = BatchRequest({"model": "m"})
    asked = [
        provider("openai", "http://127.0.0.1:9"),
        provider("openai", "http://127.0.0.1:8"),
        provider("anthropic", "http://127.0.0.1:9"),
    ]
    keys = {key_of(each, request) for each in asked}
    keys |= {
        key_of(asked[0], request, "salt"),
        key_of(asked[0], BatchRequest({"model": "m"}, endpoint="/v1/responses")),
    }
    assert len(keys) == 5
    named = BatchRequest({"model": "m"}, endpoint=OpenAIBatches().endpoint)
    assert key_of(asked[0], named) == key_of(asked[0], request)


@given(st.lists(BODIES, max_size=8), st.lists(st.integers(0, 400), max_size=6))
def test_lines_are_read_however_they_are_cut(rows: list[dict[str, Any]], cuts: list[int]) -> None:
    whole = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "surrogatepass")
    if b"\xed" in whole:  # half a character: not to be written in UTF-8
        return
    places = sorted({min(cut, len(whole)) for cut in cuts} | {0, len(whole)})
    chunks = [whole[a:b] for a, b in itertools.pairwise(places)]
    assert list(json_lines(chunks, "reading")) == rows


@pytest.mark.parametrize("end", ['{"a": 1', "[1]", "nothing"])
def test_a_line_that_is_cut_off_is_to_be_read_again(end: str) -> None:
    with pytest.raises(BatchUnavailableError, match="reading: a line is"):
        list(json_lines([b'{"a": 1}\n', end.encode()], "reading"))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_waits_grow_while_nothing_changes_and_begin_anew_when_something_does() -> None:
    pace = Pace(Backoff(first=1, most=8, factor=2))
    waits = [pace.after(Step(False, moved)) for moved in (True, False, False, False, False, True, False)]
    for wait, expected in zip(waits, [1, 2, 4, 8, 8, 1, 2], strict=True):
        assert 0.9 * expected <= wait <= 1.1 * expected


def test_what_the_provider_asks_for_is_heeded_within_reason() -> None:
    pace = Pace(Backoff(first=1, most=2))
    for asked, least, most in ((30.0, 30, 33), (1e9, 600, 660), (float("nan"), 0.9, 2.2)):
        assert least <= pace.after(Step(False, False, BatchUnavailableError("", retry_after=asked))) <= most


@pytest.mark.parametrize(
    ("said", "seconds"),
    [("2.5", 2.5), ("-3", 0), ("Wed, 21 Oct 2015 07:28:00 GMT", 0), ("soon", None), (None, None)],
)
def test_when_to_come_again_may_be_said_in_seconds_or_as_a_date(said: str | None, seconds: float | None) -> None:
    assert _retry_after(said) == seconds
    tomorrow = format_datetime(datetime.now(UTC) + timedelta(days=1), usegmt=True)
    assert 86_300 < (_retry_after(tomorrow) or 0) <= 86_400


def _retry_after(said: str | None) -> float | None:
    request = httpx.Request("POST", "http://127.0.0.1:9")
    response = httpx.Response(429, headers={} if said is None else {"retry-after": said}, request=request)
    with pytest.raises(BatchUnavailableError) as raised, translated(openai, "sending"):
        raise openai.RateLimitError("slow down", response=response, body=None)
    return raised.value.retry_after


def test_patience_is_for_trouble_without_end_only() -> None:
    clock = Clock()
    pace = Pace(Backoff(first=1, most=1, patience=10), clock)
    trouble = BatchUnavailableError("down")
    pace.after(Step(False, False, trouble))
    clock.now = 9
    pace.after(Step(False, True, trouble))
    clock.now = 18
    pace.after(Step(False, False, trouble))
    clock.now = 27
    pace.after(Step(False, False, trouble, reached=True))  # too many questions at once, perhaps
    clock.now = 30
    pace.after(Step(False, False, trouble))
    clock.now = 41
    with pytest.raises(BatchUnavailableError, match="down"):
        pace.after(Step(False, False, trouble))


@pytest.mark.parametrize(
    "wrong", [{"first": 0}, {"first": 9, "most": 8}, {"factor": 0.5}, {"patience": -1}, {"most": float("inf")}]
)
def test_a_backoff_that_makes_no_sense_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="give 0 < first"):
        Backoff(**wrong)
