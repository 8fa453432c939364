"""What can be read off a prompt for next to nothing: how long, how many figures, which script, what to choose from.

Characters are sorted into classes by one table and counted for a whole batch at once, so that a prompt costs a few
microseconds. Nothing here knows any model, data set or embedding.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import log1p

import numpy as np
from numpy.typing import NDArray

__all__ = ["FEATURES", "LEAST_SPREAD", "Counts", "count", "features", "readable"]

Numbers = NDArray[np.float64]

_MOST_CHARS = 16_000  # of a longer text its two ends are read; how long it is counts in full

_SPACE, _LINE, _LOWER, _UPPER, _DIGIT, _END, _PAUSE, _QUOTE, _BRACKET, _MATHS, _CODE, _GAP, _OTHER = range(13)
_GREEK, _CYRILLIC, _SEMITIC, _INDIC, _HAN, _KANA, _HANGUL, _LETTER = range(13, 21)
_CLASSES = 21
_NAMES = (
    "blanks", "line ends", "lower case", "upper case", "digits", "sentence ends", "pauses", "quotes", "brackets",
    "maths signs", "code signs", "gaps", "others", "Greek", "Cyrillic", "Semitic", "Indic", "Han", "Kana", "Hangul",
    "letters of other scripts",
)  # fmt: skip
_SIGNS = {
    _END: ".!?。！？؟।…",
    _PAUSE: ",;:、，；：،؛",
    _QUOTE: "\"'`´‘’“”„«»「」『』",
    _BRACKET: "()[]（）【】",
    _MATHS: "=+*/^<>%$€£¥°|~×÷±·√∞≤≥≠≈",
    _CODE: "{}\\#&@",
    _GAP: "_",
}
_RANGES = (
    (0x0370, 0x0400, _GREEK), (0x0400, 0x0530, _CYRILLIC), (0x0530, 0x0590, _LETTER), (0x0590, 0x0780, _SEMITIC),
    (0x0780, 0x08A0, _LETTER), (0x08A0, 0x0900, _SEMITIC), (0x0900, 0x0E00, _INDIC), (0x0E00, 0x1100, _LETTER),
    (0x1100, 0x1200, _HANGUL), (0x1200, 0x1E00, _LETTER), (0x2190, 0x2300, _MATHS), (0x27C0, 0x27F0, _MATHS),
    (0x2980, 0x2B00, _MATHS), (0x3040, 0x3100, _KANA), (0x3130, 0x3190, _HANGUL), (0x3400, 0xA000, _HAN),
    (0xA000, 0xAC00, _LETTER), (0xAC00, 0xD7B0, _HANGUL), (0xF900, 0xFB00, _HAN), (0xFB1D, 0xFE00, _SEMITIC),
)  # fmt: skip
_LOGGED = [_END, _PAUSE, _QUOTE, _BRACKET, _MATHS, _CODE, _GAP, _LINE]
_ASKING = ("?", "？", "؟")
_LONG_WORD = 9
_HAN_PER_WORD = 1.6

_OPTIONS = frozenset(letter + mark for letter in "ABCDEFGHabcdefgh" for mark in ".):")

FEATURES = (
    "log chars", "log words", "log long words", "log capitals", "log numbers", "log sentence ends", "log pauses",
    "log quotes", "log brackets", "log maths signs", "log code signs", "log gaps", "log lines",
    *(f"share of {name}" for name in _NAMES),
    "chars a word", "long words", "capitals", "words a sentence",
    "options", "log option length", "log option spread", "options in figures", "asks", "log words of the question",
)  # fmt: skip
"""Names of the columns of `features`."""

LEAST_SPREAD = np.array([0.01 if name.startswith("share of") else 0.05 for name in FEATURES])
"""What each may be divided by at least: a trait that hardly any prompt has must not loom large where one has it."""


class Counts:
    """Characters and words of some texts, counted together.

    Attributes:
        classes: How many characters of each class, shape (texts, classes).
        chars: Characters, shape (texts,); the whole text, however long.
        words: Runs of letters, and the like for scripts without blanks, shape (texts,).
        long_words: Runs of at least nine letters, shape (texts,).
        numbers: Runs of digits, shape (texts,).
        capitals: Words that begin with a capital letter, shape (texts,).
    """

    def __init__(self, texts: Sequence[str]) -> None:
        # Few calls and plain ones: for one prompt it is their number that costs.
        read, of = [readable(text) for text in texts], len(texts)
        # A blank before each text and after the last ends every word.
        codes = np.frombuffer(" ".join(["", *read, ""]).encode("utf-32-le", "surrogatepass"), "<u4")
        kinds = _table()[np.minimum(codes, 0xFFFF)]
        rows = np.repeat(np.arange(of), [len(text) + 1 for text in read])
        counted = np.bincount(rows * _CLASSES + kinds[:-1], minlength=of * _CLASSES).reshape(of, _CLASSES)
        self.classes: Numbers = counted.astype(np.float64)
        self.classes[:, _SPACE] -= 1
        self.chars = np.array([len(text) for text in texts], np.float64)
        starts, ends = _runs(_IN_WORDS[kinds])
        where = rows[starts]
        self.words: Numbers = np.bincount(where, minlength=of).astype(np.float64)
        self.words += (self.classes[:, _HAN] + self.classes[:, _KANA]) / _HAN_PER_WORD
        self.long_words: Numbers = np.bincount(where, ends - starts >= _LONG_WORD, of).astype(np.float64)
        self.capitals: Numbers = np.bincount(where, kinds[starts] == _UPPER, of).astype(np.float64)
        self.numbers: Numbers = np.bincount(rows[_runs(kinds == _DIGIT)[0]], minlength=of).astype(np.float64)

    @property
    def maths(self) -> Numbers:
        """Signs of formulas and amounts."""
        return self.classes[:, _MATHS]

    @property
    def code(self) -> Numbers:
        """Signs that are rare outside programs."""
        return self.classes[:, _CODE]


def readable(text: str) -> str:
    """The text, or the two ends of one that is very long."""
    return text if len(text) <= _MOST_CHARS else text[: _MOST_CHARS // 2] + text[-_MOST_CHARS // 2 :]


def count(texts: Sequence[str]) -> Counts:
    """Count the characters and words of some texts.

    Example:
        >>> found = count(["Is 3 x 20 = 60?", "¿Cuánto es?", "什么是羊驼"])
        >>> found.numbers.tolist(), found.words.round(1).tolist()
        ([3.0, 0.0, 0.0], [2.0, 2.0, 3.1])
    """
    return Counts(texts)


def features(texts: Sequence[str]) -> Numbers:
    """Read off each text what `FEATURES` names, shape (texts, features); no scale is promised.

    Example:
        >>> features(["What is a llama?", ""]).shape == (2, len(FEATURES))
        True
    """
    if not texts:
        return np.zeros((0, len(FEATURES)))
    found, table = count(texts), np.empty((len(texts), len(FEATURES)))
    single = (found.chars, found.words, found.long_words, found.capitals, found.numbers)
    logs, shares, ratios = len(single) + len(_LOGGED), _CLASSES, 4
    for column, values in enumerate(single):
        table[:, column] = values
    table[:, len(single) : logs] = found.classes[:, _LOGGED]
    np.log1p(table[:, :logs], out=table[:, :logs])
    read = np.maximum(found.classes.sum(axis=1, keepdims=True), 1)
    np.divide(found.classes, read, out=table[:, logs : logs + shares])
    words = np.maximum(found.words, 1)
    table[:, logs + shares] = found.chars / words
    table[:, logs + shares + 1] = found.long_words / words
    table[:, logs + shares + 2] = found.capitals / words
    table[:, logs + shares + 3] = found.words / np.maximum(found.classes[:, _END], 1)
    table[:, logs + shares + ratios :] = [_lines(readable(text)) for text in texts]
    return table


def _lines(text: str) -> list[float]:
    """What the lines say: options to choose from, and the question before them."""
    lines = text.strip().split("\n")
    options = [line[2:].strip() for line in lines if line[:2] in _OPTIONS]
    stem = lines[0]
    if not options:
        return [0.0, 0.0, 0.0, 0.0, float(stem.endswith(_ASKING)), log1p(stem.count(" "))]
    if stem[:2] in _OPTIONS:
        stem = ""
    sizes = [len(option) for option in options]
    middle = sum(sizes) / len(sizes)
    spread = sum(abs(size - middle) for size in sizes) / len(sizes)
    in_figures = sum(option[:1].isdigit() or option[-1:].isdigit() for option in options) / len(options)
    asks = float(stem.endswith(_ASKING))
    return [float(len(options)), log1p(middle), log1p(spread), in_figures, asks, log1p(stem.count(" "))]


def _runs(inside: NDArray[np.bool_]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Starts and ends (one after) of the runs of True, of which none is at either end."""
    edges = np.flatnonzero(inside[1:] != inside[:-1]) + 1
    return edges[::2], edges[1::2]


_IN_WORDS = np.zeros(_CLASSES, bool)
_IN_WORDS[[_LOWER, _UPPER, _GREEK, _CYRILLIC, _SEMITIC, _INDIC, _HANGUL, _LETTER]] = True


@lru_cache(maxsize=1)
def _table() -> NDArray[np.uint8]:
    """The class of each character of the basic plane; what is beyond counts as the last of it."""
    table = np.full(0x10000, _OTHER, np.uint8)
    for start, end, kind in _RANGES:
        table[start:end] = kind
    for code in (*range(0x370), *range(0x1E00, 0x2000)):
        letter = chr(code)
        if letter.isalpha():
            table[code] = _UPPER if letter.isupper() else _LOWER
        elif letter.isspace():
            table[code] = _SPACE
    table[[0x2028, 0x2029, 0x0A]] = _LINE
    table[[0xA0, 0x3000]] = _SPACE
    for kind, signs in _SIGNS.items():
        table[[ord(sign) for sign in signs]] = kind
    for zero in (0x30, 0x660, 0x6F0, 0x966, 0x9E6, 0xE50, 0xFF10):
        table[zero : zero + 10] = _DIGIT
    return table
