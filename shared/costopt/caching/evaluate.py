"""How often would this cache be right, and how often would it serve? Measured on labelled pairs of questions."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from costopt.caching.judge import Judge, floor_of, for_all
from costopt.caching.request import normalise
from costopt.embedding import Embedder, fits
from costopt.errors import ConfigError

__all__ = ["Evaluation", "Pair", "evaluate", "interval"]

_BATCH = 256


@dataclass(frozen=True, slots=True)
class Pair:
    """Two questions, and whether one answer serves both."""

    a: str
    b: str
    same: bool


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What happened when `a` of each pair was stored and `b` was asked.

    Attributes:
        pairs: How many pairs.
        same: How many of them want the same answer.
        served: How many were served from the cache.
        right: How many of those want the same answer.
        exact: How many of the served ones are the same text.
        vetoed: How many neighbours a guard kept back, by its name.
    """

    pairs: int
    same: int
    served: int
    right: int
    exact: int
    vetoed: Mapping[str, int] = field(default_factory=dict)

    @property
    def precision(self) -> float | None:
        """Share of served answers that were right; None if nothing was served."""
        return self.right / self.served if self.served else None

    @property
    def recall(self) -> float | None:
        """Share of the pairs that want the same answer which were served; None if there are none."""
        return self.right / self.same if self.same else None

    @property
    def hit_rate(self) -> float:
        """Share of all pairs that were served."""
        return self.served / self.pairs

    def as_dict(self) -> dict[str, object]:
        """The figures with their 95 % intervals, for `--json`."""
        return {
            "pairs": self.pairs,
            "same": self.same,
            "served": self.served,
            "right": self.right,
            "exact": self.exact,
            "precision": self.precision,
            "precision_interval": interval(self.right, self.served),
            "recall": self.recall,
            "recall_interval": interval(self.right, self.same),
            "hit_rate": self.hit_rate,
            "vetoed": dict(self.vetoed),
        }


def evaluate(
    pairs: Iterable[Pair], embedder: Embedder, judge: Judge, *, min_similarity: float | None = None
) -> Evaluation:
    """Store `a`, ask `b`, for each pair by itself, and count.

    The decisions are those of `SemanticCache`: equal text is served exactly, text beyond the embedder's window
    is not matched loosely, what is nearer than `min_similarity` (the judge's own by default) goes to the judge.

    Raises:
        ConfigError: If there are no pairs.

    Example:
        >>> from costopt import SimilarityJudge, default_embedder
        >>> pairs = [Pair("What is a llama?", "what is a llama", True), Pair("Top 5 films", "Top 10 films", False)]
        >>> evaluate(pairs, default_embedder(), SimilarityJudge(0.9)).precision
        1.0
    """
    counts: Counter[str] = Counter()
    vetoed: Counter[str] = Counter()
    batch: list[Pair] = []
    floor = floor_of(judge) if min_similarity is None else min_similarity
    for pair in pairs:
        batch.append(pair)
        if len(batch) == _BATCH:
            _count(batch, embedder, judge, floor, counts, vetoed)
            batch = []
    if batch:
        _count(batch, embedder, judge, floor, counts, vetoed)
    if not counts["pairs"]:
        raise ConfigError('there are no pairs: give lines of {"a": "...", "b": "...", "same": true}')
    return Evaluation(counts["pairs"], counts["same"], counts["served"], counts["right"], counts["exact"], dict(vetoed))


def _count(
    batch: Sequence[Pair],
    embedder: Embedder,
    judge: Judge,
    floor: float,
    counts: Counter[str],
    vetoed: Counter[str],
) -> None:
    texts = [(normalise(pair.a), normalise(pair.b)) for pair in batch]
    vectors = embedder.embed([text for both in texts for text in both])
    questions: dict[int, tuple[str, list[tuple[str, float]]]] = {}
    for i, (stored, asked) in enumerate(texts):
        similarity = float(vectors[2 * i] @ vectors[2 * i + 1])
        loosely = stored != asked and stored and asked and similarity >= floor
        if loosely and fits(embedder, stored) and fits(embedder, asked):
            questions[i] = asked, [(stored, similarity)]
    verdicts = dict(zip(questions, for_all(judge)(list(questions.values())), strict=True))
    for i, (pair, (stored, asked)) in enumerate(zip(batch, texts, strict=True)):
        exact = stored == asked
        served = exact or (i in verdicts and verdicts[i][0].accepted)
        if i in verdicts and verdicts[i][0].reason.startswith("guard"):
            vetoed[verdicts[i][0].reason] += 1
        counts.update(pairs=1, same=pair.same, exact=exact, served=served, right=served and pair.same)


def interval(right: int, of: int, z: float = 1.959964) -> tuple[float, float] | None:
    """Interval of a share, by Wilson (1927), as (low, high), of 95 % by default; None of nothing.

    Example:
        >>> [round(bound, 3) for bound in interval(95, 100)]
        [0.888, 0.978]
    """
    if not of:
        return None
    p = right / of
    centre = p + z * z / (2 * of)
    spread = z * math.sqrt(p * (1 - p) / of + z * z / (4 * of * of))
    return max(0.0, (centre - spread) / (1 + z * z / of)), min(1.0, (centre + spread) / (1 + z * z / of))
