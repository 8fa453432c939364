"""What routers save at a quality held, and the curves behind that, as plain numbers for table and plot."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

from costopt.pricing import Usage, cost
from costopt.routing.evaluate import RouterEvaluation
from costopt.routing.metrics import Ranking

__all__ = ["PAIR", "curves", "middle", "saved_at_95"]

PAIR = ("mixtral-8x7b", "gpt-4-1106-preview")
CONTROLS = {"length": "by length", "random": "by lot"}
_STEPS = 20
_MILLION = Usage(1_000_000, 0)


def middle(found: Sequence[RouterEvaluation]) -> RouterEvaluation:
    """Of the seeds, the one in the middle by the share of strong calls that it needs."""
    return sorted(found, key=lambda each: each.router.figures["share_at_95"].value)[len(found) // 2]


def saved_at_95(ours: Mapping[str, Ranking], found: RouterEvaluation) -> dict[str, Any]:
    """Shares of the bill that are saved when quality is held at 95 % of the strong model's, with their intervals.

    Args:
        ours: Rankings of ours by name; of a name that begins with "cascade" each request pays the cheap answer, too.
        found: Whose controls stand beside them.
    """
    ratio = _ratio()
    rankings = dict(ours) | {words: found.controls[name] for name, words in CONTROLS.items()}
    sides = {}
    for name, ranking in rankings.items():
        figure = ranking.figures["share_at_95"]
        low, high = figure.interval or (figure.value, figure.value)
        cascade = name.startswith("cascade")
        # More strong calls, less saved: the bounds change places.
        sides[name] = [round(_saved(share, ratio, cascade), 6) for share in (figure.value, high, low)]
    return {"ours": list(ours), "controls": list(CONTROLS.values()), "sides": sides}


def curves(found: RouterEvaluation) -> dict[str, Any]:
    """Quality at shares of strong calls from 0 to 1."""
    shares = [step / _STEPS for step in range(_STEPS + 1)]
    rankings = {"GainEstimator": found.router} | {name: found.controls[name] for name in ("length", "random", "oracle")}
    lines = {name: [round(each.curve.quality(share), 6) for share in shares] for name, each in rankings.items()}
    bounds = [
        [point.share, *(point.quality.interval or (point.quality.value, point.quality.value))] for point in found.points
    ]
    return {"shares": shares, "lines": lines, "bounds": [[round(each, 6) for each in bound] for bound in bounds]}


def _saved(share: float, ratio: float, cascade: bool) -> float:
    spent = share + (ratio if cascade else (1 - share) * ratio)
    return 1 - spent


def _ratio() -> float:
    """What the cheap model costs of what the strong one does, by a prompt's tokens."""
    cheap, strong = (cost(name, _MILLION) or Decimal("NaN") for name in PAIR)
    return float(cheap / strong)
