"""Which requests went to an expensive model though a cheaper one would have done.

Only a router that was trained on the user's own outcomes can say that. Without one it is unknown, and bounded from
above by what a cheaper model could take at all, and what is short.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costopt.audit.bill import Rates, price_rates
from costopt.audit.columns import Flag, Log
from costopt.audit.semantic import Texts
from costopt.pricing import Price, listed
from costopt.routing import GainEstimator, QualityFloor
from costopt.routing.policies import choices

__all__ = ["SHORT_TOKENS", "Routing", "bounded_routing", "trained_routing"]

SHORT_TOKENS = 1_000
"""Input and output of a call that counts as short."""

_MARGIN = 0.02
_FLOOR = 0.95
_DATED = re.compile(r"[-@](\d{4}-?\d{2}-?\d{2}|latest)$")


@dataclass(frozen=True, slots=True)
class Routing:
    """What routing would have done.

    Attributes:
        known: Whether a trained router says so; if not, only the high case is not empty, and is a bound.
        asked: Rows that went to a model to which there is a cheaper one.
        moved: Of each row whether it would have gone to a cheaper model, by case; shape (3, rows).
        rates: What it would have paid there; as `bill.Rates`.
        novel: Rows on which the router has no opinion.
        tiers: The models, the cheapest first.
        note: What there is to say.
    """

    known: bool
    asked: NDArray[np.bool_]
    moved: NDArray[np.bool_]
    rates: Rates
    novel: int
    tiers: tuple[str, ...]
    note: str


def trained_routing(
    log: Log, router: GainEstimator, texts: Texts, bill_rates: Rates, prices: Mapping[str, Price] | None = None
) -> Routing:
    """By a trained router: a request is over-routed if the router would have sent it to a cheaper tier."""
    tiers = np.array([_tier_of(model, router.tiers) for model, _ in log.models] or [-1])[log["model"]]
    dear = (tiers > 0) & ~log.has(Flag.HIT)
    asked = dear & (log["text"] >= 0)
    rows = np.flatnonzero(asked)
    moved = np.zeros((3, len(log)), np.bool_)
    rates = bill_rates.copy()
    if not len(rows) or router.mode == "off":
        note = "the router has too few labels to say" if len(rows) else "no request went to its dearer tiers"
        return Routing(False, asked, moved, rates, 0, router.tiers, note)
    numbers, places = np.unique(log["text"][rows], return_inverse=True)
    prompts = [log.texts[number] for number in numbers]
    vectors = texts.vectors(numbers)
    scores, expected = router.scores(prompts, vectors), router.expected(prompts, vectors)
    thresholds = router.thresholds or QualityFloor(_FLOOR).thresholds(
        scores, np.zeros((len(prompts), len(router.tiers))), expected
    )
    novel = np.asarray(np.isnan(scores).any(axis=1))[places]
    for case, shift in enumerate((-_MARGIN, 0.0, _MARGIN)):
        chosen = choices(scores, tuple(value + shift for value in thresholds))[places]
        moved[case, rows] = (chosen < tiers[rows]) & ~novel
    chosen = choices(scores, tuple(value + _MARGIN for value in thresholds))[places]
    for tier, name in enumerate(router.tiers):
        there = rows[moved[2, rows] & (chosen == tier)]
        if len(there):
            rates[there] = price_rates(log, there, name, prices=prices)
    moved &= rates[:, 0] >= 0
    how = "its thresholds" if router.thresholds else f"a quality floor of {_FLOOR:.0%} of the strongest tier's"
    note = f"by a trained router, at {how}"
    if (unread := int((dear & ~asked).sum())) > 0:
        note += f"; it did not read {unread:,} prompts, which are too long or not in the log"
    return Routing(True, asked, moved, rates, int(novel.sum()), router.tiers, note)


def bounded_routing(
    log: Log, bill_rates: Rates, cheaper: Sequence[str] = (), prices: Mapping[str, Price] | None = None
) -> Routing:
    """Without a router: at most what is short and fits into a cheaper model, of the log or named.

    Args:
        log: The log.
        bill_rates: What its rows paid.
        cheaper: Models that could be used, beside those of the log.
        prices: Prices of one's own.
    """
    names = list(dict.fromkeys([*cheaper, *(model for model, _ in log.models)]))
    asked = np.zeros(len(log), np.bool_)
    moved = np.zeros((3, len(log)), np.bool_)
    rates = bill_rates.copy()
    tokens = log["input"].astype(np.int64) + log["output"]
    fit = (tokens <= SHORT_TOKENS) & ~log.has(Flag.HIT) & ~log.has(Flag.FAILED) & (bill_rates[:, 0] >= 0)
    best = np.where(bill_rates[:, 0] >= 0, bill_rates[:, 0] + bill_rates[:, 1], 0)
    own = best.copy()
    for name in names:
        there = price_rates(log, np.arange(len(log)), name, prices=prices)
        # Half the price or less: anything nearer is hardly another tier.
        lower = (there[:, 0] >= 0) & (2 * (there[:, 0] + there[:, 1]) <= own)
        asked |= lower & ~log.has(Flag.HIT)
        window = _window(name)
        fits = lower & fit & (tokens <= window) & (there[:, 0] + there[:, 1] < best)
        rates[fits], best[fits] = there[fits], (there[:, 0] + there[:, 1])[fits]
        moved[2] |= fits
    note = (
        "unknown without a router trained on outcomes of yours (`costopt router train`); at most the short requests "
        f"(up to {SHORT_TOKENS:,} tokens) that fit into a cheaper model"
    )
    if not asked.any():
        note = "no model in this log has a cheaper one beside it; name one by --cheaper"
    return Routing(False, asked, moved, rates, 0, tuple(names), note)


def _window(model: str) -> int:
    found = listed(model)
    return (found.context_window if found else None) or (1 << 62)


def _tier_of(model: str, tiers: Sequence[str]) -> int:
    """The tier that a model of the log is: of the same name, but for a date at its end or a seller before it."""
    plain = _plain(model)
    return next((place for place, name in enumerate(tiers) if _plain(name) == plain), -1)


def _plain(name: str) -> str:
    return _DATED.sub("", name.rsplit("/", 1)[-1].lower())
