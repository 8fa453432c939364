"""The sample log through LangChain: what the cache saves on it, and what it gets wrong."""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import table
from cookbook.benchmarks.material import Options
from costopt import LocalStore
from langchain_costopt import SemanticCache
from langchain_costopt.demo import Outcome, Request, read_log, replay, sample_log

__all__ = ["run"]


def run(options: Options) -> dict[str, Any]:
    """No cache, exact tier only, both tiers."""
    requests = read_log(sample_log())
    outcomes = [_replayed(requests, "no cache", None)]
    outcomes += [_replayed(requests, name, only) for name, only in (("exact tier only", True), ("both tiers", False))]
    rows = [_row(outcome, len(requests), outcomes[0]) for outcome in outcomes]
    columns = [
        "", "paid calls", "input tokens", "output tokens", "cost", "saved", "exact", "semantic", "wrong",
        "median ms a request",
    ]  # fmt: skip
    return {
        "bars": [],
        "tables": [table(f"{len(requests)} requests of the sample log", columns, rows)],
        "notes": [
            (
                "Simulated: the log's answers come back at once, tokens are words and marks, prices are list prices. "
                "The log is invented (cookbook/data/README.md): it shows how the tiers behave, not what you would save."
            )
        ],
    }


def _replayed(requests: list[Request], name: str, exact_only: bool | None) -> Outcome:
    tenant, outcome = ["default"], Outcome(name)
    with tempfile.TemporaryDirectory() as folder:
        cache = None
        if exact_only is not None:
            cache = SemanticCache(
                LocalStore(Path(folder) / "log.db"), tenant=lambda: tenant[0], exact_only=exact_only
            ).warm()
        for _ in replay(requests, outcome, cache, tenant):
            pass
        if cache is not None:
            cache.close()
    return outcome


def _row(outcome: Outcome, requests: int, before: Outcome) -> list[str]:
    saved = float(1 - outcome.usd / before.usd) if before.usd else 0.0
    return [
        outcome.name,
        f"{outcome.calls:,}",
        f"{outcome.input_tokens:,}",
        f"{outcome.output_tokens:,}",
        f"${outcome.usd:.4f}",
        f"{saved:.1%}",
        str(outcome.hits["exact"]),
        str(outcome.hits["semantic"]),
        "not labelled" if outcome.wrong is None else str(outcome.wrong),
        f"{statistics.median(outcome.lookups_s) * 1000:.2f}",
    ]
