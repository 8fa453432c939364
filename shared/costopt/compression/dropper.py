"""The seam for what drops single words: `TokenDropper`; and how it works on what a first stage has selected."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from costopt.compression.protect import merge
from costopt.compression.result import Span, separator
from costopt.compression.words import joined

__all__ = ["COARSE_FACTOR", "TokenDropper", "drop_within"]

COARSE_FACTOR = 1.25
"""How many times the target the first of two stages leaves to the second.

With 1.1 and 1.25 as many words of the answers were left as by sentences alone, with 1.5 and 2 far fewer; the more is
left, the nearer the second stage can come to the target.
"""


# The white space that stands for what was left out may be another when more is left out, and have a token more.
_ATTEMPTS = 3


class TokenDropper(Protocol):
    """What drops words; `costopt.compression.LLMLingua2` is one."""

    def keep(
        self,
        texts: Sequence[str],
        *,
        target_tokens: int,
        protected: Sequence[Sequence[Span]],
        required: Sequence[Sequence[Span]],
        count: Callable[[str], int],
    ) -> list[list[Span]]:
        """For each text the spans to keep, up to `target_tokens` over all texts put together by `assemble`.

        What is `protected` is kept before all else, and left out only whole; what is `required` is kept in any case.
        """


class _Part(NamedTuple):
    """A slice of the original, and where it begins in what the first stage left."""

    at: int
    start: int
    end: int


def drop_within(
    dropper: TokenDropper,
    originals: Sequence[str],
    kept: Sequence[Sequence[Span]],
    *,
    target_tokens: int,
    protected: Sequence[Sequence[Span]],
    required: Sequence[Sequence[Span]],
    count: Callable[[str], int],
) -> list[list[Span]]:
    """Drop words from what a first stage has kept.

    The dropper sees each document as the first stage left it, so that it reads sentences next to each other.

    Args:
        dropper: What drops words.
        originals: The documents.
        kept: For each the spans that the first stage kept, sorted.
        target_tokens: Most tokens of all texts together.
        protected: For each document spans that are not to be altered; those outside `kept` are ignored.
        required: For each document spans that must stay, likewise.
        count: Tokens of a text.

    Returns:
        For each document the spans to keep, in characters of the original.

    Example:
        >>> class FirstWord:
        ...     def keep(self, texts, **given):
        ...         return [[(0, text.find(" "))] for text in texts]
        >>> nothing = [[]]
        >>> drop_within(FirstWord(), ["Not this. But this one."], [[(10, 23)]], target_tokens=9,
        ...             protected=nothing, required=nothing, count=len)
        [[(10, 13)]]
    """
    parts = [_parts(text, spans) for text, spans in zip(originals, kept, strict=True)]
    texts = ["".join(text[part.start : part.end] for part in own) for text, own in zip(originals, parts, strict=True)]
    inner = [[_inward(own, spans) for own, spans in zip(parts, each, strict=True)] for each in (protected, required)]
    room = target_tokens
    for _ in range(_ATTEMPTS):
        found = dropper.keep(texts, target_tokens=room, protected=inner[0], required=inner[1], count=count)
        spans = [_outward(text, own, each) for text, own, each in zip(originals, parts, found, strict=True)]
        over = sum(count(joined(text, each)) for text, each in zip(originals, spans, strict=True)) - target_tokens
        if over <= 0 or not any(text != whole for text, whole in zip(texts, originals, strict=True)):
            break
        room = max(0, room - over)
    return spans


def _parts(text: str, spans: Sequence[Span]) -> list[_Part]:
    """The spans, and the white space that `assemble` puts between them."""
    parts: list[_Part] = []
    at = 0
    for start, end in spans:
        pieces = [(start, end)]
        if parts and start > parts[-1].end:
            pieces.insert(0, separator(text, parts[-1].end, start))
        for left, right in pieces:
            if left < right:
                parts.append(_Part(at, left, right))
                at += right - left
    return parts


def _inward(parts: Sequence[_Part], spans: Sequence[Span]) -> list[Span]:
    """Spans of the original as spans of what is left of it."""
    found = []
    for start, end in spans:
        for part in parts[max(0, bisect_right(parts, start, key=lambda each: each.start) - 1) :]:
            if part.start >= end:
                break
            left, right = max(start, part.start), min(end, part.end)
            if left < right:
                found.append((part.at + left - part.start, part.at + right - part.start))
    return _touching(found)


def _outward(text: str, parts: Sequence[_Part], spans: Sequence[Span]) -> list[Span]:
    """Spans of what is left as spans of the original; what is only white space between them `assemble` finds itself."""
    found = []
    for start, end in merge(spans):
        for part in parts[max(0, bisect_right(parts, start, key=lambda each: each.at) - 1) :]:
            if part.at >= end:
                break
            left, right = max(start - part.at, 0), min(end - part.at, part.end - part.start)
            if text[part.start + left : part.start + right].strip():
                found.append((part.start + left, part.start + right))
    return found


def _touching(spans: Sequence[Span]) -> list[Span]:
    """Sorted, with those that touch joined."""
    done: list[Span] = []
    for start, end in sorted(spans):
        if done and start <= done[-1][1]:
            done[-1] = (done[-1][0], max(end, done[-1][1]))
        else:
            done.append((start, end))
    return done
