"""What was paid: over time, by model, by prompt template."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.audit.bill import Bill
from costopt.audit.columns import Flag, Log
from costopt.audit.money import dollars, total

__all__ = ["dearest_templates", "spend_of"]

_DAY_S = 86_400
_MOST_DAYS = 60
_DEAREST = 10
_TOKENS = ("input", "output", "cached")


def spend_of(log: Log, bill: Bill) -> dict[str, Any]:
    """The sums, as plain data for JSON."""
    failed = log.has(Flag.FAILED)
    unpriced = ~bill.known
    logged = (log["billed"] >= 0) & bill.known
    return {
        "usd": _sum(bill, bill.known),
        "calls": len(log),
        "failed": int(failed.sum()),
        "failed_usd": _sum(bill, failed),
        "priced_by_log": int(logged.sum()),
        "priced_by_list": int((bill.known & ~logged).sum()),
        "unpriced": int(unpriced.sum()),
        "unpriced_models": {
            name: int((unpriced & (log["model"] == number)).sum())
            for number, (name, _) in enumerate(log.models)
            if (unpriced & (log["model"] == number)).any()
        },
        "estimated": int(log.has(Flag.ESTIMATED).sum()),
        "uncounted": int(log.has(Flag.UNCOUNTED).sum()),
        **{f"{name}_tokens": int(log[name].sum(dtype=np.int64)) for name in _TOKENS},
        "models": _models(log, bill),
        "days": _days(log, bill),
    }


def _models(log: Log, bill: Bill) -> list[dict[str, Any]]:
    names: dict[str, list[int]] = {}
    for number, (name, _) in enumerate(log.models):
        names.setdefault(name, []).append(number)
    found = []
    for name, numbers in names.items():
        rows = np.isin(log["model"], numbers)
        found.append(
            {
                "model": name,
                "calls": int(rows.sum()),
                "usd": _sum(bill, rows),
                **{f"{each}_tokens": int(log[each][rows].sum(dtype=np.int64)) for each in _TOKENS},
            }
        )
    return sorted(found, key=lambda each: (-each["usd"], -each["calls"], each["model"]))


def _days(log: Log, bill: Bill) -> list[dict[str, Any]]:
    """Spending over time, by day, or by as many days as make at most 60 bars."""
    if not log.dated:
        return []
    days = (log["started"] // _DAY_S).astype(np.int64)
    width = -(-int(days[-1] - days[0] + 1) // _MOST_DAYS)
    slots = (days - days[0]) // width
    bounds = np.searchsorted(slots, np.arange(slots[-1] + 2))
    found = []
    for slot in range(int(slots[-1]) + 1):
        part = slice(bounds[slot], bounds[slot + 1])
        billed = bill.billed[part]
        start = datetime.fromtimestamp(float((days[0] + slot * width) * _DAY_S), UTC).date().isoformat()
        found.append({"from": start, "days": width, "calls": len(billed), "usd": dollars(total(billed[billed >= 0]))})
    return found


def dearest_templates(log: Log, bill: Bill, *, keep_text: bool = True) -> list[dict[str, Any]]:
    """The ten prompt templates on which most was spent.

    Args:
        log: The log.
        bill: What it cost.
        keep_text: Whether to show how they begin.
    """
    count = len(log.templates)
    known = np.where(bill.known, bill.billed, 0)
    spent = np.bincount(log["template"], weights=known.astype(np.float64), minlength=count)
    calls = np.bincount(log["template"], minlength=count)
    tokens = np.bincount(log["template"], weights=log["input"].astype(np.float64), minlength=count)
    # Rows without a prompt are in no template.
    held = log.has(Flag.PROMPT) | (log["template"] > 0)
    order = [place for place in np.argsort(-spent, kind="stable").tolist() if calls[place]]
    found = []
    for rank, place in enumerate([each for each in order if each > 0][:_DEAREST], start=1):
        template = log.templates[place]
        rows = (log["template"] == place) & held
        found.append(
            {
                "rank": rank,
                "name": template.name,
                "preview": template.preview if keep_text else None,
                "calls": int(calls[place]),
                "usd": _sum(bill, rows),
                "usd_a_call": dollars(total(known[rows]) // int(calls[place])),
                "input_tokens_a_call": round(float(tokens[place]) / int(calls[place]), 1),
            }
        )
    return found


def _sum(bill: Bill, rows: NDArray[np.bool_]) -> Any:
    return dollars(total(bill.billed[rows & bill.known]))
