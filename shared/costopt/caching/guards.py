"""Cheap lexical vetoes: "these two texts cannot want the same answer", whatever their embeddings say.

A sentence embedding hardly sees a number, a negation, a name or an order of words. Each guard looks at one of
these and forbids serving when both texts commit to different things. A guard speaks up only when it is nearly
sure; what it lets pass is for the judge to decide.

    number     numbers, versions, years, dates         unit       km/miles, C/F, USD/EUR, per day/per month
    quote      quotes, code, URLs, paths, site:        language   script, language, "translate to ..."
    negation   not, never, without                     direction  opposites, reversed roles, from A to B
    name       one entity in place of another          scope      kind of question, output format
    passage    the same long passage, another question

Every pattern is linear in the text.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType

from costopt.caching.features import MEASURES, PASSAGE_WORDS, Features, canonical, content, features
from costopt.caching.lexicon import (
    BALANCED,
    BEFORE_VERB,
    HALF_NOT,
    MEASURED,
    PAIRING,
    STOP,
    UN,
)

__all__ = ["GUARDS", "MAX_CHARS", "READ", "Features", "features", "overlap", "veto"]

MAX_CHARS = 4000
"""Longer texts are not looked at: the cache serves texts beyond the embedding's window on exact match only."""

_ON = frozenset(("on", "onto"))
_SLOT = 3  # words that may stand in one place of an otherwise equal sentence


def _apart(one: frozenset[str] | set[str], two: frozenset[str] | set[str]) -> bool:
    return not (one <= two or two <= one)


def _number(a: Features, b: Features) -> bool:
    return (_lone_numbers(a, b) and _lone_numbers(b, a)) or _apart(a.dates, b.dates)


def _number_missing(a: Features, b: Features) -> bool:
    return _lone_numbers(a, b) or _lone_numbers(b, a)


def _lone_numbers(a: Features, b: Features) -> bool:
    return not a.numbers <= b.numbers | b.perhaps_numbers


def _unit(a: Features, b: Features) -> bool:
    if any(_apart(units, b.units[dimension]) for dimension, units in a.units.items() if dimension in b.units):
        return True
    # The same number of other things: 80 lb paper, 80 gsm paper.
    return any(
        things.isdisjoint(b.counted[number]) and _lone(things, b) and _lone(b.counted[number], a)
        for number, things in a.counted.items()
        if number in b.counted
    )


def _lone(things: set[str], other: Features) -> bool:
    """Whether the other text has one of these counted things in no form."""
    units = set().union(*other.units.values())
    return any(thing not in units and _missing([thing], other) for thing in things)


def _quote(a: Features, b: Features) -> bool:
    if not (a.literals or b.literals):
        return False
    lone_a, lone_b = _lone_literals(a, b), _lone_literals(b, a)
    # One text may quote what the other says without quotes, or in other words; two quotations may not differ.
    return True in lone_a or True in lone_b or bool(lone_a and lone_b)


def _lone_literals(a: Features, b: Features) -> set[bool]:
    return {exact for literal, exact in a.literals if literal not in (b.text if exact else b.squashed)}


def _other_language(a: Features, b: Features) -> bool:
    if (a.script and b.script and a.script != b.script) or (a.language and b.language and a.language != b.language):
        return True
    if a.targets == b.targets:
        return False
    return bool(a.targets and b.targets) or any(word.startswith("translat") for word in (*a.words, *b.words))


def _negation(a: Features, b: Features) -> bool:
    if _only_stopped(a, b) or _only_stopped(b, a):
        return True
    if (len(a.negations) - len(b.negations)) % 2 == 0:
        return False
    # "is not possible" and "is impossible" agree.
    if not HALF_NOT.isdisjoint(set(a.words).symmetric_difference(b.words)) or _prefixed(a, b):
        return False
    # What only one text speaks of, it may well deny: "not" counts if both speak of it.
    spoken = {canonical(word) for word in a.words} & {canonical(word) for word in b.words}
    denied = Counter(a.negations), Counter(b.negations)
    return any(not stem or stem in spoken for stem in (denied[0] - denied[1]) + (denied[1] - denied[0]))


def _only_stopped(a: Features, b: Features) -> bool:
    """Whether `a` wants to stop what `b` speaks of without denying anything."""
    if not a.stopped or b.stopped or b.negations or not HALF_NOT.isdisjoint(b.words):
        return False
    return not a.stopped.isdisjoint(map(canonical, b.words))


def _turned_off(a: Features, b: Features) -> bool:
    """Whether one says "off" where the other says "on"; both may say "on" elsewhere."""
    return any("off" in x.words and "off" not in y.words and not _ON.isdisjoint(y.words) for x, y in ((a, b), (b, a)))


def _direction(a: Features, b: Features) -> bool:
    opposed = any(poles.isdisjoint(b.poles[axis]) for axis, poles in a.poles.items() if axis in b.poles)
    turned = {c for c, x, y in a.routes - b.routes if (c, y, x) in b.routes - a.routes}
    if "than" in turned:
        return not opposed  # "A is faster than B" is "B is slower than A"
    return (
        opposed
        or bool(turned)
        or _turned_off(a, b)
        or (len(a.negations) == len(b.negations) and _prefixed(a, b))
        or _swapped(a.words, b.words)
    )


def _prefixed(a: Features, b: Features) -> bool:
    """Whether one says "install" where the other says "uninstall"."""
    x, y = set(a.words), set(b.words)
    return any(
        len(word) > len(prefix) + 3 and word.startswith(prefix) and word[len(prefix) :] in there
        for here, there in ((x - y, y - x), (y - x, x - y))
        for word in here
        if word.startswith(UN)
        for prefix in UN
    )


def _swapped(x: Sequence[str], y: Sequence[str]) -> bool:
    """Whether the two differ by two words or phrases that changed places around something not symmetric."""
    if len(x) != len(y) or x == y or not BALANCED.isdisjoint(x) or Counter(x) != Counter(y):
        return False
    _, m, n = _middles(x, y)
    return any(
        m[:i] == n[-i:]
        and m[-j:] == n[:j]
        and m[i:-j] == n[j:-i]
        and not PAIRING.issuperset(m[i:-j])
        and content(m[:i])
        and content(m[-j:])
        for i in range(1, _SLOT + 1)
        for j in range(1, min(_SLOT + 1, len(m) - i))
    )


def _middles(x: Sequence[str], y: Sequence[str]) -> tuple[int, Sequence[str], Sequence[str]]:
    """(length of the common beginning, what is left of x, what is left of y) without common beginning and end."""
    shorter = min(len(x), len(y))
    start = next((i for i in range(shorter) if x[i] != y[i]), shorter)
    end = next((i for i in range(shorter - start) if x[-1 - i] != y[-1 - i]), shorter - start)
    return start, x[start : len(x) - end], y[start : len(y) - end]


def _akin(x: str, y: str) -> bool:
    """Whether two stems are one word: inflected, derived or misspelt."""
    if x[0] != y[0]:
        return False
    if len(x) > len(y):
        x, y = y, x
    start = next((i for i in range(len(x)) if x[i] != y[i]), len(x))
    if start == len(x) >= 4 or (start >= 5 and start >= 0.7 * len(y)) or x == y:
        return True
    u, v = x[start:], y[start:]
    return len(x) >= 5 and (u[1:] == v[1:] or u == v[1:] or (u[:2] == v[1::-1] and u[2:] == v[2:]))


def _missing(stems: Sequence[str] | frozenset[str], other: Features) -> list[str]:
    """Which of the stems the other text has in no form."""
    return [
        stem
        for stem in stems
        if stem not in other.content
        and not (len(stem) > 3 and stem in other.squashed)
        and not any(_akin(stem, word) for word in other.content)
    ]


def _name(a: Features, b: Features) -> bool:
    if a.names and b.names and _unmet(a, b) and _unmet(b, a):
        return True
    # Chinese and Japanese are parted into characters, which are not words.
    return {"han", "kana"}.isdisjoint((a.script, b.script)) and _in_slot(a, b)


def _unmet(a: Features, b: Features) -> bool:
    initials = "".join(word[0] for word in b.words)
    return any(not (len(name) < 6 and name in initials) for name in _missing(a.names, b))


def _in_slot(a: Features, b: Features) -> bool:
    """Whether one word, or a short ending, stands in place of another in the same sentence."""
    start, m, n = _middles(a.words, b.words)
    most = max(len(m), len(n))
    if not m or not n or most == max(len(a.words), len(b.words)):
        return False
    if most > 1 and (most > 2 or a.words[-1] == b.words[-1]):
        return False
    # After "I", "to" and the like comes a verb, and verbs have too many synonyms.
    if start and a.words[start - 1] in BEFORE_VERB:
        return False
    u, v = content(m), content(n)
    if not u or not v or "".join(w[0] for w in m) in n or "".join(w[0] for w in n) in m:
        return False
    return len(_missing(u, b)) == len(u) and len(_missing(v, a)) == len(v)


def _scope(a: Features, b: Features) -> bool:
    if _apart(a.formats, b.formats):
        return True
    if not a.asks or not b.asks or not a.asks.isdisjoint(b.asks):
        return False
    return MEASURES.issuperset(_missing(a.content, b)) and MEASURES.issuperset(_missing(b.content, a))


def _passage(a: Features, b: Features) -> bool:
    shared = a.passages & b.passages
    if not shared:
        return False
    x, y = _rest(a, shared), _rest(b, shared)
    return any(not any(_akin(v, w) for w in there) for here, there in ((x - y, y), (y - x, x)) for v in here)


def _rest(of: Features, shared: frozenset[int]) -> set[str]:
    """What the text says outside the shared passage. Here "summarise" counts: the passage is the same."""
    starts = [i for i in range(len(of.words) - PASSAGE_WORDS + 1) if hash(of.words[i : i + PASSAGE_WORDS]) in shared]
    covered = {i + k for i in starts for k in range(PASSAGE_WORDS)}
    left = {word for i, word in enumerate(of.words) if i not in covered}
    return {canonical(word) for word in left - STOP - MEASURED}


GUARDS: Mapping[str, Callable[[Features, Features], bool]] = MappingProxyType(
    {
        "number": _number,
        "number missing": _number_missing,
        "unit": _unit,
        "quote": _quote,
        "language": _other_language,
        "negation": _negation,
        "direction": _direction,
        "name": _name,
        "scope": _scope,
        "passage": _passage,
    }
)
"""Every guard by name, in the order in which `veto` asks them; True forbids."""


READ = frozenset(("number missing",))
"""What a judge that reads both texts decides better: whether a number that only one of them has matters."""


def veto(asked: str, cached: str, *, leave: Collection[str] = ()) -> str | None:
    """Which guard forbids to answer one text with what was answered to the other.

    Symmetric in its arguments, and never raises. Texts over `MAX_CHARS` characters are not looked at.

    Args:
        asked: The text asked now.
        cached: The text whose answer is in the cache.
        leave: Guards that are not asked.

    Returns:
        The name of the first guard in `GUARDS` that forbids it, or None if none does.

    Example:
        >>> veto("Top 5 films of 2023?", "Top 10 films of 2023?"), veto("two adults", "2 adults")
        ('number', None)
    """
    if asked == cached or max(len(asked), len(cached)) > MAX_CHARS:
        return None
    a, b = features(asked), features(cached)
    return next((name for name, forbids in GUARDS.items() if name not in leave and forbids(a, b)), None)


def overlap(one: str, other: str) -> float:
    """Share of the words of two texts that both have, in [0, 1] (Jaccard); 1 for texts over `MAX_CHARS`.

    Example:
        >>> overlap("front brakes of a van", "rear brakes of a van")
        0.6
    """
    if max(len(one), len(other)) > MAX_CHARS:
        return 1.0
    a, b = set(features(one).words), set(features(other).words)
    return len(a & b) / max(1, len(a | b))
