"""Why calls fail, how long a tier is left alone, and how a request gets its answer elsewhere."""

from __future__ import annotations

from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from costopt import Budget, BudgetExceededError, Price, Router, RouteRequest, Tier, Usage
from costopt.failure import Failure, failure_of
from costopt.routing import Ask, Reply, RouteDecision, Served, adrive, drive, serve
from costopt.routing.fallback import Rest
from costopt.routing.serving import Interrupted
from costopt.routing.streaming import Relay, arelayed, relayed
from tests.costopt.routing.models import Scored

USAGE = Usage(10, 5)


class ProviderError(Exception):
    """As the SDKs raise them."""

    def __init__(self, status: int | None = None, message: str = "no", **headers: str) -> None:
        super().__init__(message)
        self.status_code = status
        self.response = SimpleNamespace(headers={name.replace("_", "-"): value for name, value in headers.items()})


class APITimeoutError(Exception):
    pass


class RemoteProtocolError(Exception):
    pass


@pytest.mark.parametrize(
    ("error", "cause", "of_tier"),
    [
        (ProviderError(429), "rate limit", True),
        (ProviderError(500), "server error", True),
        (ProviderError(529), "server error", True),
        (ProviderError(504), "timeout", True),
        (ProviderError(401), "authentication", True),
        (ProviderError(404), "not found", True),
        (ProviderError(400), "invalid request", False),
        (ProviderError(400, "This model's maximum context length is 8192 tokens"), "context overflow", False),
        (ProviderError(400, "prompt is too long: 210000 tokens > 200000 maximum"), "context overflow", False),
        (ProviderError(None, "Rate limit reached for gpt-4o in organization"), "rate limit", True),
        (TimeoutError(), "timeout", True),
        (APITimeoutError(), "timeout", True),
        (ConnectionResetError(), "connection", True),
        (RemoteProtocolError("incomplete chunked read"), "connection", True),
        (KeyError("x"), "error: KeyError", True),
    ],
)
def test_what_an_error_means(error: Exception, cause: str, of_tier: bool) -> None:
    failure = failure_of(error)
    assert (failure.cause, failure.of_tier) == (cause, of_tier)


class APIConnectionError(Exception):
    pass


def wrapped(cause: Exception) -> Exception:
    error = APIConnectionError("Connection error.")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "unpaid"),
    [
        (ProviderError(429), True),
        (ProviderError(None, "Rate limit reached for gpt-4o in organization"), True),
        (ProviderError(504), False),
        (TimeoutError(), False),
        (ConnectionResetError(), False),
        (ConnectionRefusedError(), True),
        (wrapped(httpx.ConnectError("refused")), True),
        (wrapped(httpx.ReadError("reset")), False),
        (wrapped(wrapped(httpx.ConnectError("refused"))), True),
        (wrapped(ProviderError(500)), True),
        (wrapped(ProviderError(504)), False),
        (KeyError("x"), False),
    ],
)
def test_only_a_refused_call_surely_cost_nothing(error: Exception, unpaid: bool) -> None:
    assert failure_of(error).unpaid == unpaid
    router = three(budget=Budget(1, 3600))
    decision = answered(router, {"a": error}).decision
    assert decision.attempts[0].cost == (0 if unpaid else None)
    # What a model that timed out took nobody knows: the sum does not either, and the budget keeps the most.
    assert (decision.cost, router.stats().unpriced) == ((Decimal("0.00015"), 0) if unpaid else (None, 1))
    kept = 0 if unpaid else router.books.bound(0, RouteRequest("0.1"))
    assert router.budget is not None
    assert router.budget.dollars - router.budget.left == kept + Decimal("0.00015")


def test_how_long_a_provider_wants_to_be_left_alone() -> None:
    assert failure_of(ProviderError(429, retry_after="7")).retry_after == 7
    assert failure_of(ProviderError(429, retry_after_ms="250")).retry_after == 0.25
    assert failure_of(ProviderError(429, retry_after="3600")).retry_after == 60
    assert failure_of(ProviderError(429, retry_after="Wed, 21 Oct 2026 07:28:00 GMT")).retry_after is None


def test_a_tier_rests_after_three_failures_and_then_one_caller_tries() -> None:
    now, down = [0.0], Failure("server error", True)
    rest = Rest(lambda: now[0])
    for _ in range(2):
        rest.failed(down)
    assert rest.claim()
    rest.failed(down)
    assert rest.resting
    assert not rest.claim()
    now[0] = 1.0
    assert [rest.claim() for _ in range(3)] == [True, False, False]
    rest.failed(down)
    now[0] = 2.9
    assert not rest.claim()
    now[0] = 3.0
    assert rest.claim()
    rest.succeeded()
    assert all(rest.claim() for _ in range(3))


def test_many_failures_at_once_are_one() -> None:
    now = [0.0]
    rest = Rest(lambda: now[0])
    for _ in range(64):
        rest.failed(Failure("server error", True))
    now[0] = 1.0
    assert rest.claim()


def test_a_slow_failure_or_a_request_to_wait_is_enough() -> None:
    for failure, seconds in ((Failure("timeout", True), 30.0), (Failure("rate limit", True, 5.0), 0.0)):
        rest = Rest()
        rest.failed(failure, seconds)
        assert rest.resting


def test_a_bad_request_says_nothing_of_the_tier() -> None:
    rest = Rest()
    for _ in range(9):
        rest.failed(Failure("invalid request", False), 60.0)
    assert not rest.resting


def three(**options: Any) -> Router:
    tiers = [Tier(name, price=Price(10**i, 10**i), context_window=1000 * 2**i) for i, name in enumerate("abc")]
    return Router(tiers, **{"estimator": Scored(), "thresholds": (0.3, 0.7), **options})


def answered(router: Router, failing: dict[str, Exception], text: str = "0.1", **fields: Any) -> Served:
    def ask(step: Ask) -> Reply:
        if step.tier.name in failing:
            raise failing[step.tier.name]
        return Reply(f"from {step.tier.name}", USAGE)

    request = RouteRequest(text, **fields)
    return drive(serve(router, request, router.decide(request)), ask)


def test_the_next_tier_up_answers() -> None:
    served = answered(three(), {"a": ProviderError(429), "b": ProviderError(500)})
    assert served.reply.text == "from c"
    assert (served.decision.chosen, served.decision.why) == ("c", "server error")
    assert [(a.tier, a.outcome, a.cause) for a in served.decision.attempts] == [
        ("a", "failed", "rate limit"),
        ("b", "failed", "server error"),
        ("c", "answered", None),
    ]
    assert served.decision.cost == served.decision.baseline_cost == Decimal(1500) / 10**6


def test_if_all_fail_the_error_names_the_others() -> None:
    error = ProviderError(500, "c is down")
    with pytest.raises(ProviderError, match="c is down") as caught:
        answered(three(), {"a": ProviderError(429), "b": TimeoutError(), "c": error})
    assert [note[:26] for note in caught.value.__notes__] == [
        "before that, tier 'a' fail",
        "before that, tier 'b' fail",
    ]


def test_nobody_goes_down() -> None:
    with pytest.raises(ProviderError):
        answered(three(), {"c": ProviderError(500)}, "0.9")


def test_a_context_overflow_is_not_tried_in_a_smaller_window() -> None:
    tiers = [Tier("a", context_window=10**6), Tier("b", context_window=10**5), Tier("c", context_window=10**7)]
    router = Router(tiers, estimator=Scored(), thresholds=(0.3, 0.7))
    served = answered(router, {"a": ProviderError(400, "maximum context length"), "b": AssertionError("asked")})
    assert [(a.tier, a.cause) for a in served.decision.attempts][:2] == [
        ("a", "context overflow"),
        ("b", "context overflow"),
    ]
    assert served.decision.attempts[1].outcome == "skipped"


def test_a_tier_that_does_not_fit_is_no_fallback() -> None:
    served = answered(three(), {"a": ProviderError(500)}, barred={"b": "no tools"})
    assert [a.tier for a in served.decision.attempts] == ["a", "c"]


def test_a_resting_tier_is_passed_over_but_asked_if_nobody_else_answers() -> None:
    router = three()
    for _ in range(3):
        answered(router, {"a": ProviderError(500)})
    passed = answered(router, {"a": AssertionError("asked")})
    assert (passed.decision.chosen, passed.decision.why) == ("b", "resting")
    last = answered(router, {"b": ProviderError(500), "c": ProviderError(500)})
    assert [a.tier for a in last.decision.attempts] == ["a", "b", "c", "a"]
    assert last.reply.text == "from a"


def test_who_asks_for_a_tier_gets_it_or_its_error() -> None:
    with pytest.raises(ProviderError):
        answered(three(), {"a": ProviderError(500)}, tier="a")


def test_with_a_fallback_nothing_is_charged_twice() -> None:
    budget = Budget(1, 3600)
    router = three(budget=budget)
    for _ in range(5):
        answered(router, {"a": ProviderError(400)})
    assert budget.spent == 5 * Decimal(150) / 10**6
    assert budget.reserved == 0


def test_what_fits_the_budget_is_asked_cheapest_first() -> None:
    request = RouteRequest("0.9")
    bound = three(budget=Budget(1, 60)).books.bound
    budget = Budget(bound(1, request) + Decimal("0.0001"), 3600)
    router = three(budget=budget)
    served = answered(router, {}, "0.9")
    assert (served.decision.chosen, served.decision.why) == ("a", "budget")
    held = budget.reserve(budget.left)
    assert held is not None
    with pytest.raises(BudgetExceededError, match="kept for calls under way"):
        answered(router, {}, "0.9")
    held.settle(Decimal(0))
    assert answered(router, {}, "0.1").decision.why == "score"


def test_a_caller_that_goes_away_is_charged_the_most_and_only_once() -> None:
    budget = Budget(1, 3600)
    router = three(budget=budget)
    request = RouteRequest("0.1")
    flow = serve(router, request, router.decide(request))
    next(flow)
    assert budget.reserved == router.books.bound(0, request)
    flow.close()
    assert (budget.spent, budget.reserved) == (router.books.bound(0, request), 0)


@pytest.mark.parametrize("usage", [None, Usage(0, 0), Usage(-5, 10), Usage(10**12, 10**12)])
def test_wrong_usage_breaks_neither_the_answer_nor_the_budget(usage: Usage | None) -> None:
    budget = Budget(1, 3600)
    router = three(budget=budget)
    request = RouteRequest("0.1")
    served = drive(serve(router, request, router.decide(request)), lambda step: Reply("four words of text", usage))
    (attempt,) = served.decision.attempts
    assert attempt.estimated == (usage is None or usage.output_tokens < 100)
    assert 0 < budget.spent <= router.books.bound(0, request)
    assert router.stats().overruns == (not attempt.estimated)


async def test_awaiting_comes_to_the_same() -> None:
    async def ask(step: Ask) -> Reply:
        if step.tier.name == "a":
            raise ProviderError(429)
        return Reply("fine", USAGE)

    router = three()
    request = RouteRequest("0.1")
    served = await adrive(serve(router, request, router.decide(request)), ask)
    assert (served.decision.chosen, served.decision.why, served.decision.cost) == (
        "b",
        "rate limit",
        Decimal("0.00015"),
    )


Script = dict[str, list[str | Exception]]


def relay(router: Router, script: Script) -> tuple[Relay[str], Any]:
    request = RouteRequest("0.1")
    flow = serve(router, request, router.decide(request))

    def reply(step: Ask, chunks: list[str]) -> Reply:
        said = "".join(chunks)
        return Reply(said, USAGE if said.endswith(".") else None, "stop" if said.endswith(".") else None, raw=chunks)

    def start(step: Ask) -> Any:
        for chunk in script[step.tier.name]:
            if isinstance(chunk, Exception):
                raise chunk
            yield chunk

    return Relay(flow, bool, reply), start


def streamed(router: Router, script: Script) -> list[str]:
    return list(relayed(*relay(router, script), lambda served: f"[{served.decision.chosen}]"))


async def astreamed(router: Router, script: Script) -> list[str]:
    made, start = relay(router, script)

    async def awaited(step: Ask) -> Any:
        for chunk in start(step):
            yield chunk

    return [chunk async for chunk in arelayed(made, awaited, lambda served: f"[{served.decision.chosen}]")]


STREAMS: list[tuple[Script, list[str]]] = [
    ({"a": ["", "one ", "two."]}, ["", "one ", "two.", "[a]"]),
    ({"a": ["", ProviderError(429)], "b": ["fine."]}, ["fine.", "[b]"]),
    ({"a": [], "b": ["fine."]}, ["fine.", "[b]"]),
    ({"a": ["", ""], "b": [TimeoutError()], "c": ["fine."]}, ["fine.", "[c]"]),
]


@pytest.mark.parametrize(("script", "shown"), STREAMS)
async def test_another_tier_takes_over_until_the_first_token_is_shown(script: Script, shown: list[str]) -> None:
    assert streamed(three(), script) == shown
    assert await astreamed(three(), script) == shown


@pytest.mark.parametrize("awaiting", [False, True])
async def test_once_a_token_was_shown_the_error_is_the_callers(awaiting: bool) -> None:
    script: Script = {"a": ["one ", ConnectionResetError()], "b": ["fine."]}
    budget, logged = Budget(1, 60), list[RouteDecision]()
    router = three(budget=budget, log=lambda request, decision: logged.append(decision))
    if awaiting:
        with pytest.raises(ConnectionResetError):
            await astreamed(router, script)
    else:
        with pytest.raises(ConnectionResetError):
            streamed(router, script)
    assert budget.reserved == 0
    assert_shown_and_paid(router, logged)


def assert_shown_and_paid(router: Router, logged: list[RouteDecision]) -> None:
    """What was shown of an answer that broke off is in the budget, in the books and in the log."""
    (decision,), stats = logged, router.stats()
    assert [(a.tier, a.outcome, a.cause) for a in decision.attempts] == [("a", "failed", "cut after it was shown")]
    assert router.budget is not None
    assert 0 < stats.cost == decision.cost == router.budget.dollars - router.budget.left < Decimal("0.0001")
    assert (stats.answered, stats.baseline) == ({}, decision.baseline_cost)


def test_a_reader_that_leaves_early_is_charged_what_was_shown() -> None:
    budget, logged = Budget(1, 60), list[RouteDecision]()
    router = three(budget=budget, log=lambda request, decision: logged.append(decision))
    made, start = relay(router, {"a": ["one ", "two ", "three."]})
    stream = relayed(made, start, lambda served: "")
    assert next(stream) == "one "
    stream.close()  # type: ignore[attr-defined]
    assert budget.reserved == 0
    assert_shown_and_paid(router, logged)


def test_an_interruption_without_a_cause_ends_the_flow() -> None:
    router = three()
    request = RouteRequest("0.1")
    flow = serve(router, request, router.decide(request))
    next(flow)
    with pytest.raises(Interrupted):
        flow.throw(Interrupted(None, Reply("one")))
