"""What deciding costs: one request, and a request of a batch, beside the embedding that all levers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options, questions
from cookbook.benchmarks.timing import Timings, interleave
from costopt import Router, RouteRequest, Tier, default_embedder
from costopt.embedding import default_model
from costopt.routing import GainEstimator, HeuristicEstimator, Outcomes, Reply, drive, serve, train_router
from costopt.routing.estimator import Estimator

__all__ = ["run"]

_BATCH = 256
_LABELS = 400
_CALLS = 60
_ONE_MS, _MANY_US = 0.3, 50.0
_TIERS = ("gpt-4o-mini", "gpt-4o")
_NOTES = (
    (
        "Two tiers with prices from the list, stickiness on, questions of a sentence or two, each new. Deciding is "
        "eligibility, scores, threshold, likely costs and the record of it. The vectors of the trained estimator are "
        "at hand, as they are after a cache has looked: the embedding that levers share is timed beside it."
    ),
    (
        f"The trained estimator knows {_LABELS} questions with made-up labels: what it says means nothing, what it "
        "costs does. Serving is the decision and the flow around a call that takes no time: what a router adds to a "
        "request in all, LangChain not counted."
    ),
)


def run(options: Options) -> dict[str, Any]:
    """Time to decide, alone and in a batch."""
    ones, batches = (5, 3) if options.quick else (25, 9)
    texts = questions(options, _LABELS + ones * _CALLS + batches * 2 * _BATCH)[0]
    trained = _trained(texts[:_LABELS])
    bars, rows = [], []
    for name, estimator in (("HeuristicEstimator", HeuristicEstimator()), ("GainEstimator", trained)):
        stage = _Stage(estimator, texts[_LABELS:])
        one, many = stage.one(ones), stage.many(batches)
        bars.append(at_most(f"deciding one request, {name}", one.median("decide") * 1e3, _ONE_MS, " ms"))
        each = many.median("decide") / _BATCH * 1e6
        bars.append(at_most(f"deciding a request of {_BATCH}, {name}", each, _MANY_US, " µs"))
        rows.append([
            name, one.show("decide"), f"{one.ratio('decide', 'embed'):.3f}", one.show("serve"), one.show("embed"),
            f"{each:.1f}", f"{many.median('embed') / _BATCH * 1e6:,.0f}",
        ])  # fmt: skip
    columns = [
        "estimator", "decide, ms", "ratio to embedding", "decide and serve, ms", "embed, ms",
        f"decide, µs a request of {_BATCH}", f"embed, µs a text of {_BATCH}",
    ]  # fmt: skip
    return {"bars": bars, "tables": [table("Deciding", columns, rows)], "notes": list(_NOTES)}


class _Stage:
    """A router, and questions that it has not seen."""

    def __init__(self, estimator: Estimator, texts: list[str]) -> None:
        self._router = Router([Tier(name) for name in _TIERS], estimator=estimator, thresholds=(0.5,))
        self._texts = texts
        self._vectors = _embedded(texts) if estimator.wants_vectors else {}
        self._next = 0

    def one(self, rounds: int) -> Timings:
        """Alone, one after the other."""
        sides: dict[str, Callable[[str], object]] = {"decide": self._decide, "serve": self._serve, "embed": _embed}
        return interleave(sides, lambda _: self._fresh(_CALLS), rounds)

    def many(self, rounds: int) -> Timings:
        """In batches."""
        model = default_model()
        sides: dict[str, Callable[[list[str]], object]] = {"decide": self._decide_many, "embed": model.embed}
        return interleave(sides, lambda _: [self._fresh(_BATCH), self._fresh(_BATCH)], rounds)

    def _fresh(self, count: int) -> list[str]:
        start = self._next % (len(self._texts) - count)
        self._next += count
        return self._texts[start : start + count]

    def _decide(self, text: str) -> object:
        return self._router.decide(RouteRequest(text, conversation=text), self._vectors.get(text))

    def _serve(self, text: str) -> object:
        request = RouteRequest(text, conversation=text)
        decision = self._router.decide(request, self._vectors.get(text))
        return drive(serve(self._router, request, decision), lambda step: Reply("fine"))

    def _decide_many(self, texts: list[str]) -> object:
        vectors = np.stack([self._vectors[text] for text in texts]) if self._vectors else None
        return self._router.decide_many([RouteRequest(text, conversation=text) for text in texts], vectors)


def _embedded(texts: list[str]) -> dict[str, Any]:
    chunks = (default_model().embed(texts[i : i + _BATCH]) for i in range(0, len(texts), _BATCH))
    return dict(zip(texts, np.concatenate(list(chunks)), strict=True))


def _embed(text: str) -> object:
    return default_model().embed([text])


def _trained(texts: list[str]) -> GainEstimator:
    chosen = np.random.default_rng(0)
    cheap = (chosen.random(len(texts)) < 0.6).astype(np.float64)
    strong = np.maximum(cheap, chosen.random(len(texts)) < 0.8)
    outcomes = Outcomes(tuple(texts), _TIERS, np.stack([cheap, strong], 1))
    return train_router(outcomes, default_embedder()).router
