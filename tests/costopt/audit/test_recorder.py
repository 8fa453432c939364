"""From what a framework tells of a call to the rows that it was."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costopt import Cascade, Price, Router, RouteRequest, Tier, Usage
from costopt.audit import Attempt, Ledger
from costopt.audit.recorder import Answered, Call, Recorder
from costopt.routing import Ask, Reply, drive, serve

PRICES = {"cheap": Price(1, 2), "strong": Price(10, 20)}
ASKED = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture
def recorder(tmp_path: Path) -> Iterator[Recorder]:
    with Ledger(tmp_path / "ledger.db") as ledger:
        yield Recorder(ledger, prices=PRICES, tenant="acme", tags=["app"])


def call(name: str = "1", **more: Any) -> Call:
    return Call(name, "cheap", messages=lambda: ASKED, **more)


def rows(recorder: Recorder) -> list[Attempt]:
    return list(recorder.ledger.attempts())


def routed(*replies: Reply | Exception, cascade: Cascade | None = None) -> dict[str, Any]:
    """The decision of a router whose models answer so, one after the other."""
    tiers = [Tier("cheap", price=PRICES["cheap"]), Tier("strong", price=PRICES["strong"])]
    router, request, left = Router(tiers, cascade=cascade), RouteRequest(ASKED[0]["content"]), list(replies)

    def answer(_: Ask) -> Reply:
        reply = left.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    return drive(serve(router, request, router.decide(request)), answer).decision.as_dict()


def test_the_name_in_the_answer_is_priced_else_the_one_that_was_asked_for(recorder: Recorder) -> None:
    recorder.answered(call(), Answered(model="cheap-2026-01-01", usage=Usage(1_000_000, 0)))
    (row,) = rows(recorder)
    assert (row.model, row.cost, row.cost_source) == ("cheap-2026-01-01", 1, "given")
    assert (row.tenant, row.tags) == ("acme", ("app",))


def test_what_the_call_says_goes_before_what_the_recorder_was_given(recorder: Recorder) -> None:
    recorder.answered(call(tenant="other", tags=("job", "app")), Answered(usage=Usage(1)))
    (row,) = rows(recorder)
    assert (row.tenant, row.tags) == ("other", ("app", "job"))


def test_each_attempt_of_a_router_is_a_row(recorder: Recorder) -> None:
    rejected = Reply("I am not sure.", Usage(100, 50, 40), finish="length")
    decision = routed(rejected, Reply("Paris", Usage(100, 10, 60, reasoning_tokens=5)), cascade=Cascade())
    recorder.answered(call(), Answered(model="strong-1", usage=Usage(100, 10, 60, reasoning_tokens=5), routed=decision))
    cheap, strong = rows(recorder)
    assert (cheap.model, cheap.usage, cheap.status) == ("cheap", Usage(100, 50, 40), "ok")
    assert (strong.model, strong.usage) == ("strong-1", Usage(100, 10, 60, reasoning_tokens=5))
    assert cheap.request_id == strong.request_id == decision["id"]
    assert (cheap.cost or 0) + (strong.cost or 0) == Decimal(decision["cost"])
    assert (cheap.baseline_cost, strong.baseline_cost) == (0, Decimal(decision["baseline_cost"]))
    assert (cheap.latency_s, strong.latency_s is not None) == (None, True)


def test_an_answer_that_would_not_do_is_served_if_there_is_no_other(recorder: Recorder) -> None:
    decision = routed(Reply("I am not", Usage(100, 50), finish="length"), TimeoutError(), cascade=Cascade())
    recorder.answered(call(), Answered(model="cheap-1", usage=Usage(100, 50), routed=decision))
    cheap, strong = rows(recorder)
    assert (cheap.model, cheap.status, cheap.usage) == ("cheap-1", "ok", Usage(100, 50))
    assert (strong.model, strong.status, strong.usage, strong.error) == ("strong", "error", None, "timeout")
    assert (cheap.cost, strong.cost, strong.cost_source) == (Decimal(decision["attempts"][0]["usd"]), None, "")
    assert cheap.latency_s is not None


def test_several_samples_are_several_rows(recorder: Recorder) -> None:
    samples = [Reply("Paris", Usage(10, number)) for number in (1, 2, 3)]
    decision = routed(*samples, Reply("Paris", Usage(10, 9)), cascade=Cascade(samples=3))
    recorder.answered(call(), Answered(usage=Usage(10, 1), routed=decision))
    assert sum(row.cost or 0 for row in rows(recorder)) == Decimal(decision["cost"])


def test_a_decision_that_is_told_twice_counts_once(recorder: Recorder) -> None:
    decision = routed(Reply("Paris", Usage(10, 1)))
    for name in "ab":
        recorder.answered(call(name), Answered(usage=Usage(10, 1), routed=decision))
    assert len(rows(recorder)) == 1


def test_a_hit_is_priced_by_what_it_avoided(recorder: Recorder) -> None:
    recorder.answered(call(), Answered(usage=Usage(1_000_000, 0), cached={"cache": "exact"}))
    (row,) = rows(recorder)
    assert (row.usage, row.cost, row.avoided_cost, row.cache) == (Usage(), 0, 1, "exact")
    assert recorder.totals().avoided_cost == 1


@pytest.mark.parametrize(
    ("error", "status", "cost", "estimated"),
    [
        (asyncio.CancelledError(), "cancelled", Decimal("0.000015"), True),
        (TimeoutError(), "timeout", None, False),
        (ConnectionError(), "error", None, False),
    ],
)
def test_what_a_call_cost_that_broke_off_is_estimated_or_unknown(
    recorder: Recorder, error: BaseException, status: str, cost: Decimal | None, estimated: bool
) -> None:
    recorder.failed(call(), error)
    (row,) = rows(recorder)
    assert (row.status, row.cost, row.usage_estimated) == (status, cost, estimated)


def test_a_message_of_an_unknown_kind_loses_no_cost(recorder: Recorder) -> None:
    def unreadable() -> Any:
        raise TypeError("what is this?")

    recorder.answered(Call("1", "cheap", messages=unreadable), Answered(usage=Usage(1_000_000, 0), text=unreadable))
    (row,) = rows(recorder)
    assert row.cost == 1


def test_words_are_kept_only_where_the_ledger_keeps_them(recorder: Recorder, tmp_path: Path) -> None:
    with Ledger(tmp_path / "words.db", keep_text=True) as ledger:
        for each in (recorder, Recorder(ledger, prices=PRICES)):
            each.answered(call(), Answered(usage=Usage(1), text=lambda: "Paris"))
        (bare,), (clear,) = rows(recorder), list(ledger.attempts())
    assert (bare.prompt, bare.answer) == (None, None)
    assert (clear.prompt, clear.answer) == ('[{"role": "user", "content": "What is the capital of France?"}]', "Paris")
    assert bare.prompt_hash == clear.prompt_hash
