"""What a hit carries, what survives, what is dropped, and what is never kept."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import UsageMetadataCallbackHandler
from langchain_core.globals import set_llm_cache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from pydantic import BaseModel

from costopt import ConfigError, LocalStore
from langchain_costopt import SemanticCache, StreamCache
from tests.langchain.conftest import NEAR, MakeCache
from tests.langchain.models import CountingModel, StreamingModel, numbered
from tests.langchain.test_scope import tier
from tests.rewordings import PARAPHRASE, QUESTION


@pytest.fixture
def cache(tmp_path: Path) -> Iterator[SemanticCache]:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), judge=NEAR, time_budget=10.0).warm()
    yield cache
    cache.close()


def test_a_hit_explains_itself_and_costs_nothing(make_cache: MakeCache) -> None:
    cache = make_cache()
    model = CountingModel(cache=cache)
    model.invoke(QUESTION)
    hit = model.invoke(PARAPHRASE)
    why = hit.response_metadata["costopt"]
    assert (why["cache"], why["matched"], why["avoided_input_tokens"]) == ("semantic", QUESTION, 100)
    assert 0.8 < why["similarity"] < 1
    assert float(why["avoided_usd"]) == pytest.approx(100 * 0.15e-6 + 20 * 0.6e-6)
    assert hit.response_metadata["model_name"] == "gpt-4o-mini"
    stats = cache.stats()
    assert (stats.lookups, stats.semantic, stats.saved_tokens) == (2, 1, 120)
    assert float(stats.saved_usd) == pytest.approx(27e-6)


def test_usage_callbacks_do_not_count_a_hit(cache: SemanticCache) -> None:
    model, usage = CountingModel(cache=cache), UsageMetadataCallbackHandler()
    for question in (QUESTION, QUESTION, PARAPHRASE):
        model.invoke(question, config={"callbacks": [usage]})
    assert usage.usage_metadata["gpt-4o-mini"]["total_tokens"] == 120


def test_message_ids_are_dropped_and_every_hit_is_a_copy_of_its_own(cache: SemanticCache) -> None:
    model = CountingModel(cache=cache)
    first = model.invoke(QUESTION)
    second = model.invoke(QUESTION)
    assert (first.id, second.id) == ("msg-1", None)
    assert "id" not in second.response_metadata
    second.response_metadata["costopt"]["reason"] = "changed"
    assert model.invoke(QUESTION).response_metadata["costopt"]["reason"] == "same text"


def test_tool_calls_survive_with_new_ids(make_cache: MakeCache) -> None:
    def call(_: list[BaseMessage], number: int) -> AIMessage:
        made = {"name": "weather", "args": {"city": "Paris", "days": 2}, "id": f"call_{number}", "type": "tool_call"}
        return AIMessage(
            [{"type": "text", "text": "Let me look."}, {"type": "tool_use", "id": f"call_{number}", "name": "weather"}],
            tool_calls=[made],
            additional_kwargs={"tool_calls": [{"id": f"call_{number}", "function": {"name": "weather"}}]},
            response_metadata={"stop_reason": "tool_use"},
        )

    model = CountingModel(cache=make_cache(), reply=call)
    model.invoke("What is the weather in Paris?")
    hits = [model.invoke("What is the weather in Paris?") for _ in range(2)]
    assert len(model.calls) == 1
    ids = [hit.tool_calls[0]["id"] for hit in hits]
    assert all(ids)
    assert len({*ids, "call_1"}) == 3
    for hit, own in zip(hits, ids, strict=True):
        assert hit.tool_calls[0]["args"] == {"city": "Paris", "days": 2}
        assert isinstance(hit.content, list)
        assert hit.content[0] == {"type": "text", "text": "Let me look."}
        assert hit.content[1]["id"] == own
        assert "'call_1'" not in repr(hit)


def test_all_generations_survive(make_cache: MakeCache) -> None:
    model = CountingModel(cache=make_cache(), reply=lambda *_: [AIMessage("one"), AIMessage("two"), AIMessage("three")])
    for _ in range(2):
        result = model.generate([[HumanMessage(QUESTION)]])
        assert [generation.text for generation in result.generations[0]] == ["one", "two", "three"]
    assert len(model.calls) == 1


def test_structured_output_survives(cache: SemanticCache) -> None:
    class City(BaseModel):
        name: str

    def parsed(_: list[BaseMessage], number: int) -> AIMessage:
        return AIMessage('{"name": "Paris"}', additional_kwargs={"parsed": City(name="Paris"), "refusal": None})

    model = CountingModel(cache=cache, reply=parsed)
    model.invoke(QUESTION)
    hit = model.invoke(QUESTION)
    assert City(**hit.additional_kwargs["parsed"]) == City(name="Paris")


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (AIMessage("The answer is", response_metadata={"finish_reason": "length"}), "truncated"),
        (AIMessage("The answer is", response_metadata={"stop_reason": "max_tokens"}), "truncated"),
        (AIMessage("The answer is", response_metadata={"finish_reason": "MAX_TOKENS"}), "truncated"),
        (AIMessage("The answer is", response_metadata={"status": "incomplete"}), "truncated"),
        (AIMessage("", response_metadata={"finish_reason": "content_filter"}), "filtered"),
        (AIMessage("No.", response_metadata={"finish_reason": "SAFETY"}), "filtered"),
        (AIMessage("No.", additional_kwargs={"refusal": "I cannot help with that."}), "filtered"),
        (AIMessage("", response_metadata={"finish_reason": "stop"}), "empty"),
        (AIMessage("  \n"), "empty"),
        (AIMessage([]), "empty"),
        (AIMessage("Oops", response_metadata={"finish_reason": "error"}), "failed"),
        (AIMessage("", invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": "cut"}]), "failed"),
        (AIMessage("ok", additional_kwargs={"handle": object()}), "unfit"),
        (AIMessage("ok", additional_kwargs={"score": float("nan")}), "unfit"),
    ],
)
def test_what_is_not_whole_is_never_kept(cache: SemanticCache, message: AIMessage, reason: str) -> None:
    model = CountingModel(cache=cache, reply=lambda *_: message.model_copy(deep=True))
    for _ in range(2):
        assert model.invoke(QUESTION).content == message.content
    assert len(model.calls) == 2
    assert cache.stats().refused == {reason: 2}


def test_a_failed_call_leaves_nothing_behind(cache: SemanticCache) -> None:
    def fail(_: list[BaseMessage], number: int) -> AIMessage:
        if number == 1:
            raise RuntimeError("provider down")
        return AIMessage("fine")

    model = CountingModel(cache=cache, reply=fail)
    with pytest.raises(RuntimeError, match="provider down"):
        model.invoke(QUESTION)
    assert model.invoke(QUESTION).content == "fine"
    assert tier(model.invoke(QUESTION)) == "exact"


def test_a_rejected_answer_is_never_served_again(make_cache: MakeCache) -> None:
    cache = make_cache()
    model = CountingModel(cache=cache)
    model.invoke(QUESTION)
    wrong = model.invoke(PARAPHRASE)
    assert tier(wrong) == "semantic"
    cache.reject(wrong)
    assert tier(model.invoke(PARAPHRASE)) is None
    # Asked anew, the first question has an answer again; the two must still not be matched, either way.
    cache.invalidate(model="gpt-4o-mini")
    assert tier(model.invoke(QUESTION)) is None
    assert tier(model.invoke(PARAPHRASE)) is None
    assert cache.stats().rejected == 1


def test_a_rejected_exact_hit_is_asked_anew(make_cache: MakeCache) -> None:
    cache = make_cache()
    model = CountingModel(cache=cache)
    model.invoke(QUESTION)
    cache.reject(model.invoke(QUESTION))
    assert model.invoke(QUESTION).content == "answer 2"


def test_rejecting_what_was_not_served_is_an_error(cache: SemanticCache) -> None:
    with pytest.raises(ConfigError, match="not served from the cache"):
        cache.reject(CountingModel(cache=cache).invoke(QUESTION))


def test_invalidate_by_tag_model_and_tenant(make_cache: MakeCache) -> None:
    tenant, tags = ["acme"], [["docs-v1"]]
    cache = make_cache(tenant=lambda: tenant[0], tags=lambda: tags[0])
    small, large = CountingModel(cache=cache), CountingModel(cache=cache, model_name="gpt-4o")
    small.invoke(QUESTION)
    tags[0] = ["docs-v2", "a, b {c} | *"]
    large.invoke(QUESTION)
    tenant[0] = "globex"
    small.invoke(QUESTION)
    assert cache.core.size().entries == 3
    assert cache.invalidate(tag="docs-v1", tenant="globex") == 0
    assert cache.invalidate(tag="docs-v1") == 1
    assert cache.invalidate(model="gpt-4o-mini", tenant="acme") == 0
    assert cache.invalidate(tenant="globex") == 1
    assert cache.invalidate(tag="a, b {c} | *", model="gpt-4o") == 1
    assert cache.core.size().entries == 0
    with pytest.raises(ConfigError, match="tag, a model or a tenant"):
        cache.invalidate()


def test_shadow_serves_nothing_and_records(make_cache: MakeCache) -> None:
    cache = make_cache(shadow=True)
    model = CountingModel(cache=cache)
    for question in (QUESTION, QUESTION, PARAPHRASE):
        assert tier(model.invoke(question)) is None
    assert len(model.calls) == 3
    assert [hit.tier for hit in cache.core.shadow_hits] == ["exact", "semantic"]
    assert (cache.stats().shadow, cache.stats().hits) == (2, 0)


def test_exact_only_embeds_nothing(make_cache: MakeCache) -> None:
    model = CountingModel(cache=make_cache(exact_only=True))
    model.invoke(QUESTION)
    assert tier(model.invoke(PARAPHRASE)) is None
    assert tier(model.invoke(QUESTION)) == "exact"


def test_the_global_cache_serves_completion_models_too(cache: SemanticCache) -> None:
    set_llm_cache(cache)
    try:
        llm = FakeListLLM(responses=["one", "two", "three"])
        assert [llm.invoke(QUESTION), llm.invoke(QUESTION), llm.invoke(PARAPHRASE)] == ["one", "one", "one"]
    finally:
        set_llm_cache(None)


def test_an_agent_with_a_checkpointer_keeps_every_message(cache: SemanticCache) -> None:
    """With the stored id on it, the second turn's answer replaced an earlier message and vanished."""
    results = []

    @tool
    def weather(city: str) -> str:
        """Weather in a city."""
        results.append(city)
        return "sunny"

    def reply(messages: list[BaseMessage], number: int) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            return AIMessage("It is sunny.", id=f"id-{number}")
        call = {"name": "weather", "args": {"city": "Paris"}, "id": "call_1", "type": "tool_call"}
        return AIMessage("", id=f"id-{number}", tool_calls=[call])

    model = CountingModel(cache=cache, reply=reply)
    agent: Any = create_agent(model, [weather], checkpointer=InMemorySaver())
    seen: set[str] = set()
    for thread in ("a", "b"):
        for turn in (1, 2):
            config = {"configurable": {"thread_id": thread}}
            state = agent.invoke({"messages": [("user", "What is the weather in Paris?")]}, config)
            kinds = [message.type for message in state["messages"]]
            assert kinds == ["human", "ai", "tool", "ai"] * turn
            ids = [message.id for message in state["messages"]]
            assert len(set(ids)) == len(ids)
        # Thread b is served what thread a was told, under ids of its own.
        assert seen.isdisjoint(ids)
        seen.update(ids)
    assert len(model.calls) == 4
    assert len(results) == 4


class CachedStreaming(StreamCache, StreamingModel):
    pass


def test_a_stream_is_served_from_the_cache_and_kept_in_it(cache: SemanticCache) -> None:
    model = CachedStreaming(cache=cache)
    first = "".join(str(chunk.content) for chunk in model.stream(QUESTION))
    assert "".join(str(chunk.content) for chunk in model.stream(QUESTION)) == first
    assert "".join(str(chunk.content) for chunk in model.stream(PARAPHRASE)) == first
    assert model.invoke(QUESTION).content == first
    assert len(model.calls) == 1
    usage = [chunk.usage_metadata for chunk in model.stream(QUESTION) if chunk.usage_metadata]
    assert sum(part["total_tokens"] for part in usage) == 0


def test_a_stream_that_is_broken_off_is_not_kept(cache: SemanticCache) -> None:
    model = CachedStreaming(cache=cache)
    for _ in model.stream(QUESTION):
        break
    assert len(list(model.stream(QUESTION))) > 1
    assert len(model.calls) == 2


async def test_astream_is_served_from_the_cache_and_kept_in_it(cache: SemanticCache) -> None:
    model = CachedStreaming(cache=cache)
    first = "".join([str(chunk.content) async for chunk in model.astream(QUESTION)])
    assert "".join([str(chunk.content) async for chunk in model.astream(PARAPHRASE)]) == first
    assert len(model.calls) == 1


def test_without_the_mixin_a_stream_passes_the_cache_by_unless_streaming_is_disabled(cache: SemanticCache) -> None:
    """LangChain's behaviour, which the README tells of; this fails on the day it changes."""
    model = StreamingModel(cache=cache)
    for _ in range(2):
        assert list(model.stream(QUESTION))
    assert len(model.calls) == 2
    plain = StreamingModel(cache=cache, disable_streaming=True)
    for _ in range(2):
        assert [str(chunk.content) for chunk in plain.stream(QUESTION) if chunk.content] == ["answer 1"]
    assert len(plain.calls) == 1


def test_a_hit_is_a_list_and_a_miss_is_none(cache: SemanticCache) -> None:
    """langchain-core takes nothing but a list for a hit, and an empty one breaks it."""
    assert cache.lookup("p", "m") is None
    cache.update("p", "m", [])
    assert cache.lookup("p", "m") is None
    cache.update("p", "m", [ChatGeneration(message=numbered([], 1))])
    assert isinstance(cache.lookup("p", "m"), list)


def test_what_belongs_to_one_response_of_the_provider_is_dropped(cache: SemanticCache) -> None:
    """Sent back from another response, providers refuse these ids."""
    own = {"reasoning": {"id": "rs_1"}, "__openai_function_call_ids__": {"call_1": "fc_1"}}
    content = [{"type": "reasoning", "id": "rs_1"}, {"type": "text", "text": "Yes.", "id": "msg_1"}]
    model = CountingModel(cache=cache, reply=lambda *_: AIMessage(content, additional_kwargs=own))
    model.invoke(QUESTION)
    hit = model.invoke(QUESTION)
    assert (hit.content, hit.additional_kwargs) == ([{"type": "text", "text": "Yes."}], {})


def test_a_model_that_cannot_stream_is_served_behind_stream_cache_too(cache: SemanticCache) -> None:
    class Cached(StreamCache, CountingModel):
        pass

    model = Cached(cache=cache)
    for _ in range(2):
        assert [str(chunk.content) for chunk in model.stream(QUESTION) if chunk.content] == ["answer 1"]
    assert len(model.calls) == 1


async def test_one_streamed_call_is_one_lookup_and_one_write(cache: SemanticCache) -> None:
    """`astream` of a model that streams in threads, and an `invoke` that streams, pass the cache once each."""
    model = CachedStreaming(cache=cache)
    assert [chunk async for chunk in model.astream(QUESTION)]
    assert (cache.stats().lookups, cache.stats().stored) == (1, 1)
    assert [event async for event in CachedStreaming(cache=cache).astream_events("Where is my parcel?", version="v2")]
    streaming = CachedStreaming(cache=cache, streaming=True)
    streaming.invoke("Which planets have rings?")
    assert cache.stats().lookups == cache.stats().stored == 3


def test_a_stream_whose_connection_was_cut_is_not_kept(cache: SemanticCache) -> None:
    """It ends like any other, but for the words with which a provider closes."""

    class Broken(StreamingModel):
        def _stream(self, messages: Any, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            self.calls.append(messages)
            yield ChatGenerationChunk(message=AIMessageChunk(content="The answer is "))

    class Cached(StreamCache, Broken):
        pass

    model = Cached(cache=cache)
    for _ in range(2):
        assert "".join(str(chunk.content) for chunk in model.stream(QUESTION)) == "The answer is "
    assert len(model.calls) == 2
