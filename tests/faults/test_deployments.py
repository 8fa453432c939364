"""Redis as people run it: cluster, Sentinel, TLS, restricted accounts, a client of their own."""

from __future__ import annotations

import asyncio
import gc
import logging
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import redis
import redis.asyncio

import costopt
from costopt import RedisStore, StoreError
from tests.clusters import RedisCluster, SentinelSetup
from tests.faults.support import (
    QUESTION,
    REWORDED,
    Model,
    aask,
    acosts_little,
    aserves,
    cached,
    costs_little,
    frozen,
    patient,
    serves,
    tier,
    until_served,
)
from tests.faults.words import human, wait_for
from tests.proxies import TlsRedisServer
from tests.servers import HOST, RedisServer


@pytest.fixture
def swept(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """redis-py's cluster clients drop the connections to nodes that fail without closing them; here they go."""
    caplog.set_level(logging.CRITICAL, "costopt.caching")  # a log record would keep them
    yield
    gc.collect()


# -- more than one server ----------------------------------------------------------------------------------


def cluster_url(cluster: RedisCluster) -> str:
    return cluster.url.replace("redis://", "redis+cluster://")


def test_cluster_serves_every_tenant_its_own(redis_cluster: RedisCluster) -> None:
    tenant = "a"
    cache = cached(RedisStore(cluster_url(redis_cluster)), tenant=lambda: tenant).warm()
    model = Model(cache=cache)
    model.invoke("connects")
    for tenant in ("a", "b", "c", "d", "e", "f"):
        wait_for(lambda name=tenant: serves(model, name), "the tenant's index")
        assert tier(model.invoke("how old is the other")) is None
    nodes = [node for node in redis_cluster.nodes if node.client().keys("costopt:e:*")]
    assert len(nodes) > 1
    assert cache.core.size().entries >= 12
    assert cache.invalidate(tenant="a") >= 2
    cache.close()


async def test_cluster_in_asyncio(redis_cluster: RedisCluster) -> None:
    cache = cached(RedisStore(cluster_url(redis_cluster)))
    model = Model(cache=cache)
    topics = iter(range(1000))
    give_up = time.monotonic() + 10
    while not await aserves(model, f"moon{next(topics)}"):
        assert time.monotonic() < give_up, cache.stats()
    await cache.aclose()


@pytest.mark.usefixtures("swept")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("how_many", [1, 3])
def test_cluster_with_frozen_nodes(redis_cluster: RedisCluster, how_many: int) -> None:
    cache = cached(RedisStore(cluster_url(redis_cluster)))
    model = Model(cache=cache)
    until_served(model)
    fresh = cached(RedisStore(cluster_url(redis_cluster)))
    with frozen(*redis_cluster.nodes[:how_many]):
        costs_little(model, "frozen")
        costs_little(Model(cache=fresh), "never connected")
    until_served(model)
    cache.close()
    fresh.close()


@pytest.mark.usefixtures("swept")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_cluster_with_frozen_nodes_in_asyncio(redis_cluster: RedisCluster) -> None:
    cache = cached(RedisStore(cluster_url(redis_cluster)))
    model = Model(cache=cache)

    async def main() -> None:
        await aserves(model)
        with frozen(*redis_cluster.nodes):
            await acosts_little(model, "frozen")
        await cache.aclose()

    asyncio.run(main())


def test_sentinel_fails_over(redis_sentinel: SentinelSetup) -> None:
    cache = cached(RedisStore(redis_sentinel.url)).warm()
    model = Model(cache=cache)
    until_served(model)
    redis_sentinel.master.kill()
    costs_little(model, "failing over")
    until_served(model)
    with frozen(redis_sentinel.sentinel, redis_sentinel.replica):
        costs_little(model, "all gone")
    cache.close()


def test_tls(redis_tls: TlsRedisServer) -> None:
    cache = patient(redis_tls.url)
    assert serves(Model(cache=cache))
    cache.close()
    stranger = cached(RedisStore(redis_tls.proxy.url))
    costs_little(Model(cache=stranger), "whose certificate is this")
    with pytest.raises(StoreError, match="certificate"):
        stranger.warm()
    stranger.close()


async def test_tls_in_asyncio(redis_tls: TlsRedisServer) -> None:
    cache = patient(redis_tls.proxy.url, ssl_ca_certs=str(redis_tls.ca))
    assert await aserves(Model(cache=cache))
    await cache.aclose()


# -- less than all rights ----------------------------------------------------------------------------------


def test_an_account_that_may_not_create_the_index(redis_server: RedisServer) -> None:
    rules = "~costopt:* +@all -@dangerous -@admin -ft.create -ft._list"
    url = redis_server.user("app", "secret", rules)
    with pytest.raises(StoreError, match=r"(?i)permission"):
        cached(RedisStore(url)).warm()
    patient(redis_server.url).close()
    cache = patient(url, create_index=False)
    assert serves(Model(cache=cache))
    assert not cache.stats().failures
    cache.close()


def test_whoever_deploys_makes_the_index_of_the_default_embedder_without_a_cache(redis_server: RedisServer) -> None:
    deployed = RedisStore(redis_server.url)
    deployed.open()
    store = RedisStore(redis_server.url, create_index=False, timeout=2.0)
    cache = costopt.SemanticCache(store)
    request = cache.request([{"role": "user", "content": QUESTION}], model="gpt-4o-mini")
    assert store.search(request, np.eye(1, 384, dtype=np.float32)[0], 5) == []  # else: StoreError, there is no index
    deployed.close()
    cache.close()


def test_an_account_that_may_only_read(redis_server: RedisServer) -> None:
    owner = patient(redis_server.url)
    Model(cache=owner).invoke(QUESTION)
    owner.close()
    cache = cached(
        RedisStore(redis_server.user("reader", "secret", "~costopt:* +@read +ft.search"), create_index=False)
    )
    model = Model(cache=cache)
    assert [tier(model.invoke(text)) for text in (QUESTION, REWORDED)] == ["exact", "semantic"]
    costs_little(model, "not kept")
    assert cache.stats().stored == 0
    cache.close()


def test_a_wrong_password(redis_server: RedisServer) -> None:
    right = redis_server.user("app", "secret", "~* +@all")
    cache = cached(RedisStore(right.replace("secret", "wr0ng-pass")))
    costs_little(Model(cache=cache), "who are you")
    with pytest.raises(StoreError) as error:
        cache.warm()
    assert "wr0ng-pass" not in str(error.value)
    cache.close()


class PlainRedis(RedisServer):
    """A server without the search module."""

    def _command(self) -> list[str]:
        command = super()._command()
        return command[: command.index("--loadmodule")]


def test_a_redis_without_search_serves_the_same_text() -> None:
    with PlainRedis() as server:
        cache = cached(RedisStore(server.url))
        model = Model(cache=cache)
        costs_little(model, "plain")
        model.invoke(QUESTION)
        assert [tier(model.invoke(text)) for text in (QUESTION, REWORDED)] == ["exact", None]
        with pytest.raises(StoreError, match="search module"):
            cache.warm()
        cache.close()


# -- the user's own client ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [{}, {"decode_responses": True}, {"protocol": 2}, {"protocol": 3}, {"protocol": 3, "decode_responses": True}],
    ids=str,
)
def test_own_client(redis_server: RedisServer, options: dict[str, Any]) -> None:
    client = redis_server.client(**options)
    cache = cached(RedisStore(client=client, timeout=2.0), time_budget=10.0).warm()
    model = Model(cache=cache)
    assert serves(model)
    assert serves(model, "quoted “moon” \ud800 🌝")
    hit = cache.core.lookup(human(cache.core, "an odd one"))
    assert hit is None
    assert not cache.stats().failures
    cache.close()
    assert client.ping()  # the user's, and so not ours to close


@pytest.mark.parametrize("options", [{}, {"socket_timeout": None, "retry_on_timeout": True}], ids=str)
def test_own_client_without_timeouts_on_a_frozen_server(redis_server: RedisServer, options: dict[str, Any]) -> None:
    cache = cached(RedisStore(client=redis_server.client(**options))).warm()
    model = Model(cache=cache)
    assert serves(model)
    with frozen(redis_server):
        costs_little(model, "frozen")
        asyncio.run(acosts_little(model, "frozen, awaited"))
    until_served(model)
    cache.close()


async def test_own_sync_client_in_asyncio(redis_server: RedisServer) -> None:
    """It would block the loop, and is therefore used from threads."""
    cache = cached(RedisStore(client=redis_server.client())).warm()
    model = Model(cache=cache)
    assert await aserves(model)
    redis_server.stop()
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    await aask(model, "does the loop turn?")
    ticking.cancel()
    redis_server.resume()
    assert ticks >= 3
    await cache.aclose()


async def test_own_async_client(redis_server: RedisServer) -> None:
    async with redis.asyncio.Redis.from_url(redis_server.url) as client:
        cache = cached(RedisStore(client=redis_server.client(), async_client=client)).warm()
        model = Model(cache=cache)
        assert await aserves(model)
        with frozen(redis_server):
            await acosts_little(model, "frozen")
        await cache.aclose()
        assert await client.ping()


def test_own_cluster_client(redis_cluster: RedisCluster) -> None:
    cache = cached(RedisStore(client=redis_cluster.client()))
    until_served(Model(cache=cache))
    cache.close()


@pytest.mark.parametrize(
    "address", [f"redis://{HOST}:1", "unix:///nowhere/redis.sock", "redis+sentinel://127.0.0.1:1/x"]
)
def test_nobody_there(address: str) -> None:
    cache = cached(RedisStore(address))
    costs_little(Model(cache=cache), "nobody there")
    with pytest.raises(StoreError):
        cache.warm()
    cache.close()
