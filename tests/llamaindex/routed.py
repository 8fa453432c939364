"""A `RouterLLM` over LlamaIndex's own `OpenAI`, the real SDK and a server on loopback; the prompt is the score."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, CompletionResponse, MessageRole
from llama_index.llms.openai import OpenAI

from costopt import Tier
from llamaindex_costopt import RouterLLM
from tests.costopt.routing.models import Scored
from tests.openai_server import OpenAIServer

NAMES = ("gpt-4o-mini", "gpt-4o")


def llm(server: OpenAIServer, model: str, **options: Any) -> OpenAI:
    given: dict[str, Any] = {"api_base": server.url, "api_key": "sk-secret", "max_retries": 0, "model": model}
    return OpenAI(**given | options)


def routed(server: OpenAIServer, **options: Any) -> RouterLLM:
    """Two tiers; "0.1" goes to the cheap one, "0.9" to the strong one."""
    tiers = [Tier(llm(server, name, timeout=5.0), max_output_tokens=100) for name in NAMES]
    return RouterLLM(tiers=tiers, **{"estimator": Scored(), "thresholds": (0.5,), **options})


def user(text: str) -> list[ChatMessage]:
    return [ChatMessage(role=MessageRole.USER, content=text)]


def said(response: Any) -> dict[str, Any]:
    found: dict[str, Any] = response.additional_kwargs["costopt"]
    return found


def words(response: Any) -> str:
    """The text of a response."""
    return response.text if isinstance(response, CompletionResponse) else response.message.content or ""


def drained(stream: Iterator[Any]) -> Any:
    """The last response of a stream, whose deltas must add up to it."""
    responses = list(stream)
    assert "".join(response.delta or "" for response in responses) == words(responses[-1])
    return responses[-1]


async def adrained(stream: AsyncIterator[Any]) -> Any:
    return drained(iter([response async for response in stream]))


async def every_way(router: RouterLLM, text: str) -> list[Any]:
    """What each of the eight methods answers; of a stream, the last response."""
    return [
        router.chat(user(text)),
        router.complete(text),
        drained(router.stream_chat(user(text))),
        drained(router.stream_complete(text)),
        await router.achat(user(text)),
        await router.acomplete(text),
        await adrained(await router.astream_chat(user(text))),
        await adrained(await router.astream_complete(text)),
    ]
