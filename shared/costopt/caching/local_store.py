"""Entries in one file on this machine: SQLite is the truth, an HNSW index in memory stands beside it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from costopt.arguments import number
from costopt.caching.local_index import LocalIndex
from costopt.caching.request import CacheRequest, digest
from costopt.caching.sqlite import SCHEMA
from costopt.caching.store import MAX_EVIDENCE, Neighbour, Record, Selector, StoreSize, Vector
from costopt.errors import StoreError
from costopt.forks import fork_aware
from costopt.sqlite import Connection, errors, transaction

__all__ = ["DEFAULT_MAX_BYTES", "LocalStore"]

DEFAULT_MAX_BYTES = 512 * 1024 * 1024
# What an entry takes beside its answer: keys, indexes, page overhead.
_ROW_BYTES = 400
_EVICT_TO = 0.9
_EVICT_AT_ONCE = 500
_TOUCHES = 512
_SWEEP_EVERY = 256
_STALE_ROUNDS = 4
_TRIES = 5

T = TypeVar("T")


class LocalStore:
    """A cache in one file, for one machine: many threads and many processes at once.

    What `put` has returned from survives the death of the process (not of the machine: the last moments
    before a power cut may be lost). The file is readable by its owner only.

    Args:
        path: The file; it and its folder are made at first use.
        max_bytes: Size at which the least recently used entries go.

    Raises:
        ConfigError: If `max_bytes` is not positive.

    Example:
        >>> store = LocalStore(tmp / "cache.db")
        >>> store.size().entries
        0
    """

    def __init__(self, path: str | os.PathLike[str], *, max_bytes: int = DEFAULT_MAX_BYTES) -> None:
        number("max_bytes", max_bytes, lambda size: size > 0, f"a size in bytes, e.g. {DEFAULT_MAX_BYTES}")
        self.path = Path(path)
        self._max_bytes = max_bytes
        self._embedder = ""
        self._dimension = 0
        self._start()
        fork_aware(self)

    def _start(self) -> None:
        self._lock = threading.RLock()
        self._reader = Connection(self.path, SCHEMA)
        self._writer = Connection(self.path, SCHEMA)
        self._index: LocalIndex | None = None
        self._used: dict[str, float] = {}
        self._writes = 0
        # A pool of our own: the event loop's default one may be full of model calls.
        self._pool = ThreadPoolExecutor(max_workers=2, thread_name_prefix="costopt-local")

    def before_fork(self) -> None:
        """Close the file: SQLite in the child would count on locks that only the parent has."""
        for connection in (self._writer, self._reader):
            connection.hold_closed()
        if self._index is not None:
            self._index.stop_filling()

    def after_fork_in_parent(self) -> None:
        """Allow it to be opened again."""
        for connection in (self._reader, self._writer):
            connection.let_open()
        if self._index is not None:
            self._index.may_fill()

    def after_fork_in_child(self) -> None:
        """Start anew, for the locks of the parent's threads are theirs."""
        self._start()

    # -- the seam --------------------------------------------------------------------------------------

    def bind(self, embedder: str, dimension: int) -> None:
        """Say whose vectors these are; vectors of other embedders stay untouched in the file."""
        self._embedder, self._dimension = embedder, dimension

    def get(self, request: CacheRequest) -> bytes | None:
        """The entry under the request's key."""
        rows = self._read(
            "SELECT data FROM entries WHERE key = ? AND (expires IS NULL OR expires > ?)",
            (request.key, time.time()),
        )
        if not rows:
            return None
        self._touch(request.key)
        return bytes(rows[0][0])

    def search(self, request: CacheRequest, vector: Vector, k: int) -> list[Neighbour]:
        """The nearest entries in the request's scope, their cosines from the file."""
        rejected: set[str] | None = None
        neighbours = []
        for data, blob, key in self._rows(request, vector, k):
            if rejected is None:
                rows = self._read("SELECT other FROM rejected WHERE key = ?", (request.key,))
                rejected = {other for (other,) in rows}
            if key not in rejected:
                stored = np.frombuffer(blob, dtype=np.float16).astype(np.float32)
                neighbours.append(Neighbour(data, float(stored @ vector / np.linalg.norm(stored))))
                self._touch(key)
        return sorted(neighbours, key=lambda neighbour: -neighbour.similarity)

    def put(self, record: Record) -> bool:
        """Store an entry; True, and safe from the death of this process, when this returns."""
        entry, now = record.entry, time.time()
        blob = None if record.vector is None else record.vector.astype(np.float16).tobytes()
        size = len(record.data) + len(blob or b"") + _ROW_BYTES
        with self._write() as db:
            self._forget(db, "key = ?", (entry.key,), bulk=False)
            cursor = db.execute(
                "INSERT INTO entries (key, scope, tenant, model, embedder, vector, data, size, expires, used) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    entry.key, entry.scope, entry.tenant, digest("model", entry.model), self._embedder, blob,
                    record.data, size, None if record.ttl is None else now + record.ttl, now,
                ),
            )  # fmt: skip
            seq = cursor.lastrowid
            if entry.tags:
                tags = [(seq, digest("tag", tag)) for tag in entry.tags]
                db.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?)", tags)
            db.execute("UPDATE sums SET value = value + ? WHERE name = 'bytes'", (size,))
            db.execute("DELETE FROM leases WHERE key = ?", (entry.key,))
            self._make_room(db, now)
        return True

    def claim(self, request: CacheRequest, owner: str, seconds: float) -> bool:
        """Take, or keep, the lease on a question."""
        now = time.time()
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO leases VALUES (?, ?, ?) ON CONFLICT (key) DO UPDATE SET owner = excluded.owner, "
                "expires = excluded.expires WHERE owner = excluded.owner OR expires < ?",
                (request.key, owner, now + seconds, now),
            )
            return cursor.rowcount > 0

    def release(self, request: CacheRequest, owner: str) -> None:
        """Give the lease on a question back."""
        with self._write() as db:
            db.execute("DELETE FROM leases WHERE key = ? AND owner = ?", (request.key, owner))

    def reject(self, tenant: str, key: str, other: str) -> None:
        """Never match these two again; without `other`, forget the entry."""
        with self._write() as db:
            if other:
                db.executemany("INSERT OR IGNORE INTO rejected VALUES (?, ?)", ((key, other), (other, key)))
            else:
                self._forget(db, "key = ? AND tenant = ?", (key, tenant), bulk=False)

    def add_evidence(self, tenant: str, scope: str, data: bytes) -> None:
        """Keep what turned out of a pair of this scope; of older ones, only so many."""
        with self._write() as db:
            db.execute("INSERT INTO evidence (tenant, scope, data) VALUES (?, ?, ?)", (tenant, scope, data))
            db.execute(
                "DELETE FROM evidence WHERE scope = ?1 AND seq NOT IN "
                "(SELECT seq FROM evidence WHERE scope = ?1 ORDER BY seq DESC LIMIT ?2)",
                (scope, MAX_EVIDENCE),
            )

    def evidence(self, tenant: str, scope: str) -> list[bytes]:
        """What turned out of the pairs of this scope."""
        return [row[0] for row in self._read("SELECT data FROM evidence WHERE scope = ? ORDER BY seq", (scope,))]

    def all_evidence(self) -> list[bytes]:
        """What turned out of all pairs."""
        return [row[0] for row in self._read("SELECT data FROM evidence ORDER BY seq", ())]

    def remove(self, selector: Selector) -> int:
        """Remove the entries that match, and say how many; evidence, too, where it is a tenant's or everybody's."""
        clauses, values = ["1"], []
        for clause, value in (
            ("tenant = ?", selector.tenant),
            ("model = ?", selector.model),
            ("seq IN (SELECT seq FROM tags WHERE tag = ?)", selector.tag),
        ):
            if value is not None:
                clauses.append(clause)
                values.append(value)
        with self._write() as db:
            if selector.whole:
                db.execute("DELETE FROM evidence WHERE ?1 IS NULL OR tenant = ?1", (selector.tenant,))
            return self._forget(db, " AND ".join(clauses), tuple(values), bulk=True)

    def clear(self) -> None:
        """Remove every entry, and all evidence."""
        self.remove(Selector())

    def size(self) -> StoreSize:
        """Entries, and bytes of the file with its log."""
        entries = self._read("SELECT count(*) FROM entries WHERE expires IS NULL OR expires > ?", (time.time(),))
        files = (self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal"))
        return StoreSize(int(entries[0][0]), sum(file.stat().st_size for file in files if file.exists()))

    def add_totals(self, totals: Mapping[str, int]) -> None:
        """Add to the sums that `costopt cache stats` shows."""
        with self._write() as db:
            db.executemany(
                "INSERT INTO sums VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
                ((f"total:{name}", by) for name, by in totals.items()),
            )

    def totals(self) -> Mapping[str, int]:
        """The sums over all processes that have used this file."""
        rows = self._read("SELECT name, value FROM sums WHERE name LIKE 'total:%'", ())
        return {name.removeprefix("total:"): value for name, value in rows}

    def open(self) -> None:
        """Open the file and bring the index up to it."""
        self._read("SELECT 1", ())
        if self._dimension:
            self._current_index(wait=True)

    def close(self) -> None:
        """Write what is pending and close the file; the store opens it again if it is used again."""
        with self._lock:
            if self._used and self.path.exists():
                with self._write() as db:
                    self._write_touches(db)
            if self._index is not None:
                self._index.save()
                self._index = None
            self._reader.close()
            self._writer.close()

    async def aclose(self) -> None:
        """`close`, in a thread."""
        await self._in_thread(self.close)

    async def aget(self, request: CacheRequest) -> bytes | None:
        """`get`, in a thread."""
        return await self._in_thread(lambda: self.get(request))

    async def asearch(self, request: CacheRequest, vector: Vector, k: int) -> list[Neighbour]:
        """`search`, in a thread."""
        return await self._in_thread(lambda: self.search(request, vector, k))

    async def aput(self, record: Record) -> bool:
        """`put`, in a thread."""
        return await self._in_thread(lambda: self.put(record))

    async def aclaim(self, request: CacheRequest, owner: str, seconds: float) -> bool:
        """`claim`, in a thread."""
        return await self._in_thread(lambda: self.claim(request, owner, seconds))

    # -- SQLite ----------------------------------------------------------------------------------------

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def _read(self, sql: str, values: tuple[object, ...]) -> list[tuple[Any, ...]]:
        with errors(self.path), self._reader as db:
            return db.execute(sql, values).fetchall()

    def _write(self) -> AbstractContextManager[sqlite3.Connection]:
        return transaction(self.path, self._writer)

    def _touch(self, key: str) -> None:
        # Writing at each hit would cost more than the hit; the order of use is written now and then.
        self._used[key] = time.time()
        if len(self._used) >= _TOUCHES:
            try:
                with self._write() as db:
                    self._write_touches(db)
            except StoreError:
                self._used.clear()

    def _write_touches(self, db: sqlite3.Connection) -> None:
        used, self._used = self._used, {}
        db.executemany("UPDATE entries SET used = ? WHERE key = ?", [(at, key) for key, at in used.items()])

    def _forget(self, db: sqlite3.Connection, where: str, values: tuple[object, ...], *, bulk: bool) -> int:
        row = db.execute(f"SELECT count(*), coalesce(sum(size), 0) FROM entries WHERE {where}", values).fetchone()
        if row[0]:
            db.execute(f"DELETE FROM entries WHERE {where}", values)
            db.execute("UPDATE sums SET value = value - ? WHERE name = 'bytes'", (row[1],))
            if bulk:
                db.execute("UPDATE sums SET value = value + 1 WHERE name = 'removals'")
        return int(row[0])

    def _make_room(self, db: sqlite3.Connection, now: float) -> None:
        self._writes += 1
        if self._writes % _SWEEP_EVERY == 0:
            self._forget(db, "expires <= ?", (now,), bulk=True)
            db.execute("DELETE FROM leases WHERE expires < ?", (now,))
        total = db.execute("SELECT value FROM sums WHERE name = 'bytes'").fetchone()[0]
        if total <= self._max_bytes:
            return
        self._write_touches(db)
        self._forget(db, "expires <= ?", (now,), bulk=True)
        total = db.execute("SELECT value FROM sums WHERE name = 'bytes'").fetchone()[0]
        excess, oldest = total - self._max_bytes * _EVICT_TO, []
        # A few at a time: to weigh all entries at once would hold up everybody who writes.
        for seq, size in db.execute("SELECT seq, size FROM entries ORDER BY used, seq LIMIT ?", (_EVICT_AT_ONCE,)):
            if excess <= 0:
                break
            oldest.append(seq)
            excess -= size
        self._forget(db, f"seq IN ({', '.join('?' * len(oldest))})", tuple(oldest), bulk=True)

    # -- the index -------------------------------------------------------------------------------------

    def _rows(self, request: CacheRequest, vector: Vector, k: int) -> list[tuple[bytes, bytes, str]]:
        index = self._current_index(wait=False)
        if index is None:
            return []
        for _ in range(_STALE_ROUNDS):
            seqs = index.nearest(vector, request.scope, k)
            marks = ", ".join("?" * len(seqs))
            found = {
                row[0]: row
                for row in self._read(
                    "SELECT seq, data, vector, key, scope FROM entries "
                    f"WHERE seq IN ({marks}) AND (expires IS NULL OR expires > ?)",
                    (*seqs, time.time()),
                )
            }
            stale = [seq for seq in seqs if seq not in found]
            if not stale:
                break
            # Written again, expired or removed since: they must not crowd out what is there.
            index.discard(stale)
        rows = (found[seq] for seq in seqs if seq in found)
        return [(data, blob, key) for _, data, blob, key, scope in rows if scope == request.scope]

    def _current_index(self, *, wait: bool) -> LocalIndex | None:
        with self._lock:
            if self._index is None:
                self._index = LocalIndex(self.path, self._embedder, self._dimension)
            index = self._index
        for _ in range(_TRIES if wait else 1):
            with errors(self.path), self._reader as db:
                if index.catch_up(db, self._reader.opened):
                    return index
            if wait:
                # Without holding the connection: lookups go on by the exact tier.
                index.wait()
        if wait:
            raise StoreError(f"the index of {self.path} could not be built; the log says why")
        return None
