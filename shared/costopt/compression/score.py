"""How much each unit of some documents has to do with a question."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from costopt.compression.lexical import bm25, grams, terms
from costopt.compression.prepare import Prepared
from costopt.compression.question import asked_about, is_english
from costopt.embedding import DEFAULT_SPACE

__all__ = ["Mix", "score", "standardised"]

Floats = NDArray[np.float64]

_REACH, _REACH_OF_TURNS = 3.0, 8.0  # units within which a neighbour counts a third
_UNREAD = 0.4  # of the weight of MiniLM's cosines is left on what is not English


@dataclass(frozen=True, slots=True)
class Mix:
    """Weights of what speaks for a unit; each part is standardised over all units first.

    The defaults were chosen on one half of some public sets, and confirmed on the other: see the benchmarks.

    Attributes:
        cosine: Of the unit to the question, by the embedder.
        words: BM25 of the unit, by the stems of words.
        grams: BM25 of the unit, by the parts of words.
        passage: Cosine of the passage that it is in.
        passage_words: BM25 of that passage.
        neighbours: The sum of these, averaged over the units around it; in a talk over more of them.
        length: What the logarithm of its tokens speaks against it: of two that match alike, the shorter is taken.

    Example:
        >>> Compressor(mix=Mix(cosine=0, passage=0)).compress("Cats purr. Dogs bark.", "cats?", target_tokens=4).text
        'Cats purr.'
    """

    cosine: float = 1.0
    words: float = 0.3
    grams: float = 0.4
    passage: float = 0.4
    passage_words: float = 0.4
    neighbours: float = 0.8
    length: float = 0.2

    @property
    def embeds(self) -> bool:
        """Whether vectors are needed."""
        return self.cosine != 0 or self.passage != 0

    def trusting(self, embedder: str, documents: Sequence[Prepared]) -> Mix:
        """With less weight on cosines where the default embedder, which learned English, hardly reads the language."""
        if embedder != DEFAULT_SPACE[0] or is_english(each.english for each in documents):
            return self
        return replace(self, cosine=_UNREAD * self.cosine, passage=_UNREAD * self.passage)


def score(query: str, vector: NDArray[np.float32] | None, documents: Sequence[Prepared], mix: Mix) -> Floats:
    """A score for each unit of all documents, in order.

    Args:
        query: The question.
        vector: Its embedding, if the mix needs one.
        documents: With their vectors, if the mix needs them.
        mix: The weights.
    """
    asked = asked_about(query)
    stems = terms(asked)
    total = mix.words * standardised(bm25(stems, [each.words for each in documents]))
    total += mix.grams * standardised(bm25(grams(asked), [each.grams for each in documents]))
    per_passage = bm25(stems, [each.passage_words for each in documents])
    total += mix.passage_words * standardised(_spread(per_passage, documents))
    if vector is not None and mix.embeds:
        units, passages = _cosines(vector, documents)
        total += mix.cosine * standardised(units) + mix.passage * standardised(_spread(passages, documents))
    if mix.neighbours:
        total = standardised(total) + mix.neighbours * standardised(_around(total, documents))
    sizes = np.concatenate([np.zeros(0, np.int64), *(each.sizes for each in documents)])
    scores: Floats = total - mix.length * np.log(sizes + 3.0)
    return scores


def standardised(values: Floats) -> Floats:
    """With mean 0 and standard deviation 1; all 0 if they are all the same."""
    if not len(values):
        return values
    spread = float(values.std())
    return (values - values.mean()) / spread if spread > 1e-9 else np.zeros(len(values))


def _cosines(vector: NDArray[np.float32], documents: Sequence[Prepared]) -> tuple[Floats, Floats]:
    units, passages = [np.zeros(0)], [np.zeros(0)]
    for each in documents:
        assert each.vectors is not None
        found = (each.vectors @ vector).astype(np.float64)
        units.append(found[: len(each.units)])
        passages.append(found[len(each.units) :])
    return np.concatenate(units), np.concatenate(passages)


def _spread(per_passage: Floats, documents: Sequence[Prepared]) -> Floats:
    """The figure of each unit's passage."""
    offset, rows = 0, [np.zeros(0, np.int64)]
    for each in documents:
        rows.append(each.passage_of + offset)
        offset += len(each.passages)
    return per_passage[np.concatenate(rows)]


def _around(values: Floats, documents: Sequence[Prepared]) -> Floats:
    """The mean over a unit and its neighbours in the document, the nearer the heavier."""
    start, means = 0, [np.zeros(0)]
    for each in documents:
        own = values[start : start + len(each.units)]
        start += len(each.units)
        if len(own):
            reach = _REACH_OF_TURNS if each.dialogue else _REACH
            away = np.abs(np.arange(-int(4 * reach), int(4 * reach) + 1))
            weights = np.exp(-away / reach)
            means.append(_convolved(own, weights) / _convolved(np.ones(len(own)), weights))
    return np.concatenate(means)


def _convolved(values: Floats, weights: Floats) -> Floats:
    half = len(weights) // 2
    return np.convolve(values, weights)[half : half + len(values)]
