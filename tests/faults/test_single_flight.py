"""Many ask the same at once: one call is paid for, and whoever fails holds nobody up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import redis

from costopt import LocalStore, RedisStore
from langchain_costopt import SemanticCache
from tests.faults.support import Model, answer_to, capital, patient, questions, tier
from tests.faults.words import NEAR, Process, Words, wait_for
from tests.timed import timed

CALLERS = 100
QUESTION = "Who wrote the play Hamlet?"

# A process with a cache on Redis that asks one question from many threads when told to, and says what it paid.
ASKER = """
import sys
from concurrent.futures import ThreadPoolExecutor
from tests.faults.support import Model, answer_to, patient

url, question, seconds, callers = sys.argv[1], sys.argv[2], float(sys.argv[3]), int(sys.argv[4])
cache = patient(url)
model = Model(cache=cache, seconds=seconds)
print("ready", flush=True)
sys.stdin.readline()
with ThreadPoolExecutor(callers) as pool:
    answers = list(pool.map(model.invoke, [question] * callers))
assert {answer.content for answer in answers} == {answer_to(question)}
print(model.calls, flush=True)
cache.close()
"""


@pytest.fixture
async def async_cache(cache: SemanticCache) -> AsyncIterator[SemanticCache]:
    yield cache
    await cache.aclose()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(CALLERS) as pool:
        yield pool


def test_threads_share_one_call(cache: SemanticCache, pool: ThreadPoolExecutor) -> None:
    model = Model(cache=cache, seconds=0.4)
    together = threading.Barrier(CALLERS)

    def call(_: int) -> str:
        together.wait()
        return str(model.invoke(QUESTION).content)

    assert set(pool.map(call, range(CALLERS))) == {answer_to(QUESTION)}
    assert model.calls == 1
    assert cache.stats().in_flight == CALLERS - 1


async def test_tasks_share_one_call(async_cache: SemanticCache) -> None:
    model = Model(cache=async_cache, seconds=0.4)
    answers = await asyncio.gather(*(model.ainvoke(QUESTION) for _ in range(CALLERS)))
    assert {answer.content for answer in answers} == {answer_to(QUESTION)}
    assert model.calls == 1


async def test_one_abatch_of_the_same_question_is_one_call(async_cache: SemanticCache) -> None:
    model = Model(cache=async_cache, seconds=0.2)
    await model.abatch([QUESTION] * 20)
    assert model.calls == 1


async def test_threads_and_tasks_share_one_call(async_cache: SemanticCache, pool: ThreadPoolExecutor) -> None:
    model = Model(cache=async_cache, seconds=0.4)
    in_threads = [asyncio.wrap_future(pool.submit(model.invoke, QUESTION)) for _ in range(10)]
    answers = await asyncio.gather(*in_threads, *(model.ainvoke(QUESTION) for _ in range(10)))
    assert {answer.content for answer in answers} == {answer_to(QUESTION)}
    assert model.calls == 1


def test_two_processes_share_one_call(redis_client: redis.Redis, redis_url: str) -> None:
    with Process(ASKER, redis_url, QUESTION, 0.6, 50) as one, Process(ASKER, redis_url, QUESTION, 0.6, 50) as two:
        assert [one.line(), two.line()] == ["ready", "ready"]
        one.send()
        two.send()
        assert sum(int(process.rest()[-1]) for process in (one, two)) == 1


@timed
def test_the_next_proceeds_when_the_leading_process_is_killed(redis_client: redis.Redis, redis_url: str) -> None:
    with Process(ASKER, redis_url, QUESTION, 60, 1) as leader:
        assert leader.line() == "ready"
        leader.send()
        wait_for(lambda: redis_client.keys("costopt:l:*"), "the leader holds its lease")
        cache = patient(redis_url)
        model = Model(cache=cache)
        threading.Timer(0.3, leader.kill).start()
        started = time.monotonic()
        assert model.invoke(QUESTION).content == answer_to(QUESTION)
        # Not before the kill: until then the leader's answer is worth waiting for.
        assert 0.3 <= time.monotonic() - started < 5
        assert model.calls == 1
        cache.close()


def test_an_answer_that_came_since_we_looked_is_not_paid_for_again(redis_client: redis.Redis, redis_url: str) -> None:
    """Between our exact look-up and our turn, another process answered and gave its lease back."""
    embedder = Words()
    ours = SemanticCache(RedisStore(redis_url), embedder=embedder, judge=NEAR).warm()
    other_embedder = Words()
    other = SemanticCache(RedisStore(redis_url), embedder=other_embedder, judge=NEAR)
    other_model, model = Model(cache=other), Model(cache=ours)

    def answered_meanwhile(texts: list[str]) -> object:
        if other_model.calls == 0:
            other_model.invoke(QUESTION)
        return embedder.good(["something else"] * len(texts))

    embedder.fault = answered_meanwhile
    assert model.invoke(QUESTION).content == answer_to(QUESTION)
    assert (other_model.calls, model.calls) == (1, 0)
    assert redis_client.keys("costopt:l:*") == []
    ours.close()
    other.close()


def test_a_lease_that_runs_out_while_it_is_renewed_is_not_held(redis_client: redis.Redis, redis_url: str) -> None:
    class Late(redis.Redis):
        def pexpire(self, name: Any, *args: Any, **kwargs: Any) -> Any:
            self.delete(name)
            return super().pexpire(name, *args, **kwargs)

    store = RedisStore(client=Late.from_url(redis_url), timeout=5.0)
    request = SemanticCache(store, exact_only=True).core.request([{"role": "user", "content": QUESTION}], model="m")
    assert [store.claim(request, "us", 30.0) for _ in range(3)] == [True, False, True]
    store.close()


@timed
def test_followers_proceed_when_the_leaders_call_fails(cache: SemanticCache, pool: ThreadPoolExecutor) -> None:
    model = Model(cache=cache, seconds=0.3, failures=1)
    started = time.monotonic()
    outcomes = [pool.submit(model.invoke, QUESTION) for _ in range(20)]
    failed = [outcome for outcome in outcomes if outcome.exception() is not None]
    assert [str(outcome.exception()) for outcome in failed] == ["the provider is down"]
    assert {outcome.result().content for outcome in outcomes if outcome not in failed} == {answer_to(QUESTION)}
    assert time.monotonic() - started < 5


@timed
async def test_followers_proceed_when_the_leader_is_cancelled(async_cache: SemanticCache) -> None:
    model = Model(cache=async_cache, seconds=1.0)
    leader, followers = await led(model)
    leader.cancel()
    answers = await asyncio.wait_for(asyncio.gather(*followers), timeout=5)
    assert {answer.content for answer in answers} == {answer_to(QUESTION)}
    with pytest.raises(asyncio.CancelledError):
        await leader


@timed
async def test_a_cancelled_follower_takes_nobody_with_it(async_cache: SemanticCache) -> None:
    model = Model(cache=async_cache, seconds=1.0)
    leader, followers = await led(model)
    followers[0].cancel()
    answers = await asyncio.wait_for(asyncio.gather(leader, *followers[1:]), timeout=5)
    assert {answer.content for answer in answers} == {answer_to(QUESTION)}
    assert model.calls == 1


async def led(model: Model) -> tuple[asyncio.Task[Any], list[asyncio.Task[Any]]]:
    """Who makes the call, and five who wait. Of six who start together, any may be the one who leads."""
    leader = asyncio.create_task(model.ainvoke(QUESTION))
    await asyncio.to_thread(wait_for, lambda: model.calls, "the leader calls")
    followers = [asyncio.create_task(model.ainvoke(QUESTION)) for _ in range(5)]
    await asyncio.sleep(0.1)
    assert model.calls == 1
    return leader, followers


@timed
def test_other_questions_do_not_wait(cache: SemanticCache, pool: ThreadPoolExecutor) -> None:
    slow = Model(cache=cache, seconds=1.5)
    quick = Model(cache=cache)
    running = pool.submit(slow.invoke, QUESTION)
    wait_for(lambda: slow.calls, "the slow call runs")
    started = time.monotonic()
    for question in questions("meanwhile", 5):
        assert quick.invoke(question).content == answer_to(question)
    assert time.monotonic() - started < 1.4
    assert not running.done()
    assert running.result().content == answer_to(QUESTION)


@timed
def test_followers_of_an_answer_that_is_not_kept_all_ask(cache: SemanticCache, pool: ThreadPoolExecutor) -> None:
    """An empty answer is handed to nobody, and the followers do not queue for another one."""

    class Silent(Model):
        def _result(self, messages: object, number: int) -> object:
            result = super()._result([*messages], number)  # type: ignore[misc]
            result.generations[0].message.content = ""
            return result

    model = Silent(cache=cache, seconds=0.3)
    started = time.monotonic()
    answers = list(pool.map(model.invoke, [QUESTION] * 10))
    assert [answer.content for answer in answers] == [""] * 10
    assert model.calls == 10
    assert time.monotonic() - started < 2.5


def test_single_flight_can_be_switched_off(tmp_path: Path, pool: ThreadPoolExecutor) -> None:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), single_flight=False).warm()
    model = Model(cache=cache, seconds=0.3)
    list(pool.map(model.invoke, [QUESTION] * 5))
    assert model.calls == 5
    assert [tier(model.invoke(text)) for text in (QUESTION, capital(0)[0])] == ["exact", None]
    cache.close()
