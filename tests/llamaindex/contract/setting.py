"""What the parts of the suite share: a server, the LLM, the real SDK beside it, and every way of asking."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse
from llama_index.core.llms import LLM
from llama_index.llms.openai_like import OpenAILike

from tests.openai_server import Behaviour, OpenAIServer, openai_server

__all__ = ["ASYNC", "KEY", "MODELS", "STREAMS", "Setting", "each", "fine", "openai_like", "text_of", "user"]

MODELS = ("gpt-4o-mini", "gpt-4o")
KEY = "sk-this-is-secret"


def openai_like(url: str, model: str = MODELS[0], **options: Any) -> OpenAILike:
    """The real SDK through LlamaIndex, on a server on loopback."""
    given = {"api_base": url, "api_key": KEY, "max_retries": 0, "is_chat_model": True, "context_window": 16_000}
    # Clients that trust nobody are made in no time, and on loopback there is nobody to trust.
    clients = {"http_client": httpx.Client(verify=False), "async_http_client": httpx.AsyncClient(verify=False)}
    return OpenAILike(model=model, **{**given, "is_function_calling_model": True, **clients, **options})


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role="user", content=text)]


def text_of(response: ChatResponse | CompletionResponse) -> str:
    return response.text if isinstance(response, CompletionResponse) else response.message.content or ""


def fine(text: str | None = "one two three", **more: Any) -> Behaviour:
    return Behaviour(text=text, **more)


async def _gathered(coming: Any) -> list[Any]:
    return [piece async for piece in await coming]


# All that came, of each way of asking.
Way = Callable[..., list[Any]]
STREAMS: dict[str, Way] = {
    "stream_chat": lambda llm, text, **kw: list(llm.stream_chat(user(text), **kw)),
    "stream_complete": lambda llm, text, **kw: list(llm.stream_complete(text, **kw)),
    "astream_chat": lambda llm, text, **kw: asyncio.run(_gathered(llm.astream_chat(user(text), **kw))),
    "astream_complete": lambda llm, text, **kw: asyncio.run(_gathered(llm.astream_complete(text, **kw))),
}
_WAYS: dict[str, Way] = {
    "chat": lambda llm, text, **kw: [llm.chat(user(text), **kw)],
    "complete": lambda llm, text, **kw: [llm.complete(text, **kw)],
    "achat": lambda llm, text, **kw: [asyncio.run(llm.achat(user(text), **kw))],
    "acomplete": lambda llm, text, **kw: [asyncio.run(llm.acomplete(text, **kw))],
    **STREAMS,
}
ASYNC: dict[str, Callable[[LLM, str], Any]] = {
    "achat": lambda llm, text: llm.achat(user(text)),
    "acomplete": lambda llm, text: llm.acomplete(text),
    "astream_chat": lambda llm, text: _gathered(llm.astream_chat(user(text))),
    "astream_complete": lambda llm, text: _gathered(llm.astream_complete(text)),
}


def each(name: str) -> Any:
    """Run a test for every `way` of asking, or every `stream`."""
    ways = {"way": _WAYS, "stream": STREAMS}[name]
    return pytest.mark.parametrize(name, ways.values(), ids=ways)


class Setting:
    """What every part of the suite has."""

    # Whether it hands on what an OpenAILike says, word for word, or is a model of its own.
    wraps = True

    def make(self, url: str, folder: Path) -> LLM:
        """The LLM; it asks the first of `MODELS`, and it may ask the other."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    @classmethod
    def _running(cls) -> Iterator[OpenAIServer]:
        with openai_server() as server:
            yield server

    @pytest.fixture
    def server(self, _running: OpenAIServer) -> OpenAIServer:
        _running.requests.clear()
        _running.behaviours.clear()
        return _running

    def close(self, llm: LLM) -> None:
        """Close what `make` opened."""

    @pytest.fixture
    def llm(self, server: OpenAIServer, tmp_path: Path) -> Iterator[LLM]:
        made = self.make(server.url, tmp_path)
        yield made
        self.close(made)

    @pytest.fixture
    def plain(self, server: OpenAIServer) -> LLM:
        """What every wrapper wraps."""
        return openai_like(server.url)

    def tell(self, server: OpenAIServer, told: Behaviour | Callable[[int], Behaviour]) -> None:
        server.behaviours.update(dict.fromkeys(MODELS, told))

    def echo(self, server: OpenAIServer) -> None:
        """Every answer repeats its question."""
        self.tell(server, lambda number: fine(f"You said: {server.requests[number - 1]['messages'][-1]['content']}"))
