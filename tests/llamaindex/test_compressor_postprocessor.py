"""Nodes on their way from a retriever to a prompt: less text, everything else as it was."""

from __future__ import annotations

import asyncio
import copy
import logging
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llama_index.core import SummaryIndex
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.llms import MockLLM
from llama_index.core.schema import (
    Document,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeRelationship,
    NodeWithScore,
    QueryBundle,
    RelatedNodeInfo,
    TextNode,
)

from costopt import ConfigError
from costopt.compression import Compressor
from costopt.tokens import count_tokens
from llamaindex_costopt import CompressorPostprocessor
from tests.costopt.compression.chats import essay, log
from tests.faults.words import Words

QUESTION = "What does a berth in the harbour cost?"
LIGHTHOUSE = "The lighthouse was built in 1864. Its lamp burnt rape oil at first. A keeper lived in the tower."
HARBOUR = "The harbour is open from May to October. Berths cost 12 EUR a night. Dogs are welcome on the pier."


def nodes() -> list[NodeWithScore]:
    source = {NodeRelationship.SOURCE: RelatedNodeInfo(node_id="guide")}
    first = TextNode(
        text=LIGHTHOUSE, id_="a", metadata={"page": 3}, relationships=source, start_char_idx=5, embedding=[0.1, 0.2]
    )
    second = TextNode(text=HARBOUR, id_="b", metadata={"page": 4}, excluded_llm_metadata_keys=["page"])
    return [NodeWithScore(node=first, score=0.9), NodeWithScore(node=second, score=None)]


def tokens(found: Sequence[NodeWithScore]) -> int:
    return sum(count_tokens(each.node.get_content(MetadataMode.NONE), "gpt-4o").tokens for each in found)


def test_what_is_needed_is_kept_and_all_else_of_a_node_too() -> None:
    given_nodes = nodes()
    before = copy.deepcopy(given_nodes)
    kept = CompressorPostprocessor(target_ratio=0.7).postprocess_nodes(given_nodes, query_str=QUESTION)
    assert given_nodes == before, "what came in is left alone"
    assert tokens(kept) <= 0.7 * tokens(given_nodes)
    assert "12 EUR a night" in kept[-1].text
    for new in kept:
        old = next(each for each in given_nodes if each.node_id == new.node_id)
        assert new.score == old.score
        if new is old:
            continue
        about = new.node.metadata["costopt"]
        assert "".join(old.text[start:end] for start, end in about["kept"]) == new.text
        changed = {"text", "metadata", "excluded_llm_metadata_keys", "excluded_embed_metadata_keys"}
        assert new.node.model_dump(exclude=changed) == old.node.model_dump(exclude=changed)
        assert {**new.metadata, "costopt": 0} == {**old.metadata, "costopt": 0}


def test_no_model_is_shown_what_is_ours() -> None:
    [kept] = CompressorPostprocessor(target_tokens=12).postprocess_nodes(nodes(), query_str=QUESTION)
    assert "costopt" in kept.metadata
    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "costopt" not in kept.node.get_content(mode)
    assert "page: 4" in kept.node.get_content(MetadataMode.EMBED)
    again = CompressorPostprocessor(target_tokens=8).postprocess_nodes([kept], query_str=QUESTION)
    assert again[0].node.excluded_llm_metadata_keys.count("costopt") == 1


@pytest.mark.parametrize("bundle", [None, QueryBundle(""), QueryBundle(QUESTION)])
def test_awaiting_gives_the_same_with_and_without_a_query(bundle: QueryBundle | None) -> None:
    postprocessor = CompressorPostprocessor(target_ratio=0.4)
    kept = postprocessor.postprocess_nodes(nodes(), bundle)
    assert asyncio.run(postprocessor.apostprocess_nodes(nodes(), bundle)) == kept
    if bundle is None or not bundle.query_str:
        assert kept == nodes(), "without a query nothing is lost"


@settings(max_examples=20)
@given(seeds=st.lists(st.integers(0, 40), max_size=6), ratio=st.floats(0.05, 1))
def test_order_ids_scores_and_budget_hold(seeds: list[int], ratio: float) -> None:
    found = [
        NodeWithScore(node=TextNode(text=essay(seed, 6) if seed % 2 else log(seed, 8), id_=str(i)), score=seed / 40)
        for i, seed in enumerate(seeds)
    ]
    postprocessor = CompressorPostprocessor(target_ratio=ratio, embedder=Words())
    kept = postprocessor.postprocess_nodes(found, query_str="What did the heron team do?")
    assert [each.node_id for each in kept] == sorted((each.node_id for each in kept), key=int)
    assert all(each.score == found[int(each.node_id)].score for each in kept)
    assert tokens(kept) <= ratio * tokens(found) or kept == found, "else nothing fitted, and all was left"


def test_every_kind_of_node_keeps_what_is_not_text() -> None:
    text = MediaResource(text=HARBOUR, url="https://example.com/harbour", mimetype="text/plain")
    kinds: list[Any] = [
        Node(id_="0", text_resource=text, image_resource=MediaResource(url="https://example.com/harbour.png")),
        ImageNode(id_="1", text=LIGHTHOUSE, image_url="https://example.com/lighthouse.png"),
        IndexNode(id_="2", text=HARBOUR, index_id="sub", obj=[1]),
        Document(id_="3", text=LIGHTHOUSE),
        Node(id_="4", image_resource=MediaResource(url="https://example.com/pier.png")),
        TextNode(id_="5", text=""),
    ]
    found = [NodeWithScore(node=node, score=0.5) for node in kinds]
    kept = {each.node_id: each.node for each in CompressorPostprocessor(target_tokens=12).postprocess_nodes(
        found, query_str=QUESTION
    )}  # fmt: skip
    assert {"0", "1", "4", "5"} <= kept.keys(), "a picture is kept, whatever becomes of its text"
    assert "3" not in kept
    for name, node in kept.items():
        old = kinds[int(name)]
        assert type(node) is type(old)
        for field in ("image_resource", "image_url", "index_id", "obj"):
            assert getattr(node, field, None) == getattr(old, field, None)
    assert kept["0"].text_resource.url == text.url
    assert kept["4"] is kinds[4]
    assert kept["1"].text == ""


class Prompted(MockLLM):
    """Notes its prompts."""

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        PROMPTS.append(prompt)
        return super().complete(prompt, formatted=formatted, **kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        PROMPTS.append(prompt)
        return super().complete(prompt, formatted=formatted, **kwargs)


PROMPTS: list[str] = []


async def test_it_stands_in_a_query_engine_and_the_index_is_left_alone() -> None:
    PROMPTS.clear()
    index = SummaryIndex([each.node for each in nodes()])  # type: ignore[misc]
    engine = index.as_query_engine(
        llm=Prompted(), node_postprocessors=[CompressorPostprocessor(target_tokens=12)], response_mode="compact"
    )
    answer = engine.query(QUESTION)
    assert [each.node_id for each in answer.source_nodes] == ["b"]
    await engine.aquery(QUESTION)
    assert len(PROMPTS) == 2
    for prompt in PROMPTS:
        assert "12 EUR a night" in prompt
        assert "lighthouse" not in prompt
        assert "costopt" not in prompt
    held = {node.node_id: node.get_content() for node in index.docstore.docs.values()}
    assert held == {"a": LIGHTHOUSE, "b": HARBOUR}


async def test_a_failure_leaves_the_nodes_as_they_are_and_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    words = Words()

    def broken(texts: Sequence[str]) -> Any:
        raise RuntimeError("no embedder today")

    words.fault = broken
    postprocessor = CompressorPostprocessor(target_ratio=0.3, embedder=words)
    with caplog.at_level(logging.WARNING, "costopt"):
        assert postprocessor.postprocess_nodes(nodes(), query_str=QUESTION) == nodes()
        assert await postprocessor.apostprocess_nodes(nodes(), query_str=QUESTION) == nodes()
    assert postprocessor.stats().failures == 2
    assert [record.message.count("no embedder today") for record in caplog.records] == [1]


@pytest.mark.parametrize(
    "options",
    [
        {"target_ratio": 0},
        {"target_ratio": float("nan")},
        {"target_tokens": 0},
        {"target_ratio": 0.5, "target_tokens": 5},
        {"protect": [(0, 5)]},
        {"core": Compressor(embedder=Words()), "model": "gpt-4o"},
    ],
)
def test_options_that_cannot_be_meant_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        CompressorPostprocessor(**options)


def test_it_is_a_component_like_any_other() -> None:
    postprocessor = CompressorPostprocessor(target_ratio=0.3)
    data = postprocessor.to_dict()
    assert (data["class_name"], data["target_ratio"]) == ("CompressorPostprocessor", 0.3)
    again = CompressorPostprocessor.from_dict(data)
    assert again.postprocess_nodes(nodes(), query_str=QUESTION) == postprocessor.postprocess_nodes(
        nodes(), query_str=QUESTION
    )
    with pytest.raises(ValueError, match="frozen"):
        postprocessor.target_ratio = 0.5


def test_without_llama_index_it_says_what_to_install() -> None:
    code = (
        "import sys, importlib.abc\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] == 'llama_index': raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
        "import llamaindex_costopt\n"
        "llamaindex_costopt.CompressorPostprocessor\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "pip install 'costopt[llamaindex]'" in done.stderr
