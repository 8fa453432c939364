"""The soak's applications, one a tenant, and the threads and tasks that ask them without a pause."""

from __future__ import annotations

import asyncio
import random
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from langchain_core.documents import Document
from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI

import langchain_costopt as lc
import llamaindex_costopt as li
from cookbook.benchmarks.soak_questions import TENANTS, Asked, Traffic, right_answer, with_pages
from cookbook.benchmarks.soak_watch import BARE, COMPRESSED, Books
from costopt import Embedder, Tier
from costopt.routing import Sticky
from tests.billing import PRICES

__all__ = ["MEMO", "TENANT", "Application", "Crowd"]

TENANT = ContextVar("tenant", default=TENANTS[0])
"""Whose request is being made; the cache asks it."""

_CHEAP, _STRONG = "gpt-4o-mini", "gpt-4o"
MEMO = 500
"""Texts and conversations to remember: by default so many thousands that an hour would be over before they are full."""

# Every so many seconds each fourth of the threads and tasks asks the same as the others, at one moment.
_TOGETHER_S, _EACH = 7.0, 4


class _StreamedChat(lc.StreamCache, ChatOpenAI):
    pass


@dataclass(frozen=True, slots=True)
class _Way:
    """A way of asking: blocking and awaited; each gives the text and the cache's tier, None where it was paid."""

    name: str
    weight: int
    ask: Callable[[Asked], tuple[str, str | None]]
    aask: Callable[[Asked], Awaitable[tuple[str, str | None]]]


class Application:
    """One tenant's models of both frameworks, behind one cache, on one ledger.

    Args:
        url: The provider's.
        tenant: Whose key it asks with.
        cache: LangChain's; LlamaIndex uses its core.
        tracker: LangChain's.
        embedder: For documents.
    """

    def __init__(
        self, url: str, tenant: str, cache: lc.SemanticCache, tracker: lc.CostTracker, embedder: Embedder
    ) -> None:
        key, again = f"sk-{tenant}", {"max_retries": 0}
        self._config: Any = {"callbacks": [tracker]}
        chat: Any = {"base_url": url, "api_key": key, **again}
        models = [ChatOpenAI(model=name, cache=False, **chat) for name in (_CHEAP, _STRONG)]
        tiers = [Tier(model, price=PRICES[model.model_name]) for model in models]
        self._router = lc.RouterRunnable(tiers=tiers, cache=cache, sticky=Sticky(MEMO))
        self._streamed = _StreamedChat(model=_STRONG, cache=cache, **chat)
        self._bare = models[1]
        self._compressor = lc.DocumentCompressor(target_ratio=0.7, embedder=embedder)
        llamas = [OpenAI(model=name, api_base=url, api_key=key, **again) for name in (_CHEAP, _STRONG)]
        routed = li.RouterLLM(
            tiers=[Tier(each, name=each.model, price=PRICES[each.model]) for each in llamas], sticky=Sticky(MEMO)
        )
        self._llama = li.CachedLLM(routed, cache=cache.core)
        self.ways = (
            _Way("LangChain, invoke", 40, self._invoke, self._ainvoke),
            _Way(COMPRESSED, 6, self._documents, self._adocuments),
            _Way("LangChain, stream", 12, self._stream, self._astream),
            _Way("LlamaIndex, chat", 22, self._chat, self._achat),
            _Way("LlamaIndex, stream", 10, self._stream_chat, self._astream_chat),
            _Way(BARE, 10, self._plain, self._aplain),
        )

    def _invoke(self, asked: Asked) -> tuple[str, str | None]:
        return _message(self._router.invoke(_messages(asked, asked.text), self._config))

    async def _ainvoke(self, asked: Asked) -> tuple[str, str | None]:
        return _message(await self._router.ainvoke(_messages(asked, asked.text), self._config))

    def _documents(self, asked: Asked) -> tuple[str, str | None]:
        documents = [Document(page) for page in asked.pages]
        kept = _verbatim(self._compressor.compress_documents(documents, asked.text), asked)
        return _message(self._router.invoke(_messages(asked, with_pages(kept, asked.text)), self._config))

    async def _adocuments(self, asked: Asked) -> tuple[str, str | None]:
        documents = [Document(page) for page in asked.pages]
        kept = _verbatim(await self._compressor.acompress_documents(documents, asked.text), asked)
        return _message(await self._router.ainvoke(_messages(asked, with_pages(kept, asked.text)), self._config))

    def _stream(self, asked: Asked) -> tuple[str, str | None]:
        return _chunks(list(self._streamed.stream(_messages(asked, asked.text), self._config)))

    async def _astream(self, asked: Asked) -> tuple[str, str | None]:
        return _chunks([c async for c in self._streamed.astream(_messages(asked, asked.text), self._config)])

    def _chat(self, asked: Asked) -> tuple[str, str | None]:
        return _response(self._llama.chat(_turns(asked)))

    async def _achat(self, asked: Asked) -> tuple[str, str | None]:
        return _response(await self._llama.achat(_turns(asked)))

    def _stream_chat(self, asked: Asked) -> tuple[str, str | None]:
        return _response(list(self._llama.stream_chat(_turns(asked)))[-1])

    async def _astream_chat(self, asked: Asked) -> tuple[str, str | None]:
        return _response([piece async for piece in await self._llama.astream_chat(_turns(asked))][-1])

    def _plain(self, asked: Asked) -> tuple[str, str | None]:
        return _message(self._bare.invoke(_messages(asked, asked.text), self._config))

    async def _aplain(self, asked: Asked) -> tuple[str, str | None]:
        return _message(await self._bare.ainvoke(_messages(asked, asked.text), self._config))


class Crowd:
    """Threads and tasks that ask at random moments, so many requests a second in all.

    Args:
        applications: By tenant.
        traffic: What is asked.
        topics: Names of topics by text.
        books: Where it is written down.
        threads: How many threads.
        tasks: How many asyncio tasks, in one loop.
        rate: Requests a second of all of them.
    """

    def __init__(
        self,
        applications: dict[str, Application],
        traffic: Traffic,
        topics: dict[str, str],
        books: Books,
        *,
        threads: int,
        tasks: int,
        rate: float,
    ) -> None:
        self._applications = applications
        self._traffic = traffic
        self._topics = topics
        self._books = books
        self._pause_s = (threads + tasks) / rate
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._blocking, args=(n,), name=f"soak-{n}") for n in range(threads)]
        self._threads.append(threading.Thread(target=self._looping, args=(threads, tasks), name="soak-loop"))
        self.loop_tasks = 0

    def warm(self) -> None:
        """Ask each application once in every way: what is loaded at first use is loaded before it counts."""
        for number, application in enumerate(self._applications.values()):
            asked = self._traffic.together(-1 - number)
            TENANT.set(asked.tenant)
            for way in application.ways:
                way.ask(asked)
                asyncio.run(_once(way, asked))

    def start(self) -> None:
        """Begin to ask."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Ask no more, and wait until every answer is there."""
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _blocking(self, number: int) -> None:
        chance = random.Random(number)
        while not self._over.wait(self._until_next(number, chance)):
            asked, way = self._drawn(number, chance)
            with self._books.request(asked.kind, way.name) as request:
                said = way.ask(asked)
                request.answered(*said, right=self._right(asked))

    def _looping(self, first: int, tasks: int) -> None:
        asyncio.run(self._all(first, tasks))

    async def _all(self, first: int, tasks: int) -> None:
        asking = [asyncio.create_task(self._awaiting(first + n)) for n in range(tasks)]
        while not self._over.is_set():
            self.loop_tasks = len(asyncio.all_tasks())
            await asyncio.sleep(0.5)
        await asyncio.gather(*asking)

    async def _awaiting(self, number: int) -> None:
        chance = random.Random(number)
        while not self._over.is_set():
            await asyncio.sleep(self._until_next(number, chance))
            asked, way = self._drawn(number, chance)
            with self._books.request(asked.kind, way.name) as request:
                said = await way.aask(asked)
                request.answered(*said, right=self._right(asked))

    def _until_next(self, number: int, chance: random.Random) -> float:
        pause = chance.expovariate(1 / self._pause_s)
        return pause if number % _EACH else min(pause, _TOGETHER_S - self._books.elapsed % _TOGETHER_S)

    def _drawn(self, number: int, chance: random.Random) -> tuple[Asked, _Way]:
        elapsed = self._books.elapsed
        if number % _EACH == 0 and elapsed > _TOGETHER_S and elapsed % _TOGETHER_S < 0.1:
            asked = self._traffic.together(int(elapsed / _TOGETHER_S))
            way = self._applications[asked.tenant].ways[0]
        else:
            asked = self._traffic.draw(chance, elapsed)
            ways = self._applications[asked.tenant].ways
            [way] = chance.choices(ways, [way.weight for way in ways])
        TENANT.set(asked.tenant)
        return asked, way

    def _right(self, asked: Asked) -> str:
        return right_answer(asked.tenant, asked.system, asked.text, self._topics)


async def _once(way: _Way, asked: Asked) -> None:
    await way.aask(asked)


def _messages(asked: Asked, text: str) -> list[Any]:
    return [SystemMessage(asked.system), HumanMessage(text)]


def _turns(asked: Asked) -> list[ChatMessage]:
    return [ChatMessage(role="system", content=asked.system), ChatMessage(role="user", content=asked.text)]


def _message(message: Any) -> tuple[str, str | None]:
    return str(message.content), _tier(message.response_metadata.get("costopt"))


def _chunks(chunks: Sequence[Any]) -> tuple[str, str | None]:
    tiers = [_tier(chunk.response_metadata.get("costopt")) for chunk in chunks]
    return "".join(str(chunk.content) for chunk in chunks), next((tier for tier in tiers if tier), None)


def _response(response: Any) -> tuple[str, str | None]:
    return str(response.message.content), _tier(response.additional_kwargs.get("costopt"))


def _tier(said: Any) -> str | None:
    return None if not said else said.get("cache")


def _verbatim(kept: Sequence[Document], asked: Asked) -> list[str]:
    """The texts of the documents; whatever is kept must stand in what was given, and hold what was asked for."""
    pages = [document.page_content for document in kept]
    left = " ".join(asked.pages)
    for page in pages:
        for sentence in page.split(". "):
            if sentence.rstrip(".") not in left:
                raise AssertionError(f"the compressor made up {sentence!r}")
    return pages
