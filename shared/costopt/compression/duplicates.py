"""Passages that say what another one says already: the same, or nearly so and nothing new."""

from __future__ import annotations

import re
from collections import Counter as Tally
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache

from costopt.compression.lexical import terms
from costopt.errors import ConfigError

__all__ = ["Duplicate", "near_duplicates", "repeated"]

_SHINGLE = 3  # terms
_LEAST_TERMS = 8
_LEAST_CHARS = 30
# What makes two passages differ that are alike in all else: numbers, and names.
_TELLING = re.compile(
    r"\d+(?:[.,:]\d+)*|(?<![.!?] )(?<!^)\b[A-ZÀ-ÞА-ЯΑ-Ω][\w-]*|\b(?:not?|never|without|nicht|kein\w*|не|нет|不|没)\b"
)


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A text that another one before it makes superfluous.

    Attributes:
        text: Its place among the texts.
        of: The place of the other one.
        similarity: Share of their three-word sequences that both have (Jaccard), in [0, 1].
    """

    text: int
    of: int
    similarity: float


def near_duplicates(texts: Sequence[str], *, threshold: float = 0.9) -> list[Duplicate]:
    """Find texts that are nearly the same as one before them, and have no number, name or negation that it lacks.

    Every pair at or above the threshold is found; texts under eight words are left alone.

    Args:
        texts: In order of preference: of two that are alike the first stays.
        threshold: Least share of three-word sequences in common, in (0, 1].

    Raises:
        ConfigError: `threshold` is not in (0, 1].

    Example:
        >>> text = "The plan costs 12 EUR a month for each user and can be cancelled at any time"
        >>> near_duplicates([text, text + ".", text.replace("12", "15")], threshold=0.8)
        [Duplicate(text=1, of=0, similarity=1.0)]
    """
    if not 0 < threshold <= 1:
        raise ConfigError(f"near_duplicates={threshold!r}: give the least similarity, above 0 and at most 1")
    shingles = [_shingles(text) for text in texts]
    sizes = [len(own) for own in shingles if own]
    # A pair has at least this share of the shorter one's shingles in common; mostly all texts together have fewer.
    if not sizes or sum(sizes) - len(frozenset().union(*shingles)) < threshold * min(sizes):
        return []
    often = Tally(each for own in shingles for each in own)
    first: dict[int, list[int]] = defaultdict(list)  # shingle -> texts that stay
    found = []
    for i, own in enumerate(shingles):
        # A pair at the threshold shares one of the rarest few shingles of each: no other pair need be looked at.
        rarest = sorted(own, key=lambda each: (often[each], each))
        rarest = rarest[: len(own) - int(threshold * len(own)) + 1]
        best = _best(own, {j for each in rarest for j in first.get(each, ())}, shingles)
        if best is not None and best[0] >= threshold and not _news(texts[i], texts[best[1]]):
            found.append(Duplicate(i, best[1], best[0]))
            continue
        for each in rarest:
            first[each].append(i)
    return found


def repeated(texts: Sequence[str]) -> Iterator[int]:
    """The places of texts that are the same as one before them but for white space, and not short.

    Example:
        >>> list(repeated(["All rights reserved by Example Ltd."] * 2 + ["Short.", "Short."]))
        [1]
    """
    seen: set[str] = set()
    for i, text in enumerate(texts):
        plain = " ".join(text.split())
        if len(plain) < _LEAST_CHARS:
            continue
        if plain in seen:
            yield i
        seen.add(plain)


@lru_cache(maxsize=512)  # what is retrieved for one question is retrieved for others
def _shingles(text: str) -> frozenset[int]:
    words = terms(text)
    if len(words) < _LEAST_TERMS:
        return frozenset()
    # hash() of a tuple of texts differs from run to run, and with it the order of ties: nothing else.
    return frozenset(hash(tuple(words[i : i + _SHINGLE])) for i in range(len(words) - _SHINGLE + 1))


def _best(own: frozenset[int], others: set[int], shingles: Sequence[frozenset[int]]) -> tuple[float, int] | None:
    scored = ((len(own & shingles[j]) / len(own | shingles[j]), j) for j in others)
    return max(scored, key=lambda each: (each[0], -each[1]), default=None)


def _news(text: str, other: str) -> bool:
    """Whether `text` has a number, a name or a negation more often than `other`."""
    return bool(Tally(_TELLING.findall(text)) - Tally(_TELLING.findall(other)))
