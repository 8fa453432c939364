"""LlamaIndex's LLMs behind the cache, the router and the books; nodes shortened; and the real SDK, if it is there."""

import importlib.util

from llama_index.core import Settings
from llama_index.core.llms import MockLLM
from llama_index.core.schema import NodeWithScore, TextNode
from words import ASKED, FOLDER, REWORDED, Words, address

import llamaindex_costopt as c
from costopt import LocalStore, Optimizer, SemanticCache, SimilarityJudge, Tier

for name in c.__all__:
    getattr(c, name)

cache = SemanticCache(LocalStore(FOLDER / "cache.db"), embedder=Words(), judge=SimilarityJudge(0.7))
nodes = [NodeWithScore(node=TextNode(text="The museum is of brick. Tickets cost 12 EUR. No dogs, please."), score=1.0)]
shorten = c.CompressorPostprocessor(embedder=Words(), target_tokens=8)
assert "12 EUR" in shorten.postprocess_nodes(nodes, query_str="How much do tickets cost?")[0].text

if importlib.util.find_spec("llama_index.llms") and importlib.util.find_spec("llama_index.llms.openai"):
    from llama_index.llms.openai import OpenAI

    tiers = [
        OpenAI(name, api_base=address("openai"), api_key="none", max_retries=0) for name in ("gpt-4o-mini", "gpt-4o")
    ]
    said = "the real SDK"
else:
    tiers = [Tier(MockLLM(), name="gpt-4o-mini"), Tier(MockLLM(), name="gpt-4o")]
    said = "MockLLM"

optimizer = Optimizer(cache=cache, router={}, ledger=FOLDER / "optimizer.db")
app = optimizer.llamaindex(*tiers)
assert len({app.llm.complete("Where is the invoice?").text for _ in range(2)}) == 1
assert optimizer.report().levers["cache"].requests == 1, optimizer.report()

Settings.llm = c.CachedLLM(c.RouterLLM(tiers), cache=cache)
with c.CostTracker(FOLDER / "ledger.db").installed() as tracker:
    first = Settings.llm.complete(ASKED)
    again = Settings.llm.complete(REWORDED)
    assert [part.text for part in Settings.llm.stream_complete("And the capital of Spain?")]
assert first.additional_kwargs["costopt"]["chosen"] == "gpt-4o-mini", first
assert again.additional_kwargs["costopt"]["cache"] == "semantic", again
totals = tracker.totals()
assert totals.attempts >= 2, totals
print(f"{said}: routed, hit served, streamed, {totals.attempts} attempts in the books")
