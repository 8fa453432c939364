"""Which requests are a reworded repeat of an earlier one: nearest earlier text in the same scope, then the judge.

All texts are embedded; the nearest earlier one is found exactly, by multiplying blocks of vectors. The judge reads up
to 1,000 of the pairs found, evenly spread over models and similarities; the others are counted by the share that it
accepted among those of one model that are about as similar; how far that may be off is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from costopt.audit.columns import Flag, Log
from costopt.audit.repeats import TTL_S, first_of_key
from costopt.caching.judge import CrossEncoderJudge, Judge, floor_of, for_all
from costopt.embedding import Embedder, fits

__all__ = ["CASES", "Texts", "WordedRepeats", "worded_repeats"]

Vectors = NDArray[np.float32]
Progress = Callable[[int], object]

CASES = ("low", "likely", "high")
"""How strictly the judge decides: share of wrong answers 0.01, its own, 0.10."""

_STRICT, _LOOSE = 0.01, 0.10
_MOST_JUDGED = 1_000
_MOST_TEXTS = 150_000
_STRATA = 50
_BLOCK = 512  # rows at once: times 150,000 texts, that is 300 MB of similarities
_AT_ONCE = 2_048
_JUDGED_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class WordedRepeats:
    """Reworded repeats.

    Attributes:
        chance: Of each row to be answered by the semantic tier, by case; shape (3, rows).
        texts: How many distinct texts were compared.
        left_out: Rows that could not be compared, because they are too long or too many.
        pairs: How many had a neighbour that is near enough to ask the judge.
        judged: How many of those it was asked about.
        examples: Pairs that it accepted, as (asked, cached).
        margin: How many pairs more or fewer it might have accepted of all, with 95 % confidence; 0 if it read all.
    """

    chance: NDArray[np.float64]
    texts: int
    left_out: int
    pairs: int
    judged: int
    examples: tuple[tuple[str, str], ...]
    margin: float = 0.0


class _Pair(NamedTuple):
    row: int
    earlier: int
    similarity: float


class Texts:
    """The vectors of a log's texts, computed once each, those of like length together.

    Args:
        texts: By number.
        embedder: What embeds them.
        progress: Told how many more are done.
    """

    def __init__(self, texts: Sequence[str], embedder: Embedder, progress: Progress | None = None) -> None:
        self._texts = texts
        self._embedder = embedder
        self._progress = progress
        self._place = np.full(len(texts), -1, np.int64)
        self._parts: list[NDArray[np.float16]] = []
        self._count = 0

    def vectors(self, numbers: NDArray[Any]) -> Vectors:
        """Unit rows for these texts, shape (len(numbers), dimension)."""
        self.prepare(numbers)
        held = self._parts[0] if self._parts else np.zeros((0, self._embedder.dimension), np.float16)
        vectors: Vectors = held[self._place[numbers]].astype(np.float32)
        return vectors

    def prepare(self, numbers: NDArray[Any]) -> None:
        """Embed those of these texts that are not yet: many at once take a fraction of the time of one by one."""
        missing = np.unique(numbers[self._place[numbers] < 0])
        order = sorted(missing.tolist(), key=lambda number: len(self._texts[number]))
        for start in range(0, len(order), _AT_ONCE):
            part = order[start : start + _AT_ONCE]
            rows = self._embedder.embed([self._texts[number] for number in part])
            self._parts.append(np.asarray(rows, np.float16))
            self._place[part] = np.arange(self._count, self._count + len(part))
            self._count += len(part)
            if self._progress is not None:
                self._progress(len(part))
        if len(self._parts) > 1:
            self._parts = [np.concatenate(self._parts)]


def worded_repeats(
    log: Log, texts: Texts, embedder: Embedder, judge: Judge, exact: NDArray[np.bool_], ttl_s: float = TTL_S
) -> WordedRepeats:
    """Play the log through a cache's semantic tier.

    Args:
        log: The log.
        texts: Its vectors.
        embedder: What made them.
        judge: Decides on neighbours.
        exact: What the exact tier answers already.
        ttl_s: How long an answer is served.
    """
    firsts = first_of_key(log)
    firsts = firsts[(log["text"][firsts] >= 0) & ~exact[firsts] & ~log.has(Flag.MEDIA)[firsts]]
    usable = firsts[_alone(log["scope"][firsts])][-_MOST_TEXTS:]
    usable = usable[_fitting(log, usable, embedder)]
    texts.prepare(log["text"][usable])
    pairs = _neighbours(log, usable, texts, floor_of(judge))
    pairs = _in_time(log, pairs, ttl_s)
    accepted, judged, examples = _judged(log, pairs, judge)
    chance = np.zeros((len(CASES), len(log)))
    for case, shares in enumerate(accepted):
        chance[case, [pair.row for pair in pairs]] = shares
    chance[:, exact] = 0.0
    left_out = int(((log["exact"] != 0) & (log["text"] < 0)).sum())
    compared = len(np.unique(log["text"][usable]))
    margin = _margin(accepted[1], judged)
    return WordedRepeats(chance, compared, left_out, len(pairs), judged, tuple(examples), margin)


def _alone(scopes: NDArray[Any]) -> NDArray[np.bool_]:
    """Which rows share their scope with another: the others need no vector."""
    _, places, counts = np.unique(scopes, return_inverse=True, return_counts=True)
    shared: NDArray[np.bool_] = counts[places] > 1
    return shared


def _fitting(log: Log, rows: NDArray[Any], embedder: Embedder) -> NDArray[np.bool_]:
    known: dict[int, bool] = {}
    for number in log["text"][rows].tolist():
        if number not in known:
            known[number] = fits(embedder, log.texts[number])
    return np.array([known[number] for number in log["text"][rows].tolist()], np.bool_)


def _neighbours(log: Log, rows: NDArray[Any], texts: Texts, floor: float) -> list[_Pair]:
    """For each row the nearest earlier one of its scope, where it is near enough."""
    found: list[_Pair] = []
    order = rows[np.argsort(log["scope"][rows], kind="stable")]
    scopes = log["scope"][order]
    for group in np.split(order, np.flatnonzero(scopes[1:] != scopes[:-1]) + 1):
        if len(group) > 1:
            vectors = texts.vectors(log["text"][group])
            found.extend(
                _Pair(int(group[i]), int(group[j]), similarity) for i, j, similarity in _nearest(vectors, floor)
            )
    return sorted(found)


def _nearest(vectors: Vectors, floor: float) -> list[tuple[int, int, float]]:
    multiply = _multiplier(vectors)
    found = []
    for start in range(0, len(vectors), _BLOCK):
        end = min(start + _BLOCK, len(vectors))
        similarities = multiply(start, end)
        inner = np.triu_indices(end - start)
        similarities[inner[0], start + inner[1]] = -1.0  # itself, and what came after it
        best = similarities.argmax(axis=1)
        near = similarities[np.arange(end - start), best]
        for place in np.flatnonzero(near >= floor):
            # Once more: the product of blocks may have been in bfloat16.
            exactly = float(vectors[start + place] @ vectors[best[place]])
            if exactly >= floor and best[place] < start + place:
                found.append((start + int(place), int(best[place]), exactly))
    return found


def _multiplier(vectors: Vectors) -> Callable[[int, int], NDArray[Any]]:
    """Multiplies a block of rows with all up to its end; in bfloat16 where the processor does that natively."""
    if len(vectors) <= _BLOCK:
        return lambda start, end: vectors[start:end] @ vectors[:end].T
    try:
        import torch

        from costopt._minilm import _multiplies_bfloat16
    except ImportError:
        return lambda start, end: vectors[start:end] @ vectors[:end].T
    held = torch.from_numpy(vectors).to(torch.bfloat16 if _multiplies_bfloat16() else torch.float32)

    def multiply(start: int, end: int) -> NDArray[Any]:
        with torch.inference_mode():
            product: NDArray[Any] = (held[start:end] @ held[:end].T).float().numpy()
        return product

    return multiply


def _in_time(log: Log, pairs: list[_Pair], ttl_s: float) -> list[_Pair]:
    """Those whose earlier question was asked, at the latest, within `ttl_s` before."""
    if not log.timed or not pairs or log["started"][-1] - log["started"][0] <= ttl_s:
        return pairs
    order = np.lexsort((log["started"], log["exact"]))
    keys = log["exact"][order]
    kept = []
    for pair in pairs:
        key, moment = log["exact"][pair.earlier], log["started"][pair.row]
        low, high = np.searchsorted(keys, key, "left"), np.searchsorted(keys, key, "right")
        moments = log["started"][order[low:high]]
        last = moments[np.searchsorted(moments, moment, "right") - 1]
        if moment - last <= ttl_s:
            kept.append(pair)
    return kept


def _judged(log: Log, pairs: list[_Pair], judge: Judge) -> tuple[list[list[float]], int, list[tuple[str, str]]]:
    """By case, the chance of each pair to be accepted; how many were judged; and examples."""
    if not pairs:
        return [[] for _ in CASES], 0, []
    # By model first: what one answer saves depends on it, so that a share over all models would misplace dollars.
    models = log["model"][[pair.row for pair in pairs]].tolist()
    order = sorted(range(len(pairs)), key=lambda place: (models[place], pairs[place].similarity))
    count = min(_MOST_JUDGED, len(pairs))
    sample = [order[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]
    verdicts = _asked(log, [pairs[place] for place in sample], judge)
    if count == len(pairs):
        decided = dict(zip(sample, verdicts, strict=True))
        shares = [[decided[place][case] for place in range(len(pairs))] for case in range(len(CASES))]
    else:
        shares = _spread(order, verdicts, len(pairs))
    good = [pairs[place] for place, verdict in zip(sample, verdicts, strict=True) if verdict[1]]
    examples = [(log.texts[log["text"][p.row]], log.texts[log["text"][p.earlier]]) for p in good[-5:]]
    return shares, count, examples


def _margin(shares: Sequence[float], judged: int) -> float:
    """Of the number that was accepted: strata are independent samples of as many pairs each."""
    if judged >= len(shares):
        return 0.0
    spread = sum(share * (1.0 - share) for share in shares) / len(shares)
    return 1.96 * len(shares) * math.sqrt(spread * (1 - judged / len(shares)) / judged)


def _asked(log: Log, pairs: Sequence[_Pair], judge: Judge) -> list[tuple[float, float, float]]:
    ask = for_all(judge)
    thresholds = _thresholds(judge)
    found = []
    for start in range(0, len(pairs), _JUDGED_AT_ONCE):
        questions = [
            (log.texts[log["text"][pair.row]], [(log.texts[log["text"][pair.earlier]], pair.similarity)])
            for pair in pairs[start : start + _JUDGED_AT_ONCE]
        ]
        for (verdict,) in ask(questions):
            if verdict.probability is None or thresholds is None:
                found.append((float(verdict.accepted),) * 3)
            else:
                strict, loose = (float(verdict.probability >= threshold) for threshold in thresholds)
                likely = float(verdict.accepted)
                found.append((min(strict, likely), likely, max(likely, loose)))
    return found


def _thresholds(judge: Judge) -> tuple[float, float] | None:
    """Of the probability, for fewer and for more wrong answers than it stands for."""
    if not isinstance(judge, CrossEncoderJudge) or judge.policy is None:
        return None
    loose = judge.policy.threshold(_LOOSE)
    return judge.policy.threshold(_STRICT), loose if math.isfinite(loose) else judge.threshold


def _spread(order: Sequence[int], verdicts: Sequence[tuple[float, float, float]], pairs: int) -> list[list[float]]:
    """The share that was accepted in each stratum of similarity, for all pairs in it."""
    shares = [[0.0] * pairs for _ in CASES]
    for stratum in range(_STRATA):
        judged = verdicts[stratum * len(verdicts) // _STRATA : (stratum + 1) * len(verdicts) // _STRATA]
        places = order[stratum * pairs // _STRATA : (stratum + 1) * pairs // _STRATA]
        for case in range(len(CASES)):
            share = sum(verdict[case] for verdict in judged) / max(1, len(judged))
            for place in places:
                shares[case][place] = share
    return shares
