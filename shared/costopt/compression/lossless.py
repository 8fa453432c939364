"""What can go without anything being lost: white space, JSON's among it, and what is there a second time."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from costopt.compression.duplicates import repeated
from costopt.compression.minify import blank_spans, minified
from costopt.compression.prepare import Parts
from costopt.compression.protect import code_spans, json_spans, merge, touches
from costopt.compression.result import Span

__all__ = ["Kept", "lossless", "without"]

# In these a line that comes twice may well be meant twice.
_NEVER_REPEATED = ("code", "json", "row", "turn", "record")


@dataclass(slots=True)
class Kept:
    """What to keep of some documents, as `assemble` takes it.

    Attributes:
        spans: For each document.
        dropped: For each document, what was left out and why.
        rewritten: Texts that stand for a span, by document and span.
        notes: What there is to say.
    """

    spans: list[list[Span]]
    dropped: list[list[tuple[Span, str]]]
    rewritten: dict[tuple[int, Span], str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


def lossless(
    documents: Sequence[Parts],
    named: Sequence[Sequence[Span]],
    protected: Sequence[Sequence[Span]],
    minify: bool,
) -> Kept:
    """Leave out white space and sentences that are there twice; write JSON without its white space.

    Args:
        documents: Any.
        named: For each document spans that are kept in any case.
        protected: For each document spans that are not to be altered.
        minify: Whether JSON may be rewritten.
    """
    again = repeats(documents)
    kept = Kept([], [])
    for i, document in enumerate(documents):
        text, held = document.text, protected[i]
        solid = merge([*code_spans(text), *held])
        holes, reasons = [], []
        for unit in again[i]:
            start, end = document.units[unit].start, document.units[unit].end
            if not touches((start, end), named[i]):
                holes.append((document.units[unit - 1].end if unit else 0, end))
                reasons.append(((start, end), "repeated"))
        short = _shorter(text, merge(holes), solid) if minify else {}
        fixed = merge([*solid, *short])
        holes.extend(span for span in blank_spans(text) if not touches(span, fixed))
        kept.rewritten.update({(i, span): new for span, new in short.items()})
        kept.spans.append(sorted([*without(len(text), [*holes, *short]), *short]))
        kept.dropped.append(reasons)
    return kept


def _shorter(text: str, holes: Sequence[Span], held: Sequence[Span]) -> dict[Span, str]:
    """JSON that is not left out or held, by its place, without its white space."""
    found = {}
    for span in json_spans(text):
        if not touches(span, holes):
            new = minified(text, *span, held)
            if len(new) < span[1] - span[0]:
                found[span] = new
    return found


def repeats(documents: Sequence[Parts]) -> list[list[int]]:
    """For each document its units that are in it, or in one before it, already."""
    places = [
        (i, j)
        for i, each in enumerate(documents)
        for j, unit in enumerate(each.units)
        if unit.kind not in _NEVER_REPEATED
    ]
    texts = [documents[i].text[documents[i].units[j].start : documents[i].units[j].end] for i, j in places]
    found: list[list[int]] = [[] for _ in documents]
    for at in repeated(texts):
        i, j = places[at]
        found[i].append(j)
    return found


def without(length: int, holes: Iterable[Span]) -> Iterator[Span]:
    """What is left of `length` characters.

    Example:
        >>> list(without(10, [(2, 4), (3, 6), (9, 10)]))
        [(0, 2), (6, 9)]
    """
    at = 0
    for start, end in merge(holes):
        if start > at:
            yield at, start
        at = end
    if at < length:
        yield at, length
