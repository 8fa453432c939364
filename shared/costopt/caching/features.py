"""What the guards look at in a text: read once and remembered, for one question meets several candidates."""

from __future__ import annotations

import unicodedata
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

from costopt.caching.lexicon import (
    ADDRESS,
    ADDRESS_MARK,
    AFTER_NUMBER,
    ARTICLES,
    ASKS,
    BEFORE_ORDER,
    BLOCK_ENDS,
    BLOCKS,
    BREAKS,
    CARDINAL,
    CODE,
    CONNECTORS,
    COUNTRY,
    DATES,
    DENIERS,
    ENDING,
    FORMATS,
    FRAME,
    HOW,
    INTO,
    MEASURED,
    MONTH,
    NEGATORS,
    NOT_ONLY,
    NUMBER,
    OPPOSITE,
    OR_NOT,
    ORDER,
    PLAIN,
    QUOTE_MARK,
    QUOTED,
    ROMAN,
    SAME,
    SCALE,
    SPOKEN,
    STOP,
    STOPPERS,
    TAG,
    THOUSANDS,
    TOKEN,
    TONGUES,
    UNIT,
    UNWANTED,
)

__all__ = ["MEASURES", "PASSAGE_WORDS", "Features", "canonical", "content", "features"]

PASSAGE_WORDS = 12
"""Words in a row that two questions share only if both carry the same passage."""


@dataclass(frozen=True, slots=True)
class Features:
    """What the guards know of one text; words are in lower case unless said otherwise."""

    text: str  # as it is, blanks collapsed
    squashed: str  # letters and digits only
    words: tuple[str, ...]  # without articles
    content: frozenset[str]  # canonical forms of the words that say what the text is about
    numbers: frozenset[str]
    perhaps_numbers: frozenset[str]  # "first", "March": may stand for a number, need not
    dates: frozenset[str]
    units: Mapping[str, set[str]]  # by dimension
    counted: Mapping[str, set[str]]  # by number: the unit or the stem of the word right after it
    literals: frozenset[tuple[str, bool]]  # quotes, code, addresses; True if it must be equal to the letter
    negations: tuple[str, ...]  # stems of what is denied; "" for what is excluded
    stopped: frozenset[str]  # stems of what shall be no more
    script: str
    language: str  # "" if not sure
    targets: frozenset[str]  # languages to answer in
    poles: Mapping[int, set[int]]  # by axis of `OPPOSITE`
    routes: frozenset[tuple[str, str, str]]  # connector, what stands before it, what stands after it
    names: frozenset[str]  # canonical
    asks: frozenset[str]
    formats: frozenset[str]
    passages: frozenset[int]  # hashes of all runs of `PASSAGE_WORDS` words


@lru_cache(maxsize=2048)  # 5 kB each
def features(text: str) -> Features:
    """All that the guards look at in one text."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text).translate(PLAIN)
    if "U" in text:
        text = COUNTRY.sub(lambda match: "UK" if "K" in match[0] else "USA", text)
    tokens = TOKEN.findall(text)
    spoken = [token for token in tokens if token[0] not in BREAKS]
    lows = [token.lower() for token in spoken]
    words = tuple(low.replace(".", "") if low[0].isalpha() else low for low in lows if low not in ARTICLES)
    language = _language(lows)
    numbers, perhaps = _numbers(spoken, lows)
    return Features(
        text=" ".join(text.split()),
        squashed=_squash(text),
        words=words,
        content=frozenset(content(words)),
        numbers=numbers,
        perhaps_numbers=perhaps,
        dates=frozenset(DATES[low] for low in lows if low in DATES),
        units=_units(lows),
        counted=_counted(lows),
        literals=frozenset(_literals(text)),
        negations=tuple(_negations(lows, language)),
        stopped=frozenset(_stopped(lows)),
        script=_script(text),
        language=language,
        targets=frozenset(TONGUES[low] for before, low in pairwise(lows) if low in TONGUES and before in INTO),
        poles=_poles(lows),
        routes=frozenset(_routes(words)),
        # German capitalises every noun.
        names=frozenset(_names(tokens)) if language != "de" else frozenset(),
        asks=frozenset(_asks(lows)),
        formats=frozenset(FORMATS[low] for low in lows if low in FORMATS),
        passages=frozenset(hash(words[i : i + PASSAGE_WORDS]) for i in range(len(words) - PASSAGE_WORDS + 1)),
    )


def _squash(text: str) -> str:
    return UNWANTED.sub("", text.casefold())


def _weighty(word: str) -> bool:
    return word not in STOP and word not in FRAME and word not in MEASURED and word[0].isalpha()


def content(words: Sequence[str]) -> list[str]:
    """The words that say what a text is about, each in its canonical form."""
    return [canonical(word) for word in words if _weighty(word)]


@lru_cache(maxsize=16384)
def canonical(word: str) -> str:
    """One form for a word, its inflections and its synonyms."""
    if not word.isascii():
        word = "".join(c for c in unicodedata.normalize("NFD", word) if not unicodedata.combining(c)) or word
    stem = _stem(word)
    return _SAME_STEM.get(stem, stem)


def _stem(word: str) -> str:
    if not 3 < len(word) < 40:
        return word[:-1] if len(word) == 3 and word[-1] == "s" and word[1] not in "aiosu" else word
    match = ENDING.fullmatch(word)
    stem = (match[1] if match else word).replace("z", "s")  # organize, organise
    return stem[:-1] if len(stem) > 3 and stem[-1] == stem[-2] else stem


_SAME_STEM = {_stem(word): _stem(head) for word, head in SAME.items()}
MEASURES = frozenset(map(canonical, HOW))


def _numbers(tokens: Sequence[str], lows: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    sure: set[str] = set()
    perhaps: set[str] = set()
    for i, low in enumerate(lows):
        scale = SCALE.get(lows[i + 1], 0) if i + 1 < len(lows) else 0
        if low[0].isdecimal():
            parts = [low.replace(",", "")] if THOUSANDS.fullmatch(low) else low.split(",")
            sure.update(_value(part, scale) for part in parts)
        elif low in NUMBER:
            (sure if low in CARDINAL else perhaps).add(_value(NUMBER[low], scale))
        elif tokens[i] in ROMAN:
            sure.add(ROMAN[tokens[i]])
        elif low in MONTH:
            perhaps.add(MONTH[low])
        elif low in SCALE or (tokens[i] == "I" and i > 1 and tokens[i - 1][0].isupper()):
            perhaps.add(_value("1", SCALE.get(low, 0)))  # a billion; World War I
    return frozenset(sure), frozenset(perhaps)


def _value(number: str, scale: int) -> str:
    """One spelling: 1k is 1000, 05 is 5, 9.0 is 9; but 3.10 is a version and not 3.1."""
    whole, _, rest = number.partition(".")
    if len(number) > 15 or "." in rest:
        return number
    if scale:
        return str(int(whole + rest[:scale].ljust(scale, "0")))
    return f"{int(whole)}.{rest}" if rest.strip("0") else str(int(whole))


def _units(lows: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for i, low in enumerate(lows):
        unit = UNIT.get(low)
        before = lows[i - 1] if i else ""
        if low in AFTER_NUMBER and (before[:1].isdecimal() or before in NUMBER):
            unit = AFTER_NUMBER[low]
        elif before == "per":
            unit = UNIT.get("/" + low)
        if unit:
            found.setdefault(unit[0], set()).add(unit[1])
    return found


def _counted(lows: Sequence[str]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for low, after in pairwise(lows):
        if low[0].isdecimal() and after[0].isalpha() and after not in STOP and after not in FRAME:
            unit = UNIT.get(after) or AFTER_NUMBER.get(after)
            found.setdefault(low, set()).add(unit[1] if unit else canonical(after))
    return found


def _stopped(lows: Sequence[str]) -> Iterator[str]:
    for i, low in enumerate(lows):
        if low in STOPPERS:
            yield from (canonical(word) for word in lows[i + 1 : i + 4] if word not in STOP)


def _literals(text: str) -> Iterator[tuple[str, bool]]:
    if "`" in text:
        yield from ((" ".join((match[1] or match[2] or "").split()), True) for match in CODE.finditer(text))
    if QUOTE_MARK.search(text):
        yield from ((_squash(match[1] or match[2]), False) for match in QUOTED.finditer(text))
    if ADDRESS_MARK.search(text):
        yield from ((match[0].rstrip(".,;:!?)/"), True) for match in ADDRESS.finditer(text))


def _negations(lows: Sequence[str], language: str) -> Iterator[str]:
    """The stem of what is denied, or "" for what is excluded."""
    known = NEGATORS.get(language, NEGATORS["en"])
    for i, low in enumerate(lows):
        if (low in known or low.endswith("n't")) and not _idle(lows, i):
            denied = next((word for word in lows[i + 1 : i + 5] if word not in STOP), "")
            order = low in ORDER and (i == 0 or lows[i - 1] in BEFORE_ORDER)
            yield canonical(denied) if not order and (low in DENIERS or low.endswith("n't")) else ""


def _idle(lows: Sequence[str], i: int) -> bool:
    """Whether this "not" denies nothing: why or why not, not only, isn't it, no. 5."""
    before = lows[i - 1] if i else ""
    after = lows[i + 1] if i + 1 < len(lows) else ""
    if lows[i].endswith("n't") and ((i == 0 and lows[i] != "don't") or (after in TAG and i + 2 == len(lows))):
        return True
    if before == "why" and (not after or lows[i - 2 : i - 1] == ["or"]):
        return True
    return before in OR_NOT or after in NOT_ONLY or (lows[i] == "no" and after[:1].isdecimal())


def _script(text: str) -> str:
    if text.isascii():
        return "latin" if any(map(str.isalpha, text)) else ""
    counts = Counter(BLOCKS[bisect_left(BLOCK_ENDS, ord(letter))][1] for letter in text if letter.isalpha())
    del counts[""]
    # Japanese mixes both.
    return "kana" if counts["kana"] else max(sorted(counts), key=counts.__getitem__, default="")


def _language(lows: Sequence[str]) -> str:
    said = set(lows)
    (others, _), (hits, first) = sorted((len(said & words), code) for code, words in SPOKEN.items())[-2:]
    return first if hits >= max(2, 2 * others) else ""


def _poles(lows: Sequence[str]) -> dict[int, set[int]]:
    found: dict[int, set[int]] = {}
    for low in lows:
        for axis, pole in OPPOSITE.get(low, ()):
            found.setdefault(axis, set()).add(pole)
    return found


def _routes(words: Sequence[str]) -> Iterator[tuple[str, str, str]]:
    for i, word in enumerate(words):
        if word in CONNECTORS:
            # "Go" is a name here, so words that frame a request are not left out.
            near = (words[max(0, i - 2) : i], words[i + 1 : i + 3])
            left, right = ([canonical(w) for w in part if w not in STOP] for part in near)
            if word == "from":
                left, right = right, left
            yield from ((CONNECTORS[word], x, y) for x in left for y in right if x != y)


def _names(tokens: Sequence[str]) -> Iterator[str]:
    """Capitalised words inside a sentence, unless the whole text is set in capitals."""
    long = [token[0].isupper() for token in tokens if len(token) > 3]
    if len(long) > 3 and sum(long) > 0.7 * len(long):
        return
    for before, token in zip(("\n", *tokens), tokens, strict=False):
        acronym = len(token) > 1 and token.isupper()
        if acronym or (token[0].isupper() and before[0] not in BREAKS):
            low = token.lower().replace(".", "")
            if _weighty(low) and low not in MONTH and low not in DATES:
                yield canonical(low)


def _asks(lows: Sequence[str]) -> Iterator[str]:
    for low, after in zip(lows, (*lows[1:], ""), strict=False):
        if low in ASKS:
            yield low
        elif low == "how" and after in HOW:
            yield "how " + after
