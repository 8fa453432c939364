"""Deciding: scores against thresholds, what happens without scores, targets, shadow, exploration, bad input."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from decimal import Decimal
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import Budget, Cascade, ConfigError, Price, Router, RouteRequest, Tier
from costopt.routing import DollarsPer1000, QualityFloor, Reply, StrongShare, drive, serve
from costopt.routing.decision import RouteDecision
from costopt.routing.decision_log import DecisionLog
from tests.costopt.routing.models import Broken, ByVector, Scored, Vectors

NAMES = ("a", "b", "c")


def router(**options: Any) -> Router:
    return Router(list(NAMES), **{"estimator": Scored(), "thresholds": (0.3, 0.7), **options})


def test_the_textbook_example() -> None:
    three = Router([Tier("gpt-4o-mini"), Tier("gpt-4.1"), Tier("gpt-5.4")], estimator=Scored(), thresholds=(0.3, 0.7))
    chosen = [three.decide(RouteRequest(score)).chosen for score in ("0.1", "0.3", "0.69", "0.7")]
    assert chosen == ["gpt-4o-mini", "gpt-4.1", "gpt-4.1", "gpt-5.4"]


@given(st.lists(st.floats(0, 1), min_size=2, max_size=2), st.sets(st.sampled_from(NAMES), max_size=2))
def test_the_first_eligible_tier_below_its_threshold(scores: list[float], barred: set[str]) -> None:
    request = RouteRequest("/".join(map(str, scores)), barred=dict.fromkeys(barred, "barred"))
    may = [i for i, name in enumerate(NAMES) if name not in barred]
    expected = next((i for i in may[:-1] if scores[i] < (0.3, 0.7)[i]), may[-1])
    decision = router().decide(request)
    assert decision.chosen == NAMES[expected]
    assert dict(decision.excluded) == dict.fromkeys(barred, "barred")


def test_a_decision_says_why() -> None:
    decision = Router(["gpt-4o-mini", "gpt-4o"], estimator=Scored(), thresholds=(0.5,)).decide(RouteRequest("0.2"))
    assert (decision.why, decision.score, decision.threshold, decision.estimator) == ("score", 0.2, 0.5, "scored")
    assert decision.estimated_cost is not None
    assert decision.estimated_baseline is not None
    assert decision.estimated_baseline > 10 * decision.estimated_cost
    said = decision.as_dict()
    assert said["chosen"] == "gpt-4o-mini"
    assert Decimal(said["estimated_cost"]) == decision.estimated_cost


@pytest.mark.parametrize("found", [None, np.zeros((3, 3)), np.array("x"), np.full((1, 2), np.nan)])
def test_without_scores_the_default_tier_is_asked(found: Any, caplog: pytest.LogCaptureFixture) -> None:
    broken = router(estimator=Broken(found), default="b")
    with caplog.at_level(logging.WARNING, "costopt.routing"):
        decisions = [broken.decide(RouteRequest("0.1")) for _ in range(3)]
    assert [(decision.chosen, decision.why) for decision in decisions] == [("b", "default")] * 3
    assert broken.stats().estimator_failures == 3
    assert sum("no scores" in record.message for record in caplog.records) <= 1


def test_one_novel_prompt_in_a_batch_goes_to_the_default_tier_alone() -> None:
    decisions = router().decide_many([RouteRequest(text) for text in ("0.1", "nan", "0.5")])
    assert [decision.chosen for decision in decisions] == ["a", "c", "b"]


def test_the_default_tier_may_not_be_eligible() -> None:
    decision = router().decide(RouteRequest("nan", barred={"c": "no vision"}))
    assert (decision.chosen, decision.default) == ("b", "c")


def test_a_batch_is_embedded_once_and_only_where_there_is_a_choice() -> None:
    embedder = Vectors()
    many = router(estimator=ByVector(), embedder=embedder)
    requests = [RouteRequest("0.1"), RouteRequest("0.2", tier="b"), RouteRequest("0.5")]
    assert [decision.chosen for decision in many.decide_many(requests)] == ["a", "b", "b"]
    assert embedder.calls == [["0.1", "0.5"]]
    vectors = embedder.embed(["0.1", "0.2", "0.5"])
    assert [decision.chosen for decision in many.decide_many(requests, vectors)] == ["a", "b", "b"]
    assert many.decide(RouteRequest("0.9"), vectors[0]).chosen == "a"
    assert len(embedder.calls) == 2


async def test_awaiting_comes_to_the_same() -> None:
    requests = [RouteRequest(text) for text in ("0.1", "nan", "0.5", "0.9")]
    for each in (router(), router(estimator=ByVector(), embedder=Vectors())):
        many = await each.adecide_many(requests[:1] + requests[2:])
        assert [decision.chosen for decision in many] == ["a", "b", "c"]
        assert (await each.adecide(requests[0])).chosen == "a"


def test_deciding_is_safe_in_many_threads() -> None:
    one = router()

    async def many() -> list[RouteDecision]:
        return await asyncio.gather(*(asyncio.to_thread(one.decide, RouteRequest("0.5")) for _ in range(64)))

    assert {decision.chosen for decision in asyncio.run(many())} == {"b"}


def test_one_tier_needs_no_estimator() -> None:
    scored = Scored()
    decision = Router(["a"], estimator=scored).decide(RouteRequest("0.9"))
    assert (decision.chosen, decision.why, scored.asked) == ("a", "only one", 0)


def test_a_share_is_met_by_what_was_seen() -> None:
    shared = router(thresholds=None, policy=StrongShare(0.2))
    before = shared.decide(RouteRequest("0.1"))
    assert (before.chosen, before.why) == ("c", "default")  # nothing is known of the traffic yet
    scores = [round(i / 100, 2) for i in range(100)]
    shared.decide_many([RouteRequest(str(score)) for score in scores])
    after = Counter(decision.chosen for decision in shared.decide_many([RouteRequest(str(score)) for score in scores]))
    assert after["c"] <= 20


def test_thresholds_from_prompts_at_once() -> None:
    shared = router(thresholds=None, policy=StrongShare(0.25))
    threshold = shared.calibrate([str(i / 100) for i in range(100)])
    assert len(threshold) == 2
    assert shared.decide(RouteRequest("0.1")).why == "score"
    assert shared.live.current == threshold
    with pytest.raises(ConfigError, match="no target to calibrate for"):
        router().calibrate(["0.1"])


def test_dollars_need_prices() -> None:
    dear = DollarsPer1000(Decimal(1))
    priced = [Tier("a", price=Price(1, 1)), Tier("b", price=Price(2, 2)), Tier("c", price=Price(50, 50))]
    assert len(Router(priced, estimator=Scored(), policy=dear).calibrate([f"0.{i}" for i in range(1, 10)])) == 2
    with pytest.raises(ConfigError, match="price"):
        router(thresholds=None, policy=dear).calibrate(["0.1", "0.2"])


def test_a_quality_floor_needs_an_estimator_that_expects_something() -> None:
    with pytest.raises(ConfigError, match="train one"):
        router(thresholds=None, policy=QualityFloor(0.95)).calibrate(["0.1", "0.2"])


def test_shadow_routes_on_paper() -> None:
    decision = router(shadow=True).decide(RouteRequest("0.1"))
    assert (decision.chosen, decision.paper, decision.why) == ("c", "a", "shadow")


@pytest.mark.parametrize(("mode", "chosen", "paper"), [("off", "c", None), ("shadow", "c", "a"), ("route", "a", None)])
def test_an_estimator_with_few_labels_says_how_far_to_trust_it(mode: str, chosen: str, paper: str | None) -> None:
    estimator = Scored()
    estimator.mode = mode  # type: ignore[attr-defined]
    decision = router(estimator=estimator).decide(RouteRequest("0.1"))
    assert (decision.chosen, decision.paper) == (chosen, paper)
    assert bool(estimator.asked) == (mode != "off")


def test_exploring_records_the_probability_of_each_choice() -> None:
    exploring = router(explore=0.3, seed=1)
    decisions = [exploring.decide(RouteRequest("0.1")) for _ in range(3000)]
    counts = Counter(decision.chosen for decision in decisions)
    for name, share in (("a", 0.8), ("b", 0.1), ("c", 0.1)):
        (propensity,) = {decision.propensity for decision in decisions if decision.chosen == name}
        assert propensity == pytest.approx(share)
        assert counts[name] / 3000 == pytest.approx(share, abs=0.03)
    again = exploring.decide(RouteRequest("0.1", tier="b"))
    assert again.propensity is None


def test_a_later_turn_is_not_explored() -> None:
    exploring = router(explore=0.99, seed=1)
    assert exploring.sticky is not None
    exploring.sticky.keep("c", 0)
    chosen = {exploring.decide(RouteRequest("0.1", conversation="c")).chosen for _ in range(50)}
    assert chosen == {"a"}


def test_labels_find_their_decisions(tmp_path: Any) -> None:
    log = DecisionLog(tmp_path / "log.jsonl")
    logged = router(explore=0.3, seed=1, log=log)
    request = RouteRequest("0.1")
    served = drive(serve(logged, request, logged.decide(request)), lambda step: Reply("fine"))
    log.label(served.decision.id, 0.5)
    decision, label = (__import__("json").loads(line) for line in log.path.read_text().splitlines())
    assert decision["propensity"] == label["propensity"] == pytest.approx(0.8)
    assert (label["prompt"], label["scores"]) == ("0.1", {"a": 0.5})
    with pytest.raises(ConfigError, match="no decision"):
        log.label(served.decision.id, 0.5)
    with pytest.raises(ConfigError, match="give one in"):
        log.label("x", 2)


def test_a_log_that_fails_is_nobody_elses_trouble(caplog: pytest.LogCaptureFixture) -> None:
    def full(*_: Any) -> None:
        raise OSError("no space left")

    logged = router(log=full)
    for _ in range(2):
        request = RouteRequest("0.1")
        assert drive(serve(logged, request, logged.decide(request)), lambda step: Reply("fine")).reply.text == "fine"
    assert sum("not logged" in record.message for record in caplog.records) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"thresholds": (0.5,)}, "give 2 numbers, one for each step"),
        ({"thresholds": (0.1, 0.2, 0.3)}, "give 2 numbers, one for each step"),
        ({"thresholds": (0.1, float("nan"))}, "give 2 numbers, one for each step"),
        ({"policy": StrongShare(0.5)}, "either a policy or thresholds"),
        ({"default": "d"}, "default='d' is none of the tiers: they are 'a', 'b', 'c'"),
        ({"explore": 1.0}, "give a share of the requests"),
        ({"budget": Budget(1, 60)}, "a budget needs prices"),
        ({"estimator": Scored(("x", "y"))}, "was trained for the tiers x, y, and these are a, b, c"),
        ({"estimator": Scored(NAMES), "thresholds": None}, "has no thresholds: give policy="),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        router(**options)


def test_a_budget_needs_to_know_the_longest_answer() -> None:
    with pytest.raises(ConfigError, match="give max_output_tokens="):
        Router([Tier("a", price=Price(1, 1))], budget=Budget(1, 60))


def test_a_router_made_for_another_embedder_is_refused() -> None:
    class Trained(ByVector):
        def check(self, embedder: Any) -> None:
            raise ConfigError(f"trained with x, and {embedder.name} is in use")

    with pytest.raises(ConfigError, match="numbers is in use"):
        router(estimator=Trained(), embedder=Vectors())


def test_a_cascade_may_begin_at_the_cheapest() -> None:
    decision = router(cascade=Cascade(start="cheapest")).decide(RouteRequest("0.9"))
    assert (decision.chosen, decision.why) == ("a", "cascade")
