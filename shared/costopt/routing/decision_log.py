"""Decisions and their labels as JSON lines: what training reads, with the probability of each choice."""

from __future__ import annotations

import json
import os
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from costopt.errors import ConfigError
from costopt.forks import ForkLock
from costopt.routing.decision import RouteDecision
from costopt.routing.request import RouteRequest

__all__ = ["DecisionLog"]

_MOST_OPEN = 10_000


class DecisionLog:
    """Appends each decision to a file, and each label that is given for one, as `Router(log=...)`.

    A decision is a line with "id", "time", "prompt", "chosen", "propensity" and what `RouteDecision.as_dict` says; a
    label is a line with "prompt" and "scores", as `costopt router train` reads them, and "propensity" to weigh it by.
    The file holds prompts: keep it where they may lie.

    Args:
        path: The file; it is made at the first decision.

    Example:
        >>> log = DecisionLog(tmp / "decisions.jsonl")
        >>> router = Router([Tier("gpt-4o-mini"), Tier("gpt-4o")], explore=0.1, log=log, seed=1)
        >>> request = RouteRequest("What is the capital of France?")
        >>> decision = router.decide(request)
        >>> log(request, decision)
        >>> log.label(decision.id, 1.0)
        >>> (tmp / "decisions.jsonl").read_text().count("capital of France")
        2
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._lock = ForkLock()
        self._open: OrderedDict[str, dict[str, Any]] = OrderedDict()

    def __call__(self, request: RouteRequest, decision: RouteDecision) -> None:
        """Keep a decision."""
        with self._lock:
            self._open[decision.id] = {
                "id": decision.id,
                "prompt": request.text,
                "tier": decision.chosen,
                # An answer that came from elsewhere than drawn has no known probability.
                "propensity": decision.propensity if decision.why in ("score", "default", "explored") else None,
            }
            while len(self._open) > _MOST_OPEN:
                self._open.popitem(last=False)
        self._write({"time": round(time.time(), 3), "prompt": request.text, **decision.as_dict()})

    def label(self, decision: str, score: float) -> None:
        """Say how good the answer was.

        Args:
            decision: The id of its decision, as in ``response_metadata["costopt"]["id"]``.
            score: In [0, 1].

        Raises:
            ConfigError: If the score is outside [0, 1], or the decision is none of the last 10,000.
        """
        if not 0 <= score <= 1:
            raise ConfigError(f"a score of {score}: give one in [0, 1]")
        with self._lock:
            held = self._open.pop(decision, None)
        if held is None:
            raise ConfigError(f"no decision {decision!r} waits for a label: it has one, or is too old")
        row = {"id": held["id"], "prompt": held["prompt"], "scores": {held["tier"]: score}}
        self._write({**row, "propensity": held["propensity"]})

    def _write(self, row: dict[str, Any]) -> None:
        line = json.dumps(row, ensure_ascii=False) + "\n"
        with self._lock, self.path.open("a", encoding="utf-8") as file:
            file.write(line)
