"""Cutting the tokens of a long text into windows that a model can read, where sentences end if they do."""

from __future__ import annotations

import math
from collections.abc import Iterator

from costopt.compression.result import Span
from costopt.compression.words import Tokens

__all__ = ["windows"]

_SENTENCE_END = ".!?…。！？؟।"


def windows(text: str, tokens: Tokens, room: int) -> Iterator[Span]:
    """Cut into windows of about equal lengths, at most `room` tokens each; every token is in exactly one.

    Returns:
        Spans of places in `tokens`.
    """
    start, count = 0, len(tokens.ids)
    while start < count:
        left = count - start
        if left <= room:
            yield start, count
            return
        even = math.ceil(left / math.ceil(left / room))
        end = _cut(text, tokens, start + even // 2, start + min(room, even + even // 8))
        yield start, end
        start = end


def _cut(text: str, tokens: Tokens, low: int, high: int) -> int:
    """The last place up to `high` where a sentence ends, or else a word; `high` if there is none down to `low`."""
    word = 0
    for at in range(high, low, -1):
        gap = text[tokens.ends[at - 1] : tokens.starts[at]]
        before = text[max(0, tokens.ends[at - 1] - 1) : tokens.ends[at - 1]]
        if "\n" in gap or (before and before in _SENTENCE_END and (gap or before > "\x7f")):
            return at
        if gap and not word:
            word = at
    return word or high
