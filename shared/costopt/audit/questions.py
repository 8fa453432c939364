"""The five questions to a log, answered: routing, repeats, context, what could wait, GPUs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.audit.batchable import Batchable
from costopt.audit.bill import Bill
from costopt.audit.charge import LOCAL
from costopt.audit.columns import Flag, Log
from costopt.audit.context import Context
from costopt.audit.gpu import GpuLoad
from costopt.audit.money import dollars, total
from costopt.audit.overrouted import Routing
from costopt.audit.semantic import WordedRepeats

__all__ = ["Questions", "answered"]

Answer = dict[str, Any]

_PERCENTILES = (50, 90, 99)
_HISTOGRAM = (0, 128, 256, 512, 1_024, 2_048, 4_096, 8_192, 16_384, 32_768, 65_536, 131_072)


@dataclass(frozen=True, slots=True)
class Questions:
    """The answers, as plain data for JSON; shares are fractions in [0, 1], of what each one's name says.

    Attributes:
        routing: Which share of the requests went to an expensive model though a cheaper one would do.
        repeats: How many a cache has answered, and how many it could have.
        context: How long prompts are, and which tokens were avoidable.
        waiting: Which work was not urgent.
        gpu: How busy the GPUs were while local models ran.
    """

    routing: Answer
    repeats: Answer
    context: Answer
    waiting: Answer
    gpu: Answer

    def as_dict(self) -> dict[str, Answer]:
        """By name."""
        return {name: getattr(self, name) for name in self.__slots__}


def answered(
    log: Log,
    bill: Bill,
    *,
    routing: Routing,
    exact: NDArray[np.bool_],
    worded: WordedRepeats | None,
    context: Context,
    waiting: Batchable,
    gpu: GpuLoad,
    keep_text: bool = True,
) -> Questions:
    """All five answers."""
    return Questions(
        _routing(log, bill, routing),
        _repeats(log, exact, worded, keep_text),
        _context(log, context),
        _waiting(log, bill, waiting),
        {name: getattr(gpu, name) for name in gpu.__slots__} | {"local_calls": int(local_rows(log).sum())},
    )


def local_rows(log: Log) -> NDArray[np.bool_]:
    """Which rows were answered by a model on a machine of one's own."""
    local = [bool(provider and provider.lower() in LOCAL) for _, provider in log.models]
    return np.array(local or [False], np.bool_)[log["model"]] if len(log) else np.zeros(0, np.bool_)


def _routing(log: Log, bill: Bill, routing: Routing) -> Answer:
    calls = int((~log.has(Flag.HIT)).sum())
    low, likely, high = (int(moved.sum()) for moved in routing.moved)
    asked = routing.asked
    return {
        "known": routing.known,
        "calls": calls,
        "expensive_calls": int(asked.sum()),
        "expensive_usd": dollars(total(bill.billed[asked & bill.known])),
        "over_routed": likely if routing.known else None,
        "over_routed_low": low if routing.known else 0,
        "over_routed_high": high,
        "share": _share(likely, calls) if routing.known else None,
        "share_low": _share(low, calls) if routing.known else 0.0,
        "share_high": _share(high, calls),
        "no_opinion": routing.novel,
        "tiers": list(routing.tiers),
        "note": routing.note,
    }


def _repeats(log: Log, exact: NDArray[np.bool_], worded: WordedRepeats | None, keep_text: bool) -> Answer:
    asked = int((log["exact"] != 0).sum())
    hits = log.has(Flag.HIT)
    chances = None if worded is None else worded.chance.sum(axis=1)
    return {
        "requests": len(log),
        "with_prompt": asked,
        "cache_hits": int(hits.sum()),
        "cache_hit_rate": _share(int(hits.sum()), len(log)),
        "exact": int(exact.sum()),
        "exact_share": _share(int(exact.sum()), asked),
        "semantic": None if chances is None else round(float(chances[1])),
        "semantic_share": None if chances is None else _share(chances[1], asked),
        "semantic_share_low": None if chances is None else _share(chances[0], asked),
        "semantic_share_high": None if chances is None else _share(chances[2], asked),
        "distinct": len(np.unique(log["exact"][log["exact"] != 0])),
        "compared_texts": None if worded is None else worded.texts,
        "not_compared": None if worded is None else worded.left_out,
        "near_pairs": None if worded is None else worded.pairs,
        "semantic_margin": None if worded is None else _share(worded.margin, asked),
        "judged_pairs": None if worded is None else worded.judged,
        "examples": [] if worded is None or not keep_text else [list(pair) for pair in worded.examples],
    }


def _context(log: Log, context: Context) -> Answer:
    read = log["input"].astype(np.int64)
    counted = read[read > 0]
    whole = int(read.sum())
    parts = {
        "system prompts": context.system,
        "tools": context.tools,
        "history": context.history,
        "question": context.question,
    }
    avoidable = {"repeated system prompts": context.repeated, "history": context.history,
                 "unused tools": context.unused, "pretty-printed JSON": context.blanks,
                 "near-duplicate passages": context.twice}  # fmt: skip
    edges = (*_HISTOGRAM, np.inf)
    counts, _ = np.histogram(counted, bins=np.array(edges))
    called = set().union(*(toolset.called for toolset in log.toolsets))
    idle = {name for toolset in log.toolsets for name in toolset.names} - called
    return {
        "input_tokens": whole,
        "mean": round(float(counted.mean()), 1) if len(counted) else None,
        **{f"p{p}": int(np.percentile(counted, p)) if len(counted) else None for p in _PERCENTILES},
        "max": int(counted.max()) if len(counted) else None,
        "cached_tokens": int(log["cached"].sum(dtype=np.int64)),
        "cached_share": _share(int(log["cached"].sum(dtype=np.int64)), whole),
        "parts": {name: _tokens(tokens, whole) for name, tokens in parts.items()},
        "avoidable": {name: _tokens(tokens, whole) for name, tokens in avoidable.items()},
        "unused_tools": sorted(idle)[:50],
        "histogram": [
            {"from": int(low), "requests": int(count)} for low, count in zip(_HISTOGRAM, counts, strict=True)
        ],
    }


def _tokens(tokens: NDArray[Any], whole: int) -> Answer:
    count = int(tokens.sum())
    return {"tokens": count, "share": _share(count, whole)}


def _waiting(log: Log, bill: Bill, waiting: Batchable) -> Answer:
    calls = int((~log.has(Flag.HIT)).sum())
    found: Answer = {"calls": calls, "bursts_judged": waiting.judged_bursts}
    for name, rows in (("already", waiting.already), ("marked", waiting.marked), ("bursts", waiting.bursts)):
        count = int(rows.sum())
        found[name] = count
        found[f"{name}_share"] = _share(count, calls)
        found[f"{name}_usd"] = dollars(total(bill.billed[rows & bill.known]))
    return found


def _share(part: float, whole: float) -> float:
    return round(float(part) / float(whole), 6) if whole else 0.0
