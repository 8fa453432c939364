"""Words in common, for every script: how a text is taken apart into terms, and how well it matches a question."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["Postings", "bm25", "grams", "terms", "words"]

Floats = NDArray[np.float64]

# Scripts without blanks between words: Thai to Khmer, Japanese, Chinese; and Hangul, whose words carry their particles.
_UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7af\uf900-\ufaff"
_TOKEN = re.compile(rf"(?P<run>[{_UNSPACED}]+)|(?P<number>\d+(?:[.,:]\d+)*)|(?P<word>(?:(?![{_UNSPACED}\d_])\w)+)")
_STEM_LETTERS = 5
_GRAM_LETTERS = 4
_K1, _B = 1.2, 0.75


def words(text: str) -> Iterator[tuple[str, str]]:
    """The words and numbers of a text, and its runs in scripts without blanks, each with what it is.

    Example:
        >>> list(words("Städte: 3,5 % 北京"))
        [('word', 'stadte'), ('number', '3.5'), ('run', '北京')]
    """
    for match in _TOKEN.finditer(text):
        part, kind = match.group(), match.lastgroup or ""
        if kind == "word":
            part = _folded(part)
        elif kind == "number":
            part = part.replace(",", ".")
        yield kind, part


def terms(text: str) -> list[str]:
    """Words cut to a stem of five letters, numbers, and in scripts without blanks pairs of characters.

    Example:
        >>> terms("Die Städte wuchsen um 3,5 %"), terms("我爱北京")
        (['die', 'stadt', 'wuchs', 'um', '3.5'], ['我爱', '爱北', '北京'])
    """
    found: list[str] = []
    for kind, part in words(text):
        if kind == "word":
            found.append(part[:_STEM_LETTERS])
        elif kind == "number" or len(part) == 1:
            found.append(part)
        else:
            found.extend(part[i : i + 2] for i in range(len(part) - 1))
    return found


def grams(text: str) -> list[str]:
    """All four letters in a row of each word with its ends, for words that are parts of others; else single characters.

    Example:
        >>> grams("Bahnhof"), grams("北京")
        (['_bah', 'bahn', 'ahnh', 'hnho', 'nhof', 'hof_'], ['北', '京'])
    """
    found: list[str] = []
    for kind, part in words(text):
        if kind == "word":
            whole = f"_{part}_"
            found.extend(whole[i : i + _GRAM_LETTERS] for i in range(max(1, len(whole) - _GRAM_LETTERS + 1)))
        elif kind == "number":
            found.append(part)
        else:
            found.extend(part)
    return found


@lru_cache(maxsize=65_536)
def _folded(word: str) -> str:
    """In lower case and without accents, as people type it."""
    if word.isascii():
        return word.lower()
    plain = unicodedata.normalize("NFKD", word.casefold())
    return "".join(letter for letter in plain if not unicodedata.combining(letter))


@dataclass(frozen=True, slots=True)
class Postings:
    """Where each term stands in some texts, in arrays: there are many more terms than words.

    Attributes:
        lengths: Terms of each text, shape (texts,).
        keys: What stands for each different term, sorted, shape (different,).
        bounds: Where the places of each term begin and end, shape (different + 1,).
        places: The text of each place, shape (places,).
        times: How often the term is in it, shape (places,).
    """

    lengths: Floats
    keys: NDArray[np.int64]
    bounds: NDArray[np.int64]
    places: NDArray[np.int32]
    times: NDArray[np.float32]

    @classmethod
    def of(cls, texts: Iterable[Sequence[str]]) -> Postings:
        """Read the terms of each text."""
        lengths: list[int] = []
        hashes: list[int] = []
        for each in texts:
            lengths.append(len(each))
            hashes.extend(map(hash, each))
        terms = np.array(hashes, np.int64)
        places = np.repeat(np.arange(len(lengths), dtype=np.int32), lengths)
        order = np.lexsort((places, terms))
        terms, places = terms[order], places[order]
        fresh = np.ones(len(terms), bool)
        fresh[1:] = (terms[1:] != terms[:-1]) | (places[1:] != places[:-1])
        firsts = np.flatnonzero(fresh)
        times = np.diff(np.append(firsts, len(terms))).astype(np.float32)
        keys, bounds = np.unique(terms[firsts], return_index=True)
        ends = np.append(bounds, len(firsts)).astype(np.int64)
        return cls(np.array(lengths, np.float64), keys, ends, places[firsts], times)

    def find(self, keys: NDArray[np.int64]) -> Iterator[tuple[int, NDArray[np.int32], NDArray[np.float32]]]:
        """For those of `keys` that are there: which one, the texts that have it, and how often."""
        if not len(self.keys):
            return
        at = np.searchsorted(self.keys, keys)
        at[at == len(self.keys)] = 0
        for i in np.flatnonzero(self.keys[at] == keys):
            part = slice(self.bounds[at[i]], self.bounds[at[i] + 1])
            yield int(i), self.places[part], self.times[part]


def bm25(query: Sequence[str], parts: Sequence[Postings]) -> Floats:
    """How well each text matches, over all parts as one collection.

    Args:
        query: The terms to look for; one that is there twice counts once.
        parts: The postings of each document.

    Returns:
        Scores of at least 0, shape (texts of all parts together,).

    Example:
        >>> bm25(["cat"], [Postings.of([["a", "cat"], ["a", "dog"]])]).round(2)
        array([0.69, 0.  ])
    """
    lengths = np.concatenate([np.zeros(0), *(part.lengths for part in parts)])
    scores = np.zeros(len(lengths))
    keys = np.array([hash(term) for term in dict.fromkeys(query)], np.int64)
    if not len(lengths) or not len(keys):
        return scores
    norms = _K1 * (1 - _B + _B * lengths / max(float(lengths.mean()), 1.0))
    hits: list[tuple[int, NDArray[np.int64], NDArray[np.float32]]] = []
    offset = 0
    for part in parts:
        hits.extend((i, places.astype(np.int64) + offset, times) for i, places, times in part.find(keys))
        offset += len(part.lengths)
    often = np.zeros(len(keys))
    for i, places, _ in hits:
        often[i] += len(places)
    rare = np.log(1 + (len(lengths) - often + 0.5) / (often + 0.5))
    for i, places, times in hits:
        scores[places] += rare[i] * times * (_K1 + 1) / (times + norms[places])
    return scores
