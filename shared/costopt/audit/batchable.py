"""Which work nobody was waiting for, so that a provider's batch API could have done it at its lower price."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costopt.audit.columns import Flag, Log

__all__ = ["LEAST_AN_HOUR", "MOST_HOURS", "Batchable", "batchable"]

_HOUR_S = 3_600
_DAY_S = 86_400.0
LEAST_AN_HOUR = 50
"""Rows of one template in an hour, from which it looks like a job."""

MOST_HOURS = 0.25
"""Share of the log's hours in which a job's template may be seen; what people ask is spread over more."""


@dataclass(frozen=True, slots=True)
class Batchable:
    """Work that could have waited.

    Attributes:
        already: Rows that went through a batch API.
        marked: Rows whose tags say so.
        bursts: Rows that look like a job: many of one template within few hours, none streamed, none a conversation.
        judged_bursts: Whether the log is long enough to tell bursts from the rest: a day.
    """

    already: NDArray[np.bool_]
    marked: NDArray[np.bool_]
    bursts: NDArray[np.bool_]
    judged_bursts: bool


def batchable(log: Log) -> Batchable:
    """Look for it in tags and in when requests came."""
    already = log.has(Flag.BATCHED)
    may = ~already & ~log.has(Flag.HIT) & ~log.has(Flag.FAILED)
    marked = may & log.has(Flag.PATIENT)
    bursts = np.zeros(len(log), np.bool_)
    long = log.timed and len(log) > 0 and bool(log["started"][-1] - log["started"][0] >= _DAY_S)
    if not long:
        return Batchable(already, marked, bursts, False)
    alone = may & ~marked & ~log.has(Flag.STREAMED | Flag.TURNS | Flag.CALLS_TOOLS) & (log["template"] > 0)
    rows = np.flatnonzero(alone)
    if not len(rows):
        return Batchable(already, marked, bursts, True)
    hours = (log["started"][rows] // _HOUR_S).astype(np.int64)
    hours -= hours.min()
    span = int(log["started"][-1] // _HOUR_S - log["started"][0] // _HOUR_S) + 1
    cells, places, counts = np.unique(
        log["template"][rows].astype(np.int64) * (span + 1) + hours, return_inverse=True, return_counts=True
    )
    _, inverse, active = np.unique(cells // (span + 1), return_inverse=True, return_counts=True)
    rare = (active <= MOST_HOURS * span)[inverse]
    bursts[rows] = (rare & (counts >= LEAST_AN_HOUR))[places]
    return Batchable(already, marked, bursts, True)
