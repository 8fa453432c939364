"""What turned out right or wrong in a scope moves its threshold, in the right direction only."""

from __future__ import annotations

import json
import math
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.caching import online
from costopt.caching.online import Evidence, ScopeThresholds, decode_evidence, encode_evidence, scope_threshold
from costopt.caching.policy import GRID, Policy
from tests.costopt.caching.policies import max_errors, policies

Seen = list[tuple[float, bool]]

probabilities = st.floats(0, 1) | st.sampled_from(GRID)
pairs = st.tuples(probabilities, st.booleans()) | st.tuples(st.floats(0.8, 1), st.just(True))
# Alike pairs by the hundred, too: single ones never convince.
seen = st.lists(st.tuples(pairs, st.sampled_from([1, 1, 10, 100])), max_size=8).map(
    lambda parts: [pair for pair, times in parts for _ in range(times)]
)
KNOWN = Policy(1.0, 0.0, tuple(round(1 - p, 3) for p in GRID), 0.6)


def row(p: float = 0.97, same: bool = False) -> bytes:
    return encode_evidence(Evidence("a", "b", same, p))


@given(policies, max_errors, seen)
def test_a_threshold_is_a_known_one_and_the_policys_where_nothing_was_seen(
    policy: Policy, max_error: float, seen: Seen
) -> None:
    assert scope_threshold(policy, max_error, seen) in (*GRID, math.inf)
    assert scope_threshold(policy, max_error, []) == policy.threshold(max_error)
    assert scope_threshold(policy, max_error, [(0.0, False), (0.0, True)]) == policy.threshold(max_error)
    assert scope_threshold(policy, 0, seen) == math.inf


@given(policies, max_errors, seen, probabilities)
def test_one_more_wrong_answer_never_lowers_it(policy: Policy, max_error: float, seen: Seen, p: float) -> None:
    assert scope_threshold(policy, max_error, [*seen, (p, False)]) >= scope_threshold(policy, max_error, seen)


@given(policies, max_errors, seen, probabilities)
def test_one_more_right_answer_never_raises_it(policy: Policy, max_error: float, seen: Seen, p: float) -> None:
    assert scope_threshold(policy, max_error, [*seen, (p, True)]) <= scope_threshold(policy, max_error, seen)


@given(policies, max_errors, max_errors, seen)
def test_a_stricter_max_error_never_serves_more_whatever_was_seen(
    policy: Policy, one: float, other: float, seen: Seen
) -> None:
    assert scope_threshold(policy, min(one, other), seen) >= scope_threshold(policy, max(one, other), seen)


def test_it_becomes_laxer_from_the_pair_on_that_the_confidence_bound_needs() -> None:
    """No error in n bounds the share by 1.645² / (n + 1.645²), which is within 0.05 from 52 on."""
    assert scope_threshold(KNOWN, 0.05, [(0.9, True)] * 51) == 0.95
    assert scope_threshold(KNOWN, 0.05, [(0.9, True)] * 52) == 0.9
    assert scope_threshold(KNOWN, 0.05, [*[(0.9, True)] * 52, (0.93, False)]) == 0.95


def test_it_never_falls_below_what_was_seen_to_be_right() -> None:
    """52 right answers of which the judge was sure opened everything down to one half."""
    sure = [(0.99, True)] * 500
    assert scope_threshold(KNOWN, 0.05, sure) == 0.95
    assert scope_threshold(KNOWN, 0.05, [*sure, (0.9, True)]) == 0.9
    assert scope_threshold(KNOWN, 0.05, [*sure, (0.9, True), (0.7, False)]) == 0.9


def test_it_falls_no_further_than_to_where_too_many_were_wrong() -> None:
    assert scope_threshold(KNOWN, 0.05, [(0.93, False), *[(0.6, True)] * 500]) == 0.95
    assert scope_threshold(KNOWN, 0.05, [(0.6, False), *[(0.93, True)] * 500]) == 0.93


def test_right_answers_open_a_scope_of_which_the_policy_is_never_sure_enough() -> None:
    doubting = Policy(1.0, 0.0, (0.2,) * len(GRID), 0.6)
    assert scope_threshold(doubting, 0.05, [(0.99, True)] * 51) == math.inf
    assert scope_threshold(doubting, 0.05, [(0.99, True)] * 52) == 0.99


def test_it_becomes_stricter_at_once_but_no_stricter_than_the_wrong_answer_was_sure() -> None:
    assert scope_threshold(KNOWN, 0.05, [(0.96, False)]) == 0.965
    assert scope_threshold(KNOWN, 0.05, [(1.0, False)] * 5) == math.inf


@given(
    st.text(st.characters(exclude_categories=())),
    st.text(st.characters(exclude_categories=())),
    st.booleans(),
    st.floats(0, 1),
)
def test_evidence_survives_the_store_whatever_the_texts_are(a: str, b: str, same: bool, p: float) -> None:
    data = encode_evidence(Evidence(a, b, same, p))
    assert data.isascii()
    assert b"\n" not in data
    found = decode_evidence(data)
    assert found is not None
    assert (found.a, found.b, found.same) == (a, b, same)
    assert found.probability == pytest.approx(p, abs=1e-4)


@given(st.binary())
def test_bytes_of_any_kind_are_no_evidence(data: bytes) -> None:
    assert decode_evidence(data) is None


@pytest.mark.parametrize(
    "change",
    [
        {"a": None},
        {"b": ["b"]},
        {"same": 1},
        {"same": "false"},
        {"probability": None},
        {"probability": "sure"},
        {"probability": 1.01},
        {"probability": -0.01},
        {"probability": math.nan},
        {"probability": 10**400},
    ],
)
def test_evidence_of_another_shape_is_passed_over(change: dict[str, object]) -> None:
    fields = json.loads(row())
    assert decode_evidence(json.dumps(fields).encode()) is not None
    assert decode_evidence(json.dumps({**fields, **change}).encode()) is None
    for name in change:
        assert decode_evidence(json.dumps({key: fields[key] for key in fields if key != name}).encode()) is None


def test_json_of_any_depth_is_no_evidence() -> None:
    for data in (b"[" * 100_000, b"null", b"[]", b'"a"', b"{}"):
        assert decode_evidence(data) is None


def test_a_scope_is_to_be_read_first_and_again_when_something_happened() -> None:
    thresholds = ScopeThresholds(KNOWN, 0.05)
    assert thresholds.of("mine") is None
    assert thresholds.learn("mine", [row(0.96), b"garbage"]) == thresholds.of("mine") == 0.965
    assert thresholds.learn("other", []) == thresholds.of("other") == 0.95
    thresholds.forget("mine")
    thresholds.forget("never heard of")
    assert (thresholds.of("mine"), thresholds.of("other")) == (None, 0.95)


def test_what_other_processes_learned_is_read_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(online, "_FRESH_S", 0.05)
    thresholds = ScopeThresholds(KNOWN, 0.05)
    thresholds.learn("mine", [])
    time.sleep(0.06)
    assert thresholds.of("mine") is None


def test_a_million_scopes_do_not_fill_the_memory() -> None:
    thresholds = ScopeThresholds(KNOWN, 0.05)
    names = [f"scope {i}" for i in range(5_000)]
    for name in names:
        thresholds.learn(name, [])
    known = [name for name in names if thresholds.of(name) is not None]
    assert known == names[-4_096:]
