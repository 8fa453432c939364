"""Where sentences end, for scripts with and without blanks between words, by rules and without a model."""

from __future__ import annotations

import re
from collections.abc import Iterator

from costopt.compression.result import Span

__all__ = ["sentence_spans"]

# A mark of the end, whatever closes with it, and references such as [12] that belong to the sentence before.
_END = re.compile(
    r"(?P<wide>[。！？｡．]+)[」』】）〉》”’\"')\]]*"
    r"|(?P<mark>[.!?…؟۔।॥։።՞᙮]+)[\])}\"'”’»›“‘]*(?:\[[\d,;–\s-]{1,20}\])*(?=\s|$)"
)
_WORD_BEFORE = re.compile(r"[^\s(\[{\"'“‘„«]*\Z")
_AFTER = re.compile(r"\s+[\"'“‘„«‹(\[{¿¡*_–—-]*\s*")

# In lower case, without the last full stop. What may well end a sentence ("etc", "Inc") is not among them: there the
# next letter decides.
_ABBREVIATIONS = frozenset(
    """
    dr mr mrs ms prof rev hon st mt sr jr gen col capt lt sgt cmdr adm gov sen rep pres supt det messrs mme mlle
    fig figs eq eqs tab vol vols no nos nr pp p ch sec sect para art ref refs ed eds trans op cit ibid cf viz vs v
    e.g i.e eg ie a.k.a approx ca c est min max avg dept univ assn bros dist al et resp incl excl
    jan feb mar apr jun jul aug sep sept oct nov dec mon tue wed thu fri sat sun
    bzw bspw z.b d.h u.a s.o s.u o.ä u.ä v.a i.d.r z.t sog ggf evtl usf ggü inkl exkl zzgl abs abb bd hrsg hr fr frl
    dipl ing str tel mio mrd geb gest verh vgl max ev kath
    m mm mlles vv av bd chap éd env n°
    sra srta dña ud uds núm pág págs ej ee uu dott sig sigg
    т.е т.д т.п т.к т.н т.о и.о в.ч др пр г гг в вв ул д кв им проф акад доц тыс млн млрд руб коп стр рис табл гл
    напр см ср св род ум обл р оз о п пос с ст
    """.split()
)
# After a number with a full stop, these make it an ordinal: "am 3. Oktober", "im 19. Jahrhundert".
_ORDINAL_NEXT = re.compile(
    r"(?:Januar|Jänner|Februar|März|April|Mai|Juni|Juli|August|September|Oktober|November|Dezember|Jahrhundert|Jahrtausend"
    r"|Jh|Tag|Woche|Monat|Jahrestag|Geburtstag|Klasse|Stock|Etage|Platz|Rang|Auflage|Kapitel|Armee|Bundes\w*|leden|dubna"
    r"|maja|maj|juni|juli)\b"
)
_INITIALS = re.compile(r"(?:\w\.-?)*\w\Z")


def sentence_spans(text: str, start: int = 0, end: int | None = None) -> Iterator[Span]:
    """The sentences of a paragraph, without the white space around them.

    Args:
        text: The document.
        start: Where the paragraph begins in it.
        end: Where it ends.

    Example:
        >>> text = "Dr. Who paid $3.50. Then, e.g. on 3.5., he left! 他来了。她走了。"
        >>> [text[start:end] for start, end in sentence_spans(text)]
        ['Dr. Who paid $3.50.', 'Then, e.g. on 3.5., he left!', '他来了。', '她走了。']
    """
    end = len(text) if end is None else end
    at = start
    for match in _END.finditer(text, start, end):
        if match.group("wide") or _ends(text, at, match, end):
            yield from _trimmed(text, at, match.end())
            at = match.end()
    yield from _trimmed(text, at, end)


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    part = text[start:end]
    left = len(part) - len(part.lstrip())
    if left < len(part):
        yield start + left, start + len(part.rstrip())


def _ends(text: str, at: int, match: re.Match[str], end: int) -> bool:
    """Whether a mark that is followed by white space ends a sentence."""
    after = _AFTER.match(text, match.end(), end)
    following = text[after.end() : after.end() + 1] if after else ""
    if not following:
        return True
    if following.islower():
        return False
    if match.group("mark") != ".":
        return True
    found = _WORD_BEFORE.search(text, max(at, match.start("mark") - 40), match.start("mark"))
    word = found.group() if found else ""
    if not word:
        return match.start("mark") > at
    return not _abbreviates(word, text, at, match.start("mark") - len(word), after.end() if after else end)


def _abbreviates(word: str, text: str, at: int, place: int, following: int) -> bool:
    """Whether the full stop after `word` belongs to it: an abbreviation, an initial, an ordinal, the mark of a list."""
    if not text[at:place].strip() and (word.isdigit() or len(word) == 1):
        return True  # "1. First", "B. Second"
    if word.isdigit():
        return len(word) <= 2 and _ORDINAL_NEXT.match(text, following) is not None
    if word.casefold() in _ABBREVIATIONS:
        return True
    # J. R. R. Tolkien; a lone letter that is a word ("Plan B.") is left to the reader of the next one.
    return (
        _INITIALS.match(word) is not None
        and word[0].isalpha()
        and word[0].upper() != word[0].lower()
        and word[0].isupper()
    )
