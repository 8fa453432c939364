"""Taking a document apart into what is kept or left out whole: sentences, list items, table rows, turns, code, JSON."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import median

from costopt.compression.protect import code_spans, json_spans, touches
from costopt.compression.result import Span
from costopt.compression.sentences import sentence_spans

__all__ = ["Unit", "is_dialogue", "units"]

_LONG_CHARS = 700  # of a sentence: beyond that it is a list, a table or a log without line ends
_LONG_ITEM_CHARS = 300
_LONG_TURN_CHARS = 1_500
_PASSAGE_CHARS = 800
_TITLE_CHARS = 90
_LOOK_CHARS = 20_000
# Lines broken at a width: how long most are, and by how much they differ.
_NARROW, _WIDE, _RAGGED = 40, 130, 30

_HEADING = re.compile(r"[ \t]*(?:#{1,6}[ \t]+\S|={2,}[ \t]*[^=\s].*[^=\s][ \t]*={2,}[ \t]*$)")
_UNDERLINE = re.compile(r"[ \t]*(?:={3,}|-{3,}|\*{3,}|_{3,})[ \t]*$")
_ITEM = re.compile(
    r"[ \t]*(?:[-*+•◦‣▪–—·]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)]|\[[ xX]?\]|[\u2460-\u2473])[ \t]+\S"
)
_ROW = re.compile(r"[ \t]*\|.*\|[ \t]*$|[^\t\n]+(?:\t[^\t\n]*)+$|[^|\n]+(?: \| [^|\n]*){2,}$")
_TURN = re.compile(
    r"[ \t]*(?:\*\*)?(?:\[[^\]\n]{1,20}\][ \t]*)?(?P<who>[^\W\d_][\w .'’()/&-]{0,40}?)(?:\*\*)?[ \t]?[:：](?:\*\*)?"
    r"(?:[ \t]+|$|(?<=：))"
)
_RECORD = re.compile(
    r"[ \t]*(?:\[?\d{4}-\d\d-\d\d|\[?\d\d:\d\d|\d{1,3}(?:\.\d{1,3}){3}\b|(?:INFO|WARN|ERROR|DEBUG|TRACE)\b"
    r"|[\w.-]+[ \t]*=[ \t]*\S)"
)
_ENDS = re.compile(r"[.!?…。！？؟۔।:：;；]['\"”’»)\]]*[ \t]*$")
_CLAUSE_MARKS = tuple(";；:：,，、،")
_LINE = re.compile(r"[^\n\r\u2028\u2029]*(?:\r\n|[\n\r\u2028\u2029]|\Z)")
_WIDE_CHARACTER = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af\U00020000-\U0003ffff]")
_CLAUSE = re.compile(r"[;；:：]\s|[,，、،]\s?|\s[–—-]\s|\n|\s")
_LINE_KINDS = (
    ("underline", _UNDERLINE),
    ("heading", _HEADING),
    ("row", _ROW),
    ("item", _ITEM),
    ("record", _RECORD),
)


@dataclass(frozen=True, slots=True)
class Unit:
    """A part of a document that is kept or left out whole.

    Attributes:
        start: Where it begins, in characters.
        end: Where it ends; white space around it belongs to no unit.
        kind: "sentence", "item", "row", "turn", "line", "heading", "code" or "json".
        passage: Which passage it is in: some neighbouring units that are about one thing, numbered in order.
    """

    start: int
    end: int
    kind: str
    passage: int = 0


def units(text: str, dialogue: bool | None = None) -> list[Unit]:
    r"""Take a document apart; the units are in order, do not overlap, and hold all of it but white space.

    Args:
        text: The document.
        dialogue: Whether lines that begin with a name and a colon are turns of a talk; None: see `is_dialogue`.

    Example:
        >>> text = "# Fees\n\nOne is free. Two cost 5 EUR.\n\n- by card\n- in cash"
        >>> [(text[unit.start : unit.end], unit.kind) for unit in units(text)][:4]
        [('# Fees', 'heading'), ('One is free.', 'sentence'), ('Two cost 5 EUR.', 'sentence'), ('- by card', 'item')]
    """
    found: list[tuple[int, int, str, int]] = []
    talk = is_dialogue([text]) if dialogue is None else dialogue
    block = at = 0
    for start, end, kind in [*_solid(text), (len(text), len(text), "")]:
        for lines in _blocks(text, at, start):
            block += 1
            found.extend((*part, block) for part in _parts(text, lines, talk))
        if kind:
            block += 1
            found.append((start, end, kind, block))
        at = end
    return _grouped(text, found)


def _solid(text: str) -> list[tuple[int, int, str]]:
    """Code and JSON that stand on lines of their own."""
    code = [span for span in code_spans(text) if _own_lines(text, *span)]
    data = [span for span in json_spans(text) if not touches(span, code) and _own_lines(text, *span)]
    return sorted([*((*span, "code") for span in code), *((*span, "json") for span in data)])


def _own_lines(text: str, start: int, end: int) -> bool:
    before, after = text.rfind("\n", 0, start) + 1, text.find("\n", end)
    return not text[before:start].strip() and not text[end : after if after >= 0 else len(text)].strip(" \t\r,;")


def _blocks(text: str, start: int, end: int) -> Iterator[list[Span]]:
    """The lines that stand together, without the white space around each; blank lines part blocks."""
    block: list[Span] = []
    for match in _LINE.finditer(text, start, end):
        line = match.group()
        stripped = line.strip()
        if stripped:
            left = match.start() + len(line) - len(line.lstrip())
            block.append((left, left + len(stripped)))
        elif block:
            yield block
            block = []
    if block:
        yield block


def _parts(text: str, lines: Sequence[Span], dialogue: bool) -> Iterator[tuple[int, int, str]]:
    """What a block is made of: each (start, end, kind)."""
    kinds = _kinds(text, lines, dialogue)
    at = 0
    while at < len(lines):
        last, kind = at + 1, kinds[at]
        while last < len(lines) and kinds[last] == "more":
            last += 1
        start, end = lines[at][0], lines[last - 1][1]
        yield from _cut(text, start, end, kind)
        at = last


def _kinds(text: str, lines: Sequence[Span], dialogue: bool) -> list[str]:
    """The kind of each line; "more" if it goes on with the one before."""
    wrapped = _wrapped(lines)
    kinds: list[str] = []
    for i, (start, end) in enumerate(lines):
        line = text[start:end]
        kind = _kind(line, dialogue)
        if kind == "text" and kinds:
            before = text[slice(*lines[i - 1])]
            previous = next((each for each in reversed(kinds) if each != "more"), "")
            kind = "more" if _goes_on(before, line, previous, wrapped) else "text"
        if kind == "underline":
            if kinds and kinds[-1] == "text":
                kinds[-1] = "heading"
            kind = "more" if kinds else "line"
        kinds.append(kind)
    if kinds.count("row") == 1:
        kinds = ["text" if kind == "row" else kind for kind in kinds]
    return kinds


def _kind(line: str, dialogue: bool) -> str:
    if dialogue and _TURN.match(line):
        return "turn"
    for kind, pattern in _LINE_KINDS:
        if pattern.match(line):
            return kind
    return "text"


def _goes_on(before: str, line: str, previous: str, wrapped: bool) -> bool:
    """Whether a line goes on with what the line before began."""
    if previous in ("heading", "row", "record", "line"):
        return False
    if previous == "turn":
        return True
    if line[0].islower() or line[0] in ",;)]":
        return not _ENDS.search(before) or wrapped
    return wrapped or (previous == "item" and not _ENDS.search(before))


def _wrapped(lines: Sequence[Span]) -> bool:
    """Whether these lines were broken at a width, so that a line end says nothing."""
    lengths = [end - start for start, end in lines[:-1]]
    if not lengths or not _NARROW <= median(lengths) <= _WIDE:
        return False
    return max(lengths) - min(lengths) <= _RAGGED and lines[-1][1] - lines[-1][0] <= max(lengths) + _RAGGED


def _cut(text: str, start: int, end: int, kind: str) -> Iterator[tuple[int, int, str]]:
    """One paragraph, item, turn, … in its sentences, where it is not better kept whole."""
    whole = {"item": _LONG_ITEM_CHARS, "turn": _LONG_TURN_CHARS}.get(kind, 0 if kind == "text" else end - start)
    if end - start <= whole:
        spans: Iterator[Span] = iter([(start, end)])
    else:
        spans = sentence_spans(text, start, end)
    for first, last in spans:
        for part in _short_enough(text, first, last):
            yield *part, "sentence" if kind == "text" else kind


def _short_enough(text: str, start: int, end: int) -> Iterator[Span]:
    """What has no end for too long is cut at a clause, or at a blank; a word is never cut."""
    while end - start > _LONG_CHARS:
        cuts = [match.end() for match in _CLAUSE.finditer(text, start + _LONG_CHARS // 2, start + _LONG_CHARS)]
        if not cuts:
            found = _CLAUSE.search(text, start + _LONG_CHARS, end)
            if found is None:
                break
            cuts = [found.end()]
        cut = max(cuts, key=lambda place: (text[place - 2 : place].strip()[-1:] in _CLAUSE_MARKS, place))
        yield start, start + len(text[start:cut].rstrip())
        start = cut + len(text[cut:end]) - len(text[cut:end].lstrip())
    if start < end:
        yield start, end


def _grouped(text: str, found: Sequence[tuple[int, int, str, int]]) -> list[Unit]:
    """The units with their passages."""
    grouped: list[Unit] = []
    passage = filled = 0
    for i, (start, end, kind, block) in enumerate(found):
        kind = "heading" if kind == "sentence" and _is_title(text, found, i) else kind
        size = _weight(text[start:end])
        full = filled + size > _PASSAGE_CHARS or (filled > _PASSAGE_CHARS // 2 and block != found[i - 1][3])
        if filled and (full or kind == "heading"):
            passage, filled = passage + 1, 0
        filled += size
        grouped.append(Unit(start, end, kind, passage))
    return grouped


def _is_title(text: str, found: Sequence[tuple[int, int, str, int]], i: int) -> bool:
    """Whether a sentence is a line by itself, short and without an end, with something below it."""
    start, end, _, block = found[i]
    alone = (i == 0 or found[i - 1][3] != block) and i + 1 < len(found) and found[i + 1][3] != block
    return alone and end - start <= _TITLE_CHARS and not _ENDS.search(text[start:end])


def _weight(part: str) -> int:
    """Its length, where a character of a script without blanks counts as two and a half."""
    return len(part) if part.isascii() else len(part) + 3 * len(_WIDE_CHARACTER.findall(part)) // 2


def is_dialogue(texts: Sequence[str]) -> bool:
    """Whether most lines of these documents, taken together, are turns ("Speaker: …") of speakers who come again."""
    lines = turns = 0
    speakers: set[str] = set()
    for text in texts:
        for match in _LINE.finditer(text[:_LOOK_CHARS]):
            turn = _TURN.match(match.group())
            lines += bool(match.group().strip())
            if turn:
                turns += 1
                speakers.add(turn.group("who"))
    return turns >= 2 and turns >= 0.5 * lines and (len(speakers) < 0.7 * turns or turns >= 0.9 * lines)
