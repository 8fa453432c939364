"""A Redis that is killed, frozen, slow, emptied, full or read-only: the user's call does not notice."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from costopt import RedisStore
from langchain_costopt import SemanticCache
from tests.faults.support import Model, aask, answer_to, ask, capital, median_lookup_s, questions, tier
from tests.faults.words import MOST_ADDED_S, NEAR, human, wait_for
from tests.proxies import SlowProxy
from tests.servers import RedisServer
from tests.timed import timed

pytestmark = timed

BREAKER_OPEN_S = 0.001
RECOVERY_S = 30.0


@dataclass
class World:
    """A server behind a faulty network, a cache on it, and a model that uses the cache."""

    server: RedisServer
    proxy: SlowProxy
    cache: SemanticCache
    model: Model

    def command(self, *words: object) -> Any:
        client = self.server.client(socket_timeout=5)
        return client.execute_command(*words)

    def drop_index(self) -> None:
        for name in self.command("FT._LIST"):
            self.command("FT.DROPINDEX", name)

    def slow_down(self, seconds: float) -> None:
        self.proxy.delay = seconds


@dataclass(frozen=True)
class Fault:
    """What to do to a world, how to undo it, and what goes on meanwhile: reading, writing, serving what is known."""

    inflict: Callable[[World], object]
    mend: Callable[[World], object] = lambda world: None
    reads: bool = False
    writes: bool = False
    serves: bool = False


FAULTS = {
    "killed": Fault(lambda w: w.server.kill(), lambda w: w.server.start()),
    "stopped": Fault(lambda w: w.server.stop(), lambda w: w.server.resume()),
    "refused": Fault(lambda w: w.proxy.refuse(), lambda w: w.proxy.restore()),
    "hanging": Fault(lambda w: w.proxy.hang(), lambda w: w.proxy.restore()),
    "slow": Fault(lambda w: w.slow_down(0.5), lambda w: w.slow_down(0)),
    # Round trips that are just too long, and some that are not: a miss takes several of them.
    "laggy": Fault(lambda w: w.slow_down(0.045), lambda w: w.slow_down(0)),
    "distant": Fault(lambda w: w.slow_down(0.02), lambda w: w.slow_down(0), reads=True, writes=True, serves=True),
    "flushed": Fault(lambda w: w.command("FLUSHALL"), reads=True, writes=True),
    "index dropped": Fault(World.drop_index, reads=True, writes=True, serves=True),
    "out of memory": Fault(
        lambda w: w.command("CONFIG", "SET", "maxmemory", "1mb"),
        lambda w: w.command("CONFIG", "SET", "maxmemory", "0"),
        reads=True,
        serves=True,
    ),
    "read-only": Fault(
        lambda w: w.command("REPLICAOF", "127.0.0.1", "9"),
        lambda w: w.command("REPLICAOF", "NO", "ONE"),
        reads=True,
        serves=True,
    ),
}


@pytest.fixture
def world(redis_server: RedisServer) -> Iterator[World]:
    with SlowProxy(redis_server) as proxy:
        cache = SemanticCache(RedisStore(proxy.url), judge=NEAR).warm()
        yield World(redis_server, proxy, cache, Model(cache=cache))
        cache.close()


Asked = Callable[[Any], "tuple[AIMessage, float]"]


def is_stepped_over(world: World, fault: Fault, question_of: Asked) -> None:
    """The whole story of one fault: before, during, and after it."""
    known = capital(0)[0]
    question_of(known)
    until_served(world, question_of)
    fault.inflict(world)
    added = []
    for question in [*questions("during", 6), known]:
        paid_before = world.model.calls
        answer, seconds = question_of(question)
        assert answer.content == answer_to(question)
        assert world.model.calls == paid_before + (tier(answer) is None)
        added.append(seconds)
    assert max(added) <= MOST_ADDED_S, added
    assert (tier(answer) == "exact") == fault.serves
    stored = world.cache.stats().stored
    if not fault.reads:
        assert median_lookup_s(world.cache, "open") < BREAKER_OPEN_S
    question_of(capital(9)[0])
    assert (world.cache.stats().stored > stored) == fault.writes
    fault.mend(world)
    mended = time.monotonic()
    until_served(world, question_of)
    assert time.monotonic() - mended < RECOVERY_S


def until_served(world: World, question_of: Asked) -> None:
    """Ask until both tiers serve; how often is for the caller's clock to judge."""
    give_up = time.monotonic() + RECOVERY_S + 1
    number = 0
    while True:
        question, reworded = capital(number := number + 1)
        question_of(question)
        answers = [question_of(question)[0], question_of(reworded)[0]]
        if [tier(answer) for answer in answers] == ["exact", "semantic"]:
            assert [answer.content for answer in answers] == [answer_to(question)] * 2
            return
        assert time.monotonic() < give_up, (number, world.cache.stats())
        time.sleep(0.1)


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_stepped_over(name: str, world: World) -> None:
    is_stepped_over(world, FAULTS[name], lambda question: ask(world.model, question))


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_is_stepped_over_in_asyncio(name: str, world: World) -> None:
    with asyncio.Runner() as runner:
        is_stepped_over(world, FAULTS[name], lambda question: runner.run(aask(world.model, question)))
        runner.run(world.cache.aclose())


def test_one_call_for_many_while_the_server_is_frozen(world: World) -> None:
    world.server.stop()
    world.model.seconds = 0.3
    with ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(world.model.invoke, ["Who wrote Hamlet?"] * 50))
    world.server.resume()
    assert {answer.content for answer in answers} == {answer_to("Who wrote Hamlet?")}
    assert world.model.calls == 1


def test_each_kind_of_failure_is_logged_once(world: World, caplog: pytest.LogCaptureFixture) -> None:
    world.server.kill()
    for question in questions("logged", 30):
        world.model.invoke(question)
    lines = [record.getMessage().partition(" failed ")[0] for record in caplog.records]
    assert lines
    assert len(lines) == len(set(lines)) == len(world.cache.stats().failures)
    assert sum(world.cache.stats().failures.values()) >= 3


def test_entries_and_index_survive_kill_9() -> None:
    with RedisServer(appendonly="yes") as server:
        cache = SemanticCache(RedisStore(server.url), judge=NEAR).warm()
        model = Model(cache=cache)
        question, reworded = capital(0)
        model.invoke(question)
        server.kill()
        server.start()
        wait_for(lambda: tier(model.invoke(reworded)) == "semantic", "served from before the kill", RECOVERY_S)
        cache.close()


def test_a_question_that_waits_for_another_process_goes_on_when_the_server_dies(world: World) -> None:
    other = world.cache.core.store
    request = human(world.cache.core, "Who wrote Hamlet?")
    assert other.claim(request, "another process", 30)
    threading.Timer(0.2, world.server.kill).start()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(world.model.invoke, "Who wrote Hamlet?")
        assert asked.result(timeout=5).content == answer_to("Who wrote Hamlet?")


def test_connections_that_the_server_has_cut_cost_no_hit(world: World) -> None:
    """Managed servers cut what is idle; whoever asks next must not pay for it."""
    question = capital(0)[0]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(world.model.invoke, [question] * 8))
    for _ in range(3):
        world.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        time.sleep(0.05)
        with ThreadPoolExecutor(8) as pool:
            answers = list(pool.map(world.model.invoke, [question] * 8))
        assert [tier(answer) for answer in answers] == ["exact"] * 8
    assert world.model.calls == 1
    assert not world.cache.stats().failures
