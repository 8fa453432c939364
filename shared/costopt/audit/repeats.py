"""Which requests a cache would have answered: the log played through its exact tier, in the order of time."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from costopt.audit.columns import Flag, Log

__all__ = ["TTL_S", "exact_hits", "first_of_key"]

TTL_S = 86_400.0
"""How long an answer is served, in seconds, counted from when it was paid for."""


def exact_hits(log: Log, ttl_s: float = TTL_S) -> NDArray[np.bool_]:
    """Which rows ask what an earlier row asked in the same scope, within `ttl_s` of when that was paid for.

    Failed calls are answered, but leave nothing to serve. A log without moments is taken to fit into `ttl_s`. Rows
    without a prompt or its hash are never hits.

    Example:
        >>> from costopt.audit.columns import Columns
        >>> from costopt.audit.record import Record
        >>> columns = Columns()
        >>> for at in (0, 10, 90_000, 90_010):
        ...     columns.add(Record(at, "gpt-4o", messages=[{"role": "user", "content": "Why?"}]))
        >>> exact_hits(columns.log()).tolist()
        [False, True, False, True]
    """
    hits = np.zeros(len(log), np.bool_)
    rows = np.flatnonzero(log["exact"] != 0)
    rows = rows[np.argsort(log["exact"][rows], kind="stable")]  # by key, and in the order of time within
    keys, failed = log["exact"][rows], log.has(Flag.FAILED)[rows]
    moments = log["started"][rows] if log.timed else np.zeros(len(rows))
    if not len(rows):
        return hits
    starts = np.flatnonzero(np.r_[True, keys[1:] != keys[:-1]])
    ends = np.r_[starts[1:], len(rows)]
    found = np.ones(len(rows), np.bool_)
    found[starts] = False
    # Most groups are simple: the first row is paid for, and serves all others.
    odd = (moments[ends - 1] - moments[starts] > ttl_s) | np.logical_or.reduceat(failed, starts)
    for group in np.flatnonzero(odd & (ends - starts > 1)):
        part = slice(starts[group], ends[group])
        found[part] = _played(moments[part].tolist(), failed[part].tolist(), ttl_s)
    hits[rows] = found
    return hits


def _played(moments: Iterable[float], failed: Iterable[bool], ttl_s: float) -> list[bool]:
    until, found = -np.inf, []
    for moment, bad in zip(moments, failed, strict=True):
        hit = moment <= until
        if not hit and not bad:
            until = moment + ttl_s
        found.append(bool(hit))
    return found


def first_of_key(log: Log) -> NDArray[np.intp]:
    """The rows that are the first of their key, in the order of time; those without a prompt are left out."""
    rows = np.flatnonzero(log["exact"] != 0)
    _, places = np.unique(log["exact"][rows], return_index=True)
    firsts: NDArray[np.intp] = np.sort(rows[places])
    return firsts
