"""What compression gives back: slices of the originals, what was left out and why, and the way back."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from costopt.errors import ConfigError

__all__ = ["CompressionResult", "Dropped", "Piece", "Span", "assemble"]

Span = tuple[int, int]
"""Where a part of one document begins and ends, in characters: [start, end)."""

_BLANK = re.compile(r"\s+")
_LINE_BREAK = re.compile(r"[\n\r\u2028\u2029]")
_BETWEEN_TEXTS = "\n\n"


@dataclass(frozen=True, slots=True)
class Piece:
    """A part of a document that was kept.

    Attributes:
        document: Which of the documents, counted from 0.
        start: Where it begins in the original, in characters.
        end: Where it ends.
        text: ``originals[document][start:end]``, or, if `rewritten`, what stands for it.
        rewritten: Whether it was put in fewer characters without loss, as JSON is by leaving out its white space.
    """

    document: int
    start: int
    end: int
    text: str
    rewritten: bool = False


@dataclass(frozen=True, slots=True)
class Dropped:
    """A part of a document that was left out.

    Attributes:
        document: Which of the documents, counted from 0.
        start: Where it begins in the original, in characters.
        end: Where it ends.
        reason: Why, e.g. "not needed", "duplicate".
        tokens: How many it has.
    """

    document: int
    start: int
    end: int
    reason: str
    tokens: int


@dataclass(frozen=True, slots=True)
class CompressionResult:
    """Texts with fewer tokens, and what became of the rest.

    Each text is its pieces, one after the other.

    Attributes:
        texts: One for each document, in order; "" where all of it was left out.
        originals: What came in.
        kept: The parts that make up the texts, in order.
        dropped: The parts that do not, in order; white space is not counted among them.
        tokens_before: Of all originals together.
        tokens_after: Of all texts together.
        exact: Whether the model's own tokenizer counted; False for an estimate.
        counted_by: What counted, e.g. "o200k_base" or "estimate".
        notes: What there is to say, e.g. why the target was not reached or why nothing was done.

    Example:
        >>> result = Compressor().compress('{"a": 1,   "b": [1,   2]}')
        >>> result.text, result.tokens_after < result.tokens_before, result.restore()
        ('{"a":1,"b":[1,2]}', True, ('{"a": 1,   "b": [1,   2]}',))
    """

    texts: tuple[str, ...]
    originals: tuple[str, ...]
    kept: tuple[Piece, ...]
    dropped: tuple[Dropped, ...]
    tokens_before: int
    tokens_after: int
    exact: bool
    counted_by: str
    notes: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The one text; of several, those that are left, with a blank line between them."""
        return self.texts[0] if len(self.texts) == 1 else _BETWEEN_TEXTS.join(text for text in self.texts if text)

    @property
    def kept_ratio(self) -> float:
        """Share of the tokens that are left, in [0, 1]; 1 if there were none."""
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0

    @property
    def saved_tokens(self) -> int:
        """How many tokens fewer there are."""
        return self.tokens_before - self.tokens_after

    def restore(self) -> tuple[str, ...]:
        """The documents as they came in."""
        return self.originals

    def show(self) -> str:
        """Each document line by line: "- " before what is left out, with the reason, and "~ " before what is rewritten.

        Example:
            >>> compressor = Compressor(target_tokens=6)
            >>> print(compressor.compress("The sky is blue. Cats purr at night.", query="What do cats do?").show())
            - The sky is blue.  [not needed, 5 tokens]
              Cats purr at night.
        """
        parts: list[Piece | Dropped] = [*self.kept, *self.dropped]
        lines: list[list[str]] = [[f"# {i + 1}"] if len(self.originals) > 1 else [] for i in range(len(self.originals))]
        for part in sorted(parts, key=lambda each: (each.start, each.end)):
            lines[part.document].extend(_shown(part, self.originals[part.document]))
        return "\n".join(line for own in lines for line in own)


def assemble(
    originals: Sequence[str],
    kept: Sequence[Sequence[Span]],
    count: Callable[[str], int],
    *,
    rewritten: Mapping[tuple[int, Span], str] | None = None,
    dropped: Sequence[Sequence[tuple[Span, str]]] | None = None,
    reason: str = "not needed",
    notes: Sequence[str] = (),
    spaced: bool = True,
    before: Sequence[int] | None = None,
) -> CompressionResult:
    r"""Put the kept spans of each document together as a result.

    Between two spans that do not touch stands white space of the original: the last that breaks a line, or else the
    last, of what was left out between them (all of it if that is only white space). A document that would come out
    longer, in characters or in tokens, is left as it was.

    Args:
        originals: The documents.
        kept: For each document the spans to keep; sorted and joined here.
        count: Tokens of a text; `Counter` is one, and says how exact it is.
        rewritten: Texts that stand for a span, by document and span; the span must be among the kept ones.
        dropped: For each document what was left out and why; those of them that were kept after all are passed over.
            None: whatever lies between the kept spans, for `reason`.
        reason: Why, where `dropped` does not say.
        notes: Taken over.
        spaced: Whether that white space is put in; False: the spans say where it stays.
        before: Tokens of each original, where they are known.

    Raises:
        ConfigError: A span does not lie in its document, or there are not as many lists as documents.

    Example:
        >>> assemble(["One. Two. Three."], [[(0, 4), (10, 16)]], Counter()).texts
        ('One. Three.',)
    """
    if len(kept) != len(originals):
        raise ConfigError(f"{len(originals)} documents, but spans for {len(kept)}: give one list for each")
    texts: list[str] = []
    pieces: list[Piece] = []
    left_out: list[Dropped] = []
    tokens = list(before) if before is not None else [count(text) for text in originals]
    after = 0
    for document, original in enumerate(originals):
        own = _pieces(document, original, kept[document], rewritten or {}, spaced)
        text = "".join(piece.text for piece in own)
        counted = tokens[document] if text == original else count(text) if text else 0
        if counted > tokens[document] or len(text) > len(original):
            own, text, counted = _whole(document, original), original, tokens[document]
        texts.append(text)
        pieces.extend(own)
        named = None if dropped is None else dropped[document]
        left_out.extend(_left_out(document, original, own, named, reason, count))
        after += counted
    return CompressionResult(
        texts=tuple(texts),
        originals=tuple(originals),
        kept=tuple(pieces),
        dropped=tuple(left_out),
        tokens_before=sum(tokens),
        tokens_after=after,
        exact=bool(getattr(count, "exact", False)),
        counted_by=str(getattr(count, "by", getattr(count, "__name__", "a counter of yours"))),
        notes=tuple(notes),
    )


def text_of(original: str, spans: Sequence[Span], rewritten: Mapping[Span, str] | None = None) -> str:
    """What the kept spans of a document come out as."""
    given = {(0, span): text for span, text in (rewritten or {}).items()}
    return "".join(piece.text for piece in _pieces(0, original, spans, given, True))


def separator(original: str, start: int, end: int) -> Span:
    """The white space that stands for what was left out between `start` and `end`; an empty span if there is none."""
    if not original[start:end].strip():
        return start, end
    chosen = (end, end)
    for found in _BLANK.finditer(original, start, end):
        if _LINE_BREAK.search(found.group()) or not _LINE_BREAK.search(original, *chosen):
            chosen = found.span()
    return chosen


def _pieces(
    document: int, original: str, spans: Sequence[Span], rewritten: Mapping[tuple[int, Span], str], spaced: bool
) -> list[Piece]:
    """The kept spans in order with what stands between them; those that touch are one piece, unless rewritten."""
    pieces: list[Piece] = []
    for start, end in sorted(spans):
        if not 0 <= start <= end <= len(original):
            raise ConfigError(
                f"span {(start, end)} is not in document {document}, which has {len(original)} characters"
            )
        new = rewritten.get((document, (start, end)))
        if spaced and pieces and start > pieces[-1].end:
            _append(pieces, document, original, separator(original, pieces[-1].end, start))
        if new is not None:
            pieces.append(Piece(document, start, end, new, rewritten=True))
        else:
            _append(pieces, document, original, (max(start, pieces[-1].end) if pieces else start, end))
    return pieces


def _append(pieces: list[Piece], document: int, original: str, span: Span) -> None:
    start, end = span
    if start >= end:
        return
    if pieces and pieces[-1].end == start and not pieces[-1].rewritten:
        start = pieces.pop().start
    pieces.append(Piece(document, start, end, original[start:end]))


def _whole(document: int, original: str) -> list[Piece]:
    return [Piece(document, 0, len(original), original)] if original else []


def _left_out(
    document: int,
    original: str,
    pieces: Sequence[Piece],
    named: Sequence[tuple[Span, str]] | None,
    reason: str,
    count: Callable[[str], int],
) -> Iterator[Dropped]:
    gaps = list(_gaps(original, pieces))
    if named is None:
        named = [(gap, reason) for gap in gaps]
    else:
        named = [(gap, why) for span, why in sorted(named) for gap in _within(gaps, span)]
    for (start, end), why in named:
        blank = len(original[start:end]) - len(original[start:end].lstrip())
        text = original[start:end].strip()
        if text:
            yield Dropped(document, start + blank, start + blank + len(text), why, count(text))


def _gaps(original: str, pieces: Sequence[Piece]) -> Iterator[Span]:
    at = 0
    for piece in pieces:
        if piece.start > at:
            yield at, piece.start
        at = max(at, piece.end)
    if at < len(original):
        yield at, len(original)


def _within(gaps: Sequence[Span], span: Span) -> Iterator[Span]:
    at = max(0, bisect_right(gaps, span) - 1)
    while at < len(gaps) and gaps[at][0] < span[1]:
        start, end = max(gaps[at][0], span[0]), min(gaps[at][1], span[1])
        if start < end:
            yield start, end
        at += 1


def _shown(part: Piece | Dropped, original: str) -> list[str]:
    text = original[part.start : part.end]
    if isinstance(part, Piece):
        mark, text = ("~ " if part.rewritten else "  "), part.text
    else:
        mark = "- "
    if original[part.start - 1 : part.start] not in ("", "\n", "\r"):
        text = text.lstrip(" \t")  # it goes on in the middle of a line: this is no indentation
    lines = [mark + line for line in text.splitlines() if line.strip()]
    if isinstance(part, Dropped):
        lines[-1] += f"  [{part.reason}, {part.tokens} tokens]"
    return lines
