"""Batches through the providers' real SDKs: killed again and again, and what they cost in time."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options
from costopt.batch import Backoff, BatchRunner
from costopt.pricing import Usage, cost
from tests.batch_server import batch_server
from tests.costopt.batch.support import MODELS, close_clients, provider, request, right
from tests.faults.batch_kills import Killed, killed_batch

__all__ = ["run"]

_PROVIDERS = ("openai", "anthropic")


def run(options: Options) -> dict[str, Any]:
    """Both providers, on a server of their own."""
    rows, kills = (1_000, 6) if options.quick else (10_000, 20)
    killed = {name: _killed(name, rows, kills) for name in _PROVIDERS}
    speeds = [_speed(name, rows) for name in _PROVIDERS]
    twice = sum(count for found in killed.values() for times, count in found.billed.items() if times != 1)
    never = sum(found.rows - sum(found.billed.values()) for found in killed.values())
    apart = sum(abs(a - b) for found in killed.values() for a, b in zip(*found.usage, strict=True))
    cents = sum(abs(found.cost - _bill(name, found)) for name, found in killed.items()) * 100
    return {
        "bars": [
            at_most(f"rows paid more than once, of {rows:,} killed {kills} times", twice, 0),
            at_most(f"rows never answered, of {rows:,} killed {kills} times", never, 0),
            at_most("tokens by which our books and the server's differ after that", apart, 0),
            at_most("cents by which they differ", float(cents), 0),
        ],
        "tables": [
            table(
                f"{rows:,} rows, a tenth of them duplicates, killed with SIGKILL at random points",
                ["provider", "kills", "batches made", "rows paid", "cost", "requests before the kills"],
                [_row(name, found) for name, found in killed.items()],
            ),
            table(
                f"{rows:,} different rows, undisturbed",
                ["provider", "handed in and sent, s", "collected, s", "read back, s", "rows a second", "journal, MB"],
                speeds,
            ),
        ],
        "notes": [
            (
                "The server speaks both protocols on loopback, shuffles its results, says every seventh row twice and "
                "lets one row in twenty expire. Half of the kills are at a moment, half at a request, before or after "
                "the server carried it out. The next process is given the same list, and goes on. Answers were "
                "compared row by row."
            )
        ],
    }


def _killed(name: str, rows: int, kills: int) -> Killed:
    with tempfile.TemporaryDirectory() as folder:
        return killed_batch(name, Path(folder), rows=rows, lot=rows // 16, kills=kills, seed=kills, span=rows / 8000)


def _bill(name: str, found: Killed) -> Decimal:
    """What the server's tokens cost in a batch."""
    return cost(MODELS[name], Usage(*found.usage[1]), batch=True) or Decimal(0)


def _row(name: str, found: Killed) -> list[str]:
    at = ", ".join(f"{what} {count}" for what, count in Counter(found.at).most_common())
    kills = " + ".join(map(str, found.kills))
    return [name, kills, str(found.made), f"{sum(found.billed.values()):,}", f"${found.cost:.4f}", at]


def _speed(name: str, rows: int) -> list[str]:
    with tempfile.TemporaryDirectory() as folder, batch_server() as server:
        requests = [request(MODELS[name], f"question {number}") for number in range(rows)]
        journal = Path(folder) / "journal.db"
        runner = BatchRunner(provider(name, server.url), journal=journal, backoff=Backoff(first=0.01, most=0.05))
        times = [time.perf_counter()]
        job = runner.submit(requests)
        times.append(time.perf_counter())
        runner.collect(job.id)
        times.append(time.perf_counter())
        right(runner.results(job.id), requests)
        times.append(time.perf_counter())
        close_clients()
        spans = [after - before for before, after in itertools.pairwise(times)]
        size = f"{journal.stat().st_size / 1e6:.1f}"
    return [name, *(f"{span:.2f}" for span in spans), f"{rows / sum(spans[:2]):,.0f}", size]
