"""Fixtures with real servers; one starts only for the tests that ask for it."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    import redis

    from costopt import Optimizer
    from tests.clusters import RedisCluster, SentinelSetup
    from tests.openai_server import OpenAIServer
    from tests.proxies import TlsRedisServer
    from tests.servers import RedisServer

GIVEN_URL = "COSTOPT_TEST_REDIS_URL"

# How long one example takes says more of what else the machine does than of us.
settings.register_profile("costopt", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("costopt")

# Workers share the cores: threads of theirs that wait for each other, spinning, only take them away.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# What is imported stays. The collector went through all of it again and again, while it grew and at every full pass.
gc.disable()


def pytest_collection_finish() -> None:
    """Leave out of the collector's passes what was imported."""
    gc.enable()
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def facts_model() -> Path:
    """A chat model that knows two hundred facts; trained by the first test that asks for it."""
    import torch

    from tests import tiny_models

    torch.set_num_threads(1)  # its matrices are small, and other tests run beside
    return tiny_models.facts_model()


@pytest.fixture
def server() -> Iterator[OpenAIServer]:
    """OpenAI on this machine."""
    from tests.openai_server import openai_server

    with openai_server() as running:
        yield running


@pytest.fixture
def make_optimizer(tmp_path: Path) -> Iterator[Callable[..., Optimizer]]:
    """A function that makes optimizers with a cache of the same text and a ledger; patient, for it is not speed."""
    from costopt import Optimizer

    made: list[Optimizer] = []

    def make(**options: Any) -> Optimizer:
        cache = {"store": str(tmp_path / "cache.db"), "exact_only": True, "time_budget": 10.0}
        made.append(Optimizer(**{"cache": cache, "router": {}, "ledger": tmp_path / "ledger.db", **options}))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis with search for the whole session: the one given in the environment, else our own."""
    if url := os.environ.get(GIVEN_URL):
        yield url
        return
    from tests.servers import RedisServer

    with RedisServer() as server:
        yield server.url


@pytest.fixture
def redis_client(redis_url: str) -> Iterator[redis.Redis]:
    """A client of `redis_url`, emptied before the test."""
    import redis

    with redis.Redis.from_url(redis_url) as client:
        if GIVEN_URL in os.environ:
            remove_ours(client)
        else:
            client.flushall()
        yield client


def remove_ours(client: redis.Redis) -> None:
    """Remove the indexes and keys whose names start with costopt from a Redis that others may use."""
    for name in client.execute_command("FT._LIST"):
        if (name if isinstance(name, bytes) else name.encode()).startswith(b"costopt"):
            client.execute_command("FT.DROPINDEX", name)
    for key in client.scan_iter(match="costopt*", count=1000):
        client.unlink(key)


@pytest.fixture
def redis_server() -> Iterator[RedisServer]:
    """A server of the test's own, to stop, kill or set up at will."""
    from tests.servers import RedisServer

    with RedisServer() as server:
        yield server


@pytest.fixture(scope="session")
def _redis_cluster() -> Iterator[RedisCluster]:
    from tests.clusters import RedisCluster

    with RedisCluster() as cluster:  # takes two seconds
        yield cluster


@pytest.fixture
def redis_cluster(_redis_cluster: RedisCluster) -> RedisCluster:
    """Three masters shared by the session, emptied before the test, which must leave them running."""
    _redis_cluster.flush()
    return _redis_cluster


@pytest.fixture
def redis_sentinel() -> Iterator[SentinelSetup]:
    """Master, replica and Sentinel of the test's own."""
    from tests.clusters import SentinelSetup

    with SentinelSetup() as setup:
        yield setup


@pytest.fixture
def redis_tls() -> Iterator[TlsRedisServer]:
    """A server of the test's own that speaks TLS."""
    from tests.proxies import TlsRedisServer

    with TlsRedisServer() as server:
        yield server
