"""Documents on their way from a retriever to a prompt: less text, everything else as it was."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from langchain_classic.retrievers import ContextualCompressionRetriever
from langchain_core.callbacks import CallbackManagerForRetrieverRun
from langchain_core.documents import Document
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.retrievers import BaseRetriever
from langchain_core.runnables import RunnableLambda, RunnablePassthrough

from costopt import ConfigError
from costopt.compression import Compressor
from costopt.tokens import count_tokens
from langchain_costopt import DocumentCompressor
from tests.costopt.compression.chats import essay, log
from tests.faults.words import Words

PAGES = [
    Document(
        "The lighthouse was built in 1864. Its lamp burnt rape oil at first. A keeper lived in the tower.",
        id="a",
        metadata={"source": "lighthouse.md", "page": 3},
    ),
    Document(
        "The harbour is open from May to October. Berths cost 12 EUR a night. Dogs are welcome on the pier.",
        id="b",
        metadata={"source": "harbour.md"},
    ),
    Document("Seagulls nest on the roof. They are loud in spring. Nobody minds.", id="c"),
]
QUESTION = "What does a berth in the harbour cost?"


class Pages(BaseRetriever):
    def _get_relevant_documents(self, query: str, *, run_manager: CallbackManagerForRetrieverRun) -> list[Document]:
        return list(PAGES)


def tokens(documents: Sequence[Document]) -> int:
    return sum(count_tokens(document.page_content, "gpt-4o").tokens for document in documents)


def test_what_is_needed_is_kept_and_all_else_of_a_document_too() -> None:
    before = [document.model_copy(deep=True) for document in PAGES]
    kept = DocumentCompressor(target_ratio=0.3).compress_documents(PAGES, QUESTION)
    assert tokens(kept) <= 0.3 * tokens(PAGES)
    assert before == PAGES, "what came in is left alone"
    [found] = [document for document in kept if "12 EUR a night" in document.page_content]
    assert (found.id, found.metadata["source"]) == ("b", "harbour.md")
    assert [document.id for document in kept] == [page.id for page in PAGES if page.id in {each.id for each in kept}]


def test_a_shortened_document_says_what_was_kept_of_it_and_others_are_the_same_objects() -> None:
    compressor = DocumentCompressor(target_tokens=tokens(PAGES) - 5)
    kept = compressor.compress_documents(PAGES, QUESTION)
    changed = [document for document in kept if "costopt" in document.metadata]
    assert changed
    originals = {page.id: page for page in PAGES}
    for document in kept:
        original = originals[document.id]
        if document not in changed:
            assert document is original
            continue
        about = document.metadata["costopt"]
        assert "".join(original.page_content[start:end] for start, end in about["kept"]) == document.page_content
        assert (about["tokens_before"], about["tokens_after"]) == (tokens([original]), tokens([document]))
        assert {name: value for name, value in document.metadata.items() if name != "costopt"} == original.metadata
    stats = compressor.stats()
    assert (stats.calls, stats.tokens_before, stats.tokens_after) == (1, tokens(PAGES), tokens(kept))


@settings(max_examples=30)
@given(seeds=st.lists(st.integers(0, 40), max_size=6), ratio=st.floats(0.05, 1), each=st.none() | st.integers(10, 200))
def test_order_ids_and_metadata_hold_and_the_budget_too(seeds: list[int], ratio: float, each: int | None) -> None:
    pages = [
        Document(essay(seed, 6) if seed % 2 else log(seed, 8), id=str(i), metadata={"seed": seed})
        for i, seed in enumerate(seeds)
    ]
    compressor = DocumentCompressor(target_ratio=ratio, per_document=each, embedder=Words())
    kept = compressor.compress_documents(pages, "What did the heron team do?")
    assert [document.id for document in kept] == [page.id for page in pages if page.id in {one.id for one in kept}]
    assert all(document.metadata["seed"] == pages[int(str(document.id))].metadata["seed"] for document in kept)
    assert tokens(kept) <= max(ratio * tokens(pages), 0) or kept == pages, "else nothing fitted, and all was left"


@pytest.mark.parametrize("query", [QUESTION, "", "   "])
def test_awaiting_gives_the_same(query: str) -> None:
    compressor = DocumentCompressor(target_ratio=0.3)
    awaited = asyncio.run(compressor.acompress_documents(PAGES, query))
    assert awaited == compressor.compress_documents(PAGES, query)


def test_without_a_question_nothing_is_lost() -> None:
    data = Document('{"a": [1,    2],    "b": null}')
    [kept] = DocumentCompressor(target_ratio=0.1).compress_documents([data], "")
    assert kept.page_content == '{"a":[1,2],"b":null}'
    assert DocumentCompressor().compress_documents([], QUESTION) == []


async def test_it_stands_in_a_contextual_compression_retriever() -> None:
    retriever = ContextualCompressionRetriever(
        base_compressor=DocumentCompressor(target_ratio=0.3), base_retriever=Pages()
    )
    kept = retriever.invoke(QUESTION)
    assert "12 EUR" in kept[0].page_content
    assert await retriever.ainvoke(QUESTION) == kept


async def test_it_stands_in_a_chain() -> None:
    compressor = DocumentCompressor(target_ratio=0.3)

    def joined(given: dict[str, Any]) -> dict[str, Any]:
        return {**given, "context": "\n\n".join(document.page_content for document in given["context"])}

    chain = (
        {"context": Pages(), "question": RunnablePassthrough()}
        | RunnablePassthrough.assign(context=compressor)
        | RunnableLambda(joined)
        | ChatPromptTemplate.from_template("{context}\n\n{question}")
        | RunnableLambda(lambda prompt: prompt.to_string())
        | StrOutputParser()
    )
    prompt = chain.invoke(QUESTION)
    assert "12 EUR a night" in prompt
    assert "lighthouse" not in prompt
    assert await chain.ainvoke(QUESTION) == prompt
    assert chain.batch([QUESTION, QUESTION]) == [prompt, prompt]


def test_the_keys_of_a_chain_can_be_named() -> None:
    compressor = DocumentCompressor(target_ratio=0.3, documents_key="pages", question_key="q")
    assert compressor.invoke({"pages": PAGES, "q": QUESTION}) == compressor.compress_documents(PAGES, QUESTION)
    with pytest.raises(ConfigError, match="documents_key="):
        compressor.invoke({"context": PAGES, "q": QUESTION})
    with pytest.raises(ConfigError, match=r"give a mapping like"):
        compressor.invoke(PAGES)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="are none"):
        compressor.invoke({"pages": "one text", "q": QUESTION})


@pytest.mark.parametrize(
    "options",
    [
        {"target_ratio": 0},
        {"target_ratio": 1.5},
        {"target_ratio": float("nan")},
        {"target_ratio": "half"},
        {"target_tokens": 0},
        {"target_ratio": 0.5, "target_tokens": 5},
        {"protect": [(0, 5)]},
        {"per_document": 0},
        {"protect": [3]},
        {"core": Compressor(embedder=Words()), "model": "gpt-4o"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        DocumentCompressor(**options)
    with pytest.raises((ConfigError, TypeError)):
        DocumentCompressor(ratio=0.5)  # type: ignore[call-arg]


async def test_a_failure_leaves_the_documents_as_they_are_and_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    words = Words()

    def broken(texts: Sequence[str]) -> Any:
        raise RuntimeError("no embedder today")

    words.fault = broken
    compressor = DocumentCompressor(target_ratio=0.3, embedder=words)
    with caplog.at_level(logging.WARNING, "costopt"):
        assert compressor.compress_documents(PAGES, QUESTION) == PAGES
        assert await compressor.acompress_documents(PAGES, QUESTION) == PAGES
    assert compressor.stats().failures == 2
    assert [record.message.count("no embedder today") for record in caplog.records] == [1]


def test_its_options_can_be_read_but_not_changed() -> None:
    compressor = DocumentCompressor(target_ratio=0.3)
    assert compressor.target_ratio == 0.3
    with pytest.raises(ValueError, match="frozen"):
        compressor.target_ratio = 0.5
    assert compressor.get_name() == "DocumentCompressor"
