"""A conversation stays on its tier, and moves up only, with a cause."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError, Router, RouteRequest
from costopt.routing import Reply, drive, serve
from costopt.routing.decision import RouteDecision
from costopt.routing.sticky import Sticky, conversation_id
from tests.costopt.routing.models import Scored


@given(st.lists(st.integers(0, 3)))
def test_a_tier_never_falls(tiers: list[int]) -> None:
    sticky, highest = Sticky(), 0
    for tier in tiers:
        sticky.keep("a", tier)
        highest = max(highest, tier)
        assert sticky.tier("a") == highest


def test_what_was_not_used_for_long_is_forgotten() -> None:
    now = [0.0]
    sticky = Sticky(2, 60, clock=lambda: now[0])
    for name in "abc":
        sticky.keep(name, 1)
    assert [sticky.tier(name) for name in "abc"] == [None, 1, 1]
    now[0] = 61.0
    assert (sticky.tier("b"), sticky.tier(None), len(sticky)) == (None, None, 1)


def test_no_conversation_is_known_by_none() -> None:
    sticky = Sticky()
    sticky.keep(None, 1)
    assert len(sticky) == 0


def test_a_conversation_is_known_by_its_first_turns() -> None:
    assert conversation_id("Hi", "Hello", ["call_1"]) == conversation_id("Hi", "Hello", ["call_1"])
    assert len({conversation_id(*words) for words in [("Hi", "a"), ("Hi", "b"), ("Hia", ""), ("H", "ia")]}) == 4


@pytest.mark.parametrize(("conversations", "seconds"), [(0, 60), (1, 0), (1, float("nan"))])
def test_limits_below_one_are_refused(conversations: int, seconds: float) -> None:
    with pytest.raises(ConfigError, match="give numbers above 0"):
        Sticky(conversations, seconds)


def turn(router: Router, text: str, **fields: object) -> RouteDecision:
    request = RouteRequest(text, conversation="c", **fields)  # type: ignore[arg-type]
    return drive(serve(router, request, router.decide(request)), lambda step: Reply("fine")).decision


def test_turns_do_not_bounce_between_models() -> None:
    router = Router(["a", "b", "c"], estimator=Scored(), thresholds=(0.3, 0.7))
    seen = [turn(router, text) for text in ("0.1", "0.5", "0.1", "0.9", "0.2")]
    assert [decision.chosen for decision in seen] == ["a", "b", "b", "c", "c"]
    assert [decision.moved for decision in seen] == [None, "score", None, "score", None]
    assert [decision.previous for decision in seen] == [None, "a", "b", "b", "c"]
    assert seen[2].why == "conversation"


def test_no_conversation_changes_tier_without_a_recorded_cause() -> None:
    router = Router(["a", "b", "c"], estimator=Scored(), thresholds=(0.3, 0.7))
    assert turn(router, "0.1").chosen == "a"
    moved = turn(router, "0.1", barred={"a": "no vision"})
    assert (moved.chosen, moved.moved) == ("b", "no vision")
    forced = turn(router, "0.1", tier="a")
    assert (forced.chosen, forced.moved) == ("a", "asked for")
    down = turn(router, "0.1", barred={"b": "no json", "c": "no json"})
    assert (down.chosen, down.moved) == ("a", "no json")
    assert turn(router, "0.1").chosen == "b"


def test_without_stickiness_each_turn_is_for_itself() -> None:
    router = Router(["a", "b"], estimator=Scored(), thresholds=(0.5,), sticky=False)
    assert [turn(router, text).chosen for text in ("0.9", "0.1")] == ["b", "a"]
