"""What goes into a store comes out of it, and nothing else does."""

from __future__ import annotations

import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import Answer, EntryError, Usage
from costopt.caching.answer import why_not_stored
from costopt.caching.entry import MAX_ENTRY_BYTES, Entry, decode, encode

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(10**12), 10**12)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(), max_size=20)
)
json_values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
contents = st.text(st.characters(), max_size=20) | st.lists(
    st.dictionaries(st.text(max_size=5), json_values), max_size=3
)
answers = st.builds(
    Answer,
    st.lists(
        st.fixed_dictionaries({"kind": st.just("chat"), "content": contents, "extra": json_values}),
        min_size=1,
        max_size=3,
    ).map(tuple),
    st.builds(Usage, st.integers(0, 10**9), st.integers(0, 10**9), st.integers(0, 10**9)),
    st.none() | st.decimals(0, 1000, places=9),
)


def entry(answer: Answer, **fields: Any) -> Entry:
    return replace(Entry("k", "s", "t", "m", "q", answer, created=1.5), **fields)


SOUND = entry(Answer(({"kind": "chat", "content": "An animal."},), Usage(10, 5), Decimal("0.000001")), tags=("a", "b"))


@given(answers, st.none() | st.text(st.characters()), st.none() | st.floats(0, 1e10))
def test_an_entry_comes_back_as_it_was(answer: Answer, text: str | None, expires: float | None) -> None:
    stored = entry(answer, text=text, expires=expires)
    assert decode(encode(stored)) == stored


@given(st.integers(0, len(encode(SOUND)) - 1))
def test_a_truncated_entry_is_refused(length: int) -> None:
    with pytest.raises(EntryError):
        decode(encode(SOUND)[:length])


@given(st.binary(max_size=200))
def test_foreign_bytes_are_refused(data: bytes) -> None:
    with pytest.raises(EntryError):
        decode(data)


@given(st.sampled_from(sorted(json.loads(encode(SOUND)))), json_values)
def test_a_changed_field_is_refused_or_harmless(name: str, value: Any) -> None:
    record = {**json.loads(encode(SOUND)), name: value}
    try:
        read = decode(json.dumps(record).encode())
    except EntryError:
        return
    assert isinstance(read.text, str | None)
    assert all(isinstance(part, str) for part in (read.key, read.scope, read.tenant, read.model))
    assert read.answer.generations


@pytest.mark.parametrize(
    "data", [b"42", b"null", b"[]", b'"text"', b"{}", b'{"lc": 1, "type": "constructor"}', b"[" * 99999]
)
def test_what_other_packages_store_is_refused(data: bytes) -> None:
    with pytest.raises(EntryError):
        decode(data)


def test_an_entry_of_a_future_version_is_refused_by_name() -> None:
    with pytest.raises(EntryError, match="version 2"):
        decode(encode(SOUND).replace(b'"v":1', b'"v":2'))


def test_what_is_too_large_is_neither_written_nor_read() -> None:
    with pytest.raises(EntryError, match="bytes"):
        encode(entry(Answer(({"kind": "chat", "content": "x" * MAX_ENTRY_BYTES},))))
    with pytest.raises(EntryError, match="bytes"):
        decode(b" " * (10 * 1024 * 1024))


@pytest.mark.parametrize("value", [object(), float("nan"), {1, 2}, b"bytes"])
def test_what_json_does_not_carry_is_not_stored(value: Any) -> None:
    with pytest.raises(EntryError, match="JSON"):
        encode(entry(Answer(({"kind": "chat", "content": "ok", "extra": value},))))


@pytest.mark.parametrize(
    "finish", [None, "stop", "end_turn", "STOP", "tool_calls", "tool_use", "eos_token", "COMPLETE", "completed"]
)
def test_a_whole_answer_is_kept(finish: str | None) -> None:
    assert why_not_stored(Answer(({"kind": "chat", "content": "Yes.", "finish": finish},))) is None


def test_one_broken_generation_spoils_the_answer() -> None:
    whole = {"kind": "chat", "content": "Yes.", "finish": "stop"}
    assert why_not_stored(Answer((whole, {**whole, "finish": "length"}))) == "truncated"
    assert why_not_stored(Answer((whole, {**whole, "content": ""}))) == "empty"
    assert why_not_stored(Answer((whole, {**whole, "content": "", "tool_calls": [{"name": "f", "args": {}}]}))) is None
    assert why_not_stored(Answer(())) == "empty"
