"""Keeping as many of the best units as a number of tokens allows, counted as the target model counts."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from costopt.compression.protect import merge
from costopt.compression.result import Span
from costopt.compression.words import bridged, joined

__all__ = ["Draft", "choose"]

Flags = NDArray[np.bool_]
Place = tuple[int, int]  # a document, and a unit in it

# Units tried one by one when the next best does not fit any more.
_TRIES = 48
# The part of the target that may stay unused: each attempt to use it counts a whole text.
_UNUSED = 200


class Draft:
    """One document, its units in order, and texts made of some of them.

    Args:
        text: The document.
        spans: Its units, sorted and disjoint; white space is in none, all else in one.
        scores: How much each is worth.
        protected: What is kept before all else, or left out whole, with every unit that it touches.
        required: What is kept in any case, likewise.
    """

    def __init__(
        self,
        text: str,
        spans: Sequence[Span],
        scores: NDArray[np.float64],
        protected: Sequence[Span] = (),
        required: Sequence[Span] = (),
    ) -> None:
        self.text = text
        self.spans, self.scores = _with_blocks(spans, scores, merge([*protected, *required]))
        self.required = _touched(self.spans, required)
        self.protected = _touched(self.spans, protected) & ~self.required

    def chosen(self, kept: Flags) -> list[Span]:
        """Spans of the units that are kept."""
        if kept.all():
            return whole(self.text)
        return bridged(self.text, [self.spans[i] for i in np.flatnonzero(kept)])

    def tokens(self, kept: Flags, count: Callable[[str], int]) -> int:
        """Tokens of the text that they make."""
        return count(joined(self.text, self.chosen(kept)))


def whole(text: str) -> list[Span]:
    """The span of all of a text; none if it is empty."""
    return [(0, len(text))] if text else []


def _with_blocks(
    spans: Sequence[Span], scores: NDArray[np.float64], blocks: Sequence[Span]
) -> tuple[list[Span], NDArray[np.float64]]:
    """The units, with one in the place of all that a block touches; and their scores."""
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    wide = []
    for start, end in blocks:
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        if first < last:  # else there is only white space in it
            wide.append((min(start, starts[first]), max(end, ends[last - 1])))
    made: list[Span] = []
    values: list[float] = []
    at = 0
    for start, end in merge(wide):
        first, last = bisect_right(ends, start), bisect_left(starts, end)
        made += [*spans[at:first], (start, end)]
        values += [*scores[at:first], float(scores[first:last].mean())]
        at = last
    return [*made, *spans[at:]], np.array([*values, *scores[at:]])


def _touched(spans: Sequence[Span], blocks: Sequence[Span]) -> Flags:
    starts, ends = [start for start, _ in spans], [end for _, end in spans]
    flags = np.zeros(len(spans), bool)
    for start, end in blocks:
        flags[bisect_right(ends, start) : bisect_left(starts, end)] = True
    return flags


def choose(drafts: Sequence[Draft], target_tokens: int, count: Callable[[str], int]) -> list[list[Span]]:
    """Keep the units with the highest scores over all documents, up to `target_tokens` of all texts together.

    Returns:
        Spans for each document, whole ones where nothing has to go. They have more than `target_tokens` only if what
        is required alone has.
    """
    if sum(count(draft.text) for draft in drafts) <= target_tokens:
        return [whole(draft.text) for draft in drafts]
    kept = [draft.required.copy() for draft in drafts]
    _keep_protected(drafts, kept, target_tokens, count)
    order = _best_first(drafts, [~(draft.required | draft.protected) for draft in drafts])
    _keep_best(drafts, kept, order, target_tokens, count)
    return [draft.chosen(flags) for draft, flags in zip(drafts, kept, strict=True)]


def _best_first(drafts: Sequence[Draft], among: Sequence[Flags]) -> list[Place]:
    """Units from the highest score down; of equals the earlier one comes first."""
    places = [(document, int(i)) for document in range(len(drafts)) for i in np.flatnonzero(among[document])]
    scores = np.array([drafts[document].scores[i] for document, i in places])
    return [places[i] for i in np.argsort(-scores, kind="stable")]


def _keep_protected(
    drafts: Sequence[Draft], kept: Sequence[Flags], target_tokens: int, count: Callable[[str], int]
) -> None:
    """Add the protected units that fit, the best first."""
    order = _best_first(drafts, [draft.protected for draft in drafts])
    left = target_tokens - _total(drafts, kept, count)
    added: list[Place] = []
    for document, unit in order:
        start, end = drafts[document].spans[unit]
        cost = count(drafts[document].text[start:end])
        if cost <= left:
            left -= cost
            kept[document][unit] = True
            added.append((document, unit))
    step = 1
    while added and _total(drafts, kept, count) > target_tokens:  # the white space between them was not counted
        for document, unit in added[-step:]:
            kept[document][unit] = False
        del added[-step:]
        step *= 2


def _keep_best(
    drafts: Sequence[Draft], kept: list[Flags], order: Sequence[Place], target_tokens: int, count: Callable[[str], int]
) -> None:
    """Add as many of the units in `order` as fit."""
    ranks = [np.full(len(draft.spans), len(order)) for draft in drafts]
    for rank, (document, unit) in enumerate(order):
        ranks[document][unit] = rank
    known: dict[tuple[int, int], int] = {}

    def tokens(best: int) -> Iterator[int]:
        for document, draft in enumerate(drafts):
            extra = ranks[document] < best
            key = document, int(extra.sum())  # says all: it is that many of this document's best
            if key not in known:
                known[key] = draft.tokens(kept[document] | extra, count)
            yield known[key]

    low, high = 0, len(order) + 1
    used = sum(tokens(low))
    while high - low > 1 and target_tokens - used > target_tokens // _UNUSED:
        middle = (low + high) // 2
        found = sum(tokens(middle))
        if found <= target_tokens:
            low, used = middle, found
        else:
            high = middle
    own = list(tokens(low))
    for flags, own_ranks in zip(kept, ranks, strict=True):
        flags |= own_ranks < low
    _fill(drafts, kept, own, order[low : low + _TRIES], target_tokens, count)


def _fill(
    drafts: Sequence[Draft],
    kept: Sequence[Flags],
    tokens: list[int],
    rest: Sequence[Place],
    target_tokens: int,
    count: Callable[[str], int],
) -> None:
    """Add what still fits, one unit at a time; `tokens` are those of each document so far."""
    total = sum(tokens)
    for document, unit in rest:
        if target_tokens - total <= target_tokens // _UNUSED:
            return
        kept[document][unit] = True
        own = drafts[document].tokens(kept[document], count)
        if total - tokens[document] + own > target_tokens:
            kept[document][unit] = False
            continue
        total += own - tokens[document]
        tokens[document] = own


def _total(drafts: Sequence[Draft], kept: Sequence[Flags], count: Callable[[str], int]) -> int:
    return sum(draft.tokens(flags, count) for draft, flags in zip(drafts, kept, strict=True))
