"""What a question asks about: its words without those that every question has; and whether MiniLM can read it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from costopt.compression.lexical import words

__all__ = ["asked_about", "english_words", "is_english"]

# Words that say nothing of what a text is about, in the languages that most questions come in.
_EMPTY_WORDS = """
    a an the of in on at to for from by with as and or is are was were be been being do does did done has have had
    having what which who whom whose when where why how that this these those it its there their they them he she his
    her we our you your i me my can could would should will may might must about into over than then so such not no
    also if many much long far often old tall big high large some any all most more other between during after before
    since please tell explain describe give show find list name say said discuss discussed summarize summarise
    der die das den dem des ein eine einer eines einem einen und oder ist sind war waren wird wurde wurden werden wer
    wen wem wessen was welche welcher welches welchem welchen wann wo woher wohin warum wieso wie viele viel lange oft
    hoch gross alt von vom zu zum zur im am in an auf aus bei beim mit nach für über unter durch um als auch nicht sich
    es er sie ihr ihre ihren sein seine seinen hat haben hatte hatten kann können konnte dass dies diese dieser dieses
    le la les un une des du de et ou est sont était ont a qui que quoi quel quelle quels quelles quand où pourquoi
    comment combien dans sur par pour avec en au aux ce cette ces il elle ils elles se sa son ses leur leurs
    el los las una unos unas del y o es son fue era fueron qué quién quiénes cuál cuáles cuándo dónde cómo cuánto
    cuánta cuántos cuántas por para con su sus lo al
    и в во на с со к ко о об от до из у за по под над при для не ни но а или что чем как кто кого кому кем где куда
    откуда когда почему зачем сколько какой какая какое какие каким какую каких каком чей чья чьё это этот эта эти
    был была было были быть есть его её ее их он она оно они который которая которое которые которого которой
    которых ли же бы то та те так также
""".split()
_EMPTY = frozenset(part for _, part in words(" ".join(_EMPTY_WORDS)))
# The same where words have no blanks between them.
_EMPTY_RUNS = re.compile(
    "什么时候|什么|多少|哪[个些里儿一]?|为什么|为何|怎么样?|怎样|如何|何时|何地|几个?|谁|多[长大高久远]|[的了是吗呢有在和]"
    "|どこ|だれ|誰|いつ|なぜ|どの|どう|なに|何|です|ます|[はがのをにでと]"
)
_ENGLISH = frozenset("the of and to in is was that for it with as on by are be this from at or not have".split())
_ENGLISH_SHARE = 0.12
_LOOK_CHARS = 2_000


def asked_about(query: str) -> str:
    """A question without its empty words; the whole of it if it has no others.

    Example:
        >>> asked_about("Who wrote the Iliad, and when?"), asked_about("What is it?"), asked_about("长城有多长？")
        ('wrote iliad', 'What is it?', '长城')
    """
    full = [_EMPTY_RUNS.sub(" ", part) if kind == "run" else part for kind, part in words(query) if part not in _EMPTY]
    return " ".join(" ".join(full).split()) or query


def english_words(text: str) -> tuple[int, int]:
    """How many words at the beginning of a text are such as English cannot do without, and how many there are.

    Example:
        >>> english_words("The tower was built in 1931."), english_words("Der Turm wurde 1931 gebaut.")
        ((3, 5), (0, 4))
    """
    found = [part for kind, part in words(text[:_LOOK_CHARS]) if kind != "number"]
    return sum(part in _ENGLISH for part in found), len(found)


def is_english(counts: Iterable[tuple[int, int]]) -> bool:
    """Whether at least every eighth word is one that English cannot do without; code and tables may well fall short.

    Args:
        counts: The `english_words` of some texts.

    Example:
        >>> is_english([english_words("The tower was built in 1931.")]), is_english([(1, 20)])
        (True, False)
    """
    english, all_of_them = map(sum, zip((0, 0), *counts, strict=True))
    return english >= _ENGLISH_SHARE * all_of_them
