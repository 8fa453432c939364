"""The rows of a batch as attempts, for the ledger."""

from __future__ import annotations

import time
from collections.abc import Iterator
from decimal import Decimal

from costopt.audit.attempt import Attempt
from costopt.batch.result import BatchItem, BatchResult

__all__ = ["attempts_of"]


def attempts_of(result: BatchResult, provider: str, *, when: float | None = None) -> Iterator[Attempt]:
    """One attempt for each row that is finished; recorded again, each counts once.

    Rows that were not paid for by this job, since an equal one was, count as hits of an exact cache.

    Args:
        result: From `BatchRunner.collect`.
        provider: "openai" or "anthropic".
        when: Unix time to note; now if None.

    Example:
        >>> answer, cost = {"model": "gpt-4o-mini"}, Decimal("0.01")
        >>> item = BatchItem(0, None, "k1", answer, None, Usage(10, 5), cost, None, "batch", "b1")
        >>> [attempt.id for attempt in attempts_of(BatchResult("j1", (item,)), "openai")]
        ['b1-k1']
    """
    now = time.time() if when is None else when
    for item in result:
        if item.error is None:
            yield _answered(item, result.job, provider, now)
        elif item.error.code not in ("pending", "cancelled"):
            yield Attempt(
                "unknown",
                provider,
                now,
                status="error",
                error=item.error.code,
                batch=item.batch or result.job,
                id=f"{result.job}-{item.index}-error",
            )


def _answered(item: BatchItem, job: str, provider: str, now: float) -> Attempt:
    model = str((item.body or {}).get("model") or "unknown")
    if item.source == "batch":
        source = "" if item.cost is None else "batch"
        return Attempt(
            model, provider, now, usage=item.usage, cost=item.cost, cost_source=source, list_cost=item.list_cost,
            batch=item.batch or job, id=f"{item.batch}-{item.key}",
        )  # fmt: skip
    return Attempt(
        model, provider, now, cost=Decimal(0), cost_source="cache", cache="exact", avoided_usage=item.usage,
        avoided_cost=item.list_cost, batch=item.batch or job, id=f"{job}-{item.index}",
    )  # fmt: skip
