"""Batches from requests to results, with nothing going wrong but what providers do as a matter of course."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costopt import ConfigError, Ledger, Price
from costopt.batch import BatchRequest, BatchRunner, Limits
from costopt.optimizer import Parts
from costopt.pricing import Usage, cost
from tests import batch_answers
from tests.batch_answers import Fate
from tests.batch_server import BatchServer
from tests.costopt.batch.support import FAST, MODELS, Setup, provider, right


def test_answers_come_in_the_order_asked_though_rows_are_shuffled_and_said_twice(setup: Setup) -> None:
    requests = setup.asks(40)
    result = setup.runner().run(requests)
    right(result, requests)
    setup.billed_once(40)


def test_the_bill_is_the_servers_to_the_token_and_the_cent(setup: Setup) -> None:
    result = setup.runner().run(setup.asks(30))
    assert [result.usage.input_tokens, result.usage.output_tokens] == setup.server.usage
    usages = [item.usage for item in result]
    model = MODELS[setup.name]
    assert result.cost == sum(cost(model, usage, batch=True) or 0 for usage in usages if usage)
    assert result.baseline == sum(cost(model, usage) or 0 for usage in usages if usage)
    assert result.baseline == 2 * result.cost
    assert result.unpriced == 0


def test_duplicates_are_sent_once_and_paid_once(setup: Setup) -> None:
    requests = [setup.ask(f"question {number % 3}") for number in range(12)]
    runner = setup.runner()
    job = runner.submit(requests)
    assert (job.rows, job.distinct, job.answered) == (12, 3, 0)
    result = runner.collect(job.id)
    right(result, requests)
    assert [item.source for item in result] == ["batch"] * 3 + ["duplicate"] * 9
    assert [item.cost for item in result][3:] == [Decimal(0)] * 9
    assert result.baseline == 8 * result.cost
    setup.billed_once(3)


def test_the_same_list_again_is_the_same_job_and_asks_nobody(setup: Setup) -> None:
    requests = setup.asks(5)
    first = setup.runner().run(requests)
    asked = len(setup.server.requests)
    again = setup.runner().run(requests)
    assert again == first
    assert len(setup.server.requests) == asked


def test_what_one_job_has_had_answered_is_not_sent_for_another(setup: Setup) -> None:
    runner = setup.runner()
    paid = runner.run(setup.asks(4))
    result = runner.run(setup.asks(6))
    right(result, setup.asks(6))
    assert [item.source for item in result] == ["journal"] * 4 + ["batch"] * 2
    assert paid.usage.input_tokens + result.usage.input_tokens == setup.server.usage[0]
    setup.billed_once(6)


def test_salt_asks_anew(setup: Setup) -> None:
    runner = setup.runner()
    runner.run(setup.asks(2))
    runner.run(setup.asks(2), salt="second opinion")
    assert set(setup.server.billed.values()) == {2}


def test_old_answers_are_forgotten(setup: Setup) -> None:
    setup.runner().run(setup.asks(2))
    setup.runner(keep=1e-9).run(setup.asks(2))
    assert set(setup.server.billed.values()) == {2}


def test_lots_keep_to_the_limits(setup: Setup) -> None:
    requests = setup.asks(25)
    result = setup.runner(limits=Limits(rows=4, bytes=10**6, one_model=True)).run(requests)
    right(result, requests)
    assert [len(batch.rows) for batch in setup.server.batches.values()] == [4, 4, 4, 4, 4, 4, 1]


def test_lots_are_for_one_model_where_the_provider_wants_it(server: BatchServer, tmp_path: Path) -> None:
    setup = Setup("openai", server, provider("openai", server.url), tmp_path / "journal.db")
    bodies = [{"model": f"gpt-{n % 2}", "messages": [{"role": "user", "content": str(n)}]} for n in range(6)]
    requests = [BatchRequest(body, id=str(n)) for n, body in enumerate(bodies)]
    right(setup.runner().run(requests), requests)  # the server refuses files of two models
    assert [len(batch.rows) for batch in server.batches.values()] == [3, 3]


def test_errors_are_of_their_row_alone(setup: Setup) -> None:
    def fate(body: Mapping[str, Any], before: int) -> Fate:
        return "invalid" if body["messages"][0]["content"] == "question 2" else "ok"

    setup.server.fate = fate
    result = setup.runner().run(setup.asks(5))
    assert [item.error is None for item in result] == [True, True, False, True, True]
    assert [item.index for item in result.errors] == [2]
    error = result.errors[0].error
    assert error is not None
    assert (error.status, error.message) == (400, "the row is invalid")
    assert error.body["error"]["message"] == "the row is invalid"
    assert setup.server.seen[min(setup.server.seen)] == 1


def test_a_row_that_is_too_large_is_an_error_and_the_others_go(setup: Setup) -> None:
    requests = [setup.ask("short"), setup.ask("long" * 2000), setup.ask("other")]
    result = setup.runner(limits=Limits(rows=10, bytes=4000, one_model=False)).run(requests)
    codes = [item.error.code if item.error else "" for item in result]
    assert codes == ["", "too_large", ""]
    setup.billed_once(2)


def test_a_batch_that_the_provider_finds_too_large_is_sent_in_parts(setup: Setup) -> None:
    requests = setup.asks(16)
    setup.server.most_bytes = 1500
    result = setup.runner().run(requests)
    right(result, requests)
    setup.billed_once(16)
    assert len(setup.server.batches) > 1


def test_what_a_cache_has_is_not_sent_and_answers_go_into_it(setup: Setup) -> None:
    class Cache(dict[Any, Any]):
        def get(self, request: BatchRequest) -> Any:  # type: ignore[override]
            return super().get((request.endpoint, request.body["messages"][0]["content"]))

        def put(self, request: BatchRequest, body: Mapping[str, Any]) -> None:
            self[request.endpoint, request.body["messages"][0]["content"]] = body

    at = setup.provider.endpoint
    cache = Cache({(at, "question 1"): {"cached": True}})
    result = setup.runner(cache=cache).run(setup.asks(3))
    assert [item.source for item in result] == ["batch", "cache", "batch"]
    assert (result.items[1].body, result.items[1].cost) == ({"cached": True}, Decimal(0))
    assert sorted(cache) == [(at, "question 0"), (at, "question 1"), (at, "question 2")]
    setup.billed_once(2)


def test_a_cache_that_fails_is_no_cache(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    class Broken:
        def get(self, request: BatchRequest) -> Any:
            raise OSError("no")

        put = get

    right(setup.runner(cache=Broken()).run(setup.asks(3)), setup.asks(3))
    assert len(caplog.records) == 1


def test_status_and_completed_say_what_is_there(setup: Setup) -> None:
    setup.server.polls = 4
    runner = setup.runner(limits=Limits(rows=2, bytes=10**6, one_model=False))
    job = runner.submit(setup.asks(4))
    status = runner.status(job.id, ask=False)
    assert (status.rows, status.sent, status.finished, len(status.batches)) == (4, 4, False, 2)
    early = runner.collect(job.id, wait=False)
    assert [item.error.code for item in early.errors if item.error] == ["pending"] * 4
    items = list(runner.completed(job.id))
    assert sorted(item.index for item in items) == [0, 1, 2, 3]
    assert str(runner.status(job.id)) == "4 requests: 4 done, 0 failed, 0 cancelled, 0 sent, 0 pending"


def test_rows_come_as_their_batches_end(setup: Setup) -> None:
    setup.server.polls = 10**9
    runner = setup.runner(limits=Limits(rows=2, bytes=10**6, one_model=False))
    job = runner.submit(setup.asks(4))
    first, second = setup.server.batches.values()
    setup.server.end(second)
    rows = runner.completed(job.id)
    assert sorted(next(rows).index for _ in range(2)) == [2, 3]
    setup.server.end(first)
    assert sorted(item.index for item in rows) == [0, 1]


async def test_awaiting_gives_what_blocking_gives(setup: Setup) -> None:
    requests = setup.asks(6)
    runner = setup.runner()
    job = await runner.asubmit(requests)
    items = [item async for item in runner.acompleted(job.id)]
    result = await runner.acollect(job.id)
    assert sorted(items, key=lambda item: item.index) == list(result)
    assert await runner.arun(requests) == result == runner.collect(job.id)
    assert (await runner.astatus(job.id)).finished
    assert (await runner.acancel(job.id)).done == 6
    setup.billed_once(6)


async def test_waiting_does_not_block_the_event_loop(setup: Setup) -> None:
    setup.server.polls = 10
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.001)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await setup.runner().arun(setup.asks(2))
    ticking.cancel()
    assert ticks > 3


def test_cancelling_keeps_what_is_done_and_handing_in_again_takes_it_up(setup: Setup) -> None:
    setup.server.polls = 10**9
    runner = setup.runner()
    job = runner.submit(setup.asks(8))
    runner.cancel(job.id)
    result = runner.collect(job.id)
    done = [item for item in result if item.error is None]
    assert {item.error.code for item in result.errors if item.error} == {"cancelled"}
    assert len(done) == 4
    setup.server.polls = 1
    right(runner.run(setup.asks(8)), setup.asks(8))
    setup.billed_once(8)


def test_cancelling_one_job_leaves_what_another_wants(setup: Setup) -> None:
    setup.server.polls = 10**9
    runner = setup.runner()
    mine, other = runner.submit(setup.asks(4)), runner.submit(setup.asks(2))
    runner.cancel(mine.id)
    assert not any(batch.cancel_asked for batch in setup.server.batches.values())
    setup.server.polls = 1
    right(runner.collect(other.id), setup.asks(2))


@pytest.mark.parametrize("awaited", [False, True])
async def test_rows_that_are_read_as_they_come_are_in_the_ledger_once(
    setup: Setup, tmp_path: Path, awaited: bool
) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        options = {"journal": str(setup.journal), "backoff": FAST}
        runner = Parts((), ledger=ledger).batch_runner(setup.provider, options)
        job = runner.submit([*setup.asks(3), setup.ask("question 0")])
        if awaited:
            assert len([item async for item in runner.acompleted(job.id)]) == 4
        else:
            assert len(list(runner.completed(job.id))) == 4
        assert sorted(each.cache or "paid" for each in ledger.attempts()) == ["exact", "paid", "paid", "paid"]
        runner.results(job.id)
        assert ledger.totals().attempts == 4


@pytest.mark.parametrize("wanted", [slice(8), slice(6, 10)], ids=["by the same job", "by another"])
def test_what_is_wanted_again_while_its_batch_is_being_cancelled_is_answered(
    setup: Setup, monkeypatch: pytest.MonkeyPatch, wanted: slice
) -> None:
    setup.server.polls = 10**9
    runner, asks = setup.runner(tries=1), setup.asks(10)
    job = runner.submit(asks[:8])
    with monkeypatch.context() as patch:
        patch.setattr(setup.server, "look", lambda batch: None)  # the provider takes its time
        assert runner.cancel(job.id).sent == 8
    setup.server.polls = 1
    right(runner.run(asks[wanted]), asks[wanted])
    given_up = [item.index for item in runner.collect(job.id) if item.error and item.error.code == "cancelled"]
    assert given_up == [place for place in (4, 5) if wanted.start]
    assert set(setup.server.billed.values()) == {1}


def test_what_somebody_stops_at_the_provider_stays_cancelled(setup: Setup) -> None:
    setup.server.polls = 10**9
    runner = setup.runner()
    job = runner.submit(setup.asks(4))
    next(iter(setup.server.batches.values())).cancel_asked = True
    assert [item.error and item.error.code for item in runner.collect(job.id)] == [None, None, "cancelled", "cancelled"]
    assert len(setup.server.batches) == 1


def test_an_empty_list_is_a_finished_job(setup: Setup) -> None:
    result = setup.runner().run([])
    assert (len(result), result.cost) == (0, Decimal(0))
    assert setup.server.requests == []


def test_two_providers_in_one_journal_do_not_mix(server: BatchServer, tmp_path: Path) -> None:
    setups = [Setup(name, server, provider(name, server.url), tmp_path / "one.db") for name in MODELS]
    requests = [BatchRequest({"model": "m", "messages": [{"role": "user", "content": "?"}]})]
    jobs = [setup.runner().run(requests).job for setup in setups]
    assert set(server.billed.values()) == {2}
    with pytest.raises(ConfigError, match="use that provider"):
        setups[0].runner().collect(jobs[1])


def test_prices_of_ones_own_go_first_and_unknown_ones_are_none(setup: Setup) -> None:
    requests = [BatchRequest({"model": "mine", "messages": [{"role": "user", "content": "?"}]})]
    unknown = setup.runner().run(requests)
    assert (unknown.items[0].cost, unknown.unpriced) == (None, 1)
    price = Price(input=2, output=4)
    known = setup.runner(prices={"mine": price}).run(requests, salt="priced").items[0]
    assert isinstance(known.usage, Usage)
    assert known.cost == price.cost(known.usage) / 2


@pytest.mark.parametrize(
    ("name", "usage", "expected"),
    [
        (
            "openai",
            {
                "prompt_tokens": 100,
                "completion_tokens": 40,
                "prompt_tokens_details": {"cached_tokens": 30},
                "completion_tokens_details": {"reasoning_tokens": 25},
            },
            Usage(100, 40, cached_tokens=30, reasoning_tokens=25),
        ),
        (
            "anthropic",
            {
                "input_tokens": 60,
                "output_tokens": 40,
                "cache_read_input_tokens": 30,
                "cache_creation_input_tokens": 10,
            },
            Usage(100, 40, cached_tokens=30, cache_write_tokens=10),
        ),
    ],
)
def test_cached_and_reasoning_tokens_are_counted_once_and_priced_as_such(
    name: str, usage: Any, expected: Usage, server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = getattr(batch_answers, f"{name}_answer")
    dated = {"openai": "gpt-4o-mini-2024-07-18", "anthropic": "claude-haiku-4-5-20251001"}[name]
    said = {"usage": usage, "model": dated}
    monkeypatch.setattr(batch_answers, f"{name}_answer", lambda body: answer(body) | said)
    server.answer = batch_answers.openai_answer
    setup = Setup(name, server, provider(name, server.url), tmp_path / "journal.db")
    (item,) = setup.runner().run(setup.asks(1))
    assert item.usage == expected
    assert item.cost == cost(MODELS[name], expected, batch=True)
    (given,) = setup.runner(prices={MODELS[name]: Price(input=1, output=1)}).run(setup.asks(1), salt="given")
    assert given.cost == Price(input=1, output=1).cost(expected) / 2


@pytest.mark.parametrize("body", [{"model": "m", "x": float("nan")}, {"x": {1, 2}}, ["no object"]])
def test_what_is_no_json_is_refused_before_anything_is_sent(setup: Setup, body: Any) -> None:
    with pytest.raises(ConfigError):
        setup.runner().submit([setup.ask("fine"), BatchRequest(body)])
    assert setup.server.requests == []
    assert not setup.journal.exists()


@pytest.mark.parametrize("options", [{"tries": 0}, {"settle": -1}, {"keep": 0}, {"settle": float("nan")}])
def test_options_that_make_no_sense_are_refused(setup: Setup, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="give tries"):
        setup.runner(**options)


def test_a_job_that_is_not_there_is_named(setup: Setup) -> None:
    with pytest.raises(ConfigError, match="no job 'nosuch'"):
        setup.runner().collect("nosuch")


def test_nothing_is_made_or_asked_by_a_constructor(server: BatchServer, tmp_path: Path) -> None:
    from costopt.batch import AnthropicBatches, OpenAIBatches

    for each in (OpenAIBatches(), AnthropicBatches()):  # no key is set
        BatchRunner(each, journal=str(tmp_path / "not made" / "journal.db"))
    assert list(tmp_path.iterdir()) == []
