"""With a question: which units of some documents to keep, so that they have just so many tokens."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from costopt.compression.duplicates import near_duplicates
from costopt.compression.lexical import bm25, terms
from costopt.compression.lossless import Kept, repeats
from costopt.compression.minify import minified
from costopt.compression.prepare import Prepared
from costopt.compression.question import asked_about
from costopt.compression.result import Span, text_of
from costopt.compression.score import Mix, score
from costopt.compression.select import choose
from costopt.embedding import Embedder

__all__ = ["Limits", "embed_missing", "select"]

_MOST_EMBEDDED = 6_000  # texts at one call; of more, those that share the most words with the question
_WORD = re.compile(
    r"[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]|[^\s\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]+"
)
_UNCUT = ("code", "json")
_TRIED = 20  # units of which a part is looked for, if none fits whole

Count = Callable[[str], int]


@dataclass(frozen=True, slots=True)
class Limits:
    """How many tokens may be left.

    Attributes:
        target: Of all documents together.
        per_document: Of each; None: no limit of its own.
    """

    target: int
    per_document: Sequence[int] | None = None


class _Choice:
    """The units of all documents, numbered through, and what some of them have in tokens."""

    def __init__(self, documents: Sequence[Prepared], count: Count, rewritten: dict[tuple[int, Span], str]) -> None:
        self.documents = documents
        self.count = count
        self.starts = [0]
        for each in documents:
            self.starts.append(self.starts[-1] + len(each.units))
        self.rewritten: list[dict[Span, str]] = [{} for _ in documents]
        for (document, span), text in rewritten.items():
            self.rewritten[document][span] = text
        self._texts: dict[tuple[int, ...], tuple[str, int]] = {}

    def place(self, unit: int) -> tuple[int, int]:
        """Document, and number of the unit in it."""
        document = bisect_right(self.starts, unit) - 1
        return document, unit - self.starts[document]

    def spans(self, chosen: Collection[int]) -> list[list[Span]]:
        """For each document the spans of what was chosen."""
        spans: list[list[Span]] = [[] for _ in self.documents]
        for unit in sorted(chosen):
            document, at = self.place(unit)
            found = self.documents[document].units[at]
            spans[document].append((found.start, found.end))
        return spans

    def measure(self, chosen: Collection[int]) -> int:
        """Tokens of what was chosen: of each document by itself, or with blank lines between them if that is more."""
        return self.measure_spans(self.spans(chosen))

    def measure_spans(self, spans: Sequence[Sequence[Span]]) -> int:
        """The same, of any spans."""
        texts, total = [], 0
        for document, own in enumerate(spans):
            if own:
                text, tokens = self._document(document, own)
                texts.append(text)
                total += tokens
        return total if len(texts) < 2 else max(total, self.count("\n\n".join(texts)))

    def _document(self, document: int, own: Sequence[Span]) -> tuple[str, int]:
        key = (document, *(start for start, _ in own), *(end for _, end in own))
        known = self._texts.get(key)
        if known is None:
            text = text_of(self.documents[document].text, own, self.rewritten[document])
            known = self._texts[key] = text, self.count(text)
        return known


def select(
    query: str,
    documents: Sequence[Prepared],
    vector: NDArray[np.float32] | None,
    *,
    mix: Mix,
    limits: Limits,
    count: Count,
    named: Sequence[Sequence[Span]],
    protected: Sequence[Sequence[Span]],
    minify: bool,
    near: float | None,
) -> Kept:
    """Choose the units that have the most to do with a question.

    Args:
        query: The question.
        documents: With vectors, if the mix needs them.
        vector: The question's embedding.
        mix: What counts.
        limits: Token budgets.
        count: Tokens of a text.
        named: For each document spans that are kept in any case.
        protected: For each document spans that are never cut.
        minify: Whether JSON may be rewritten without its white space.
        near: See `near_duplicates`; None: only what is the same is a duplicate.
    """
    rewritten = _rewritten(documents, protected) if minify else {}
    choice = _Choice(documents, count, rewritten)
    scores = score(query, vector, documents, mix)
    sizes = np.concatenate([np.zeros(0, np.int64), *(each.sizes for each in documents)])
    for unit, size in _new_sizes(choice, rewritten):
        sizes[unit] = size
    forced = {choice.starts[i] + j for i, each in enumerate(documents) for j in _holding(each, named[i])}
    reasons = _duplicates(documents, choice, near)
    for unit in forced:
        reasons.pop(unit, None)
    barred = set(reasons)
    if limits.per_document is not None:
        barred |= _beyond(choice, scores, sizes, limits.per_document, forced, barred)
    chosen = choose(scores, sizes, limits.target, choice.measure, forced, barred)
    spans, notes = choice.spans(chosen), []
    if forced and choice.measure(forced) > limits.target:
        notes.append(
            f"what is protected by name has more than the {limits.target} tokens of the target: nothing else is kept"
        )
    elif not chosen and len(scores):
        spans, notes = _part(query, choice, scores, limits, protected)
    return Kept(spans, _named(documents, choice, chosen, reasons), rewritten, notes)


def embed_missing(query: str, documents: Sequence[Prepared], embedder: Embedder) -> list[str]:
    """Embed what is not yet embedded of some documents; returns what there is to say of it."""
    missing = [(each, row) for each in documents for row in _rows_missing(each, embedder.dimension)]
    left = 0
    if len(missing) > _MOST_EMBEDDED:
        worth = _words_in_common(query, documents)
        order = sorted(range(len(missing)), key=lambda i: (-worth[id(missing[i][0])][missing[i][1]], i))
        left = len(missing) - _MOST_EMBEDDED
        missing = [missing[i] for i in sorted(order[:_MOST_EMBEDDED])]
    texts = [each.text[slice(*each.rows[row])] for each, row in missing]
    different = list(dict.fromkeys(texts))
    if different:
        found = dict(zip(different, embedder.embed(different), strict=True))
        for (each, row), text in zip(missing, texts, strict=True):
            assert each.vectors is not None
            assert each.embedded is not None
            each.vectors[row] = found[text]
            each.embedded[row] = True
    return [f"too much to embed: {left:,} sentences and passages were judged by their words alone"] if left else []


def _rows_missing(document: Prepared, dimension: int) -> Iterator[int]:
    if document.vectors is None or document.embedded is None or document.vectors.shape[1] != dimension:
        document.embedded = np.zeros(len(document.rows), bool)
        document.vectors = np.zeros((len(document.rows), dimension), np.float32)
    return (int(row) for row in np.flatnonzero(~document.embedded))


def _words_in_common(query: str, documents: Sequence[Prepared]) -> dict[int, NDArray[np.float64]]:
    """For each document, by its identity, the BM25 of its units and then its passages."""
    asked = terms(asked_about(query))
    units = bm25(asked, [each.words for each in documents])
    passages = bm25(asked, [each.passage_words for each in documents])
    found, unit, passage = {}, 0, 0
    for each in documents:
        last_unit, last_passage = unit + len(each.units), passage + len(each.passages)
        found[id(each)] = np.concatenate([units[unit:last_unit], passages[passage:last_passage]])
        unit, passage = last_unit, last_passage
    return found


def _rewritten(documents: Sequence[Prepared], protected: Sequence[Sequence[Span]]) -> dict[tuple[int, Span], str]:
    found = {}
    for i, each in enumerate(documents):
        for unit in each.units:
            if unit.kind == "json":
                short = minified(each.text, unit.start, unit.end, protected[i])
                if len(short) < unit.end - unit.start:
                    found[i, (unit.start, unit.end)] = short
    return found


def _new_sizes(choice: _Choice, rewritten: dict[tuple[int, Span], str]) -> Iterator[tuple[int, int]]:
    """The units that were rewritten, each with about how many tokens it adds now."""
    if rewritten:
        for i, each in enumerate(choice.documents):
            for j, unit in enumerate(each.units):
                new = rewritten.get((i, (unit.start, unit.end)))
                if new is not None:
                    yield choice.starts[i] + j, choice.count(new) + 1


def _holding(document: Prepared, spans: Sequence[Span]) -> Iterator[int]:
    """The units that have a part in one of these spans."""
    starts = [unit.start for unit in document.units]
    for start, end in spans:
        at = max(0, bisect_right(starts, start) - 1)
        while at < len(starts) and starts[at] < end:
            if document.units[at].end > start:
                yield at
            at += 1


def _duplicates(documents: Sequence[Prepared], choice: _Choice, near: float | None) -> dict[int, str]:
    """Units that another one makes superfluous, with the reason."""
    found = {choice.starts[i] + j: "repeated" for i, own in enumerate(repeats(documents)) for j in own}
    if near is not None:
        places = [(i, j) for i, each in enumerate(documents) for j in range(len(each.passages))]
        texts = [documents[i].text[slice(*documents[i].passages[j])] for i, j in places]
        for duplicate in near_duplicates(texts, threshold=near):
            i, j = places[duplicate.text]
            for unit in np.flatnonzero(documents[i].passage_of == j):
                found.setdefault(choice.starts[i] + int(unit), "near duplicate")
    return found


def _beyond(
    choice: _Choice,
    scores: NDArray[np.float64],
    sizes: NDArray[np.int64],
    limits: Sequence[int],
    forced: set[int],
    barred: set[int],
) -> set[int]:
    """The units for which their document has no room."""
    out: set[int] = set()
    for document, limit in enumerate(limits):
        own = range(choice.starts[document], choice.starts[document + 1])
        others = barred | set(range(own.start)) | set(range(own.stop, choice.starts[-1]))
        chosen = choose(scores, sizes, limit, choice.measure, forced & set(own), others)
        out.update(set(own) - chosen)
    return out - forced


def _named(
    documents: Sequence[Prepared], choice: _Choice, chosen: set[int], reasons: dict[int, str]
) -> list[list[tuple[Span, str]]]:
    """What was left out, for each document; neighbours that were left out for one reason together."""
    found: list[list[tuple[Span, str]]] = []
    for i, each in enumerate(documents):
        own: list[tuple[Span, str]] = []
        last = -2
        for j, unit in enumerate(each.units):
            if choice.starts[i] + j in chosen:
                continue
            reason = reasons.get(choice.starts[i] + j, "not needed")
            if own and last == j - 1 and own[-1][1] == reason:
                own[-1] = ((own[-1][0][0], unit.end), reason)
            else:
                own.append(((unit.start, unit.end), reason))
            last = j
        found.append(own)
    return found


def _part(
    query: str, choice: _Choice, scores: NDArray[np.float64], limits: Limits, protected: Sequence[Sequence[Span]]
) -> tuple[list[list[Span]], list[str]]:
    """Of the best unit that can be cut, the words that fit; from a little before the first that was asked for."""
    asked = set(terms(asked_about(query)))
    nothing: list[list[Span]] = [[] for _ in choice.documents]
    for unit in np.argsort(-scores, kind="stable")[:_TRIED]:
        document, at = choice.place(int(unit))
        found = choice.documents[document].units[at]
        if found.kind in _UNCUT:
            continue
        text, target = choice.documents[document].text, limits.target
        if limits.per_document is not None:
            target = min(target, limits.per_document[document])
        words = _words(text, found.start, found.end, protected[document])
        hit = next((i for i, (start, end) in enumerate(words) if asked & set(terms(text[start:end]))), 0)
        for first in (max(0, hit - 3), hit, 0):
            fits = bisect_right(
                range(first + 1, len(words) + 1),
                target,
                key=lambda last: choice.count(text[words[first][0] : words[last - 1][1]]),
            )
            if fits:
                nothing[document] = [(words[first][0], words[first + fits - 1][1])]
                return nothing, [f"no sentence has as few as {target} tokens: a part of one was kept"]
    return nothing, []


def _words(text: str, start: int, end: int, protected: Sequence[Span]) -> list[Span]:
    """The words of a unit; what is protected counts as one."""
    words: list[Span] = []
    spans = [span for span in protected if start < span[1] and span[0] < end]
    for match in _WORD.finditer(text, start, end):
        first, last = match.span()
        for span in spans:
            if first < span[1] and span[0] < last:
                first, last = max(start, min(first, span[0])), min(end, max(last, span[1]))
        if words and first < words[-1][1]:
            words[-1] = (words[-1][0], max(last, words[-1][1]))
        else:
            words.append((first, last))
    return words
