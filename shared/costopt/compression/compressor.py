"""`Compressor`: fewer tokens to send, out of slices of what would have been sent."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from costopt.compression.budget import check_target, target_of, texts_of
from costopt.compression.counting import Counter
from costopt.compression.dropper import COARSE_FACTOR, TokenDropper, drop_within
from costopt.compression.lossless import Kept, lossless
from costopt.compression.prepare import Memo, Parts
from costopt.compression.protect import DEFAULT_KINDS, Protect, checked, merge, named_spans
from costopt.compression.result import CompressionResult, Span, assemble
from costopt.compression.score import Mix
from costopt.compression.segment import is_dialogue
from costopt.compression.selection import Limits, embed_missing, select
from costopt.embedding import Embedder, default_embedder, default_model
from costopt.errors import ConfigError

__all__ = ["DEFAULT_RATIO", "Compressor"]

DEFAULT_RATIO = 0.5
"""What is kept where something is to be left out, and nobody said how much."""


class Compressor:
    """Leaves out what a question does not need, or, without a question, only what loses nothing.

    With a question whole sentences, list items, table rows, turns of a talk and blocks of code are kept or left out,
    word for word and in their order, up to a number of tokens as the target model counts them. Without one, white space
    that nobody sees and sentences that are there twice go. A `backend` drops single words: after the selection if there
    is a question, else by itself. May be used from any thread.

    Args:
        model: What will read the text: the name of a model, a tokenizer, or a function from a text to its tokens.
        embedder: What compares sentences to the question; the default is the MiniLM that all of costopt shares.
        target_ratio: Share of the tokens to keep, in (0, 1]; 0.5 if nobody says.
        target_tokens: The most tokens to keep, in place of a share.
        protect: What must not be altered. A kind ("code", "json", "urls", "numbers", "citations", "instructions") is
            never cut: it is kept or left out whole. A text, a compiled pattern or a span is kept in any case, even
            beyond the target.
        backend: What drops single words, e.g. `LLMLingua2`.
        minify: Whether JSON may be written without its white space, unless `protect` is given and names "json".
        near_duplicates: Where something is left out: how alike two passages are, in (0, 1], for the second to go if it
            has no number, name or negation that the first lacks. None: never.
        mix: How much cosine, words in common and the like count.
        memo_units: Sentences that are remembered with their vectors, for the next question on the same documents;
            about 2 kB each.

    Attributes:
        model: As it was given.
        count: Tokens of a text, as that model counts: see `Counter`.
        target_ratio: As it was given.
        target_tokens: As it was given.
        protect: As it was given, or all kinds.
        backend: As it was given.

    Raises:
        ConfigError: An argument cannot be meant.

    Example:
        >>> text = "The museum opened in 1931. It is built of brick. Tickets cost 12 EUR. Dogs must stay outside."
        >>> Compressor(target_ratio=0.4).compress(text, query="How much is a ticket?").text
        'Tickets cost 12 EUR.'
    """

    def __init__(
        self,
        *,
        model: str | Callable[[str], int] | Any = "gpt-4o",
        embedder: Embedder | None = None,
        target_ratio: float | None = None,
        target_tokens: int | None = None,
        protect: Iterable[Protect] | None = None,
        backend: TokenDropper | None = None,
        minify: bool = True,
        near_duplicates: float | None = 0.9,
        mix: Mix | None = None,
        memo_units: int = 20_000,
    ) -> None:
        check_target(target_ratio, target_tokens)
        if near_duplicates is not None and not 0 < near_duplicates <= 1:
            raise ConfigError(f"near_duplicates={near_duplicates!r}: give a similarity above 0 and at most 1, or None")
        if memo_units < 0:
            raise ConfigError(f"memo_units={memo_units}: use at least 0")
        self.model = model
        self.count = Counter(model)
        self.target_ratio = target_ratio
        self.target_tokens = target_tokens
        self.protect: tuple[Protect, ...] = DEFAULT_KINDS if protect is None else tuple(checked(protect))
        self.backend = backend
        self._minify = minify and (protect is None or "json" not in self.protect)
        self._near = near_duplicates
        self._embedder = embedder
        self._mix = mix or Mix()
        self._memo = Memo(memo_units)

    def compress(
        self,
        text: str | Sequence[str],
        query: str | None = None,
        *,
        target_ratio: float | None = None,
        target_tokens: int | None = None,
        per_document: int | Sequence[int] | None = None,
        protect: Iterable[Protect] | None = None,
    ) -> CompressionResult:
        """Compress one text, or several documents as one.

        Args:
            text: A text, or documents.
            query: The question that they are to answer; None or blank: there is none.
            target_ratio: In place of the one that the compressor was made with; counts for all documents together.
            target_tokens: Likewise.
            per_document: The most tokens of each document: one number for all, or one for each.
            protect: In place of what the compressor was made with.

        Returns:
            The texts, at most as long as the target. It is exceeded, and `notes` say so, only where what is protected
            by name has more, where nothing at all would be left, and where there is neither question nor backend.

        Raises:
            ConfigError: An argument cannot be meant.
            MissingExtraError: There is a question, and the extra ``minilm`` is not installed.
            EmbeddingError: The embedder failed.

        Example:
            >>> documents = ["Cats purr. They sleep a lot.", "The tower is 300 m tall.", "Dogs bark at night."]
            >>> result = Compressor().compress(documents, "How tall is the tower?", target_tokens=9)
            >>> result.texts, result.tokens_before, result.tokens_after
            (('', 'The tower is 300 m tall.', ''), 22, 8)
        """
        check_target(target_ratio, target_tokens)
        if query is not None and not isinstance(query, str):
            raise ConfigError(f"query is of type {type(query).__name__}: give the question as a text, or None")
        texts = texts_of(text)
        given = self.protect if protect is None else tuple(checked(protect))
        minify = self._minify and (protect is None or "json" not in given)
        if target_ratio is None and target_tokens is None:
            target_ratio, target_tokens = self.target_ratio, self.target_tokens
        limits = _limits(per_document, len(texts))
        asked = query is not None and bool(query.strip())
        if target_ratio is None and target_tokens is None and limits is None and (asked or self.backend is not None):
            target_ratio = DEFAULT_RATIO
        job = _Job(self, texts, given, minify, is_dialogue(texts))
        target = target_of(sum(job.before), target_ratio, target_tokens)
        if not sum(job.before):
            return job.identity("")
        if target >= sum(job.before) and limits is None and (asked or self.backend is not None or target_ratio == 1):
            return job.identity("the text is within the target as it is")
        if asked:
            assert query is not None
            return job.by_question(query.strip(), Limits(target, limits))
        if self.backend is not None:
            return job.by_words(self.backend, target)
        return job.losslessly(None if target_ratio is None and target_tokens is None else target)

    async def acompress(
        self,
        text: str | Sequence[str],
        query: str | None = None,
        *,
        target_ratio: float | None = None,
        target_tokens: int | None = None,
        per_document: int | Sequence[int] | None = None,
        protect: Iterable[Protect] | None = None,
    ) -> CompressionResult:
        """The same as `compress`, in a thread: the event loop goes on.

        Example:
            >>> import asyncio
            >>> asyncio.run(Compressor().acompress('{"a":  1}')).text
            '{"a":1}'
        """
        return await asyncio.to_thread(
            self.compress,
            text,
            query,
            target_ratio=target_ratio,
            target_tokens=target_tokens,
            per_document=per_document,
            protect=protect,
        )


class _Job:
    """One call: the documents in their units, and what was found to be protected."""

    def __init__(
        self, owner: Compressor, texts: tuple[str, ...], protect: tuple[Protect, ...], minify: bool, dialogue: bool
    ) -> None:
        if len(texts) != 1 and any(isinstance(each, tuple) for each in protect):
            raise ConfigError("a span is of one document: of several, protect what is meant by a text or a pattern")
        self.owner = owner
        self.texts = texts
        self.count = owner.count
        # JSON is never cut in any case, and where it is not named it is all that may be rewritten.
        kinds = tuple(each for each in protect if each in DEFAULT_KINDS and not (minify and each == "json"))
        self.documents: list[Parts] = [owner._memo.get(text, owner.count, kinds, dialogue) for text in texts]
        self.before = [each.tokens for each in self.documents]
        self.named = [named_spans(text, protect) for text in texts]
        self.minify = minify
        self.protected = [
            merge([*each.protected, *named]) for each, named in zip(self.documents, self.named, strict=True)
        ]

    def identity(self, note: str) -> CompressionResult:
        whole = [[(0, len(text))] if text else [] for text in self.texts]
        return assemble(self.texts, whole, self.count, notes=[note] if note else [], before=self.before)

    def losslessly(self, target: int | None) -> CompressionResult:
        kept = lossless(self.documents, self.named, self.protected, self.minify)
        result = assemble(
            self.texts,
            kept.spans,
            self.count,
            rewritten=kept.rewritten,
            dropped=kept.dropped,
            spaced=False,
            before=self.before,
        )
        notes = ["without a question only what loses nothing was left out"]
        if target is not None and result.tokens_after > target:
            notes.append(f"{result.tokens_after} tokens are left, the target was {target}: give a query or a backend")
        return replace(result, notes=tuple(notes))

    def by_question(self, query: str, limits: Limits) -> CompressionResult:
        backend = self.owner.backend
        kept = self.selected(query, limits, whole=backend is None)
        if not any(kept.spans):
            return self.nothing_fits(limits.target)
        if backend is None:
            return assemble(
                self.texts,
                kept.spans,
                self.count,
                rewritten=kept.rewritten,
                dropped=kept.dropped,
                notes=kept.notes,
                before=self.before,
            )
        spans = drop_within(
            backend,
            self.texts,
            kept.spans,
            target_tokens=limits.target,
            protected=self.protected,
            required=self.named,
            count=self.count,
        )
        return self.put_together(spans, limits.target, kept.notes)

    def selected(self, query: str, limits: Limits, whole: bool) -> Kept:
        """What the question needs; unless that is the `whole` of it, more than the target, for words to be dropped."""
        documents = [each.read(self.count) for each in self.documents]
        vector, mix, notes = None, self.owner._mix, []
        if mix.embeds:
            own = self.owner._embedder
            # The question by way of the memo that cache and router share; documents would only flush it.
            notes = embed_missing(query, documents, own or default_model())
            reader = own or default_embedder()
            vector, mix = reader.embed([query])[0], mix.trusting(reader.name, documents)
        kept = select(
            query,
            documents,
            vector,
            mix=mix,
            limits=limits if whole else replace(limits, target=math.ceil(limits.target * COARSE_FACTOR)),
            count=self.count,
            named=self.named,
            protected=self.protected,
            minify=self.minify and whole,
            near=self.owner._near,
        )
        kept.notes[:0] = notes
        return kept

    def by_words(self, backend: TokenDropper, target: int) -> CompressionResult:
        spans = backend.keep(
            self.texts, target_tokens=target, protected=self.protected, required=self.named, count=self.count
        )
        return self.put_together(spans, target, [])

    def put_together(self, spans: Sequence[Sequence[Span]], target: int, notes: Sequence[str]) -> CompressionResult:
        if not any(spans):
            return self.nothing_fits(target)
        return assemble(self.texts, spans, self.count, notes=notes, before=self.before)

    def nothing_fits(self, target: int) -> CompressionResult:
        return self.identity(f"nothing of it fits in {target} tokens: it was left as it is")


def _limits(per_document: int | Sequence[int] | None, documents: int) -> tuple[int, ...] | None:
    """One limit for each document; None if there are none."""
    if per_document is None:
        return None
    limits = (per_document,) * documents if isinstance(per_document, int) else tuple(per_document)
    for limit in limits:
        check_target(None, limit)
    if len(limits) != documents:
        raise ConfigError(f"per_document has {len(limits)} limits for {documents} documents: give one for each, or one")
    return limits
