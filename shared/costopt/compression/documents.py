"""Retrieved documents with fewer tokens, as the adapters need it: one outcome for each, and never an error."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypedDict, Unpack

from costopt.compression.books import Books
from costopt.compression.budget import check_target
from costopt.compression.compressor import Compressor
from costopt.compression.dropper import TokenDropper
from costopt.compression.protect import Protect
from costopt.compression.result import CompressionResult
from costopt.embedding import Embedder, default_embedder
from costopt.errors import ConfigError

__all__ = ["DocumentOptions", "Documents", "Kept"]


class DocumentOptions(TypedDict, total=False):
    """What can be said of how documents are compressed; `Compressor` says what each means."""

    target_ratio: float | None
    target_tokens: int | None
    per_document: int | None
    model: Any
    embedder: Embedder | None
    protect: Iterable[Protect]
    backend: TokenDropper | None
    told: Callable[[int, int], object] | None


_TARGETS = ("target_ratio", "target_tokens", "per_document")


@dataclass(frozen=True, slots=True)
class Kept:
    """What became of one document.

    Attributes:
        text: What is left of it.
        about: Tokens before and after, and what was kept, as offsets in the original; None if it is as it was.
    """

    text: str
    about: dict[str, Any] | None = None


class Documents:
    """Compresses lists of documents for an adapter; if that fails, they are what they were, and it is counted.

    Args:
        whose: The adapter's name, for the log.
        core: A `Compressor` to use instead of making one.
        options: Targets, and what a `Compressor` is made of.

    Raises:
        ConfigError: If an option is out of range, or is one of a compressor that is there already.
        MissingExtraError: If the embedder's extra is not installed.

    Example:
        >>> documents = Documents("an adapter", target_tokens=7)
        >>> documents.compress(["Rain is wet. Cats purr when content."], "Why do cats purr?")
        [Kept(text='Cats purr when content.', about={'tokens_before': 10, 'tokens_after': 6, 'kept': [[13, 36]]})]
    """

    def __init__(self, whose: str, core: Compressor | None = None, **options: Unpack[DocumentOptions]) -> None:
        given: dict[str, Any] = dict(options)
        unknown = given.keys() - DocumentOptions.__annotations__.keys()
        if unknown:
            known = ", ".join(DocumentOptions.__annotations__)
            raise ConfigError(f"{whose} has no option {', '.join(sorted(unknown))}: it has {known}")
        targets, told = {name: given.pop(name, None) for name in _TARGETS}, given.pop("told", None)
        self._targets = {name: value for name, value in targets.items() if value is not None}
        each = self._targets.get("per_document")
        if each is not None and (isinstance(each, bool) or not isinstance(each, int) or each < 1):
            raise ConfigError(f"per_document={each!r}: give a whole number of tokens of at least 1")
        check_target(self._targets.get("target_ratio"), self._targets.get("target_tokens"))
        if given.get("protect") is not None:
            given["protect"] = _listed(given["protect"])
        if any(isinstance(each, tuple) for each in given.get("protect") or (core.protect if core else ())):
            raise ConfigError("protect: a span is of one document; of retrieved ones protect texts, patterns or kinds")
        if core is not None and given:
            raise ConfigError(f"give either core= or {', '.join(sorted(given))}, not both")
        if core is None and given.get("embedder") is None:
            default_embedder()  # a missing extra is to be heard of here: in a call it would only be logged
        self.core = core or Compressor(**given)
        self.books = Books(whose, told)

    def compress(self, texts: Sequence[str], question: str | None) -> list[Kept]:
        """One outcome for each text, in order.

        Args:
            texts: The documents.
            question: What they shall answer; without it only what costs nothing is left out, unless there is a backend.
        """
        try:
            return self._noted(self.core.compress(texts, _said(question), **self._targets))
        except Exception as error:
            return self._failed(texts, error)

    async def acompress(self, texts: Sequence[str], question: str | None) -> list[Kept]:
        """`compress`, without blocking the event loop."""
        try:
            return self._noted(await self.core.acompress(texts, _said(question), **self._targets))
        except Exception as error:
            return self._failed(texts, error)

    def _noted(self, result: CompressionResult) -> list[Kept]:
        self.books.done(result.tokens_before, result.tokens_after)
        return [self._kept(result, i) for i in range(len(result.texts))]

    def _kept(self, result: CompressionResult, i: int) -> Kept:
        text, original = result.texts[i], result.originals[i]
        if text == original:
            return Kept(text)
        spans = [[piece.start, piece.end] for piece in result.kept if piece.document == i]
        count = self.core.count
        return Kept(text, {"tokens_before": count(original), "tokens_after": count(text), "kept": spans})

    def _failed(self, texts: Sequence[str], error: Exception) -> list[Kept]:
        self.books.failed(error)
        return [Kept(text) for text in texts]


def _listed(protect: Any) -> list[Any]:
    return [protect] if isinstance(protect, str | re.Pattern) else list(protect)


def _said(question: str | None) -> str | None:
    return question if question and question.strip() else None
