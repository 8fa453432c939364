"""Fewer characters that mean the same: JSON without its white space, texts without blanks that nobody sees."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from costopt.compression.protect import touches
from costopt.compression.result import Span

__all__ = ["blank_spans", "minified"]

_JSON_PART = re.compile(r'"(?:[^"\\]|\\.)*"|\s+', re.DOTALL)
# Blanks at the end of a line (two of them break a line in Markdown, and stay), and blank lines after the first.
_INVISIBLE = re.compile(r"(?<=\S)(?:[ \t](?=\r?\n|\Z)|[ \t]{3,}(?=\r?\n|\Z))|(?<=\n)(?:[ \t]*\r?\n)+(?=[ \t]*\r?\n)")


def minified(text: str, start: int, end: int, protected: Sequence[Span] = ()) -> str:
    r"""A span that is valid JSON, without the white space between its values; all else stays byte for byte.

    Args:
        text: The document.
        start: Where the JSON begins.
        end: Where it ends.
        protected: Spans whose white space stays as well; sorted and disjoint.

    Example:
        >>> minified('{"a b": [1.0,\n  1e5]}', 0, 21)
        '{"a b":[1.0,1e5]}'
    """
    kept: list[str] = []
    at = start
    for match in _JSON_PART.finditer(text, start, end):
        if match.group()[0] != '"' and not touches(match.span(), protected):
            kept.append(text[at : match.start()])
            at = match.end()
    return "".join(kept) + text[at:end]


def blank_spans(text: str) -> Iterator[Span]:
    r"""White space that can go without anybody missing it: at line ends, and of blank lines all but one.

    Example:
        >>> list(blank_spans("one \ntwo\n\n\n\nthree"))
        [(3, 4), (9, 11)]
    """
    for match in _INVISIBLE.finditer(text):
        yield match.span()
