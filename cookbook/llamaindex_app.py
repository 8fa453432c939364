"""A help desk on LlamaIndex with cache, router and compressor, beside what it paid without them.

pip install "costopt[llamaindex,minilm]" llama-index-llms-openai
export OPENAI_API_KEY=...        # without one: python -m cookbook llamaindex_app
python cookbook/llamaindex_app.py
"""

from llama_index.core import Settings, VectorStoreIndex
from llama_index.core.embeddings import BaseEmbedding
from llama_index.core.schema import TextNode
from llama_index.llms.openai import OpenAI

from costopt import SemanticCache, default_embedder
from llamaindex_costopt import CachedLLM, CompressorPostprocessor, CostTracker, RouterLLM

PAGES = """\
Parcels leave on the day of the order. Delivery takes two working days. Orders after noon leave a day later.
A refund takes five working days. It goes to the card that paid. Gift cards are refunded as gift cards.
A forgotten password is reset by mail. The link lasts for one hour. Ask again if no mail came.
Returns are free for thirty days. Print the label in your account. Shoes must not have been worn outside.
Invoices are in your account. They are kept for ten years. A VAT number can be added before you pay.""".splitlines()
QUESTIONS = [
    "How long does a refund take?",
    "What do I do about a forgotten password?",
    "How long does the refund take?",
    "How long are invoices kept?",
    "What can I do about a forgotten password?",
    "How many days are returns free?",
    "How long does a refund take?",
]


class MiniLM(BaseEmbedding):
    """The embedder that cache, router and compressor use as well: each text is embedded once."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return default_embedder().embed([text])[0].tolist()

    _get_query_embedding = _get_text_embedding

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)


def asked(index, *postprocessors):
    """The answers, and what they took."""
    with CostTracker().installed() as tracker:
        engine = index.as_query_engine(similarity_top_k=3, node_postprocessors=list(postprocessors))
        return [str(engine.query(question)) for question in QUESTIONS], tracker.totals()


def main() -> None:
    index = VectorStoreIndex([TextNode(text=page) for page in PAGES], embed_model=MiniLM())
    Settings.llm = OpenAI("gpt-4o", temperature=0)
    whole, before = asked(index)

    # Prompts with documents in them all look long: the router reads what the query engine puts after "Query: ".
    router = RouterLLM(tiers=[OpenAI("gpt-4o-mini", temperature=0, max_retries=0), Settings.llm], split="Query: ")
    Settings.llm = CachedLLM(router, cache=SemanticCache().warm())
    less, after = asked(index, CompressorPostprocessor(target_ratio=0.5))

    for question, one, other in zip(QUESTIONS, whole, less, strict=True):
        print(f"{question}\n  before: {one}\n  after:  {other}")
    print(f"before: {before}\nafter:  {after}\nrouter: {router.stats()}")
    print(f"saved ${before.cost - after.cost:.6f} of ${before.cost:.6f} ({1 - after.cost / before.cost:.0%})")


if __name__ == "__main__":
    main()
