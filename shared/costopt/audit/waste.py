"""Tokens of a prompt that carry nothing: blanks in JSON, passages that are there twice.

What is found here could be left out without loss. It is counted as the model counts where its tokenizer is at hand,
for the first thousands of finds; the rest by the ratio of tokens to characters that those had.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence

from costopt.compression.minify import minified
from costopt.compression.protect import code_spans, json_spans
from costopt.tokens import count_tokens

__all__ = ["LEAST_CHARS", "Meter", "Waste", "duplicates", "shorter"]

LEAST_CHARS = 200
"""Shorter texts and passages are not looked into: what they could save is a few tokens."""

_GAP = re.compile(r"\n\s*\n")
_COUNTED = 2_000
_SHINGLE = 5
_SKETCH = 24
_NEAR = 0.8
_MOST_PASSAGES = 400
_MOST_KEPT = 50_000
_MOST_PLAIN = 2_000
_MOST_CHARS = 2_000_000


def shorter(text: str) -> list[tuple[str, str]]:
    r"""The JSON in a text that has blanks, each with its short form: what a compressor would make of it.

    Example:
        >>> shorter('Here it is:\n{\n    "a": 1\n}\nWell?')
        [('{\n    "a": 1\n}', '{"a":1}')]
    """
    spans = list(json_spans(text))
    code = code_spans(text) if spans else ()
    pairs = ((text[start:end], minified(text, start, end, code)) for start, end in spans)
    return [(block, short) for block, short in pairs if len(short) < len(block)]


class Waste:
    """Looks into prompts, and remembers the passages that it has seen."""

    def __init__(self) -> None:
        self._meter = Meter()
        self._sketches: dict[str, frozenset[int]] = {}
        self._without: set[str] = set()

    def of(self, contents: Sequence[str], model: str) -> tuple[int, int]:
        """(tokens that shorter JSON would save, tokens of passages that are there already).

        Args:
            contents: The texts of a prompt, in their order.
            model: The model that counts them.
        """
        looked = [text for text in contents if "\n" in text or "{" in text or "[" in text]
        if not looked or sum(map(len, looked)) > _MOST_CHARS:
            return 0, 0
        blanks = sum(self._blanks(text, model) for text in looked if "{" in text or "[" in text)
        broken = any("\n" in text for text in looked)
        passages = duplicates(contents, self._sketch) if broken else ()
        twice = sum(self._meter.tokens("passage", text, model) for text in passages)
        return max(0, blanks), twice

    def _blanks(self, text: str, model: str) -> int:
        if text in self._without:
            return 0
        found = shorter(text)
        if not found and len(self._without) < _MOST_PLAIN:
            self._without.add(text)  # most often a system prompt, which comes again and again
        return sum(
            self._meter.tokens("json", block, model) - self._meter.tokens("short", short, model)
            for block, short in found
        )

    def _sketch(self, passage: str) -> frozenset[int]:
        known = self._sketches.get(passage)
        if known is None:
            if len(self._sketches) >= _MOST_KEPT:
                self._sketches.clear()
            known = self._sketches[passage] = _sketch(passage)
        return known


def duplicates(contents: Sequence[str], sketch: Callable[[str], frozenset[int]] | None = None) -> Iterator[str]:
    """Passages (paragraphs of 200 characters or more) that are nearly the same as an earlier one.

    Args:
        contents: The texts of a prompt.
        sketch: What stands for a passage's words; with a memory, if there is one.

    Example:
        >>> said = "The warranty covers two years from the day of purchase, and in that time all parts. " * 3
        >>> [text == said.strip() for text in duplicates([said + chr(10) * 2 + "Well?", said])]
        [True]
    """
    passages = [part.strip() for text in contents for part in _GAP.split(text) if len(part) >= LEAST_CHARS]
    if not 2 <= len(passages) <= _MOST_PASSAGES:
        return
    look = sketch or _sketch
    kept: list[frozenset[int]] = []
    seen: set[str] = set()
    for passage in passages:
        if passage in seen:
            yield passage
            continue
        seen.add(passage)
        words = look(passage)
        if any(_alike(words, other) for other in kept):
            yield passage
        else:
            kept.append(words)


def _sketch(passage: str) -> frozenset[int]:
    """The least hashes of its runs of five words: two texts share as large a part of them as of their runs."""
    words = passage.split()
    runs = {hash(tuple(words[i : i + _SHINGLE])) for i in range(max(1, len(words) - _SHINGLE + 1))}
    return frozenset(sorted(runs)[:_SKETCH])


def _alike(one: frozenset[int], other: frozenset[int]) -> bool:
    if not one or not other:
        return False
    # Of both sketches together, the least ones are a sample of all runs of both.
    least = sorted(one | other)[:_SKETCH]
    return sum(run in one and run in other for run in least) >= _NEAR * len(least)


class Meter:
    """Counts tokens as models do, as long as that is affordable."""

    def __init__(self, most: int = _COUNTED) -> None:
        self._most = most
        self._known: dict[tuple[str, str], list[int]] = {}

    def tokens(self, kind: str, text: str, model: str) -> int:
        """Tokens of a text; texts of one kind have about as many to the character."""
        counted: list[int] = self._known.setdefault((kind, model), [0, 0, 0])
        if counted[0] < self._most:
            tokens = count_tokens(text, model).tokens
            counted[0] += 1
            counted[1] += len(text)
            counted[2] += tokens
            return tokens
        return round(len(text) * counted[2] / max(1, counted[1]))
