"""The servers that the other tests run against do what they say."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
import redis.asyncio
from redis.backoff import NoBackoff
from redis.retry import Retry

from tests.clusters import RedisCluster, SentinelSetup
from tests.conftest import GIVEN_URL, remove_ours
from tests.proxies import SlowProxy, TlsRedisServer
from tests.servers import HOST, RedisServer, wait_until
from tests.timed import timed

ROOT = Path(__file__).parents[1]
NAME = "costopt:{t}"
ONCE: dict[str, Any] = {"retry": Retry(NoBackoff(), 0)}  # a failure is seen at once


def vector(*values: float) -> bytes:
    return struct.pack(f"{len(values)}f", *values)


def fill(client: Any, name: str = NAME) -> None:
    schema = ["tenant", "TAG", "v", "VECTOR", "HNSW", 6, "TYPE", "FLOAT32", "DIM", 2, "DISTANCE_METRIC", "L2"]
    client.execute_command("FT.CREATE", name, "PREFIX", 1, f"{name}:", "SCHEMA", *schema)
    for number in range(4):
        row = {"tenant": "ab"[number % 2], "v": vector(number, 0)}
        client.hset(f"{name}:{number}", mapping=row)


def nearest(client: Any, tenant: str, name: str = NAME) -> list[str]:
    query = f"(@tenant:{{{tenant}}})=>[KNN 1 @v $v AS d]"
    arguments = ["PARAMS", 2, "v", vector(2.4, 0), "RETURN", 1, "d", "DIALECT", 2]
    answer = client.execute_command("FT.SEARCH", name, query, *arguments)
    return [row[b"id"].decode().rpartition(":")[2] for row in answer[b"results"]]


def seconds(work: Callable[[], object]) -> float:
    start = time.monotonic()
    work()
    return time.monotonic() - start


@pytest.fixture
def proxy(redis_url: str) -> Iterator[SlowProxy]:
    with SlowProxy(redis_url) as proxy:
        yield proxy


def test_search_finds_the_nearest_of_a_tenant(redis_client: redis.Redis) -> None:
    fill(redis_client)
    assert nearest(redis_client, "a") == ["2"]
    assert nearest(redis_client, "b") == ["3"]
    assert nearest(redis_client, "c") == []


@pytest.mark.parametrize("_run", [1, 2])
def test_the_client_comes_empty(redis_client: redis.Redis, _run: int) -> None:
    fill(redis_client)  # would fail if the index of the first run were there
    redis_client.json().set("costopt:json", "$", {"a": 1})


def test_a_given_redis_keeps_what_is_not_ours(redis_server: RedisServer) -> None:
    client = redis_server.client()
    fill(client)
    fill(client, "theirs")
    remove_ours(client)
    assert client.execute_command("FT._LIST") == [b"theirs"]
    assert len(client.keys("theirs:*")) == client.dbsize() == 4


def test_a_given_redis_is_used() -> None:
    test = f"{__file__}::test_search_finds_the_nearest_of_a_tenant"
    with RedisServer() as server:
        settings = {GIVEN_URL: server.url, "PYTEST_ADDOPTS": "", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
        subprocess.run(
            [sys.executable, "-m", "pytest", "-c", os.devnull, "-p", "no:cacheprovider", test],
            cwd=ROOT,
            env=os.environ | settings,
            check=True,
            capture_output=True,
        )
        assert server.client().dbsize() == 4


@timed
def test_a_stopped_server_times_out(redis_server: RedisServer) -> None:
    client = redis_server.client(socket_timeout=0.3, **ONCE)
    client.set("costopt:a", 1)
    redis_server.stop()
    with pytest.raises(redis.TimeoutError):
        client.get("costopt:a")
    redis_server.resume()
    assert client.get("costopt:a") == b"1"


def test_a_killed_server_comes_back_with_its_data_and_index() -> None:
    with RedisServer(appendonly="yes") as server:
        client, port = server.client(**ONCE), server.port
        fill(client)
        server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        server.start()
        assert server.port == port
        assert nearest(client, "a") == ["2"]


def test_settings_reach_the_server() -> None:
    with RedisServer(maxmemory="64mb", requirepass="p@ss/word", client_query_buffer_limit="2mb") as server:
        assert server.client().config_get("maxmemory") == {"maxmemory": str(64 << 20)}
        with pytest.raises(redis.AuthenticationError), redis.Redis(port=server.port, **ONCE) as stranger:
            stranger.ping()


def test_a_setting_that_redis_does_not_know_is_told() -> None:
    with pytest.raises(RuntimeError, match="no-such"):
        RedisServer(no_such_setting=1)


def test_a_taken_port_is_left_to_its_owner(monkeypatch: pytest.MonkeyPatch) -> None:
    with RedisServer() as first:
        ports = iter([first.port, first.port])
        free = first.port + 1
        monkeypatch.setattr("tests.servers.free_port", lambda: next(ports, free))
        with RedisServer() as second:
            assert second.port == free
            assert first.client().info("server")["process_id"] == first.pid != second.pid


def test_no_server_outlives_its_process() -> None:
    script = (
        "import os, sys; from tests.servers import RedisServer; server = RedisServer(); server.stop();"
        "print(server.port, server.dir, flush=True); os.kill(os.getpid(), 9)"
    )
    ended = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True)
    port, folder = ended.stdout.split()

    def gone() -> bool:
        with socket.socket() as sock:
            return sock.connect_ex((HOST, int(port))) != 0 and not Path(folder).exists()

    wait_until(gone, "the server is gone", timeout=10)


def test_a_user_may_do_what_its_rules_say(redis_server: RedisServer) -> None:
    fill(redis_server.client())
    url = redis_server.user("reader", "p w:@/", "~costopt:* +@read +ft.search +ping")
    with redis.Redis.from_url(url) as reader:
        assert reader.hget(f"{NAME}:1", "tenant") == b"b"
        assert nearest(reader, "a") == ["2"]
        with pytest.raises(redis.exceptions.NoPermissionError):
            reader.set("costopt:a", 1)
        with pytest.raises(redis.exceptions.NoPermissionError):
            reader.get("other:a")


@timed
def test_the_proxy_delays_each_direction(proxy: SlowProxy) -> None:
    with redis.Redis.from_url(proxy.url) as client:
        client.ping()
        proxy.delay = 0.2
        assert seconds(client.ping) >= 0.4
        proxy.delay_to_server = 0
        assert 0.2 <= seconds(client.ping) < 0.4
        big = b"x" * 3_000_000  # latency, not bandwidth
        assert seconds(lambda: client.set("costopt:big", big)) < 2
        assert seconds(lambda: client.get("costopt:big")) < 2
        proxy.delay = 0
        assert client.get("costopt:big") == big


@timed
def test_the_proxy_hangs(proxy: SlowProxy) -> None:
    with redis.Redis.from_url(proxy.url, socket_timeout=0.3, **ONCE) as client:
        client.ping()
        proxy.hang()
        with pytest.raises(redis.TimeoutError):
            client.ping()  # an open connection
        with pytest.raises(redis.TimeoutError):
            client.ping()  # a new one
        proxy.restore()
        assert client.ping()


def test_the_proxy_refuses(proxy: SlowProxy) -> None:
    with (
        redis.Redis.from_url(proxy.url, **ONCE) as client,
        socket.create_connection((HOST, proxy.port)) as raw,
    ):
        client.ping()
        raw.sendall(b"PING\r\n")
        assert raw.recv(64) == b"+PONG\r\n"
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            raw.recv(64)
        for _ in range(2):
            with pytest.raises(redis.ConnectionError):
                client.ping()
        proxy.restore()
        assert client.ping()


@timed
def test_the_proxy_closes_while_it_hangs(redis_url: str) -> None:
    with (
        SlowProxy(redis_url, delay=60) as proxy,
        redis.Redis.from_url(proxy.url, socket_timeout=0.05, **ONCE) as client,
    ):
        with pytest.raises(redis.TimeoutError):
            client.ping()
        proxy.hang()
        with pytest.raises(redis.TimeoutError):
            client.ping()
        assert seconds(proxy.close) < 5


def test_the_proxy_ends_connections_when_the_server_dies(redis_server: RedisServer) -> None:
    with SlowProxy(redis_server) as proxy, redis.Redis.from_url(proxy.url, **ONCE) as client:
        client.ping()
        redis_server.kill()
        with pytest.raises(redis.ConnectionError):
            client.ping()
        redis_server.start()
        assert client.ping()


@timed
async def test_the_proxy_serves_asyncio_clients(proxy: SlowProxy) -> None:
    proxy.delay = 0.05
    async with redis.asyncio.from_url(proxy.url) as client:
        await client.ping()
        start = time.monotonic()
        assert await asyncio.gather(*(client.ping() for _ in range(8))) == [True] * 8
        assert time.monotonic() - start < 2  # side by side, though seven must connect first


def test_the_cluster_answers_where_the_tag_says(redis_cluster: RedisCluster) -> None:
    client = redis_cluster.client()
    names = [f"costopt:{{t{number}}}" for number in range(6)]
    for name in names:
        fill(client, name)
    assert len({client.get_node_from_key(name).port for name in names}) > 1
    for name in names:
        assert nearest(client, "a", name) == ["2"]
        assert len(client.mget([f"{name}:{number}" for number in range(4)])) == 4


def test_the_cluster_comes_empty(redis_cluster: RedisCluster) -> None:
    for node in redis_cluster.nodes:
        client = node.client()
        assert (client.dbsize(), client.execute_command("FT._LIST")) == (0, [])


def test_sentinel_names_the_master_and_fails_over(redis_sentinel: SentinelSetup) -> None:
    client, master = redis_sentinel.client(**ONCE), redis_sentinel.master
    fill(client)
    assert client.info("server")["tcp_port"] == master.port
    client.wait(1, 1000)
    master.kill()
    wait_until(lambda: bool(client.set("costopt:b", 2)), "the replica takes over")
    assert client.info("server")["tcp_port"] == redis_sentinel.replica.port
    assert nearest(client, "a") == ["2"]


def test_tls_is_verified(redis_tls: TlsRedisServer) -> None:
    client = redis_tls.client(**ONCE)
    fill(client)
    assert nearest(client, "a") == ["2"]
    unknown = redis_tls.url.partition("?")[0]
    with (
        redis.Redis.from_url(unknown, **ONCE) as stranger,
        pytest.raises(redis.ConnectionError, match="VERIFY"),
    ):
        stranger.ping()
    with redis.Redis(port=redis_tls.port, **ONCE) as plain, pytest.raises(redis.ConnectionError):
        plain.ping()
