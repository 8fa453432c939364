"""Entries in Redis with search (Redis 8, Redis Stack, Redis Cloud): for more than one machine.

    <namespace>:e:<space>:{<tenant>}:<key>   hash    entry, vector, and the tags that `remove` goes by
    <namespace>:r:{<tenant>}:<key>           set     keys never to be matched with this one
    <namespace>:l:{<tenant>}:<key>           string  lease: who is asking the model right now
    <namespace>:v:{<tenant>}:<scope>         list    pairs of which it turned out whether they want one answer
    <namespace>:totals                       hash    sums for `costopt cache stats`

`<space>` is a digest of the embedder and this layout, `<tenant>` and `<key>` are digests: nothing a user wrote
is ever part of a key or of a query. The braces keep one tenant on one shard of a cluster, where this search
module sees one shard only; there every tenant has an index of its own.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, TypeVar

from costopt.arguments import number
from costopt.caching.entry import Entry
from costopt.caching.redis_client import Clients, decoded, index_schema, run_within
from costopt.caching.redis_replies import (
    batches,
    failures,
    neighbours,
    remove_batch,
    translated,
    unless_index_is_missing,
)
from costopt.caching.request import CacheRequest, digest
from costopt.caching.store import MAX_EVIDENCE, Neighbour, Record, Selector, StoreSize, Vector
from costopt.caching.vector import SALT_DIMENSIONS, salted
from costopt.embedding import DEFAULT_SPACE
from costopt.errors import ConfigError, StoreError, require
from costopt.forks import fork_aware

__all__ = ["RedisStore"]

_LAYOUT_VERSION = 1
_RECREATE_EVERY_S = 1.0
# For connecting when somebody said to connect now.
_PATIENCE_S = 5.0

T = TypeVar("T")


class RedisStore:
    """A cache in Redis, shared by every process that reaches it.

    Args:
        url: ``redis://``, ``rediss://`` (TLS), ``unix://``, ``redis+cluster://host:port`` or
            ``redis+sentinel://host:port,host:port/service``; user, password and database as usual in URLs.
        client: A `redis.Redis` or `redis.cluster.RedisCluster` to use instead. Its own timeouts and retries
            are not trusted: each call runs in a thread and is given up after `timeout`.
        async_client: The same for asyncio; without it, a given `client` also serves asyncio, from threads.
        namespace: First part of every key.
        create_index: Whether to create the search index where it is missing. With restricted rights, create
            it once with an account that may (`store.open()`), and give False here.
        timeout: Seconds for one round trip, connecting included; more than that is a failure.
        options: More for the client that is made from `url`, e.g. ``ssl_ca_certs``.

    Raises:
        ConfigError: If there is neither or both of `url` and `client`, or the URL's scheme is not known.
        MissingExtraError: If redis or redisvl is not installed.

    Example:
        >>> store = RedisStore(redis_url)
        >>> store.size().entries
        0
    """

    def __init__(
        self,
        url: str | None = None,
        *,
        client: Any = None,
        async_client: Any = None,
        namespace: str = "costopt",
        create_index: bool = True,
        timeout: float = 0.08,
        **options: Any,
    ) -> None:
        require("redis", "redis")
        require("redisvl", "redis")
        if not namespace or any(char in namespace for char in "{}:* "):
            raise ConfigError(f"namespace is {namespace!r}: give a plain word, without {{ }} : * or blanks")
        number("timeout", timeout, lambda seconds: seconds > 0, "seconds greater than 0, e.g. 0.1")
        self._clients = Clients(url, client, async_client, timeout, options)
        self._namespace = namespace
        self._create_index = create_index
        self._timeout = timeout
        self.bind(*DEFAULT_SPACE)  # so that whoever deploys can make the index without a cache
        self._created_at: dict[str, float] = {}
        self._create_lock = threading.Lock()
        fork_aware(self)

    def before_fork(self) -> None:
        """Nothing to do."""

    after_fork_in_parent = before_fork

    def after_fork_in_child(self) -> None:
        """Connections, and locks that a thread of the parent may hold, are the parent's."""
        self._create_lock = threading.Lock()
        self._clients.after_fork_in_child()

    # -- the seam --------------------------------------------------------------------------------------

    def bind(self, embedder: str, dimension: int) -> None:
        """Say whose vectors these are; entries of other embedders are never seen."""
        self._dimension = dimension
        self._space = digest("space", _LAYOUT_VERSION, embedder, dimension)[:12]

    def get(self, request: CacheRequest) -> bytes | None:
        """The entry under the request's key."""
        key = self._entry_key(request)
        return decoded(self._run(lambda _: self._clients.quick(lambda redis: redis.hget(key, "entry"))))

    async def aget(self, request: CacheRequest) -> bytes | None:
        """`get`, awaited."""
        if self._clients.threads_only:
            return await self._aside(lambda: self.get(request))
        return decoded(await self._arun(lambda redis: redis.hget(self._entry_key(request), "entry")))

    def search(self, request: CacheRequest, vector: Vector, k: int) -> list[Neighbour]:
        """The nearest entries; of the request's scope first, others may follow."""
        command = self._search_command(request, vector, k)
        try:
            reply = self._run(lambda _: self._clients.quick(lambda redis: redis.execute_command(*command)))
        except StoreError as error:
            unless_index_is_missing(error)
            self._create(request.tenant)
            return []
        return neighbours(reply, request.key)

    async def asearch(self, request: CacheRequest, vector: Vector, k: int) -> list[Neighbour]:
        """`search`, awaited."""
        if self._clients.threads_only:
            return await self._aside(lambda: self.search(request, vector, k))
        command = self._search_command(request, vector, k)
        try:
            reply = await self._arun(lambda redis: redis.execute_command(*command))
        except StoreError as error:
            unless_index_is_missing(error)
            await self._acreate(request.tenant)
            return []
        return neighbours(reply, request.key)

    def put(self, record: Record) -> bool:
        """Store an entry and its expiry in one transaction; True when that is done."""
        known = self._key("r", record.entry.tenant, record.entry.key)
        self._run(lambda redis: self._transaction(redis, record, redis.smembers(known)).execute())
        return True

    async def aput(self, record: Record) -> bool:
        """`put`, awaited."""
        if self._clients.threads_only:
            return await self._aside(lambda: self.put(record))
        known = self._key("r", record.entry.tenant, record.entry.key)

        async def write(redis: Any) -> None:
            await self._transaction(redis, record, await redis.smembers(known)).execute()

        await self._arun(write)
        return True

    def claim(self, request: CacheRequest, owner: str, seconds: float) -> bool:
        """Take, or keep, the lease on a question."""
        key, milliseconds = self._key("l", request.tenant, request.key), int(seconds * 1000)

        # Not one step, here and in `release`: a script would be, but the right to run scripts is one that many withhold
        # (CVE-2025-49844), and a lease that runs out just then costs a second call of the model, no more.
        def take(redis: Any) -> bool:
            if redis.set(key, owner, nx=True, px=milliseconds):
                return True
            if decoded(redis.get(key)) != owner.encode():
                return False
            return bool(redis.pexpire(key, milliseconds))

        return self._run(take)

    async def aclaim(self, request: CacheRequest, owner: str, seconds: float) -> bool:
        """`claim`, awaited."""
        if self._clients.threads_only:
            return await self._aside(lambda: self.claim(request, owner, seconds))
        key, milliseconds = self._key("l", request.tenant, request.key), int(seconds * 1000)

        async def take(redis: Any) -> bool:
            if await redis.set(key, owner, nx=True, px=milliseconds):
                return True
            if decoded(await redis.get(key)) != owner.encode():
                return False
            return bool(await redis.pexpire(key, milliseconds))

        return await self._arun(take)

    def release(self, request: CacheRequest, owner: str) -> None:
        """Give the lease on a question back."""
        key = self._key("l", request.tenant, request.key)
        self._run(lambda redis: redis.delete(key) if decoded(redis.get(key)) == owner.encode() else 0)

    def reject(self, tenant: str, key: str, other: str) -> None:
        """Never match these two again; without `other`, forget the entry."""

        def write(redis: Any) -> None:
            if other:
                redis.sadd(self._key("r", tenant, key), other)
                redis.sadd(self._key("r", tenant, other), key)
            else:
                redis.delete(self._key(f"e:{self._space}", tenant, key))

        self._run(write)

    def add_evidence(self, tenant: str, scope: str, data: bytes) -> None:
        """Keep what turned out of a pair of this scope; of older ones, only so many."""

        def write(redis: Any) -> None:
            pipeline = redis.pipeline(transaction=True)
            pipeline.rpush(self._key("v", tenant, scope), data)
            pipeline.ltrim(self._key("v", tenant, scope), -MAX_EVIDENCE, -1)
            pipeline.execute()

        self._run(write)

    def evidence(self, tenant: str, scope: str) -> list[bytes]:
        """What turned out of the pairs of this scope."""
        rows = self._run(lambda redis: redis.lrange(self._key("v", tenant, scope), 0, -1))
        return [decoded(row) or b"" for row in rows]

    def all_evidence(self) -> list[bytes]:
        """What turned out of all pairs; scans."""
        try:
            redis = self._clients.housekeeping
            keys = list(redis.scan_iter(match=f"{self._namespace}:v:*", count=1000))
            return [decoded(row) or b"" for key in keys for row in redis.lrange(key, 0, -1)]
        except failures() as error:
            raise translated(error) from error

    def remove(self, selector: Selector) -> int:
        """Remove the entries that match, and say how many. Reads every entry's tags: seconds per 100,000.

        Evidence goes, too, where it is a tenant's or everybody's. By SCAN and not by the index, which may be missing,
        or lag behind what was written.
        """
        tenant = "{*" if selector.tenant is None else f"{{{selector.tenant}}}:*"
        removed = 0
        try:
            redis = self._clients.housekeeping
            for keys in batches(redis.scan_iter(match=f"{self._namespace}:e:*:{tenant}", count=1000)):
                removed += remove_batch(redis, keys, selector)
            if selector.whole:
                for keys in batches(redis.scan_iter(match=f"{self._namespace}:v:{tenant}", count=1000)):
                    remove_batch(redis, keys, selector)
        except failures() as error:
            raise translated(error) from error
        return removed

    def clear(self) -> None:
        """Remove every entry and all evidence of this namespace, whichever embedder it was stored with."""
        self.remove(Selector())

    def size(self) -> StoreSize:
        """Entries; Redis does not tell their bytes without measuring each."""
        try:
            keys = self._clients.housekeeping.scan_iter(match=f"{self._namespace}:e:*", count=1000)
            return StoreSize(sum(1 for _ in keys), None)
        except failures() as error:
            raise translated(error) from error

    def add_totals(self, totals: Mapping[str, int]) -> None:
        """Add to the sums that `costopt cache stats` shows."""

        def write(redis: Any) -> None:
            pipeline = redis.pipeline(transaction=False)  # one round trip, for somebody waits for it
            for name, by in totals.items():
                pipeline.hincrby(f"{self._namespace}:totals", name, by)
            pipeline.execute()

        self._run(write)

    def totals(self) -> Mapping[str, int]:
        """The sums over all processes that have used this namespace."""
        rows = self._run(lambda redis: redis.hgetall(f"{self._namespace}:totals"))
        return {(decoded(name) or b"").decode(): int(value) for name, value in rows.items()}

    def open(self) -> None:
        """Connect, and create the index where it is missing and `create_index` allows it.

        Raises:
            StoreError: If Redis cannot be reached, or has no search module.
        """
        self._run(lambda redis: redis.ping(), within=_PATIENCE_S)
        if self._create_index and not self._clients.cluster:
            self._created_at.clear()
            self._create("")

    def close(self) -> None:
        """Give the connections back; those of event loops that still run are closed by `aclose`."""
        self._clients.close()

    async def aclose(self) -> None:
        """`close`, and the connections of the running event loop, too."""
        await self._clients.aclose()
        self._clients.close()

    # -- keys and commands -----------------------------------------------------------------------------

    def _key(self, kind: str, tenant: str, key: str) -> str:
        return f"{self._namespace}:{kind}:{{{tenant}}}:{key}"

    def _entry_key(self, request: CacheRequest | Entry) -> str:
        return self._key(f"e:{self._space}", request.tenant, request.key)

    def _index_name(self, tenant: str) -> str:
        shard = f":{{{tenant}}}" if self._clients.cluster else ""
        return f"{self._namespace}:index:{self._space}{shard}"

    def _search_command(self, request: CacheRequest, vector: Vector, k: int) -> tuple[Any, ...]:
        # The scope is in the vector (see `costopt.caching.vector`), so there is no filter to be slowed by.
        return (
            "FT.SEARCH", self._index_name(request.tenant), f"*=>[KNN {k} @vector $query AS far]", "PARAMS", "2",
            "query", salted(vector, request.scope).tobytes(), "RETURN", "3", "far", "entry", "rejected",
            "SORTBY", "far", "LIMIT", "0", str(k), "DIALECT", "2",
        )  # fmt: skip

    def _transaction(self, redis: Any, record: Record, rejected: Iterable[Any]) -> Any:
        """Everything about one entry, or nothing: an entry without its expiry would stay for ever."""
        entry, key = record.entry, self._entry_key(record.entry)
        fields: dict[str, Any] = {
            "entry": record.data,
            "model": digest("model", entry.model),
            "tags": ",".join(digest("tag", tag) for tag in entry.tags),
            # Beside the entry, so that a search brings it along.
            "rejected": b",".join(decoded(key) or b"" for key in rejected),
        }
        if record.vector is not None:
            fields["vector"] = salted(record.vector, entry.scope).tobytes()
        pipeline = redis.pipeline(transaction=True)
        # Fields of an older entry, its vector above all, must not outlive it.
        pipeline.delete(key)
        pipeline.hset(key, mapping=fields)
        if record.ttl is not None:
            pipeline.pexpire(key, max(1, int(record.ttl * 1000)))
        pipeline.delete(self._key("l", entry.tenant, entry.key))
        return pipeline

    # -- the index -------------------------------------------------------------------------------------

    def _schema(self, tenant: str) -> Any:
        shard = f"{{{tenant}}}:" if self._clients.cluster else ""
        prefix = f"{self._namespace}:e:{self._space}:{shard}"
        return index_schema(self._index_name(tenant), prefix, self._dimension + SALT_DIMENSIONS)

    def _due(self, tenant: str) -> bool:
        """Whether to try to create the index now; not again and again by everybody who misses it."""
        with self._create_lock:
            now = time.monotonic()
            last = self._created_at.get(tenant)
            if not self._create_index or (last is not None and now - last < _RECREATE_EVERY_S):
                return False
            self._created_at[tenant] = now
            return True

    def _create(self, tenant: str) -> None:
        if self._due(tenant):
            self._run(lambda redis: self._clients.create_index(redis, self._schema(tenant), tenant))

    async def _acreate(self, tenant: str) -> None:
        if self._due(tenant):
            await self._arun(lambda redis: self._clients.acreate_index(redis, self._schema(tenant), tenant))

    # -- carrying out ----------------------------------------------------------------------------------

    def _run(self, work: Callable[[Any], T], within: float | None = None) -> T:
        try:
            if self._clients.bounded:
                return work(self._clients.sync)
            return run_within(within or self._timeout, lambda: work(self._clients.sync))
        except failures() as error:
            raise translated(error) from error

    async def _arun(self, work: Callable[[Any], Awaitable[T]]) -> T:
        try:
            return await work(await self._clients.asynchronous())
        except failures() as error:
            raise translated(error) from error

    async def _aside(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._clients.pool, work)
