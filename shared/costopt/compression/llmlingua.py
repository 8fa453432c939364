"""Dropping single words by a token classifier, as LLMLingua-2 does (Pan et al., 2024, arXiv:2403.12968)."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.compression import llmlingua_compat as compat
from costopt.compression.budget import target_of, texts_of
from costopt.compression.classifier import TokenClassifier
from costopt.compression.counting import Counter
from costopt.compression.protect import DEFAULT_KINDS, Protect, checked, named_spans, protected_spans
from costopt.compression.result import CompressionResult, Span, assemble
from costopt.compression.windows import windows
from costopt.compression.word_budget import Draft, choose
from costopt.compression.words import Tokens, Word, averages, bridged, units
from costopt.errors import ConfigError

__all__ = ["LLMLingua2"]

Spans = Sequence[Sequence[Span]]


class LLMLingua2:
    """Keeps the words that a token classifier finds worth keeping, up to an exact number of tokens.

    Works alone, or as `Compressor(backend=LLMLingua2(...))`, which selects sentences for a question first. Whole words,
    numbers and addresses are kept or dropped, the threshold is one for all documents of a call, texts of any length are
    read to their end, and what is kept is a slice of the original. Nothing is imported, read or fetched before the
    first use.

    Args:
        model: A folder, or a name on the hub, of any token classifier of transformers with two labels (drop, keep) and
            a tokenizer.json, such as "microsoft/llmlingua-2-bert-base-multilingual-cased-meetingbank".
        device: Where it runs, as torch names it.
        dtype: "float32", "bfloat16", or "auto": bfloat16 on a CPU that multiplies it natively (it takes a half to a
            quarter of the time there), else float32.
        compat: Choose the words that llmlingua 0.2.2 would, in float32: for comparisons, and for who must not change
            what an application sends. It may miss the target; words that this package loses are lost.

    Raises:
        MissingExtraError: torch or transformers is not installed.
        ConfigError: `dtype` is none of the three, or not float32 with `compat`. At the first use: `model` is no token
            classifier with two labels, or cannot be loaded.

    Example:
        >>> dropper = LLMLingua2(classifier_folder)
        >>> result = dropper.compress("The quick brown fox jumps over the lazy dog.", target_tokens=5)
        >>> result.tokens_before, result.tokens_after
        (10, 5)
    """

    def __init__(
        self, model: str | os.PathLike[str], *, device: str = "cpu", dtype: str = "auto", compat: bool = False
    ) -> None:
        if compat and dtype == "auto":
            dtype = "float32"
        if compat and dtype != "float32":
            raise ConfigError(
                f"dtype={dtype!r} would not choose the words that llmlingua does: compat=True needs float32"
            )
        self.compat = compat
        self._classifier = TokenClassifier(model, device=device, dtype=dtype)

    @property
    def name(self) -> str:
        """The model, as it was given."""
        return self._classifier.name

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._classifier.loaded

    def load(self) -> None:
        """Import torch and transformers and read the model now rather than at the first use.

        Raises:
            ConfigError: See the class.
        """
        self._classifier.load()

    def compress(
        self,
        text: str | Sequence[str],
        *,
        target_ratio: float | None = None,
        target_tokens: int | None = None,
        model: str | Callable[[str], int] | Any = "gpt-4o",
        protect: Iterable[Protect] | None = None,
    ) -> CompressionResult:
        """Drop words of a text, or of several documents together.

        Args:
            text: A text, or documents.
            target_ratio: Share of the tokens to keep, above 0 and at most 1.
            target_tokens: Or how many to keep.
            model: The model that will read the result; its tokens count. See `Counter`.
            protect: What must not be altered, see `protected_spans`: by default all of its kinds, with `compat`
                nothing. It is kept before all else. Of kinds, what does not fit into the target is left out whole;
                what is named by a text, pattern or span is kept whatever the target.

        Returns:
            The documents with fewer tokens, never more than the target but for what is named in `protect` (a note
            says so), and for `compat`.

        Raises:
            ConfigError: A target or something in `protect` cannot be meant; or the model, see the class.

        Example:
            >>> dropper = LLMLingua2(classifier_folder)
            >>> documents = ["The total is 3.14 million.", "It was paid on the first of May."]
            >>> result = dropper.compress(documents, target_ratio=0.5)
            >>> "3.14 million" in result.text, result.kept_ratio <= 0.5
            (True, True)
        """
        texts, count = texts_of(text), Counter(model)
        before = [count(each) for each in texts]
        target = target_of(sum(before), target_ratio, target_tokens)
        wanted = checked(protect) if protect is not None else [] if self.compat else [*DEFAULT_KINDS]
        if len(texts) != 1 and any(isinstance(each, tuple) for each in wanted):
            raise ConfigError("a span is of one document: of several, protect what is meant by a text or a pattern")
        required = [named_spans(each, wanted) for each in texts]
        protected = [protected_spans(each, wanted) for each in texts]
        blanks: Mapping[tuple[int, Span], str] = {}
        if target >= sum(before):
            kept = [_whole(each) for each in texts]
        elif self.compat:
            rate = target_ratio if target_ratio is not None else compat.rate_of(texts, target)
            kept, blanks = compat.with_blanks(texts, compat.choose_words(self._classifier, texts, rate, protected))
        else:
            kept = self.keep(texts, target_tokens=target, protected=protected, required=required, count=count)
        if not any(kept) and any(each.strip() for each in texts):
            note = f"none of its words fits into {target} tokens: left as it was"
            return assemble(texts, [_whole(each) for each in texts], count, before=before, notes=[note])
        result = assemble(texts, kept, count, rewritten=blanks, before=before)
        return replace(result, notes=tuple(self._notes(result, protected, target)))

    async def acompress(self, text: str | Sequence[str], **options: Any) -> CompressionResult:
        """`compress` in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.compress, text, **options)

    def keep(
        self,
        texts: Sequence[str],
        *,
        target_tokens: int,
        protected: Spans,
        required: Spans,
        count: Callable[[str], int],
    ) -> list[list[Span]]:
        """See `TokenDropper`."""
        if self.compat:
            forced = [[*some, *more] for some, more in zip(protected, required, strict=True)]
            words = compat.choose_words(self._classifier, texts, compat.rate_of(texts, target_tokens), forced)
            return [
                bridged(text, [(word.start, word.end) for word in own if word.kept])
                for text, own in zip(texts, words, strict=True)
            ]
        encoded = [self._classifier.encode(text).tokens for text in texts]
        values = self._values(texts, encoded)
        drafts = []
        for i, text in enumerate(texts):
            spans = units(text, encoded[i])
            drafts.append(Draft(text, spans, averages(spans, encoded[i], values[i]), protected[i], required[i]))
        return choose(drafts, target_tokens, count)

    def words(self, text: str, *, target_ratio: float) -> list[Word]:
        """The words of a text, how likely each is to be worth keeping, and which are kept; nothing is protected.

        Args:
            text: A text.
            target_ratio: Share to keep; with `compat` what llmlingua calls the rate.

        Returns:
            The words in order. With `compat`, those that llmlingua labels, but for those that it makes of nothing.

        Example:
            >>> text = "Two words."
            >>> [text[word.start : word.end] for word in LLMLingua2(classifier_folder).words(text, target_ratio=0.5)]
            ['Two', 'words', '.']
        """
        if self.compat:
            return compat.choose_words(self._classifier, [text], target_ratio, [[]])[0]
        tokens = self._classifier.encode(text).tokens
        spans = units(text, tokens)
        values = averages(spans, tokens, self._values([text], [tokens])[0])
        count = Counter()
        target = target_of(count(text), target_ratio, None)
        kept = choose([Draft(text, spans, values)], target, count)[0]
        return [
            Word(start, end, float(value), _covers(kept, start, end))
            for (start, end), value in zip(spans, values, strict=True)
        ]

    def _values(self, texts: Sequence[str], encoded: Sequence[Tokens]) -> list[NDArray[np.float32]]:
        """The probability of each token."""
        model = self._classifier
        places = [
            (i, start, end) for i, text in enumerate(texts) for start, end in windows(text, encoded[i], model.room)
        ]
        sequences = [[*model.prefix, *encoded[i].ids[start:end], *model.suffix] for i, start, end in places]
        values = [np.zeros(len(tokens.ids), np.float32) for tokens in encoded]
        for (i, start, end), found in zip(places, model.probabilities(sequences), strict=True):
            values[i][start:end] = found[len(model.prefix) : len(model.prefix) + end - start]
        return values

    def _notes(self, result: CompressionResult, protected: Spans, target: int) -> Iterator[str]:
        if result.tokens_after > target:
            why = "the choice of words is that of llmlingua" if self.compat else "what is named in `protect` has more"
            yield f"{result.tokens_after} tokens and not {target}: {why}"
        lost = sum(1 for _ in _lost(result, protected))
        if lost:
            yield f"{lost} protected parts did not fit into {target} tokens and were left out whole"


def _whole(text: str) -> list[Span]:
    return [(0, len(text))] if text else []


def _lost(result: CompressionResult, protected: Spans) -> Iterator[Span]:
    """The protected spans that are not in the result."""
    for document, spans in enumerate(protected):
        kept = [(each.start, each.end) for each in result.kept if each.document == document and not each.rewritten]
        for start, end in spans:
            if not _covers(kept, start, end) and result.originals[document][start:end].strip():
                yield start, end


def _covers(kept: Sequence[Span], start: int, end: int) -> bool:
    """Whether a part is in one of the sorted spans."""
    at = bisect_right(kept, start, key=lambda each: each[0]) - 1
    return at >= 0 and end <= kept[at][1]
