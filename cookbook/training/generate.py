"""Pairs made from single questions: near misses, which need another answer, and paraphrases, which do not.

A near miss changes one thing that an embedding hardly sees (a number, a unit, a negation, a name, a date, a
direction, an entity). An honest paraphrase changes only what does not matter (spelling, case, courtesy, numbers in
words). Both come in like amounts, so that "hardly changed" by itself says nothing.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence

__all__ = ["generate", "negated", "renumbered", "reversed_roles"]

Edit = Callable[[str, random.Random], str | None]

_WORD = re.compile(r"[A-Za-z][A-Za-z'’-]*")
_NUMBER = re.compile(r"(?<![\w.])\d+(?:[.,]\d+)?(?![\w.]*\d)")
_NAME = re.compile(r"(?<=[a-z,] )[A-Z][a-z]{2,}\b")
_ROUTE = re.compile(
    r"\b(from|convert|translate|send|move|migrate|switch|travel|fly)\b(.{2,40}?)\b(to|into)\b(.{2,40})", re.I
)
_THAN = re.compile(
    r"^(.*?\b(?:is|are|was|were)\s+)(\S.{1,30}?)(\s+\w+er\s+than\s+|\s+(?:more|less)\s+\w+\s+than\s+)(\w.{1,30}?)([?.!]*)$",
    re.I,
)

# Things of one kind: one of them in place of another is another question.
_KINDS = """
Monday Tuesday Wednesday Thursday Friday Saturday Sunday
January February March April June July August September October November December
spring summer autumn winter
morning afternoon evening night
breakfast lunch dinner
yesterday today tomorrow
daily weekly monthly yearly
hours days weeks months years
kilometres miles metres feet yards inches centimetres
kilograms pounds grams ounces tonnes stone
litres gallons millilitres pints cups
dollars euros pounds rupees yen francs
Celsius Fahrenheit Kelvin
India China Japan Germany France Italy Spain Brazil Canada Australia Mexico Russia Turkey Poland Sweden Norway
USA UK Pakistan Bangladesh Nepal Indonesia Vietnam Thailand Egypt Nigeria Kenya Argentina
London Paris Berlin Rome Madrid Tokyo Delhi Mumbai Bangalore Chennai Boston Chicago Seattle Toronto Sydney Dubai
English French German Spanish Italian Russian Chinese Japanese Korean Arabic Hindi Portuguese
Python Java JavaScript Rust Kotlin Swift Ruby PHP Perl Scala
Windows Linux Android iOS macOS Ubuntu
Google Facebook Microsoft Amazon Apple Twitter Instagram WhatsApp YouTube Netflix Quora LinkedIn Uber Tesla
Trump Clinton Obama Modi Putin Merkel Gandhi Kejriwal Sanders
physics chemistry biology mathematics geography history economics philosophy psychology
mechanical electrical civil chemical
engineer doctor lawyer teacher nurse pilot accountant architect
red blue green yellow black white purple orange
cat dog horse rabbit hamster parrot fish cow goat sheep
chicken beef pork lamb salmon tofu shrimp
rice pasta bread potatoes noodles
apple banana orange mango grape lemon cherry
coffee tea beer wine milk juice water
brother sister mother father son daughter uncle aunt cousin
husband wife boyfriend girlfriend
buyer seller
tenant landlord
teacher student
employer employee
guitar piano violin drums flute
football cricket tennis basketball hockey golf rugby
laptop phone tablet printer router monitor camera
bedroom kitchen bathroom garage garden basement
gold silver copper iron aluminium steel
oxygen hydrogen nitrogen carbon helium
north south east west
left right
front rear
top bottom
first last
increase decrease
maximum minimum
before after
inside outside
import export
upload download
encode decode
encrypt decrypt
buy sell
lend borrow
win lose
enable disable
install uninstall
open close
accept reject
hire fire
gain lose
start stop
love hate
hot cold
cheap expensive
best worst
fastest slowest
largest smallest
oldest newest
advantages disadvantages
formal informal
public private
domestic international
positive negative
active passive
internal external
input output
credit debit
gross net
male female
single married
frontend backend
client server
CSV JSON XML PDF
one two three four five six seven eight nine ten
"""
_KIND: dict[str, list[list[str]]] = {}
for _line in _KINDS.strip().splitlines():
    _group = _line.split()
    for _entry in _group:
        _KIND.setdefault(_entry.lower(), []).append(_group)

_SPELT = dict(
    zip(
        "2 3 4 5 6 7 8 9 10 11 12 20".split(),
        "two three four five six seven eight nine ten eleven twelve twenty".split(),
        strict=True,
    )
)
_AGREED = [
    tuple(side.strip() for side in pair.split("="))
    for pair in """
    what is = what's | how is = how's | who is = who's | do not = don't | does not = doesn't | cannot = can't |
    i am = i'm | it is = it's | is not = isn't | i have = i've | are not = aren't | should not = shouldn't |
    i would = i'd | best way to = most effective way to | how do i = how can i | how do i = how to |
    how can i = what can i do to | how does one = how do you | is it possible to = can one |
    what are some = what are a few | approximately = about | purchase = buy | obtain = get | quickly = fast |
    what are the best = which are the best | for example = e.g. | such as = like | united states = usa |
    united kingdom = uk | percent = % | organization = organisation | color = colour | favorite = favourite |
    movie = film | mobile phone = cell phone | photo = picture | repair = fix | begin = start | large = big |
    required = needed | assist = help | children = kids | television = tv | application = app |
    explain = describe | list of = listing of | why do = why is it that |
    how much does it cost to = what does it cost to | should i = ought i to | right now = currently |
    at the moment = now
    """.split("|")
]
_COURTESIES = (
    "{}, please", "Please tell me: {}", "Hi, {}", "{} Thanks!", "Could you tell me: {}", "I was wondering, {}",
    "Quick question: {}",
    "{} Thank you in advance.", "Hello! {}", "I'd like to know: {}", "Can anyone say, {}", "{} Any help is welcome.",
)  # fmt: skip
# After these a "not" denies nothing, or asks for assent: "is there not a way?"
_DETERMINERS = frozenset("a an the this that these those there my your his her its our their some any it".split())
_AUXILIARIES = "do does did can could should would will is are was were has have must may".split()


def renumbered(text: str, chosen: random.Random) -> str | None:
    """The text with one number changed; None if it has none."""
    found = list(_NUMBER.finditer(text))
    if not found:
        return None
    match = chosen.choice(found)
    digits = match[0]
    place = chosen.randrange(len(digits))
    while not digits[place].isdigit():
        place = chosen.randrange(len(digits))
    other = chosen.choice([d for d in ("123456789" if place == 0 else "0123456789") if d != digits[place]])
    changed = digits[:place] + other + digits[place + 1 :]
    if chosen.random() < 0.3 and digits.isdigit():
        changed = digits + "0" if chosen.random() < 0.5 else str(int(digits) + chosen.choice((1, 2, 5)))
    return text[: match.start()] + changed + text[match.end() :]


def negated(text: str, chosen: random.Random) -> str | None:
    """The text with a "not" more or less; None if there is no place for it."""
    without = re.sub(r"(?i)\b(not|never)\s+", "", text, count=1)
    without = re.sub(
        r"(?i)\b(do|does|did|is|are|was|were|could|should|would|has|have)n['’]t\b", r"\1", without, count=1
    )
    if without != text:
        return without
    places = [m for m in _WORD.finditer(text) if m[0].lower() in _AUXILIARIES and m.start()]
    opening = re.match(
        r"(?i)(how|why|when|where|what|who|which)\b[^,.]{0,40}?\b(do|does|did|can|could|should|would|will|is|are|was|were)\b\s+(\w+)",
        text,
    )
    if opening and opening[3].lower() not in _DETERMINERS:
        at = opening.end(3)
        return f"{text[:at]} not{text[at:]}"
    first = re.match(r"(?i)(do|does|did|can|could|should|would|will|is|are|was|were)\s+(\w+)", text)
    if first and first[2].lower() not in _DETERMINERS:
        return f"{text[: first.end()]} not{text[first.end() :]}"
    if places and not opening and not first:
        match = chosen.choice(places)
        return f"{text[: match.end()]} not{text[match.end() :]}"
    swapped = re.sub(r"\bwith\b", "without", text, count=1)
    return swapped if swapped != text else None


def reversed_roles(text: str, chosen: random.Random) -> str | None:
    """The text with two things in each other's place ("from A to B", "A is taller than B"); None if there are none."""
    match = _THAN.match(text)
    if match:
        return f"{match[1]}{match[4]}{match[3]}{match[2]}{match[5]}"
    match = _ROUTE.search(text)
    if match is None:
        return None
    one = match[2].strip()
    tail = match[4].strip()
    words = re.findall(r"\S+", tail)
    size = min(len(one.split()), len(words))
    other = " ".join(words[:size]).rstrip("?.!,")
    if not other or other.lower() == one.lower():
        return None
    rest = tail[len(other) :] if tail.startswith(other) else ""
    return f"{text[: match.start()]}{match[1]} {other} {match[3]} {one}{rest}{text[match.end() :]}".strip()


def _other_kind(text: str, chosen: random.Random) -> str | None:
    """One entity, unit, date or opposite in place of another of its kind."""
    found = [m for m in _WORD.finditer(text) if m[0].lower() in _KIND]
    if not found:
        return None
    match = chosen.choice(found)
    group = chosen.choice(_KIND[match[0].lower()])
    other = chosen.choice([w for w in group if w.lower() != match[0].lower() and w.lower() not in text.lower()] or [""])
    if not other:
        return None
    shown = other if not match[0].islower() or other.isupper() or other[1:] != other[1:].lower() else other.lower()
    return (
        text[: match.start()]
        + (shown.capitalize() if match[0].istitle() and shown.islower() else shown)
        + text[match.end() :]
    )


class _Names:
    """Names in place of names, out of those that the corpus holds."""

    def __init__(self, texts: Sequence[str]) -> None:
        found = {m[0] for text in texts for m in _NAME.finditer(text)}
        self._names = sorted(name for name in found if name.lower() not in _KIND)

    def __call__(self, text: str, chosen: random.Random) -> str | None:
        found = list(_NAME.finditer(text))
        if not found or not self._names:
            return None
        match = chosen.choice(found)
        other = chosen.choice(self._names)
        if other.lower() in text.lower() or other[:4] == match[0][:4]:
            return None
        return text[: match.start()] + other + text[match.end() :]


def _typo(text: str, chosen: random.Random) -> str | None:
    """Two letters inside a long word swapped, or one left out."""
    found = [m for m in _WORD.finditer(text) if len(m[0]) > 5 and m[0].islower()]
    if not found:
        return None
    match = chosen.choice(found)
    at = match.start() + chosen.randrange(1, len(match[0]) - 2)
    if text[at] == text[at + 1]:
        return text[:at] + text[at + 1 :]
    return text[:at] + text[at + 1] + text[at] + text[at + 2 :]


def _plain(text: str, chosen: random.Random) -> str | None:
    """Lower case, without the last mark."""
    bare = text.rstrip("?.! ")
    return bare.lower() if chosen.random() < 0.6 else bare


def _courteous(text: str, chosen: random.Random) -> str | None:
    frame = chosen.choice(_COURTESIES)
    inner = text if frame.startswith("{}") or not text.split()[0][1:].islower() else text[0].lower() + text[1:]
    return frame.format(inner.rstrip("?.! ") if "{}," in frame else inner)


def _agreed(text: str, chosen: random.Random) -> str | None:
    """A phrase in place of one that means the same."""
    low = text.lower()
    pairs = list(_AGREED)
    chosen.shuffle(pairs)
    for one, two in pairs:
        for old, new in ((one, two), (two, one)):
            match = re.search(rf"\b{re.escape(old)}(?!\w)", low)
            if match:
                shown = new.capitalize() if text[match.start()].isupper() else new
                return text[: match.start()] + shown + text[match.end() :]
    return None


def _spelt(text: str, chosen: random.Random) -> str | None:
    """A small number in words, or the other way round."""
    found = [m for m in _NUMBER.finditer(text) if m[0] in _SPELT]
    if found:
        match = chosen.choice(found)
        return text[: match.start()] + _SPELT[match[0]] + text[match.end() :]
    for digits, word in _SPELT.items():
        changed = re.sub(rf"\b{word}\b", digits, text, count=1)
        if changed != text:
            return changed
    return None


_PARAPHRASES: tuple[Edit, ...] = (_typo, _plain, _courteous, _agreed, _spelt)


def generate(texts: Sequence[str], count: int, seed: int) -> Iterator[tuple[str, str, bool, str]]:
    """Make pairs out of single questions, half of them near misses.

    Args:
        texts: The questions.
        count: How many pairs of either sort.
        seed: Of the random choices.

    Yields:
        (one, other, whether one answer serves both, what was changed); the near misses' other side is
        paraphrased half of the time, so that no sort is told by how much was changed.
    """
    chosen = random.Random(seed)
    misses: dict[str, Edit] = {
        "number": renumbered,
        "negation": negated,
        "direction": reversed_roles,
        "kind": _other_kind,
        "name": _Names(texts),
    }
    order = list(texts)
    made = {"same": 0, "different": 0}
    for _ in range(8):
        chosen.shuffle(order)
        for text in order:
            if made["different"] < count:
                # Numbers and directions are rare: where there is one, it is taken.
                names = sorted(misses, key=lambda name: (name not in ("number", "direction"), chosen.random()))
                for name in names:
                    other = misses[name](text, chosen)
                    if other is not None and _apart(text, other):
                        if chosen.random() < 0.5:
                            other = _reword(other, chosen)
                        made["different"] += 1
                        yield (text, other, False, name)
                        break
            if made["same"] < count:
                other = _reword(text, chosen)
                if _apart(text, other):
                    made["same"] += 1
                    yield (text, other, True, "paraphrase")
        if min(made.values()) >= count:
            return


def _reword(text: str, chosen: random.Random) -> str:
    for edit in chosen.sample(_PARAPHRASES, chosen.choice((1, 1, 2, 3))):
        text = edit(text, chosen) or text
    return text


def _apart(one: str, other: str) -> bool:
    return one.lower().strip("?.! ") != other.lower().strip("?.! ")
