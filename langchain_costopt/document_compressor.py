"""The compressor as LangChain's document compressor, and as a runnable in a retrieval chain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Unpack

from langchain_core.callbacks import Callbacks
from langchain_core.documents import BaseDocumentCompressor, Document
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.base import RunnableSerializable
from pydantic import ConfigDict, PrivateAttr

from costopt.compression.books import CompressionStats
from costopt.compression.compressor import Compressor
from costopt.compression.documents import DocumentOptions, Documents, Kept
from costopt.errors import ConfigError

__all__ = ["DocumentCompressor"]

_DOCUMENTS = ("documents", "context", "docs")
_QUESTIONS = ("question", "query", "input")


class DocumentCompressor(BaseDocumentCompressor, RunnableSerializable[Mapping[str, Any], list[Document]]):
    """Keeps of retrieved documents the sentences and lines that the question needs.

    All documents share one budget, so that what is most to the point gets most of it. What is kept is the document's
    own text; a document of which nothing is left is not given back. Order, ids and metadata stay as they are, and a
    document that was shortened tells so in ``metadata["costopt"]``: tokens before and after, and what was kept, as
    offsets in the text that came in. If anything fails, the documents go on as they are.

    In a `ContextualCompressionRetriever` it is the `base_compressor`. As a runnable it takes documents and question
    from a mapping: ``RunnablePassthrough.assign(context=compressor)``.

    Args:
        target_ratio: Share of the documents' tokens to keep at most, above 0 and at most 1; half if there is no target.
        target_tokens: Tokens to keep at most, of all documents together.
        per_document: Tokens to keep at most of each document.
        model: Name of the model that reads the documents, for counts; or a tokenizer or a function that counts.
        embedder: Tells what is near a question; `costopt.default_embedder()` if None.
        protect: What is not taken apart, as `costopt.compression.Compressor` has it.
        backend: Drops tokens instead of sentences, e.g. a `costopt.compression.LLMLingua2`.
        told: Called with the tokens before and after, each time, e.g. a `costopt.audit.LeftOut`, which writes them
            into a ledger.
        core: A `costopt.compression.Compressor` to use instead of making one from model, embedder, protect and backend.
        documents_key: Where a mapping has the documents; by default "documents", "context" or "docs".
        question_key: Where it has the question; by default "question", "query" or "input".

    Raises:
        ConfigError: If an option is out of range; the message says what would be right.
        MissingExtraError: If the embedder's extra is not installed.

    Example:
        >>> from langchain_core.documents import Document
        >>> text = "The sky is blue. Cats purr when they are content. Rain is wet."
        >>> page = Document(text, id="7", metadata={"page": 1})
        >>> compressor = DocumentCompressor(target_ratio=0.5)
        >>> [kept] = compressor.compress_documents([page], "Why do cats purr?")
        >>> kept.page_content, kept.id, kept.metadata["page"]
        ('Cats purr when they are content.', '7', 1)
        >>> compressor.invoke({"question": "Why do cats purr?", "context": [page]}) == [kept]
        True
    """

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid", frozen=True)

    target_ratio: float | None = None
    target_tokens: int | None = None
    per_document: int | None = None
    documents_key: str | None = None
    question_key: str | None = None
    _documents: Documents = PrivateAttr()

    def __init__(
        self,
        *,
        core: Compressor | None = None,
        documents_key: str | None = None,
        question_key: str | None = None,
        **options: Unpack[DocumentOptions],
    ) -> None:
        made = Documents("DocumentCompressor", core, **options)
        fields: dict[str, Any] = {"documents_key": documents_key, "question_key": question_key}
        fields |= {name: options.get(name) for name in ("target_ratio", "target_tokens", "per_document")}
        super().__init__(**fields)
        self._documents = made

    def compress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """Keep what the question needs.

        Args:
            documents: As they were retrieved.
            query: The question; if it is empty, only what costs nothing is left out.
            callbacks: Not called.

        Returns:
            New documents where something was left out, the same objects where not; none for those that came out empty.
        """
        return _shortened(documents, self._documents.compress(_texts(documents), query))

    async def acompress_documents(
        self, documents: Sequence[Document], query: str, callbacks: Callbacks | None = None
    ) -> list[Document]:
        """`compress_documents`, without blocking the event loop."""
        return _shortened(documents, await self._documents.acompress(_texts(documents), query))

    def invoke(
        self,
        input: Mapping[str, Any],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`compress_documents` in a chain.

        Args:
            input: A mapping with the documents and the question.
            config: As for any runnable.
            kwargs: None are known.

        Raises:
            ConfigError: If they are not in it; the message says what is.
        """
        return self._call_with_config(lambda given: self.compress_documents(*self._found(given)), input, config)

    async def ainvoke(
        self,
        input: Mapping[str, Any],  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[Document]:
        """`invoke`, without blocking the event loop."""

        async def found(given: Mapping[str, Any]) -> list[Document]:
            return await self.acompress_documents(*self._found(given))

        return await self._acall_with_config(found, input, config)

    def stats(self) -> CompressionStats:
        """What this object has done so far; `print(compressor.stats())` says it in a line."""
        return self._documents.books.stats()

    def _found(self, given: Mapping[str, Any]) -> tuple[Sequence[Document], str]:
        if not isinstance(given, Mapping):
            raise ConfigError(f"DocumentCompressor was given a {type(given).__name__}: {_INPUT}")
        documents = _first(given, [self.documents_key] if self.documents_key else _DOCUMENTS, "documents_key")
        question = _first(given, [self.question_key] if self.question_key else _QUESTIONS, "question_key")
        if isinstance(documents, str) or not all(isinstance(each, Document) for each in documents):
            raise ConfigError(f"what DocumentCompressor was given as documents are none: {_INPUT}")
        return documents, str(question)


_INPUT = 'give a mapping like {"documents": [Document(...), ...], "question": "..."}'


def _first(given: Mapping[str, Any], names: Sequence[str], option: str) -> Any:
    for name in names:
        if name in given:
            return given[name]
    raise ConfigError(
        f"of {', '.join(map(repr, names))} there is none among {sorted(given)}: {_INPUT}, or say {option}="
    )


def _texts(documents: Sequence[Document] | Document) -> list[str]:
    if isinstance(documents, Document) or not all(isinstance(document, Document) for document in documents):
        raise ConfigError("give a list of Documents, as in [Document(text)]")
    return [document.page_content for document in documents]


def _shortened(documents: Sequence[Document], outcomes: Sequence[Kept]) -> list[Document]:
    """The documents as they came out; what is left of one that has no text left is none."""
    made = []
    for document, kept in zip(documents, outcomes, strict=True):
        if kept.about is None:
            made.append(document)
        elif kept.text:
            metadata = {**document.metadata, "costopt": kept.about}
            made.append(document.model_copy(update={"page_content": kept.text, "metadata": metadata}))
    return made
