"""What can be known of a document before there is a question, kept for the next one."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt._minilm import _fork_aware
from costopt.compression.lexical import Postings, grams, terms
from costopt.compression.protect import Protect, json_spans, merge, protected_spans
from costopt.compression.question import english_words
from costopt.compression.result import Span
from costopt.compression.segment import Unit, units

__all__ = ["Memo", "Parts", "Prepared", "prepare"]

Vectors = NDArray[np.float32]


@dataclass(slots=True)
class Parts:
    """A document in its units; what reading it for a question finds comes later, once.

    Attributes:
        text: The document.
        tokens: How many it has.
        units: In order.
        dialogue: Whether it was read as a talk.
        protected: What must not be altered in it, by kind.
    """

    text: str
    tokens: int
    units: list[Unit]
    dialogue: bool
    protected: list[Span]
    _read: Prepared | None = None

    def read(self, count: Callable[[str], int]) -> Prepared:
        """The same with its words; threads that ask at once may each read it."""
        known = self._read
        if known is None:
            known = self._read = _read(self, count)
        return known


@dataclass(slots=True)
class Prepared(Parts):
    """A document that was read.

    Attributes:
        sizes: About how many tokens each unit adds, shape (units,).
        words: The stems of the words of each unit.
        grams: The parts of the words of each unit.
        passages: Where each passage begins and ends.
        passage_words: The stems of the words of each passage.
        passage_of: Which passage each unit is in, shape (units,).
        rows: The spans of the units and then of the passages.
        english: Its `english_words`.
        vectors: One for each of `rows`, shape (rows, dimension); None until asked for, zero where it was not worth it.
        embedded: Which of them are there.
    """

    sizes: NDArray[np.int64] = field(kw_only=True)
    words: Postings = field(kw_only=True)
    grams: Postings = field(kw_only=True)
    passages: list[Span] = field(kw_only=True)
    passage_words: Postings = field(kw_only=True)
    passage_of: NDArray[np.int64] = field(kw_only=True)
    rows: list[Span] = field(kw_only=True)
    english: tuple[int, int] = field(kw_only=True)
    vectors: Vectors | None = field(default=None, kw_only=True)
    embedded: NDArray[np.bool_] | None = field(default=None, kw_only=True)


def prepare(text: str, count: Callable[[str], int], protect: Sequence[Protect], dialogue: bool) -> Parts:
    """Take a document apart, and count it."""
    spans = protected_spans(text, protect)
    # JSON is never cut, even where it may be rewritten.
    parts = _fused(units(text, dialogue), merge([*spans, *json_spans(text)]))
    return Parts(text, count(text), parts, dialogue, spans)


def _read(document: Parts, count: Callable[[str], int]) -> Prepared:
    text, parts = document.text, document.units
    ends = [0, *(unit.end for unit in parts)]
    sizes = np.array([count(text[end : unit.end]) for end, unit in zip(ends, parts, strict=False)], np.int64)
    passages: dict[int, Span] = {}
    for unit in parts:
        start = passages.get(unit.passage, (unit.start, 0))[0]
        passages[unit.passage] = (start, unit.end)
    numbers = {passage: i for i, passage in enumerate(passages)}
    found = [terms(text[unit.start : unit.end]) for unit in parts]
    whole: list[list[str]] = [[] for _ in passages]
    for unit, own in zip(parts, found, strict=True):
        whole[numbers[unit.passage]].extend(own)
    return Prepared(
        text,
        document.tokens,
        parts,
        document.dialogue,
        document.protected,
        sizes=sizes,
        words=Postings.of(found),
        grams=Postings.of(grams(text[unit.start : unit.end]) for unit in parts),
        passages=list(passages.values()),
        passage_words=Postings.of(whole),
        passage_of=np.array([numbers[unit.passage] for unit in parts], np.int64),
        rows=[*((unit.start, unit.end) for unit in parts), *passages.values()],
        english=english_words(text),
    )


def _fused(parts: list[Unit], spans: Sequence[Span]) -> list[Unit]:
    """With the units that a protected span crosses made one."""
    fused: list[Unit] = []
    at = 0
    for unit in parts:
        while at < len(spans) and fused and spans[at][1] <= fused[-1].end:
            at += 1
        crossed = at < len(spans) and fused and spans[at][0] < fused[-1].end and unit.start < spans[at][1]
        if crossed:
            last = fused.pop()
            unit = Unit(last.start, unit.end, last.kind, last.passage)
        fused.append(unit)
    return fused


class Memo:
    """The documents that were prepared last, up to so many units; safe to use from any thread.

    Example:
        >>> memo = Memo(1_000)
        >>> first = memo.get("One. Two.", len, (), False)
        >>> memo.get("One. Two.", len, (), False) is first
        True
    """

    def __init__(self, most_units: int) -> None:
        self._most = most_units
        self._after_fork()
        _fork_aware.add(self)
        self._known: OrderedDict[Any, Parts] = OrderedDict()
        self._units = 0

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # a thread that the child does not have may have held the other one

    def get(self, text: str, count: Callable[[str], int], protect: Sequence[Protect], dialogue: bool) -> Parts:
        """The document in its units, from memory if it is there."""
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        key = (digest, tuple(protect), dialogue)
        with self._lock:
            known = self._known.get(key)
            if known is not None:
                self._known.move_to_end(key)
                return known
        made = prepare(text, count, protect, dialogue)
        with self._lock:
            if key not in self._known:
                self._units += len(made.units)
            self._known[key] = made
            while self._units > self._most and self._known:
                self._units -= len(self._known.popitem(last=False)[1].units)
        return made
