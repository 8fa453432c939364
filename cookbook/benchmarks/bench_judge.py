"""Is the judge right, on what it never saw? And what does it cost?"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from cookbook.benchmarks.findings import at_least, at_most, share, table
from cookbook.benchmarks.held_out import (
    HeldOut,
    NearMisses,
    both_ways,
    counted,
    end_to_end,
    held_out,
    label_noise,
    near_misses,
    texts_of,
)
from cookbook.benchmarks.judge_cost import judge_cost
from cookbook.benchmarks.material import SOURCES, Options, read_rows
from cookbook.training.calibrate import MAX_ERRORS
from costopt import CrossEncoderJudge, SharedEmbedder, SimilarityJudge
from costopt.caching.cross_encoder import CrossEncoder
from costopt.caching.evaluate import Pair, evaluate
from costopt.caching.judge import DEFAULT_MAX_ERROR
from costopt.caching.policy import default_policy
from costopt.caching.request import normalise
from costopt.caching.results import Tier
from costopt.embedding import default_model

__all__ = ["run"]

_MEMO = 200_000
_MOST_WRONG = 0.01
_ROUNDING = 0.005
_PUBLIC = ("caching/question_pairs.jsonl.gz", "caching/prompt_pairs.jsonl.gz")


def run(options: Options) -> dict[str, Any]:
    """Labelled pairs, near misses, calibration, cost.

    Raises:
        RuntimeError: If the judge as it is serves nothing: then it makes no mistake, and takes no time, either.
    """
    if CrossEncoderJudge().threshold == math.inf:
        raise RuntimeError(f"the shipped policy serves nothing at max_error={DEFAULT_MAX_ERROR}: nothing to measure")
    sets, misses = held_out(options), near_misses(options)
    embedder = SharedEmbedder(default_model(), memo_size=_MEMO)
    embedder.embed(texts_of([pair for one in sets for pair in one.pairs]))
    embedder.embed(texts_of([pair for one in misses for pair in one.pairs]))
    bench = _Bench(embedder, _Remembering())
    quality, near, calibration = bench.quality(sets), bench.near(misses), bench.calibration(sets)
    cost = judge_cost(options)
    notes = [*_notes(options, sets, bench), *cost["notes"]]
    return {
        "bars": [bar for part in (quality, near, calibration, cost) for bar in part["bars"]],
        "tables": [part["table"] for part in (quality, near, calibration)] + cost["tables"],
        "notes": notes,
    }


class _Bench:
    """Measures end to end, and pair by pair; what both do must come to the same."""

    def __init__(self, embedder: SharedEmbedder, model: _Remembering) -> None:
        self._embedder = embedder
        self._model = model
        self.both_ways: list[str] = []
        self.unmeasured: list[str] = []

    def quality(self, sets: Sequence[HeldOut]) -> dict[str, Any]:
        """Precision and recall of the cache as it is, beside a cosine."""
        bars, rows = [], []
        for one in sets:
            found = counted(one.pairs, self._end_to_end(one.name, one.pairs))
            bars.append(at_least(f"precision, {one.name}", found.precision or 0.0, one.precision))
            bars.append(at_least(f"recall, {one.name}", found.recall or 0.0, one.recall))
            compared = {
                "costopt as it is, end to end": found,
                "cosine ≥ 0.95, no guards": evaluate(one.pairs, self._embedder, SimilarityJudge(0.95, guards=False)),
                "cosine ≥ 0.9 and guards": evaluate(one.pairs, self._embedder, SimilarityJudge(0.9)),
            }
            about = f"{one.name}: {found.pairs:,} pairs, {found.same:,} of which want the same answer"
            for name, each in compared.items():
                shares = share(each.right, each.served), share(each.right, each.same)
                rows.append([about, name, *shares, f"{each.served:,}", f"{each.exact:,}"])
        columns = ["set", "served if", "precision", "recall", "served", "of these exact"]
        return {"bars": bars, "table": table("Pairs that the judge was never trained on", columns, rows)}

    def near(self, misses: Sequence[NearMisses]) -> dict[str, Any]:
        """Wrong hits on pairs of which none wants the same answer."""
        bars, rows = [], []
        for one in misses:
            asked = both_ways(one.pairs)
            hits = self._end_to_end(one.name, [Pair(a, b, False) for a, b, _ in asked])
            kinds = Counter(kind for (_, _, kind), tier in zip(asked, hits, strict=True) if tier is not None)
            wrong = kinds.total()
            bars.append(at_most(f"wrong hits, {one.name}, both ways", wrong / max(1, len(asked)), _MOST_WRONG))
            where = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common()) or "–"
            rows.append([one.name, f"{len(asked):,}", f"{wrong:,}", share(wrong, len(asked)), where])
        columns = ["near misses", "asked", "wrong hits", "share", "kinds"]
        return {"bars": bars, "table": table("Nearly the same question, another answer: end to end", columns, rows)}

    def calibration(self, sets: Sequence[HeldOut]) -> dict[str, Any]:
        """The error that was measured at each one that was asked for."""
        bars, rows = [], []
        for one in sets:
            # What is the same text is served whatever the judge says.
            pairs = [pair for pair in one.pairs if normalise(pair.a) != normalise(pair.b)]
            for max_error in MAX_ERRORS:
                judge = self._judge(max_error)
                found = evaluate(pairs, self._embedder, judge)
                wrong = found.served - found.right
                about = f"max_error={max_error}, {one.name}"
                if one.bound and found.served:
                    demand = f"error of the {found.served:,} served at {about}"
                    bars.append(at_most(demand, wrong / found.served, max_error))
                elif one.bound:
                    self.unmeasured.append(about)
                counts = f"{judge.threshold:.3f}", f"{found.served:,}", f"{wrong:,}"
                shares = share(wrong, found.served), share(found.right, found.same)
                rows.append([one.name, f"{max_error}", *counts, *shares])
        columns = ["set", "max_error", "least probability", "served", "wrong", "measured error", "recall"]
        title = "Measured error of the semantic tier at each `max_error`"
        return {"bars": bars, "table": table(title, columns, rows)}

    def _judge(self, max_error: float = DEFAULT_MAX_ERROR) -> CrossEncoderJudge:
        return CrossEncoderJudge(self._model, max_error=max_error, policy=default_policy())

    def _end_to_end(self, name: str, pairs: Sequence[Pair]) -> list[Tier | None]:
        """As a cache serves them; and as many, to a few, must be served pair by pair."""
        hits = end_to_end([(pair.a, pair.b) for pair in pairs], self._embedder)
        served, alone = len(pairs) - hits.count(None), evaluate(pairs, self._embedder, self._judge()).served
        # The cosine comes from float16 in the store, and bfloat16 rounds otherwise in another batch.
        if abs(served - alone) > 2 + _ROUNDING * len(pairs):
            raise RuntimeError(f"{name}: {served} of {len(pairs)} are served end to end, and {alone} pair by pair")
        self.both_ways.append(f"{name} {served:,} and {alone:,}")
        return hits


def _notes(options: Options, sets: Sequence[HeldOut], bench: _Bench) -> list[str]:
    notes = [
        (
            "End to end: `update` with the first text of a pair, `lookup` with the second, a `SemanticCache` with its "
            "defaults (but for the time budget) on a `LocalStore`, each pair under a system prompt of its own. The "
            "cosines and the calibration are pair by pair, by `evaluate`. Served at the defaults, end to end and pair "
            f"by pair: {'; '.join(bench.both_ways)}."
        ),
        (
            "Nothing is served, and so there is no error to measure and no bar, at: "
            f"{'; '.join(bench.unmeasured) or 'none of the sets that have one'}."
        ),
        (
            "Split by cluster: no text of these pairs was trained on, nor is the policy fitted to any "
            "(cookbook/training/corpus.py). Of the near misses by version, half of the prompts were trained on, and so "
            "were versions of them that the same functions made with other random choices."
        ),
        (
            "The error of a set depends on how many near misses are in it: of the medical near misses every negative "
            "pair was written to be mistaken, the neighbours are what a cache meets most. What the policy assumes is "
            "in its `about`."
        ),
    ]
    rows = read_rows(options, _PUBLIC[0])
    if rows is None:
        return [*notes, *(f"{name} is not there: it can be had from {SOURCES[name]}." for name in _PUBLIC)]
    whole = label_noise([Pair(row["a"], row["b"], bool(row["same"])) for row in rows])
    part = label_noise(next(one.pairs for one in sets if one.name == "question pairs"))
    return [
        *notes,
        (
            "Label noise of the question pairs: of those that are one text but for case, blanks and punctuation, "
            f"{whole[0]} of {whole[1]:,} are labelled different in the development half, {share(*whole)}; in its "
            f"held-out part {part[0]} of {part[1]:,}. A judge that never errs would be charged with such errors, too, "
            "so this set has no bar on its calibration."
        ),
    ]


class _Remembering:
    """The shipped model, which reads each pair once, however often it is asked."""

    def __init__(self) -> None:
        self._model = CrossEncoder()
        self._known: dict[tuple[str, str], float] = {}

    def predict(self, sentences: list[tuple[str, str]]) -> list[float]:
        new = [pair for pair in dict.fromkeys(sentences) if pair not in self._known]
        self._known.update(zip(new, self._model.predict(new), strict=True))
        return [self._known[pair] for pair in sentences]
