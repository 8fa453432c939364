"""The compressor as LlamaIndex's node postprocessor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Unpack

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.postprocessor.types import BaseNodePostprocessor
from llama_index.core.schema import BaseNode, MetadataMode, NodeWithScore, QueryBundle

from costopt.compression.books import CompressionStats
from costopt.compression.compressor import Compressor
from costopt.compression.documents import DocumentOptions, Documents, Kept
from costopt.errors import ConfigError

__all__ = ["CompressorPostprocessor"]

_OURS = "costopt"
_HIDDEN = ("excluded_llm_metadata_keys", "excluded_embed_metadata_keys")


class CompressorPostprocessor(BaseNodePostprocessor):
    """Keeps of retrieved nodes the sentences and lines that the query needs.

    All nodes share one budget, so that what is most to the point gets most of it. What is kept is the node's own text;
    a node of which nothing is left is not given back. Order, scores, ids, relationships and metadata stay as they are,
    and the nodes that came in are not changed, for an index may hold them. A node that was shortened is a copy that
    tells so in ``metadata["costopt"]``, which no model and no embedding is shown: tokens before and after, and what was
    kept, as offsets in the text that came in. If anything fails, the nodes go on as they are.

    Args:
        target_ratio: Share of the nodes' tokens to keep at most, above 0 and at most 1; half if there is no target.
            Metadata is not counted.
        target_tokens: Tokens to keep at most, of all nodes together.
        per_document: Tokens to keep at most of each node.
        model: Name of the model that reads the nodes, for counts; or a tokenizer or a function that counts.
        embedder: Tells what is near a query; `costopt.default_embedder()` if None.
        protect: What is not taken apart, as `costopt.compression.Compressor` has it.
        backend: Drops tokens instead of sentences, e.g. a `costopt.compression.LLMLingua2`.
        told: Called with the tokens before and after, each time, e.g. a `costopt.audit.LeftOut`, which writes them
            into a ledger.
        core: A `costopt.compression.Compressor` to use instead of making one from model, embedder, protect and backend.

    Raises:
        ConfigError: If an option is out of range; the message says what would be right.
        MissingExtraError: If the embedder's extra is not installed.

    Example:
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> text = "The sky is blue. Cats purr when they are content. Rain is wet."
        >>> found = NodeWithScore(node=TextNode(text=text, id_="7"), score=0.9)
        >>> postprocessor = CompressorPostprocessor(target_ratio=0.5)
        >>> [kept] = postprocessor.postprocess_nodes([found], query_str="Why do cats purr?")
        >>> kept.text, kept.node_id, kept.score
        ('Cats purr when they are content.', '7', 0.9)
    """

    target_ratio: float | None = Field(default=None, frozen=True)
    target_tokens: int | None = Field(default=None, frozen=True)
    per_document: int | None = Field(default=None, frozen=True)
    _documents: Documents = PrivateAttr()

    def __init__(
        self, *, core: Compressor | None = None, callback_manager: Any = None, **options: Unpack[DocumentOptions]
    ) -> None:
        made = Documents("CompressorPostprocessor", core, **options)
        fields: dict[str, Any] = {name: options.get(name) for name in ("target_ratio", "target_tokens", "per_document")}
        if callback_manager is not None:
            fields["callback_manager"] = callback_manager
        super().__init__(**fields)
        self._documents = made

    @classmethod
    def class_name(cls) -> str:
        """The name by which LlamaIndex knows this class."""
        return "CompressorPostprocessor"

    def stats(self) -> CompressionStats:
        """What this object has done so far; `print(postprocessor.stats())` says it in a line."""
        return self._documents.books.stats()

    def _postprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _shortened(nodes, self._documents.compress(_texts(nodes), _query(query_bundle)))

    async def _apostprocess_nodes(
        self, nodes: list[NodeWithScore], query_bundle: QueryBundle | None = None
    ) -> list[NodeWithScore]:
        return _shortened(nodes, await self._documents.acompress(_texts(nodes), _query(query_bundle)))


def _query(query_bundle: QueryBundle | None) -> str | None:
    return None if query_bundle is None else query_bundle.query_str


def _texts(nodes: Sequence[NodeWithScore]) -> list[str]:
    """Text only: metadata is put to it later, when the prompt is made."""
    if not all(isinstance(each, NodeWithScore) for each in nodes):
        raise ConfigError("give a list of NodeWithScore, as in [NodeWithScore(node=TextNode(text=text), score=1.0)]")
    return [each.node.get_content(metadata_mode=MetadataMode.NONE) for each in nodes]


def _shortened(nodes: Sequence[NodeWithScore], outcomes: Sequence[Kept]) -> list[NodeWithScore]:
    """The nodes as they came out; one that has no text left is left out, unless it has more than text."""
    made = []
    for each, kept in zip(nodes, outcomes, strict=True):
        if kept.about is None:
            made.append(each)
        elif kept.text or _has_more(each.node):
            made.append(each.model_copy(update={"node": _copy(each.node, kept)}))
    return made


def _copy(node: BaseNode, kept: Kept) -> BaseNode:
    hidden = {name: [*getattr(node, name), _OURS] for name in _HIDDEN if _OURS not in getattr(node, name)}
    copy = node.model_copy(update={"metadata": {**node.metadata, _OURS: kept.about}, **hidden})
    resource = getattr(node, "text_resource", None)
    if resource is None:
        copy.set_content(kept.text)
        return copy
    # set_content would lose where the text comes from.
    return copy.model_copy(update={"text_resource": resource.model_copy(update={"text": kept.text})})


def _has_more(node: BaseNode) -> bool:
    """Whether it has an image, sound or film."""
    names = ("image", "image_path", "image_url", "image_resource", "audio_resource", "video_resource")
    return any(getattr(node, name, None) for name in names)
