"""LangChain's models behind cache, router and books; documents shortened; and the real SDK, if it is there."""

import importlib.util

from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import GenericFakeChatModel
from langchain_core.messages import AIMessage
from words import ASKED, FOLDER, REWORDED, Words, address

import langchain_costopt as c
from costopt import LocalStore, Optimizer, SimilarityJudge, Tier

# The middlewares are for the package of that name, and say so.
agents = importlib.util.find_spec("langchain") is not None
for name in c.__all__:
    if agents or not name.endswith("Middleware"):
        getattr(c, name)

cache = c.SemanticCache(LocalStore(FOLDER / "cache.db"), embedder=Words(), judge=SimilarityJudge(0.7))
tracker = c.CostTracker(FOLDER / "ledger.db")
[kept] = c.DocumentCompressor(embedder=Words(), target_tokens=8).compress_documents(
    [Document("The museum is of brick. Tickets cost 12 EUR. No dogs, please.")], "How much do tickets cost?"
)
assert "12 EUR" in kept.page_content, kept
said = "a fake model"

if importlib.util.find_spec("langchain_openai"):
    from langchain.agents import create_agent
    from langchain_openai import ChatOpenAI

    small, large = (
        ChatOpenAI(model=name, base_url=address("openai"), api_key="none") for name in ("gpt-4o-mini", "gpt-4o")
    )
    router = c.RouterRunnable(tiers=[small, large], callbacks=[tracker], cache=False)
    answer = router.invoke("What is the capital of France?")
    assert answer.response_metadata["costopt"]["chosen"] == "gpt-4o-mini", answer
    assert "".join(part.text for part in router.stream("And of Spain?"))
    agent = create_agent(router, tools=[], middleware=[c.CompressionMiddleware(embedder=Words())])
    assert agent.invoke({"messages": [("user", "What is the capital of Italy?")]})["messages"][-1].content
    optimizer = Optimizer(cache=cache, router={}, ledger=FOLDER / "optimizer.db")
    app = optimizer.langchain(small, large)
    served = [app.llm.invoke(text).content for text in ("Where is the invoice?", "Where is the invoice?")]
    assert served[0] == served[1], served
    assert optimizer.report().levers["cache"].requests == 1, optimizer.report()
    model, said = small, "the real SDK, routed, streamed, in an agent, by an Optimizer"
else:
    model = GenericFakeChatModel(messages=iter([AIMessage("first"), AIMessage("second"), AIMessage("third")]))
    router = c.RouterRunnable(tiers=[Tier(model, name="gpt-4o-mini"), Tier(model, name="gpt-4o")])
    assert router.invoke("What is the capital of France?").response_metadata["costopt"]["why"]

set_llm_cache(cache)
first = model.invoke(ASKED, config={"callbacks": [tracker]})
again = model.invoke(REWORDED, config={"callbacks": [tracker]})
assert again.content == first.content, (first, again)
assert again.response_metadata["costopt"]["matched"] == ASKED
totals = tracker.totals()
assert totals.cache_hits == 1 and totals.attempts >= 2, totals
print(f"{said}: hit served, {totals.attempts} attempts in the books")
