"""A Redis that is killed, frozen, slow, emptied, full or read-only: the user's call does not notice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from langchain_core.messages import AIMessage

from costopt import RedisStore
from langchain_costopt import SemanticCache
from tests.faults.support import Model, aask, answer_to, ask, capital, median_lookup_s, questions, tier
from tests.faults.words import MOST_ADDED_S
from tests.servers import RedisServer, SlowProxy

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
    """What to do to a world, how to undo it, and whether reading works meanwhile."""

    inflict: Callable[[World], object]
    mend: Callable[[World], object] = lambda world: None
    reads: bool = False
    writes: bool = False


FAULTS = {
    "killed": Fault(lambda w: w.server.kill(), lambda w: w.server.start()),
    "stopped": Fault(lambda w: w.server.stop(), lambda w: w.server.resume()),
    "refused": Fault(lambda w: w.proxy.refuse(), lambda w: w.proxy.restore()),
    "hanging": Fault(lambda w: w.proxy.hang(), lambda w: w.proxy.restore()),
    "slow": Fault(lambda w: w.slow_down(0.5), lambda w: w.slow_down(0)),
    "flushed": Fault(lambda w: w.command("FLUSHALL"), reads=True, writes=True),
    "index dropped": Fault(World.drop_index, reads=True, writes=True),
    "out of memory": Fault(
        lambda w: w.command("CONFIG", "SET", "maxmemory", "1mb"),
        lambda w: w.command("CONFIG", "SET", "maxmemory", "0"),
        reads=True,
    ),
    "read-only": Fault(
        lambda w: w.command("REPLICAOF", "127.0.0.1", "9"), lambda w: w.command("REPLICAOF", "NO", "ONE"), reads=True
    ),
}


@pytest.fixture
def world(redis_server: RedisServer) -> Iterator[World]:
    with SlowProxy(redis_server) as proxy:
        cache = SemanticCache(RedisStore(proxy.url)).warm()
        yield World(redis_server, proxy, cache, Model(cache=cache))
        cache.close()


Asked = Callable[[Any], "tuple[AIMessage, float]"]


def is_stepped_over(world: World, fault: Fault, question_of: Asked) -> None:
    """The whole story of one fault: before, during, and after it."""
    known = capital(0)[0]
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
