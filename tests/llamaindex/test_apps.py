"""A query engine and an agent over real embeddings, with and without the levers: same answers, smaller bill."""

from __future__ import annotations

import asyncio
import re
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.agent.workflow import FunctionAgent
from llama_index.core.base.embeddings.base import BaseEmbedding
from llama_index.core.llms import LLM
from llama_index.core.schema import TextNode

from costopt import LocalStore, SemanticCache, default_embedder
from llamaindex_costopt import CachedLLM, CompressorPostprocessor, CostTracker, RouterLLM
from tests.llamaindex.contract import MODELS, openai_like
from tests.openai_server import Behaviour, OpenAIServer

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pydantic.PydanticDeprecatedSince20")

NOTES = {
    "pump": "The pump stands in the cellar of the north wing. It was bought in spring. The pump must be oiled every "
    "ninety days by the caretaker. Its manual is in the blue folder. Spare seals are kept in the workshop.",
    "garden": "The garden has four old apple trees. The apple trees are pruned in February by the gardener. Hedges are "
    "cut twice a year. The lawn was sown anew last year. Visitors like the pond best.",
    "library": "The library holds nine thousand volumes. Loans at the library last twenty-one days. The reading room "
    "has two long tables. Cats are not allowed inside. The oldest volume is an atlas.",
    "kitchen": "The kitchen serves lunch at noon. Bread is baked in the kitchen on Tuesdays and Fridays. The oven is "
    "heated with wood. Guests may help with the dishes. Knives are sharpened once a month.",
    "boat": "The boat lies at the southern jetty. The boat carries eleven passengers at most. Its engine is a diesel. "
    "Life jackets hang behind the door. In winter it is kept under a roof.",
}
QUESTIONS = (
    "How often must the pump be oiled?",
    "When are the apple trees pruned?",
    "How many days do loans at the library last?",
    "On which days is bread baked in the kitchen?",
    "How many passengers does the boat carry at most?",
)
RIGHT = ("ninety days", "February", "twenty-one days", "Tuesdays and Fridays", "eleven passengers")
ASKED = (*QUESTIONS, *QUESTIONS[:3], QUESTIONS[0])  # people ask again


class MiniLM(BaseEmbedding):
    """The embedder that every lever shares, as LlamaIndex has it."""

    def _get_text_embedding(self, text: str) -> list[float]:
        return self._get_text_embeddings([text])[0]

    def _get_text_embeddings(self, texts: list[str]) -> list[list[float]]:
        return [row.tolist() for row in default_embedder().embed(texts)]

    def _get_query_embedding(self, query: str) -> list[float]:
        return self._get_text_embedding(query)

    async def _aget_query_embedding(self, query: str) -> list[float]:
        return await asyncio.to_thread(self._get_query_embedding, query)


@dataclass
class Reader:
    """A model that answers with the sentence before it that shares most words with the question; counts tokens."""

    server: OpenAIServer
    tokens: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, number: int) -> Behaviour:
        messages = self.server.requests[number - 1]["messages"]
        read = " ".join(str(message.get("content") or "") for message in messages)
        found = re.search(r"Query: (.*)", read)
        question = found.group(1) if found else next(m["content"] for m in messages if m["role"] == "user")
        sentences = [each for each in re.split(r"(?<=\.)\s+", read) if "?" not in each]
        text = max(sentences, key=lambda each: _common(each, question), default="")
        used, said = len(re.findall(r"\w+|[^\w\s]", read)), len(re.findall(r"\w+|[^\w\s]", text))
        with self._lock:
            self.tokens += used + said
        usage = {"prompt_tokens": used, "completion_tokens": said, "total_tokens": used + said}
        return Behaviour(text=text or "I do not know.", usage=usage)


def _common(sentence: str, question: str) -> int:
    words = [set(re.findall(r"[a-z]{3,}", text.lower())) for text in (sentence, question)]
    return len(words[0] & words[1])


@pytest.fixture(autouse=True)
def loop() -> Iterator[None]:
    """For small things LlamaIndex takes the event loop of the thread, makes it if need be, and leaves it open."""
    made = asyncio.new_event_loop()
    asyncio.set_event_loop(made)
    yield
    asyncio.set_event_loop(None)
    made.close()


@pytest.fixture
def reader(server: OpenAIServer) -> Reader:
    made = Reader(server)
    server.behaviours.update(dict.fromkeys(MODELS, made))
    return made


@pytest.fixture(scope="module")
def index() -> VectorStoreIndex:
    nodes = [TextNode(text=text, id_=name) for name, text in NOTES.items()]
    return VectorStoreIndex(nodes, embed_model=MiniLM())


@pytest.fixture
def levers(server: OpenAIServer, tmp_path: Path) -> Iterator[CachedLLM]:
    """What `Settings.llm` is in an application that uses them all."""
    # Nobody else uses this machine's cores for long enough to make a hit a miss.
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), time_budget=10.0).warm()
    router = RouterLLM(tiers=[openai_like(server.url, model) for model in MODELS])
    yield CachedLLM(router, cache=cache)
    cache.close()


@dataclass(frozen=True)
class Bill:
    """What a run answered, and what the server counted."""

    answers: list[str]
    calls: int
    tokens: int


def billed(server: OpenAIServer, reader: Reader, run: Callable[[], Sequence[Any]]) -> Bill:
    server.requests.clear()
    reader.tokens = 0
    return Bill([str(answer) for answer in run()], len(server.requests), reader.tokens)


def right(answers: Sequence[str]) -> bool:
    return all(RIGHT[QUESTIONS.index(asked)] in said for asked, said in zip(ASKED, answers, strict=True))


# -- a query engine -------------------------------------------------------------------------------------


async def _each(asking: Callable[[str], Any]) -> list[str]:
    said = []
    for question in ASKED:
        answer = await asking(question)
        pieces = getattr(answer, "async_response_gen", None)
        said.append("".join([piece async for piece in pieces()]) if pieces else str(answer))
    return said


ENGINES: dict[str, tuple[dict[str, Any], Callable[[Any], list[str]]]] = {
    "query": ({}, lambda engine: [str(engine.query(question)) for question in ASKED]),
    "aquery": ({"use_async": True}, lambda engine: asyncio.run(_each(engine.aquery))),
    "stream": ({"streaming": True}, lambda engine: ["".join(engine.query(each).response_gen) for each in ASKED]),
    "astream": ({"streaming": True, "use_async": True}, lambda engine: asyncio.run(_each(engine.aquery))),
}


@pytest.mark.parametrize(("options", "run"), ENGINES.values(), ids=ENGINES)
def test_a_query_engine_answers_the_same_for_less(
    server: OpenAIServer,
    reader: Reader,
    index: VectorStoreIndex,
    levers: CachedLLM,
    tmp_path: Path,
    options: dict[str, Any],
    run: Callable[[Any], list[str]],
) -> None:
    def engine(llm: LLM, *postprocessors: Any) -> Any:
        found = {"similarity_top_k": 4, "node_postprocessors": list(postprocessors)}
        return index.as_query_engine(llm=llm, **found, **options)

    bare = billed(server, reader, lambda: run(engine(openai_like(server.url))))
    shorter = CompressorPostprocessor(target_ratio=0.5)
    with CostTracker(tmp_path / "ledger.db").installed() as tracker:
        saved = billed(server, reader, lambda: run(engine(levers, shorter)))
    assert right(bare.answers)
    assert saved.answers == bare.answers
    assert (bare.calls, saved.calls) == (len(ASKED), len(QUESTIONS))
    assert saved.tokens < 0.6 * bare.tokens
    assert not shorter.stats().failures
    assert not levers.stats().failures
    # What the tracker has in its ledger is what the server counted.
    rows = list(tracker.ledger.attempts())
    assert sum(row.usage.total_tokens for row in rows if row.usage is not None) == saved.tokens


# -- an agent -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("streaming", [False, True])
def test_an_agent_answers_the_same_for_less(
    server: OpenAIServer, reader: Reader, index: VectorStoreIndex, levers: CachedLLM, streaming: bool
) -> None:
    retriever = index.as_retriever(similarity_top_k=1)
    looked_up: list[str] = []

    def look_up(question: str) -> str:
        """Look a question up in the notes."""
        looked_up.append(question)
        return str(retriever.retrieve(question)[0].get_content())

    def run(llm: LLM) -> list[str]:
        async def answers() -> list[str]:
            agent = FunctionAgent(tools=[look_up], llm=llm, streaming=streaming)
            return [str(await agent.run(question)) for question in ASKED]

        return asyncio.run(answers())

    bare = billed(server, reader, lambda: run(openai_like(server.url)))
    saved = billed(server, reader, lambda: run(levers))
    assert right(bare.answers)
    assert saved.answers == bare.answers
    # A question is two calls: one that asks for the tool, one that reads what it found. The tool runs each time.
    assert (bare.calls, saved.calls) == (2 * len(ASKED), 2 * len(QUESTIONS))
    assert saved.tokens < 0.6 * bare.tokens
    assert looked_up == [*ASKED, *ASKED]
