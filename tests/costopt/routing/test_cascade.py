"""The cheap answer is looked at before it is given."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import numpy as np
import pytest

from costopt import Budget, Cascade, ConfigError, Price, Router, RouteRequest, Tier, Usage
from costopt.routing import Ask, Reply, Served, adrive, drive, serve
from costopt.routing.streaming import Relay, relayed
from tests.costopt.routing.models import Scored

QUESTION = RouteRequest("0.1", size=400)


@pytest.mark.parametrize(
    ("reply", "cause"),
    [
        (Reply("Paris.", finish="stop"), None),
        (Reply("The answer is", finish="length"), "truncated"),
        (Reply("The answer is", finish="MAX_TOKENS"), "truncated"),
        (Reply("", finish="stop"), "empty"),
        (Reply("", calls=("call_1",)), None),
        (Reply("The answer is", finish="model_context_window_exceeded"), "truncated"),
        (Reply("The answer is", finish="cancelled"), "truncated"),
        (Reply("The answer is", finish="timeout"), "truncated"),
        (Reply("The answer is", finish="SPII"), "refused"),
        (Reply("The answer is", finish="LANGUAGE"), "refused"),
        (Reply("The answer is", finish="MALFORMED_FUNCTION_CALL"), "failed"),
        (Reply("The answer is", finish="error"), "failed"),
        (Reply("", broken=True, calls=("call_1",)), "tool call"),
        (Reply("No.", refused=True), "refused"),
        (Reply("", finish="content_filter"), "refused"),
        (Reply("I'm sorry, but I can't help with that."), "refused"),
        (Reply("As an AI language model, I have no opinion."), "refused"),
        (Reply("I cannot answer this."), "refused"),
        (Reply("I can help you with that."), None),
        (Reply("Sorry to hear that! Try turning it off and on again."), None),
    ],
)
def test_what_is_always_looked_at(reply: Reply, cause: str | None) -> None:
    assert Cascade().verdict(QUESTION, [reply]) == cause


def test_an_answer_must_follow_the_schema_that_was_asked_for() -> None:
    def fails(raw: Any) -> bool:
        raise ValueError("no JSON")

    for valid, cause in ((lambda raw: True, None), (lambda raw: False, "schema"), (fails, "schema")):
        request = RouteRequest("0.1", valid=valid)
        assert Cascade().verdict(request, [Reply("{}")]) == cause


def test_unsure_words() -> None:
    cascade = Cascade(min_logprob=-0.5)
    found = [cascade.verdict(QUESTION, [Reply("Paris", logprob=value)]) for value in (-0.1, -0.9, None)]
    assert found == [None, "log-probability", None]


def test_answers_that_disagree() -> None:
    cascade = Cascade(samples=3, min_agreement=0.6)
    agree = [Reply("So it is 1,024."), Reply("1024"), Reply("The result is 1024")]
    assert cascade.verdict(QUESTION, agree) is None
    assert cascade.verdict(QUESTION, [*agree[:2], Reply("It is 12")]) == "disagreement"
    assert cascade.verdict(QUESTION, [Reply("Paris.", others=("paris", "Paris"))]) is None
    assert cascade.verdict(QUESTION, [Reply("Paris.", others=("London",))]) == "disagreement"
    assert Cascade(same=lambda a, b: True).verdict(QUESTION, [Reply("a", others=("b",))]) is None


def test_who_cannot_tell_whether_answers_agree_has_no_opinion(caplog: pytest.LogCaptureFixture) -> None:
    def fails(a: str, b: str) -> bool:
        raise KeyError("figure")

    cascade = Cascade(samples=2, same=fails)
    found, asked = served(three(cascade=cascade), {"a": FINE, "b": FINE, "c": FINE})
    assert (found.reply, asked) == (FINE, ["a", "a", "b", "b", "c"])
    assert (found.decision.why, cascade.failures) == ("rejected: no opinion", 2)
    assert len(caplog.records) == 1


class Judge:
    """Knows which answers will do."""

    def __init__(self, probability: Any) -> None:
        self.probability = probability
        self.asked: list[tuple[str, str]] = []

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> Any:
        self.asked += zip(prompts, answers, strict=True)
        if isinstance(self.probability, Exception):
            raise self.probability
        return np.array([self.probability])


@pytest.mark.parametrize(
    ("probability", "cause"),
    [(0.9, None), (0.5, None), (0.2, "judged"), (float("nan"), "no opinion"), (RuntimeError("broken"), "no opinion")],
)
def test_a_learned_judge(probability: Any, cause: str | None) -> None:
    cascade = Cascade(estimator=Judge(probability))
    assert cascade.verdict(QUESTION, [Reply("Paris")]) == cause
    assert cascade.verdict(QUESTION, [Reply("Paris")], cheapest=False) is None
    assert cascade.failures == isinstance(probability, Exception)


@pytest.mark.parametrize(
    "options", [{"threshold": 2}, {"min_agreement": -1}, {"samples": 0}, {"start": "dear"}, {"min_logprob": 0.5}]
)
def test_options_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        Cascade(**options)


def three(**options: Any) -> Router:
    tiers = [Tier(name, price=Price(10**i, 10**i), max_output_tokens=50) for i, name in enumerate("abc")]
    return Router(tiers, estimator=Scored(), thresholds=(0.3, 0.7), **{"cascade": Cascade(), **options})


def served(router: Router, answers: dict[str, Reply | Exception]) -> tuple[Served, list[str]]:
    asked: list[str] = []

    def ask(step: Ask) -> Reply:
        asked.append(step.tier.name)
        reply = answers[step.tier.name]
        if isinstance(reply, Exception):
            raise reply
        return reply

    return drive(serve(router, QUESTION, router.decide(QUESTION)), ask), asked


CUT = Reply("The answer is", Usage(100, 50), "length")
FINE = Reply("Paris.", Usage(100, 10), "stop")


def test_the_next_tier_is_asked_and_both_calls_are_paid_for() -> None:
    budget = Budget(1, 60)
    router = three(budget=budget)
    found, asked = served(router, {"a": CUT, "b": FINE})
    assert (found.reply, asked) == (FINE, ["a", "b"])
    decision = found.decision
    assert (decision.chosen, decision.why) == ("b", "rejected: truncated")
    assert decision.cost == budget.spent == Decimal(150 + 1100) / 10**6
    assert decision.usage == FINE.usage
    assert decision.baseline_cost == Decimal(11_000) / 10**6
    assert router.stats().rejected == {"truncated": 1}
    assert [(a.tier, a.outcome, a.cause) for a in decision.attempts] == [
        ("a", "rejected", "truncated"),
        ("b", "answered", None),
    ]


def test_a_rejected_answer_is_not_asked_for_again_where_the_next_is_too_dear() -> None:
    cheap, dear = (three(budget=Budget(1, 60)).books.bound(place, QUESTION) for place in (0, 1))
    budget = Budget((cheap + dear) / 2, 60)
    found, asked = served(three(budget=budget), {"a": CUT})
    assert (found.reply, asked) == (CUT, ["a"])
    assert found.decision.cost == budget.spent == Decimal(150) / 10**6


def test_the_strongest_answer_is_given_whatever_it_is() -> None:
    found, asked = served(three(), {"a": CUT, "b": CUT, "c": CUT})
    assert (found.reply, asked, found.decision.chosen) == (CUT, ["a", "b", "c"], "c")


def test_an_answer_that_would_not_do_is_better_than_none() -> None:
    found, asked = served(three(), {"a": CUT, "b": TimeoutError(), "c": TimeoutError()})
    assert (found.reply, asked, found.decision.chosen) == (CUT, ["a", "b", "c"], "a")


def test_several_samples_are_asked_and_paid_for() -> None:
    found, asked = served(three(cascade=Cascade(samples=3)), {"a": FINE, "b": FINE})
    assert (asked, found.decision.chosen) == (["a"] * 3, "a")
    assert found.decision.cost == 3 * Decimal(110) / 10**6


async def test_awaiting_comes_to_the_same() -> None:
    async def ask(step: Ask) -> Reply:
        return CUT if step.tier.name == "a" else FINE

    router = three()
    found = await adrive(serve(router, QUESTION, router.decide(QUESTION)), ask)
    assert (found.decision.chosen, found.decision.why) == ("b", "rejected: truncated")


@pytest.mark.parametrize(("first", "shown"), [("The", ["Pa", "ris.", "!"]), ("Lyon.", ["Ly", "on.", "!"])])
def test_in_a_stream_nothing_of_an_answer_that_will_not_do_is_shown(first: str, shown: list[str]) -> None:
    router = three()
    says = {"a": [first[:2], first[2:]], "b": ["Pa", "ris."]}
    seen: list[str] = []

    def reply(step: Ask, chunks: list[str]) -> Reply:
        said = "".join(chunks)
        return Reply(said, Usage(10, 5), "stop" if said.endswith(".") else "length", raw=list(chunks))

    flow = serve(router, QUESTION, router.decide(QUESTION))
    relay = Relay(flow, bool, reply)
    seen += relayed(relay, lambda step: (word for word in says[step.tier.name]), lambda served: "!")
    assert seen == shown
