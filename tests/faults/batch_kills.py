"""Processes that run one batch and are killed while they do; used by a test, and larger by `make bench`."""

from __future__ import annotations

import json
import os
import queue
import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from tests.batch_server import BatchServer, Fault, batch_server
from tests.faults.words import Process

__all__ = ["WORKERS", "Killed", "killed_batch"]

# One process that has imported everything, and forks the one that works, or several, whenever it is told to.
WORKERS = """
import importlib, json, os, signal, sys
from costopt.batch import Backoff, BatchRunner, Limits
from tests.costopt.batch.support import MODELS, provider, request, right

name, url, journal, rows, lot = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4]), int(sys.argv[5])
importlib.import_module(name)

def work(batch):
    requests = [request(MODELS[name], f"question {batch}.{number % (rows * 9 // 10)}") for number in range(rows)]
    ask = provider(name, url, limits=Limits(rows=lot, bytes=10**9, one_model=True))
    runner = BatchRunner(ask, journal=journal, settle=0.3, tries=9, backoff=Backoff(first=0.01, most=0.05))
    result = runner.run(requests)
    right(result, requests)
    said = {"cost": str(result.cost), "usage": [result.usage.input_tokens, result.usage.output_tokens]}
    print(json.dumps(said), flush=True)

for line in sys.stdin:
    batch, _, count = line.partition(" ")
    pids = []
    for _ in range(int(count or 1)):
        pids.append(os.fork())
        if not pids[-1]:
            work(batch.strip())
            os._exit(0)
    for pid in pids:
        print(pid, flush=True)
        print("status", os.waitpid(pid, 0)[1], flush=True)
"""


@dataclass(frozen=True)
class Killed:
    """What came of batches that were killed again and again.

    Attributes:
        kills: How often each batch was killed before it was finished.
        made: How many batches the provider made.
        billed: Rows that were paid, and how often each.
        rows: Different rows that were asked.
        cost: What those who finished say that all of it cost.
        usage: Tokens by their books, and by the server's.
        at: The last request before each kill.
    """

    kills: list[int]
    made: int
    billed: dict[int, int]
    rows: int
    cost: Decimal
    usage: tuple[list[int], list[int]]
    at: list[str]


def killed_batch(
    name: str, folder: Path, *, rows: int, lot: int, kills: int, seed: int, span: float, polls: int = 8
) -> Killed:
    """Run a batch of `rows`, a tenth of them duplicates, and kill it at random points, `kills` times in all.

    Half of the points are moments, up to `span` seconds from the start; half are requests that the server is just about
    to carry out, or has carried out and not answered. One row in twenty expires at its first try. A batch that
    gets through before it is killed often enough is followed by another. A batch ends when it is looked at for the
    `polls`th time: one that is slow is killed more often.
    """
    chance = random.Random(seed)
    with batch_server() as server, Process(WORKERS, name, server.url, folder / "j.db", rows, lot) as workers:
        server.polls = polls
        server.fate = lambda body, before: "expired" if not before and chance.random() < 0.05 else "ok"
        at: list[str] = []
        survived: list[int] = [0]
        said: list[dict[str, Any]] = []
        while sum(survived) < kills or len(said) < len(survived):
            enough = sum(survived) >= kills
            strike = (
                _nothing if enough else _by_time(server, chance, span) if len(at) % 2 else _by_request(server, chance)
            )
            books = _struck(workers, len(survived), strike)
            if books is None:
                survived[-1] += 1
                method, path = server.requests[-1] if server.requests else ("none", "")
                at.append(f"{method} {path.rsplit('/', 1)[-1].split('_')[0]}")
                continue
            said.append(books)
            if not enough:
                survived.append(0)
        times = list(server.billed.values())
        return Killed(
            kills=survived,
            made=len(server.batches),
            billed={count: times.count(count) for count in sorted(set(times))},
            rows=rows * 9 // 10 * len(survived),
            cost=sum((Decimal(each["cost"]) for each in said), Decimal(0)),
            usage=([sum(each["usage"][n] for each in said) for n in (0, 1)], list(server.usage)),
            at=at,
        )


def _nothing(pid: int) -> bool:
    return False


def _by_time(server: BatchServer, chance: random.Random, span: float) -> Callable[[int], bool]:
    server.fault = lambda method, path, number: None
    seconds = chance.random() * span

    def strike(pid: int) -> bool:
        time.sleep(seconds)
        return True

    return strike


def _by_request(server: BatchServer, chance: random.Random) -> Callable[[int], bool]:
    """Killed by the server, at a request of its choice, unless it gets through with fewer."""
    point, after = len(server.requests) + chance.randrange(1, 9), chance.random() < 0.5
    worker: queue.Queue[int] = queue.Queue()

    def fault(method: str, path: str, number: int) -> Fault | None:
        if number != point:
            return None
        with suppress(ProcessLookupError):
            os.kill(worker.get(timeout=10), signal.SIGKILL)
        return Fault(cut="after" if after else "before")

    def strike(pid: int) -> bool:
        worker.put(pid)
        return False

    server.fault = fault
    return strike


def _struck(workers: Process, batch: int, strike: Callable[[int], bool]) -> dict[str, Any] | None:
    """Let one work, and strike; what it said when it had finished, or None if it was killed before."""
    workers.send(str(batch))
    pid = int(workers.line())
    if strike(pid):
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    said = None
    while not (line := workers.line()).startswith("status"):
        said = json.loads(line)
    assert line in ("status 0", "status 9"), line
    return said
