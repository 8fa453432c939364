"""A help desk on LlamaIndex, as it was and with costopt: the same documents and questions, and what each paid.

    python -m cookbook.llamaindex_app

No key is needed: the models are simulated. They quote the sentence that has most in common with the question, tokens
are counted as the models that they stand for count them, prices are list prices, and nothing is sent anywhere. Both
quote equally well: whether the cheaper one does on questions of yours, only outcomes of yours can tell.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import TextNode

from costopt import LocalStore, SemanticCache, default_embedder
from costopt.audit import Totals
from costopt.jsonl import read_jsonl
from costopt.routing import HeuristicEstimator
from costopt.routing.estimator import Scores, Vectors
from costopt.tokens import count_tokens
from llamaindex_costopt import CachedLLM, CompressorPostprocessor, CostTracker, RouterLLM

__all__ = ["main"]

LOG = Path(__file__).parent / "data" / "requests.jsonl"
WORD = re.compile(r"\w+")


class Simulated(CustomLLM):
    """Stands for a model; with a key, `OpenAI(model=...)` goes in its place."""

    model: str

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex asks of every LLM."""
        return LLMMetadata(model_name=self.model, context_window=128_000)

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """Quote the context."""
        context, question = prompt.rsplit("Query: ", 1)
        asked = set(WORD.findall(question.lower()))
        sentences = [line for line in re.split(r"(?<=[.!?])\s+|\n", context) if line and "ontext info" not in line]
        answer = max(sentences, key=lambda line: len(asked & set(WORD.findall(line.lower()))))
        counts = [count_tokens(text, self.model).tokens for text in (prompt, answer)]
        usage = {"prompt_tokens": counts[0], "completion_tokens": counts[1], "total_tokens": sum(counts)}
        return CompletionResponse(text=answer, raw={"model": self.model, "usage": usage})

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """The same in one piece."""
        whole = self.complete(prompt, formatted, **kwargs)
        yield whole.model_copy(update={"delta": whole.text})


class Embeddings(BaseEmbedding):
    """costopt's embedder, which cache, router and compressor use as well: each text is embedded once."""

    def _get_text_embedding(self, text: str) -> list[float]:
        vector: list[float] = default_embedder().embed([text])[0].tolist()
        return vector

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


class OfTheQuestion(HeuristicEstimator):
    """Reads the question only: prompts with documents in them all look long."""

    def scores(self, texts: Sequence[str], vectors: Vectors | None = None) -> Scores:
        """How hard each question looks."""
        return super().scores([text.rsplit("Query: ", 1)[-1] for text in texts])


def asked(questions: Sequence[str], index: VectorStoreIndex, *postprocessors: Any) -> tuple[list[str], Totals]:
    """The answers, and what they took."""
    with TemporaryDirectory() as folder, CostTracker(Path(folder) / "ledger.db").installed() as tracker:
        engine = index.as_query_engine(similarity_top_k=6, node_postprocessors=list(postprocessors))
        answers = [str(engine.query(question)) for question in questions]
        totals = tracker.totals()
        tracker.ledger.close()
    return answers, totals


def main(most: int = 100) -> None:
    """Ask the first questions of the sample log, and print what it cost."""
    rows = [row for _, row in read_jsonl(LOG) if row["app"] == "support" and row["tenant"] == "acme"]
    questions = [row["messages"][-1]["content"] for row in rows if len(row["messages"]) == 2][:most]
    nodes: Any = [TextNode(text=text) for text in dict.fromkeys(row["answer"] for row in rows)]
    index = VectorStoreIndex(nodes, embed_model=Embeddings())

    Settings.llm = Simulated(model="gpt-4o")
    before, plain = asked(questions, index)

    with TemporaryDirectory() as folder:
        cache = SemanticCache(LocalStore(Path(folder) / "cache.db"), time_budget=10.0)
        tiers = [Simulated(model="gpt-4o-mini"), Simulated(model="gpt-4o")]
        router = RouterLLM(tiers=tiers, estimator=OfTheQuestion())
        Settings.llm = CachedLLM(router, cache=cache)
        after, cheap = asked(questions, index, CompressorPostprocessor(target_ratio=0.5))
        print(f"cache:   {cache.stats()}\nrouter:  {router.stats()}")
        cache.close()

    same = sum(a == b for a, b in zip(before, after, strict=True))
    print(f"before:  {plain}\nafter:   {cheap}")
    print(f"answers: {same} of {len(questions)} are the same sentence")
    print(f"saved:   ${plain.cost - cheap.cost:.4f} of ${plain.cost:.4f}, {1 - cheap.cost / plain.cost:.1%}")


if __name__ == "__main__":
    main()
