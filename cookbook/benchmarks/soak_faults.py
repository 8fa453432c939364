"""What is done to Redis, the provider and the ledger's file while the soak runs, and when."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cookbook.benchmarks.soak_server import Provider
from cookbook.benchmarks.soak_watch import HEALTHY, Books
from tests.servers import RedisServer

__all__ = ["FAULTS", "Fault", "Struck", "faults", "strike_all"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that goes wrong, and is put right."""

    name: str
    strike: Callable[[], Any]
    mend: Callable[[], Any]


@dataclass(frozen=True, slots=True)
class Struck:
    """When a fault began, when it was over, and when the next one came; in seconds since the start."""

    name: str
    began: float
    over: float
    until: float


FAULTS = (
    "Redis killed", "Redis full", "Redis flushed", "Redis frozen", "index dropped", "provider refuses", "ledger locked",
)  # fmt: skip
"""Names of all of them, in their order."""


def faults(redis: RedisServer, provider: Provider, ledger: Path, refused: str) -> list[Fault]:
    """All of them.

    Args:
        redis: A server of the soak's own.
        provider: The model's provider.
        ledger: The ledger's file.
        refused: The model that the provider refuses.
    """
    holder = _Holder(ledger)
    done = (
        (redis.kill, redis.start),
        (lambda: _full(redis), lambda: _set(redis, "maxmemory", "0")),
        (lambda: _asked(redis, "FLUSHALL"), _nothing),
        (redis.stop, redis.resume),
        (lambda: _drop_indices(redis), _nothing),
        (lambda: provider.refuse(refused), lambda: provider.serve(refused)),
        (holder.lock, holder.unlock),
    )
    return [Fault(name, *each) for name, each in zip(FAULTS, done, strict=True)]


def strike_all(
    made: Sequence[Fault],
    books: Books,
    *,
    seconds: float,
    slot_s: float,
    fault_s: float,
    pause: Callable[[float], None],
) -> list[Struck]:
    """One fault after the other, each once at least, until the time is over; the first slot has none.

    Args:
        made: The faults, in turn.
        books: Told which one is under way.
        seconds: For how long in all.
        slot_s: Seconds from one to the next.
        fault_s: Seconds that one lasts.
        pause: Waits so many seconds.
    """
    struck: list[Struck] = []
    pause(slot_s)
    while len(struck) < len(made) or books.elapsed + slot_s <= seconds + 1:
        fault = made[len(struck) % len(made)]
        began = books.elapsed
        with _under_way(fault, books):
            pause(fault_s)
        over = books.elapsed
        pause(max(0.0, began + slot_s - over))
        struck.append(Struck(fault.name, began, over, books.elapsed))
    pause(max(0.0, seconds - books.elapsed))
    return struck


@contextmanager
def _under_way(fault: Fault, books: Books) -> Iterator[None]:
    books.phase = fault.name
    fault.strike()
    try:
        yield
    finally:
        fault.mend()
        books.phase = HEALTHY


class _Holder:
    """Keeps others from writing into a SQLite file, in a thread of its own, as another process would."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._free = threading.Event()
        self._thread: threading.Thread | None = None

    def lock(self) -> None:
        """Hold it."""
        self._free.clear()
        self._thread = threading.Thread(target=self._hold, name="soak-lock")
        self._thread.start()

    def unlock(self) -> None:
        """Let go."""
        self._free.set()
        if self._thread is not None:
            self._thread.join()

    def _hold(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as db:
            db.execute("BEGIN IMMEDIATE")
            self._free.wait()
            db.execute("ROLLBACK")


def _full(redis: RedisServer) -> None:
    """From now on every write is refused, as maxmemory-policy noeviction has it."""
    with redis.client() as client:
        used = int(client.info("memory")["used_memory"])  # type: ignore[index]
    _set(redis, "maxmemory", str(max(1, used - 1)))


def _set(redis: RedisServer, name: str, value: str) -> None:
    _asked(redis, "CONFIG", "SET", name, value)


def _drop_indices(redis: RedisServer) -> None:
    for name in _asked(redis, "FT._LIST"):
        _asked(redis, "FT.DROPINDEX", name)


def _asked(redis: RedisServer, *command: Any) -> Any:
    with redis.client() as client:
        return client.execute_command(*command)


def _nothing() -> None:
    time.sleep(0)
