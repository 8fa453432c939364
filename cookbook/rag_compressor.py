"""A retrieval chain that sends the model the sentences its question needs, and not whole documents.

pip install "costopt[langchain,minilm]" langchain-openai
export OPENAI_API_KEY=...        # without one: python -m cookbook rag_compressor
python cookbook/rag_compressor.py
"""

from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda, RunnablePassthrough
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_openai import ChatOpenAI

from costopt import default_embedder
from langchain_costopt import CostTracker, DocumentCompressor

PAGES = """\
The museum is open from ten to six, on Thursdays until nine. It is closed on Mondays. The last tour starts at five. It \
takes fifty minutes. The building was a wool mill until 1931. Its chimney can be seen from the station.
A ticket costs 12 EUR. Children under twelve pay nothing. Students pay 7 EUR with a card of their school. Tickets are \
sold at the desk and online. The desk takes cards only. Lost tickets are not replaced.
The cafe is on the second floor and has forty seats. It serves soup, bread and cake. Coffee is 3 EUR. Groups of more \
than ten must book a table a week before. The terrace is open in summer.
The loom hall shows nine looms, three of which still run. They are started at eleven and at three. It is loud: ear \
plugs hang at the door. Please do not touch the threads. Photographs are allowed without flash.
There is a lift to every floor. Wheelchairs can be borrowed at the desk. Dogs must wait outside, guide dogs may come \
in. Bags larger than a sheet of paper go into the lockers. Lockers take a coin of 1 EUR.""".splitlines()
QUESTIONS = [
    "How much is a ticket for a student?",
    "When are the looms started?",
    "How long does a tour take?",
    "Can I bring my dog?",
    "How many seats does the cafe have?",
]
PROMPT = ChatPromptTemplate.from_template("Answer from this alone:\n{context}\n\nQuestion: {question}")


class MiniLM(Embeddings):
    """The embedder that costopt brings along; yours will do as well."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        """One vector a text."""
        return default_embedder().embed(texts).tolist()

    def embed_query(self, text: str) -> list[float]:
        """The vector of a question."""
        return self.embed_documents([text])[0]


def as_text(found: dict) -> dict:
    return found | {"context": "\n".join(document.page_content for document in found["context"])}


def main() -> None:
    store = InMemoryVectorStore.from_documents([Document(page) for page in PAGES], MiniLM())
    found = {"context": store.as_retriever(search_kwargs={"k": 3}), "question": RunnablePassthrough()}
    answer = RunnableLambda(as_text) | PROMPT | ChatOpenAI(model="gpt-4o-mini", temperature=0) | StrOutputParser()
    plain, short = CostTracker(), CostTracker()

    whole = (found | answer).batch(QUESTIONS, {"callbacks": [plain]})
    compressor = RunnablePassthrough.assign(context=DocumentCompressor(target_ratio=0.4))
    less = (found | compressor | answer).batch(QUESTIONS, {"callbacks": [short]})

    for question, before, after in zip(QUESTIONS, whole, less, strict=True):
        print(f"{question}\n  all of it:    {before}\n  what matters: {after}")
    before, after = plain.totals(), short.totals()
    print(f"tokens read: {before.input_tokens} before, {after.input_tokens} after")
    print(f"saved ${before.cost - after.cost:.6f} of ${before.cost:.6f} ({1 - after.cost / before.cost:.0%})")


if __name__ == "__main__":
    main()
