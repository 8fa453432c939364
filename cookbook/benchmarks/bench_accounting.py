"""Accounting: what the ledger says of 10,000 mixed calls beside what the servers billed, and what keeping it costs."""

from __future__ import annotations

import tempfile
import time
from decimal import Decimal
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options
from costopt import Usage
from costopt.audit import Attempt, Ledger, SpendingLimit
from langchain_costopt import CostTracker
from langchain_costopt.demo import SimulatedChatModel

__all__ = ["run"]

_CALLS = 10_000
_NOTES = (
    (
        "Calls of 23 kinds by the real SDKs of OpenAI and Anthropic through LangChain and LlamaIndex, four at a time, "
        "against servers on this machine that draw a random usage for each answer and count it as they send it: "
        "plain, streamed, awaited, reasoning, retried by LangChain and by the SDK, failed, fallen back, routed, "
        "answered by two kinds of cache, and one in eight through the batch API. Refused calls are not billed."
    ),
    (
        "What a tracker adds is the difference between the medians of calls with and without it, of a model that "
        "answers at once; the prompt is hashed and priced by a thread of its own, whose work is in the difference as "
        "far as it holds up the caller."
    ),
)


def run(options: Options) -> dict[str, Any]:
    """Sums, and overhead."""
    with tempfile.TemporaryDirectory() as folder:
        accounts, rows = _accounts(Path(folder), 400 if options.quick else _CALLS)
        overhead, more = _overhead(Path(folder), 200 if options.quick else 2_000)
    tables = [table("Calls by kind", ["kind", "calls"], rows), table("What keeping it costs", ["", "ms"], more)]
    return {"bars": [*accounts, *overhead], "tables": tables, "notes": list(_NOTES)}


def _accounts(folder: Path, calls: int) -> tuple[list[Any], list[list[str]]]:
    from tests.mixed_calls import mixed

    with mixed(folder, seed=1) as made:
        made.run(calls)
        totals = made.ledger.totals()
        off = sum(abs(made.counted[name] - count) for name, count in made.tokens.items())
        bars = [
            at_most(f"tokens by which {calls:,} mixed calls differ from the servers' count", off, 0),
            at_most("dollars by which they differ from the servers' bill", float(abs(totals.cost - made.dollars)), 0),
            at_most("of them estimated or without a price", totals.estimated + totals.unpriced, 0),
            at_most("attempts that the ledger lost", made.ledger.stats().dropped, 0),
        ]
        rows = [[kind, f"{count:,}"] for kind, count in sorted(made.calls.items())]
        rows.append([f"rows in the ledger, of them {totals.failed:,} failed, {totals.cache_hits:,} hits",
                     f"{totals.attempts:,}"])  # fmt: skip
        return bars, rows


def _overhead(folder: Path, calls: int) -> tuple[list[Any], list[list[str]]]:
    record = _recording(folder, calls)
    model = SimulatedChatModel(model_name="gpt-4o-mini", answer="Paris")
    tracker = CostTracker(folder / "overhead.db")
    bars, rows = [], [["Ledger.record, 99 of 100 calls", f"{record * 1e3:.4f}"]]
    bars.append(at_most("Ledger.record, 99 of 100 calls", record * 1e3, 1.0, " ms"))
    for name, words in (("2,000 characters", 300), ("100,000 characters", 15_000)):
        prompt = "a few words " * (words // 2)
        without, with_it = _medians(model, prompt, tracker, calls // 2)
        rows.append([f"a call without CostTracker, prompt of {name}", f"{without * 1e3:.3f}"])
        rows.append([f"... with it: {name}", f"{with_it * 1e3:.3f}"])
        bars.append(
            at_most(f"what CostTracker adds to a call, prompt of {name}", (with_it - without) * 1e3, 1.0, " ms")
        )
    tracker.ledger.close()
    for name, took in _limiting(folder, calls).items():
        rows.append([f"{name}, median", f"{took[calls // 2] * 1e3:.4f}"])
        rows.append([f"{name}, 99 of 100 calls", f"{took[int(0.99 * calls)] * 1e3:.4f}"])
        bars.append(at_most(f"{name}, 99 of 100 calls", took[int(0.99 * calls)] * 1e3, 1.0, " ms"))
    return bars, rows


def _recording(folder: Path, calls: int) -> float:
    ledger, took = Ledger(folder / "record.db"), []
    for number in range(calls):
        attempt = Attempt("gpt-4o-mini", usage=Usage(900, 100), cost=Decimal("0.0002"), started=float(number))
        started = time.perf_counter()
        ledger.record(attempt)
        took.append(time.perf_counter() - started)
    ledger.close()
    return sorted(took)[int(0.99 * calls)]


def _limiting(folder: Path, calls: int) -> dict[str, list[float]]:
    """Seconds, rising, for a check, and for keeping and settling, against a month of five models and twenty tenants."""
    with Ledger(folder / "limit.db") as ledger:
        now = time.time()
        ledger.record_all(
            Attempt(f"model {n % 5}", tenant=f"tenant {n % 20}", started=now - n % 30 * 86_400, cost=Decimal("0.01"))
            for n in range(5_000)
        )
        limit = SpendingLimit(ledger, 1_000_000)

        def keep() -> None:
            held = limit.reserve(Decimal("0.01"))
            assert held is not None
            held.settle(Decimal("0.001"))

        found = {}
        for name, do in (("SpendingLimit.check", limit.check), ("SpendingLimit.reserve and settle", keep)):
            took = []
            for _ in range(calls):
                started = time.perf_counter()
                do()
                took.append(time.perf_counter() - started)
            found[name] = sorted(took)
        return found


def _medians(model: Any, prompt: str, tracker: CostTracker, calls: int) -> tuple[float, float]:
    """(without, with) in seconds, in turns, so that both meet the same machine."""
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(calls):
        for side, callbacks in enumerate(([], [tracker])):
            started = time.perf_counter()
            model.invoke(f"{prompt} {number}", {"callbacks": callbacks})
            took[side].append(time.perf_counter() - started)
    return sorted(took[0])[calls // 2], sorted(took[1])[calls // 2]
