"""Every lever in one application, set up by one file, for LangChain and LlamaIndex; and what they have saved.

pip install "costopt[langchain,llamaindex,minilm,batch]" langchain langchain-openai llama-index-llms-openai
export OPENAI_API_KEY=...        # without one: python -m cookbook every_lever
python cookbook/every_lever.py
"""

from pathlib import Path

from langchain.agents import create_agent
from langchain_core.documents import Document
from langchain_openai import ChatOpenAI
from llama_index.core import Settings, SummaryIndex
from llama_index.core.schema import TextNode
from llama_index.llms.openai import OpenAI

from costopt import Optimizer

SETTINGS = """\
[cache]
[router]
thresholds = [0.5]
[compressor]
target_ratio = 0.5
[history]
max_tool_tokens = 60
keep_last = 2
prompt_cache = false    # chats as short as these are in no provider's prompt cache
[ledger]
path = "ledger.db"
[batch]
journal = "batches.db"
"""
QUESTIONS = ["How do I reset my password?", "Where is my bill?", "How can I reset my password?", "Where is my bill?"]
PAGES = [
    "A refund takes five working days. It goes to the card that paid. Gift cards are refunded as gift cards.",
    "Returns are free for thirty days. Print the label in your account. Shoes must not have been worn outside.",
]
REVIEWS = [f"Good or bad? Parcel {number} came {number} days late." for number in range(1, 21)]


def order(number: str) -> str:
    """Look an order up."""
    return "\n".join(f"Order {number}, line {line}: a lamp of type {line * 7}, 19 EUR, sent." for line in range(1, 21))


def on_langchain(optimizer: Optimizer) -> None:
    app = optimizer.langchain(ChatOpenAI(model="gpt-4o-mini"), ChatOpenAI(model="gpt-4o"))
    for question in QUESTIONS:
        print(f"{question} -> {app.llm.invoke(question).content}")

    question = "How long does a refund take?"
    found = app.document_compressor.compress_documents([Document(page) for page in PAGES], question)
    print(app.llm.invoke(f"{''.join(page.page_content for page in found)}\n\nQuestion: {question}").content)

    agent = create_agent(app.llm, [order], middleware=app.middleware)
    chat = {"messages": []}
    for question in ("What was in order 17?", "And in order 18?", "And in order 19?"):
        chat = agent.invoke({"messages": [*chat["messages"], ("user", question)]})
    print(chat["messages"][-1].content)

    print(len(app.batch_runner().batch(REVIEWS)), "reviews read at half the price")


def on_llamaindex(optimizer: Optimizer) -> None:
    app = optimizer.llamaindex(OpenAI("gpt-4o-mini"), OpenAI("gpt-4o"))
    Settings.llm = app.llm
    index = SummaryIndex([TextNode(text=page) for page in PAGES])
    engine = index.as_query_engine(node_postprocessors=app.node_postprocessors)
    for question in ("How many days are returns free?", "What is printed?", "How many days are returns free?"):
        print(f"{question} -> {engine.query(question)}")


def main() -> None:
    if not Path("costopt.toml").exists():  # `costopt init` writes one in which every key is explained
        Path("costopt.toml").write_text(SETTINGS)
    with Optimizer.from_toml("costopt.toml") as optimizer:
        on_langchain(optimizer)
        on_llamaindex(optimizer)
        report = optimizer.report()  # the same as `costopt report`
    print(report)
    print(f"saved ${report.saved:.6f} of ${report.without:.6f} ({report.share:.0%})")


if __name__ == "__main__":
    main()
