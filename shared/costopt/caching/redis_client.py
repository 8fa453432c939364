"""Connections to Redis, of every kind that people have: one server, TLS, sentinel, cluster, their own client."""

from __future__ import annotations

import asyncio
import os
import threading
import weakref
from collections import deque
from collections.abc import AsyncGenerator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import cached_property
from importlib.util import find_spec
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from costopt.errors import ConfigError, StoreTimeoutError

__all__ = ["Clients", "decoded", "index_schema", "run_within"]

_EXPANSION_SEARCH = 64

_SCHEMES = ("redis", "rediss", "unix", "redis+cluster", "redis+sentinel")
_HOUSEKEEPING_S = 5.0
_SENTINEL_PORT = 26379
# More at once only wait for each other in Redis, and opening hundreds in a burst takes longer than the timeout.
_CONNECTIONS = 32
# How many times the timeout to wait for one of them.
_QUEUE = 3

T = TypeVar("T")


class Clients:
    """The sync client, one async client per event loop, and one with patience for housekeeping.

    Args:
        url: As in `RedisStore`.
        client: As in `RedisStore`.
        async_client: As in `RedisStore`.
        timeout: Seconds for connecting, and for one answer.
        options: More for the clients made from `url`.
    """

    def __init__(
        self, url: str | None, client: Any, async_client: Any, timeout: float, options: dict[str, Any]
    ) -> None:
        if (url is None) == (client is None):
            raise ConfigError("RedisStore needs a URL such as 'redis://localhost:6379', or a client=, and not both")
        if url is not None:
            _check(url)
        self._url = url or ""
        self._client = client
        self._async_client = async_client
        self._timeout = timeout
        self._options = options
        self._lock = threading.Lock()
        self._idle: deque[Any] = deque()
        self._idle_pid = os.getpid()
        self._by_loop: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[Any, AsyncGenerator[None]]]
        self._by_loop = weakref.WeakKeyDictionary()
        self._inherited: list[Any] = []
        self.trusted = client is None
        # Of one server each call ends by the socket's timeout; the others go from node to node, a timeout each.
        self.bounded = self.trusted and "+" not in urlsplit(self._url).scheme
        self.threads_only = client is not None and async_client is None

    @cached_property
    def cluster(self) -> bool:
        """Whether keys are spread over shards."""
        from redis.cluster import RedisCluster

        return isinstance(self._client, RedisCluster) or self._url.startswith("redis+cluster")

    @cached_property
    def pool(self) -> ThreadPoolExecutor:
        """Threads in which a sync client serves asyncio."""
        return ThreadPoolExecutor(max_workers=8, thread_name_prefix="costopt-redis")

    @property
    def sync(self) -> Any:
        """The client for lookups and updates."""
        if self._client is None:
            with self._lock:
                if self._client is None:
                    self._client = _connect(self._url, self._timeout, self._options)
        return self._client

    def quick(self, work: Callable[[Any], T]) -> T:
        """The result of `work` on a client that keeps its connection.

        Taking one from redis-py's pool and giving it back costs a third of what a GET takes.
        """
        if not self.bounded:
            return work(self.sync)
        if self._idle_pid != os.getpid():
            # After a fork these connections are the parent's.
            self._idle, self._idle_pid = deque(), os.getpid()
        try:
            client = self._idle.pop()
        except IndexError:
            return self._keeping(_connect_once(self._url, self._timeout, self._options), work)
        try:
            return self._keeping(client, work)
        except Exception as error:
            # The server closes what is idle for long, and all there is when it restarts.
            if not _is_cut(error):
                raise
            return self._keeping(_connect_once(self._url, self._timeout, self._options), work)

    def _keeping(self, client: Any, work: Callable[[Any], T]) -> T:
        sound = False
        try:
            result = work(client)
            sound = True
            return result
        finally:
            # After an interruption the answer may still be on its way, and would be taken for the next one's.
            if sound and len(self._idle) < _CONNECTIONS:
                self._idle.append(client)
            else:
                client.close()

    @cached_property
    def housekeeping(self) -> Any:
        """A client for what may take seconds."""
        return _connect(self._url, _HOUSEKEEPING_S, self._options) if self.trusted else self._client

    async def asynchronous(self) -> Any:
        """The client of the running event loop: a connection belongs to the loop that opened it."""
        if self._async_client is not None:
            return self._async_client
        loop = asyncio.get_running_loop()
        held = self._by_loop.get(loop)
        if held is None:
            client = _aconnect(self._url, self._timeout, self._options)
            with self._lock:
                for closed in [other for other in self._by_loop if other.is_closed()]:
                    del self._by_loop[closed]
                held = self._by_loop[loop] = client, self._until_loop_ends(loop, client)
            await anext(held[1])
        return held[0]

    async def _until_loop_ends(self, loop: asyncio.AbstractEventLoop, client: Any) -> AsyncGenerator[None]:
        """`asyncio.run` ends by closing its loop's async generators: by this one the connections, too."""
        try:
            yield
        finally:
            self._by_loop.pop(loop, None)
            await client.aclose()

    def after_fork_in_child(self) -> None:
        """Connect anew, but drop nothing of a running loop: closing it here would stop it there (they share epoll)."""
        self._lock = threading.Lock()
        self._inherited.append(self._by_loop)
        self._by_loop = weakref.WeakKeyDictionary()
        self.__dict__.pop("pool", None)
        self.__dict__.pop("housekeeping", None)
        if self.trusted:
            self._client = None

    def create_index(self, redis: Any, schema: Any, tenant: str) -> None:
        """Create a search index unless it is there."""
        from redisvl.index import SearchIndex

        if self.cluster:
            node = redis.get_node_from_key(f"{{{tenant}}}")
            _unless_there(_value(lambda: redis.execute_command(*_create_command(schema), target_nodes=node)))
            return
        index = SearchIndex(schema, redis_client=redis)
        _unless_there(_value(index.create))

    async def acreate_index(self, redis: Any, schema: Any, tenant: str) -> None:
        """`create_index`, awaited."""
        from redisvl.index import AsyncSearchIndex

        if self.cluster:
            node = redis.get_node_from_key(f"{{{tenant}}}")
            _unless_there(await _avalue(redis.execute_command(*_create_command(schema), target_nodes=node)))
            return
        index = AsyncSearchIndex(schema, redis_client=redis)
        _unless_there(await _avalue(index.create()))

    def close(self) -> None:
        """Close the connections that were made here."""
        if not self.trusted:
            return
        for name in ("_client", "housekeeping"):
            client = self.__dict__.get(name)
            if client is not None:
                client.close()
        self.__dict__.pop("housekeeping", None)
        self._client = None
        with suppress(IndexError):
            while True:
                self._idle.pop().close()

    async def aclose(self) -> None:
        """Close the connections of the running event loop."""
        held = self._by_loop.get(asyncio.get_running_loop())
        if held is not None:
            await held[1].aclose()


def run_within(seconds: float, work: Callable[[], T]) -> T:
    """The result of `work`, or `StoreTimeoutError` after `seconds`; the thread then ends when it ends."""
    future: Future[T] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, name="costopt-redis", daemon=True).start()
    try:
        return future.result(seconds)
    except TimeoutError as error:
        raise StoreTimeoutError(f"no answer within {seconds} s") from error


def _is_cut(error: Exception) -> bool:
    from redis.exceptions import ConnectionError as RedisConnectionError

    return isinstance(error, RedisConnectionError)


def decoded(value: Any) -> bytes | None:
    """Bytes, whether or not the client decodes responses."""
    if value is None or isinstance(value, bytes):
        return value
    return str(value).encode("utf-8", "replace")


def _connect(url: str, timeout: float, options: dict[str, Any]) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry
    from redis.sentinel import Sentinel

    # No retries: whoever waits is a user, and there is a model to ask instead.
    options = _lean(timeout) | {"retry": Retry(NoBackoff(), 0)} | options
    if url.startswith("redis+cluster"):
        return redis.RedisCluster.from_url(url.replace("redis+cluster", "redis", 1), **options)
    if url.startswith("redis+sentinel"):
        hosts, service, options = _sentinel(url, options)
        watch = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry")}
        return Sentinel(hosts, sentinel_kwargs=watch).master_for(service, **options)
    pool = {"max_connections": _CONNECTIONS, "timeout": _QUEUE * timeout} | options
    return redis.Redis.from_pool(redis.BlockingConnectionPool.from_url(url, **pool))


def _connect_once(url: str, timeout: float, options: dict[str, Any]) -> Any:
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    options = _lean(timeout) | {"retry": Retry(NoBackoff(), 0)} | options
    return redis.Redis.from_url(url, single_connection_client=True, **options)


def _aconnect(url: str, timeout: float, options: dict[str, Any]) -> Any:
    import redis.asyncio
    from redis.asyncio.retry import Retry
    from redis.asyncio.sentinel import Sentinel
    from redis.backoff import NoBackoff

    options = _lean(timeout) | {"retry": Retry(NoBackoff(), 0)} | options
    if url.startswith("redis+cluster"):
        return redis.asyncio.RedisCluster.from_url(url.replace("redis+cluster", "redis", 1), **options)
    if url.startswith("redis+sentinel"):
        hosts, service, options = _sentinel(url, options)
        watch = {name: options[name] for name in ("socket_timeout", "socket_connect_timeout", "retry")}
        return Sentinel(hosts, sentinel_kwargs=watch).master_for(service, **options)
    pool = {"max_connections": _CONNECTIONS, "timeout": _QUEUE * timeout} | options
    return redis.asyncio.Redis.from_pool(redis.asyncio.BlockingConnectionPool.from_url(url, **pool))


def _lean(timeout: float) -> dict[str, Any]:
    # By RESP2 and without CLIENT SETINFO a new connection needs four round trips less before its first answer.
    silent = {"driver_info": None} if find_spec("redis.driver_info") else {"lib_name": None, "lib_version": None}
    return {"socket_timeout": timeout, "socket_connect_timeout": timeout, "protocol": 2} | silent


def _sentinel(url: str, options: dict[str, Any]) -> tuple[list[tuple[str, int]], str, dict[str, Any]]:
    """``redis+sentinel://[user:password@]host:port,host:port/service[/db]`` in parts."""
    parts = urlsplit(url)
    account, _, hosts = parts.netloc.rpartition("@")
    service, _, database = parts.path.strip("/").partition("/")
    if not service:
        raise ConfigError("the sentinel URL names no service: redis+sentinel://host:26379/mymaster")
    if account:
        user, _, password = account.partition(":")
        options = options | {"username": unquote(user) or None, "password": unquote(password) or None}
    if database:
        options = options | {"db": int(database)}
    pairs = (host.rpartition(":") if ":" in host else (host, ":", "") for host in hosts.split(","))
    return [(host, int(port or _SENTINEL_PORT)) for host, _, port in pairs], service, options


def _create_command(schema: Any) -> list[Any]:
    """FT.CREATE for RedisVL's schema, to be sent to one shard (RedisVL's own goes to the default one)."""
    fields = [part for field in schema.redis_fields for part in field.redis_args()]
    index = schema.index
    return ["FT.CREATE", index.name, "ON", "HASH", "PREFIX", 1, index.prefix, "SCHEMA", *fields]


def _unless_there(outcome: Any) -> None:
    # Another process was quicker.
    if isinstance(outcome, Exception) and "already exists" not in str(outcome).lower():
        raise outcome


def _value(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        return error


async def _avalue(work: Any) -> Any:
    try:
        return await work
    except Exception as error:
        return error


def _check(url: str) -> None:
    """Refuse what could never be connected to, while somebody is there who can mend it."""
    try:
        scheme = urlsplit(url).scheme
        if scheme == "redis+sentinel":
            _sentinel(url, {})
        elif scheme in _SCHEMES:
            _ = urlsplit(url).port
        else:
            raise ValueError(f"it begins with one of {_SCHEMES}")
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{_without_password(url)!r} is no Redis URL: {error}") from None


def _without_password(url: str) -> str:
    return url.rpartition("@")[2] if "@" in url else url


def index_schema(name: str, prefix: str, dimension: int) -> Any:
    """The index of one embedder's entries (and, in a cluster, of one tenant's)."""
    from redisvl.schema import IndexSchema

    vector = {
        "algorithm": "hnsw",
        "dims": dimension,
        "distance_metric": "cosine",
        "datatype": "float32",
        "m": 16,
        "ef_construction": 200,
        "ef_runtime": _EXPANSION_SEARCH,
    }
    # The prefix ends in its own separator; RedisVL would add none, and we never let it.
    index = {"name": name, "prefix": prefix, "key_separator": "", "storage_type": "hash"}
    # `remove` scans, so nothing else needs an index.
    return IndexSchema.from_dict({"index": index, "fields": [{"name": "vector", "type": "vector", "attrs": vector}]})
