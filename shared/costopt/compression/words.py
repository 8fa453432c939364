"""A text as the units that are kept or dropped by themselves: words, numbers, addresses, marks, single signs."""

from __future__ import annotations

import re
import unicodedata
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from costopt.compression.result import Span, separator

__all__ = ["Tokens", "Word", "averages", "bridged", "joined", "units", "would_merge"]

# Scripts that put no blanks between words: Thai and Lao, Burmese, Khmer, kana, bopomofo, Han.
_UNSPACED = (
    "\u0e01-\u0e4e\u0e81-\u0ecd\u1000-\u103f\u1780-\u17d3\u3005-\u3007\u3041-\u30ff\u3105-\u312f\u31f0-\u31ff"
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
_WIDE_MARKS = "\u3001-\u3004\u3008-\u3020\u3030-\u303f\uff01-\uff0f\uff1a-\uff20\uff3b-\uff40\uff5b-\uff65"
_PARTS = re.compile(f"([{_UNSPACED}]+)|[{_WIDE_MARKS}]+|[^\\s{_UNSPACED}{_WIDE_MARKS}]+")
_IS_UNSPACED = re.compile(f"[{_UNSPACED}]")
_OPENING = "\"'“”‘’„‚«»‹›([{¿¡"
_CLOSING = "\"'“”‘’«»‹›)]}.,;:!?…"
# Marks within what stands between blanks: a call, a tag, an assignment; half of it is worth nothing.
_CODE_LIKE = re.compile(r"[()\[\]{}<>=`]")


@dataclass(frozen=True, slots=True)
class Word:
    """A part of a text that is kept or dropped by itself.

    Attributes:
        start: Where it begins in the text, in characters.
        end: Where it ends.
        probability: How likely it is to be worth keeping, by the model: the mean over its tokens.
        kept: Whether it is kept.
    """

    start: int
    end: int
    probability: float
    kept: bool


class Tokens(NamedTuple):
    """What a tokenizer made of a text: the i-th token stands for `text[starts[i]:ends[i]]`, without white space.

    A token that stands for nothing has `starts[i] == ends[i]`.
    """

    ids: Sequence[int]
    starts: Sequence[int]
    ends: Sequence[int]


def units(text: str, tokens: Tokens) -> list[Span]:
    """Split a text; white space is in no unit, everything else in exactly one.

    What stands between blanks is one unit (a word, "state-of-the-art", an address, a number), but for quotation marks,
    brackets and stops around it, which are units of their own. Where a script puts no blanks, the tokens are the units.
    """
    found: list[Span] = []
    for part in _PARTS.finditer(text):
        start, end = part.span()
        if part.group(1):
            found.extend(_by_token(text, start, end, tokens))
        else:
            found.extend(_by_mark(part.group(), start))
    return found


def _by_token(text: str, start: int, end: int, tokens: Tokens) -> Iterator[Span]:
    at = start
    for cut in tokens.starts[bisect_right(tokens.starts, start) : bisect_left(tokens.starts, end)]:
        # A vowel sign is drawn on the letter before it.
        if cut > at and not unicodedata.category(text[cut]).startswith("M"):
            yield at, cut
            at = cut
    yield at, end


def _by_mark(part: str, at: int) -> Iterator[Span]:
    start = len(part) - len(part.lstrip(_OPENING))
    end = len(part.rstrip(_CLOSING))
    if start >= end or _CODE_LIKE.search(part, start, end):
        yield at, at + len(part)
        return
    for left, right in ((0, start), (start, end), (end, len(part))):
        if left < right:
            yield at + left, at + right


def averages(spans: Sequence[Span], tokens: Tokens, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """The mean over each span of the values of the tokens that touch it; 0 where none does."""
    if not spans:
        return np.zeros(0)
    bounds = np.asarray(spans)
    starts, ends = np.asarray(tokens.starts, np.int64), np.asarray(tokens.ends, np.int64)
    real = starts < ends
    first = np.searchsorted(bounds[:, 1], starts[real], side="right")
    last = np.searchsorted(bounds[:, 0], ends[real], side="left") - 1
    given = values[real].astype(np.float64)
    sums, counts = np.zeros(len(spans)), np.zeros(len(spans))
    for more in range(int((last - first).max(initial=-1)) + 1):
        reaches = first + more <= last
        np.add.at(sums, first[reaches] + more, given[reaches])
        np.add.at(counts, first[reaches] + more, 1.0)
    return np.divide(sums, counts, out=np.zeros(len(spans)), where=counts > 0)


def bridged(text: str, spans: Sequence[Span]) -> list[Span]:
    """Sorted spans, lengthened by a sign where two words would otherwise run together ("state-of-art": "state-art")."""
    done: list[Span] = []
    for start, end in spans:
        if done and start > done[-1][1] and would_merge(text, done[-1][1], start):
            start -= 1
        done.append((start, end))
    return done


def would_merge(text: str, end: int, start: int) -> bool:
    """Whether two words become one if what is between `end` of the first and `start` of the second is left out."""
    before, after = text[end - 1], text[start]
    if not (before.isalnum() and after.isalnum()) or _IS_UNSPACED.match(before) or _IS_UNSPACED.match(after):
        return False
    return not any(map(str.isspace, text[end:start]))


def joined(text: str, spans: Sequence[Span]) -> str:
    """The text that `assemble` makes of sorted spans."""
    parts: list[str] = []
    at = None
    for start, end in spans:
        if at is not None and start > at:
            left, right = separator(text, at, start)
            parts.append(text[left:right])
        parts.append(text[start:end])
        at = end
    return "".join(parts)
