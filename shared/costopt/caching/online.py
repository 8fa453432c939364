"""Learning in place: what turned out right or wrong in a scope moves the threshold of that scope.

In the spirit of vCache (Schroeder et al., arXiv 2502.03771), which learns a threshold for each cached prompt and
serves only what a confidence bound supports. Here the unit is the scope (one tenant, model and system prompt), and
the prior is the policy of the judge:

    stricter  as soon as the expected error, the policy's word counted as 50 pairs, is above `max_error`
    laxer     only where the scope's own pairs say so: upper 95 % bound (Wilson) within `max_error`, and never below
              the least probability at which an answer was seen to be right
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from costopt.caching.evaluate import interval
from costopt.caching.policy import GRID, Policy

__all__ = ["Evidence", "ScopeThresholds", "decode_evidence", "encode_evidence", "scope_threshold"]

_PRIOR_PAIRS = 50.0
_FRESH_S = 60.0
_SCOPES = 4_096
_Z = 1.645  # one-sided 95 %


@dataclass(frozen=True, slots=True)
class Evidence:
    """Two questions of one scope of which is known whether one answer served both.

    Attributes:
        a: What was asked.
        b: What the answer in the cache was given to.
        same: Whether that answer was right.
        probability: What the judge thought of it.
    """

    a: str
    b: str
    same: bool
    probability: float


def encode_evidence(evidence: Evidence) -> bytes:
    """A line of the JSONL that `costopt cache tune` reads, as ASCII."""
    row = {"a": evidence.a, "b": evidence.b, "same": evidence.same, "probability": round(evidence.probability, 4)}
    return json.dumps(row).encode()


def decode_evidence(data: bytes) -> Evidence | None:
    """The evidence in such a line; None if there is none: whoever can write to the store can write anything."""
    try:
        row: Any = json.loads(data)
        a, b, same, probability = row["a"], row["b"], row["same"], float(row["probability"])
    except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
        return None
    if not (isinstance(a, str) and isinstance(b, str) and isinstance(same, bool) and 0 <= probability <= 1):
        return None
    return Evidence(a, b, same, probability)


def scope_threshold(policy: Policy, max_error: float, seen: Sequence[tuple[float, bool]]) -> float:
    """Least probability to serve at in a scope of which this is known.

    Args:
        policy: What is expected of any scope.
        max_error: Share of the served answers that may be wrong.
        seen: (probability, whether the answer was right) of the scope's own pairs.

    Returns:
        A value of `GRID`, or infinity if nothing is to be served; `policy.threshold(max_error)` if nothing was seen.

    Example:
        >>> from costopt.caching.policy import default_policy
        >>> policy = default_policy()
        >>> base = scope_threshold(policy, 0.05, [])
        >>> wrong, right = [(0.99, False)] * 5, [(0.9, True)] * 99
        >>> scope_threshold(policy, 0.05, wrong) > base >= scope_threshold(policy, 0.05, right)
        True
    """
    base = policy.threshold(max_error)
    if not seen or max_error == 0:
        return base
    found = above = math.inf
    # From the strictest down: what is served at a threshold is served at all below it, too.
    for threshold, expected in zip(GRID[::-1], policy.errors[::-1], strict=True):
        served = [right for probability, right in seen if probability >= threshold]
        wrong = served.count(False)
        if threshold >= base:
            # Not divided, so that no rounding moves a threshold of which nothing was seen.
            within = wrong + _PRIOR_PAIRS * expected <= max_error * (len(served) + _PRIOR_PAIRS)
        else:
            bounds = interval(wrong, len(served), _Z)
            within = bounds is not None and bounds[1] <= max_error
            if wrong and not within:
                break  # where too few were seen, but none wrong, more may be known further down
            within = within and any(right and threshold <= probability < above for probability, right in seen)
        if within:
            found = threshold
        above = threshold
    return found


class ScopeThresholds:
    """The thresholds of the scopes that were asked for lately; what is older than a minute is to be read anew.

    Args:
        policy: As for `scope_threshold`.
        max_error: As for `scope_threshold`.
    """

    def __init__(self, policy: Policy, max_error: float) -> None:
        self._policy = policy
        self._max_error = max_error
        self._known: OrderedDict[str, tuple[float, float]] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, scope: str) -> float | None:
        """Least probability to serve at; None if the scope's evidence is to be read (and told to `learn`) first."""
        known = self._known.get(scope)
        return None if known is None or known[0] < time.monotonic() else known[1]

    def learn(self, scope: str, rows: Iterable[bytes]) -> float:
        """Take note of all that is known of a scope, and return its threshold."""
        evidence = [decode_evidence(row) for row in rows]
        threshold = scope_threshold(
            self._policy, self._max_error, [(one.probability, one.same) for one in evidence if one is not None]
        )
        with self._lock:
            self._known[scope] = (time.monotonic() + _FRESH_S, threshold)
            self._known.move_to_end(scope)
            while len(self._known) > _SCOPES:
                self._known.popitem(last=False)
        return threshold

    def forget(self, scope: str) -> None:
        """Something happened in this scope: its evidence is to be read anew."""
        with self._lock:
            self._known.pop(scope, None)
