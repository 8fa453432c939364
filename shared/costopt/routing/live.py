"""Thresholds while serving: given, out of the router's file, or from the recent prompts by the policy's target."""

from __future__ import annotations

import logging
import math
from collections import deque
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from costopt.arguments import is_list
from costopt.errors import ConfigError
from costopt.forks import ForkLock
from costopt.routing.estimator import Estimator, HeuristicEstimator
from costopt.routing.policies import Policy

__all__ = ["Live", "default_thresholds", "reachable"]

_log = logging.getLogger("costopt.routing")

Numbers = NDArray[np.float64]

_FIRST, _EVERY, _MOST = 50, 100, 1000


def default_thresholds(steps: int) -> tuple[float, ...]:
    """For scores in [0, 1]: one half for two tiers, 0.3 and 0.7 for three, evenly between these for more."""
    return (0.5,) if steps == 1 else tuple(round(float(value), 6) for value in np.linspace(0.3, 0.7, steps))


def reachable(thresholds: Sequence[float], estimator: Estimator) -> tuple[float, ...]:
    """The thresholds, none beyond what scores there can be, as per cent are; infinity is said on purpose.

    Raises:
        ConfigError: If there is such a one.
    """
    values = _numbers(thresholds)
    low, high = _reach(estimator)
    if any(math.isfinite(value) and not low <= value <= high for value in values):
        raise ConfigError(
            f"thresholds are {values}, and scores are between {low:g} and {high:g}: give numbers there, as in "
            f"thresholds={default_thresholds(len(values))}"
        )
    return values


class Live:
    """The thresholds in force.

    A policy that sets a target needs prompts: until there are 50 it uses `start`, and so nothing is known if there
    is no `start`; then it looks at the last 1,000 again after every 100.

    Args:
        steps: Tiers less one.
        policy: The target; None: `start` holds.
        start: The first thresholds; None: not known yet.

    Raises:
        ConfigError: If there are more or fewer thresholds than steps, or one is NaN.
    """

    def __init__(self, steps: int, policy: Policy | None, start: Sequence[float] | None) -> None:
        self._steps = steps
        self._policy = policy
        self._lock = ForkLock()
        self._rows: deque[tuple[Numbers, Numbers, Numbers | None]] = deque(maxlen=_MOST)
        self._since = 0
        self._said = False
        fixed = _fixed(policy, steps) if policy else start
        self.current = None if fixed is None else self._checked(fixed)
        self.learns = policy is not None and fixed is None
        if self.learns and start is not None:
            self.current = self._checked(start)

    def saw(self, scores: Numbers, costs: Numbers, expected: Numbers | None) -> None:
        """Remember recent prompts, shapes (prompts, steps), (prompts, tiers) and (prompts, tiers)."""
        if not self.learns:
            return
        with self._lock:
            for i in range(len(scores)):
                self._rows.append((scores[i], costs[i], None if expected is None else expected[i]))
            self._since += len(scores)
            due = len(self._rows) >= _FIRST and (self.current is None or self._since >= _EVERY)
            rows = list(self._rows) if due else []
            if due:
                self._since = 0
        if rows:
            try:
                self.current = self._set(rows)
            except Exception as error:  # a target that cannot be met from here must not stop the requests
                if not self._said:
                    _log.warning("costopt: thresholds stay as they are: %s", error)
                    self._said = True

    def calibrate(self, scores: Numbers, costs: Numbers, expected: Numbers | None) -> tuple[float, ...]:
        """Set the thresholds from these prompts, once and for all.

        Raises:
            ConfigError: If there is no policy, or it cannot be met.
        """
        if self._policy is None:
            raise ConfigError("there is no target to calibrate for: give policy=, e.g. StrongShare(0.3)")
        self.current = self._checked(self._policy.thresholds(scores, costs, expected))
        self.learns = False
        return self.current

    def _set(self, rows: list[tuple[Numbers, Numbers, Numbers | None]]) -> tuple[float, ...]:
        assert self._policy is not None
        scores, costs = np.stack([row[0] for row in rows]), np.stack([row[1] for row in rows])
        known = [row[2] for row in rows if row[2] is not None]
        expected = np.stack(known) if len(known) == len(rows) else None
        return self._checked(self._policy.thresholds(scores, costs, expected))

    def _checked(self, given: Sequence[float]) -> tuple[float, ...]:
        values = _numbers(given)
        if len(values) != self._steps or any(math.isnan(value) for value in values):
            raise ConfigError(
                f"thresholds are {values} for {self._steps + 1} tiers: give {self._steps} numbers, one for each step "
                "from a tier to the next"
            )
        return values


def _reach(estimator: Estimator) -> tuple[float, float]:
    """The least and the largest score that there can be; of an estimator that we do not know, any."""
    if isinstance(estimator, HeuristicEstimator):
        return 0.0, 1.0
    return (-math.inf, math.inf) if estimator.tiers is None else (-1.0, 1.0)  # what it learned is a gain


def _numbers(given: Sequence[float]) -> tuple[float, ...]:
    try:
        if is_list(given):
            return tuple(float(value) for value in given)
    except (TypeError, ValueError):
        pass
    shown = given if isinstance(given, float | int) else 0.5
    raise ConfigError(f"thresholds are {given!r}: give one number for each step, as in thresholds=({shown},)")


def _fixed(policy: Policy, steps: int) -> tuple[float, ...] | None:
    """What a policy says that needs no prompts; None from one that does."""
    try:
        return policy.thresholds(np.zeros((0, steps)), np.zeros((0, steps + 1)), None)
    except ConfigError:
        return None
