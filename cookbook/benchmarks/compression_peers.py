"""What others do with retrieved passages, for the benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from costopt.compression.segment import units
from costopt.embedding import SharedEmbedder

__all__ = ["optimised"]


def optimised(embedder: SharedEmbedder, ratio: float) -> Callable[[Sequence[str], str], list[str]]:
    """LlamaIndex's `SentenceEmbeddingOptimizer`, which takes a share of each passage's sentences.

    Args:
        embedder: Ours, handed to it.
        ratio: The share of the sentences to keep.

    Returns:
        A function of passages and question.
    """
    from llama_index.core.postprocessor import SentenceEmbeddingOptimizer  # slow to import: not at the top
    from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

    def split(text: str) -> list[str]:  # its own needs nltk
        return [text[unit.start : unit.end] for unit in units(text)]

    optimiser = SentenceEmbeddingOptimizer(
        embed_model=_model(embedder), percentile_cutoff=ratio, tokenizer_fn=split, context_before=0, context_after=0
    )

    def kept(passages: Sequence[str], question: str) -> list[str]:
        found = []
        for text in passages:
            if len(split(text)) * ratio >= 1:  # it raises where nothing would be left
                node = NodeWithScore(node=TextNode(text=text), score=1.0)
                found.append(optimiser.postprocess_nodes([node], QueryBundle(question))[0].node.get_content())
        return found

    return kept


def _model(embedder: SharedEmbedder) -> Any:
    from llama_index.core.base.embeddings.base import BaseEmbedding

    class Ours(BaseEmbedding):
        def _get_text_embedding(self, text: str) -> list[float]:
            vector: list[float] = embedder.embed_one(text).tolist()
            return vector

        def _get_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

        async def _aget_query_embedding(self, query: str) -> list[float]:
            return self._get_text_embedding(query)

    return Ours()
