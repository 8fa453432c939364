"""The whole way: ChatOpenAI by the real SDK against a server on loopback, counted by that server."""

from __future__ import annotations

from langchain_core.messages import HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from pydantic import SecretStr

from langchain_costopt import StreamCache
from tests.langchain.conftest import MakeCache
from tests.langchain.test_scope import tier
from tests.openai_server import OpenAIServer
from tests.rewordings import PARAPHRASE, QUESTION, UNRELATED


def chat(server: OpenAIServer, cache: object, **options: object) -> ChatOpenAI:
    return ChatOpenAI(
        base_url=server.url, api_key=SecretStr("sk-none"), cache=cache, **{"model": "gpt-4o-mini", **options}
    )


def test_the_server_sees_only_what_was_not_asked_before(make_cache: MakeCache, server: OpenAIServer) -> None:
    cache = make_cache()
    llm = chat(server, cache)
    system = SystemMessage("You are the assistant of a bookshop. " * 60)
    first = llm.invoke([system, HumanMessage(QUESTION)])
    again = llm.invoke([system, HumanMessage(PARAPHRASE)])
    assert (again.content, tier(again)) == (first.content, "semantic")
    for question in UNRELATED:
        assert tier(llm.invoke([system, HumanMessage(question)])) is None
    assert len(server.requests) == 1 + len(UNRELATED)
    assert cache.stats().saved_tokens == 42
    assert again.response_metadata["model_name"] == "gpt-4o-mini"
    assert "token_usage" not in again.response_metadata


def test_another_model_or_temperature_is_asked(make_cache: MakeCache, server: OpenAIServer) -> None:
    cache = make_cache()
    for llm in (chat(server, cache), chat(server, cache, model="gpt-4o"), chat(server, cache, temperature=0.7)):
        assert tier(llm.invoke(QUESTION)) is None
        assert tier(llm.invoke(PARAPHRASE)) == "semantic"
    assert cache.invalidate(model="gpt-4o") == 1


async def test_the_same_with_asyncio(make_async_cache: MakeCache, server: OpenAIServer) -> None:
    llm = chat(server, make_async_cache())
    await llm.ainvoke(QUESTION)
    assert tier(await llm.ainvoke(QUESTION)) == "exact"
    assert tier(await llm.ainvoke(PARAPHRASE)) == "semantic"
    assert len(server.requests) == 1


def test_a_stream_of_the_real_sdk_is_kept_and_served(make_cache: MakeCache, server: OpenAIServer) -> None:
    class CachedChat(StreamCache, ChatOpenAI):
        pass

    llm = CachedChat(base_url=server.url, api_key=SecretStr("sk-none"), model="gpt-4o-mini", cache=make_cache())
    first = list(llm.stream(QUESTION))
    again = list(llm.stream(PARAPHRASE))
    assert "".join(str(c.content) for c in first) == "".join(str(c.content) for c in again) == "answer 1"
    assert len(first) > len(again)
    assert len(server.requests) == 1
    # What the stream kept has the model, the reason it stopped and the usage, as an answer by `invoke` has.
    hit = llm.invoke(QUESTION)
    assert tier(hit) == "exact"
    assert (hit.response_metadata["finish_reason"], hit.response_metadata["model_name"]) == ("stop", "gpt-4o-mini")
    assert hit.response_metadata["costopt"]["avoided_input_tokens"] == 30
