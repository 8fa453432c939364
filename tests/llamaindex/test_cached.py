"""What `CachedLLM` serves: what a hit carries, what survives, what is dropped, what handlers are told."""

from __future__ import annotations

import logging
import pickle
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    LogProb,
    ThinkingBlock,
    ToolCallBlock,
)
from llama_index.core.callbacks import CallbackManager, CBEventType, TokenCountingHandler
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import MockLLM
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI
from llama_index_instrumentation import get_dispatcher
from pydantic import BaseModel, PrivateAttr

from costopt import Answer, ConfigError, SemanticCache
from llamaindex_costopt import CachedLLM, CostTracker
from tests.llamaindex.conftest import MakeCache, MakeLLM, openai
from tests.llamaindex.served import tier, user
from tests.openai_server import Behaviour, OpenAIServer
from tests.rewordings import PARAPHRASE, QUESTION, UNRELATED


class City(BaseModel):
    """A city and how many live there."""

    name: str
    people: int


PROMPT = PromptTemplate("Tell me about the city of {city}.")


async def _listed(pieces: AsyncIterator[Any]) -> list[Any]:
    return [piece async for piece in pieces]


# The eight methods: the call, awaited or not, and all its pieces.
BLOCKING: dict[str, Callable[[CachedLLM, str], list[Any]]] = {
    "complete": lambda llm, text: [llm.complete(text)],
    "chat": lambda llm, text: [llm.chat(user(text))],
    "stream_complete": lambda llm, text: list(llm.stream_complete(text)),
    "stream_chat": lambda llm, text: list(llm.stream_chat(user(text))),
}
AWAITED: dict[str, Callable[[CachedLLM, str], Any]] = {
    "acomplete": lambda llm, text: llm.acomplete(text),
    "achat": lambda llm, text: llm.achat(user(text)),
    "astream_complete": lambda llm, text: llm.astream_complete(text),
    "astream_chat": lambda llm, text: llm.astream_chat(user(text)),
}
METHODS = [*BLOCKING, *AWAITED]


async def pieces_of(llm: CachedLLM, method: str, text: str) -> list[Any]:
    """What comes of a call, in a list."""
    if method in BLOCKING:
        return BLOCKING[method](llm, text)
    result = await AWAITED[method](llm, text)
    return [result] if isinstance(result, ChatResponse | CompletionResponse) else await _listed(result)


def said(response: Any) -> str:
    """The text of a response of either kind."""
    return str(response.message.content if isinstance(response, ChatResponse) else response.text)


class Told(BaseEventHandler):
    """Counts the events of LLMs."""

    _names: Counter[str] = PrivateAttr(default_factory=Counter)

    def handle(self, event: Any, **_: Any) -> None:
        self._names[event.class_name()] += 1


@pytest.fixture
def told() -> Iterator[Counter[str]]:
    root, handler = get_dispatcher(), Told()
    root.add_event_handler(handler)
    yield handler._names
    root.event_handlers = [each for each in root.event_handlers if each is not handler]


@pytest.mark.parametrize("method", METHODS)
async def test_each_method_asks_once_and_is_then_served(make_llm: MakeLLM, server: OpenAIServer, method: str) -> None:
    llm = make_llm()
    paid = await pieces_of(llm, method, QUESTION)
    served = await pieces_of(llm, method, QUESTION)
    reworded = await pieces_of(llm, method, PARAPHRASE)
    assert len(server.requests) == 1
    assert said(served[-1]) == said(reworded[-1]) == said(paid[-1]) == "answer 1"
    assert (tier(paid[-1]), tier(served[-1]), tier(reworded[-1])) == (None, "exact", "semantic")
    if "stream" in method:
        assert "".join(piece.delta for piece in served) == said(served[-1])


async def test_what_one_method_asked_every_other_of_its_kind_is_served(make_llm: MakeLLM, server: OpenAIServer) -> None:
    llm = make_llm()
    for first in METHODS:
        kind = "chat" if "chat" in first else "complete"
        question = f"{UNRELATED[METHODS.index(first) % 5]} ({first})"
        paid = said((await pieces_of(llm, first, question))[-1])
        for other in METHODS:
            if kind in other:
                assert said((await pieces_of(llm, other, question))[-1]) == paid
    assert len(server.requests) == len(METHODS)


def test_a_hit_explains_itself_and_costs_nothing(make_llm: MakeLLM) -> None:
    llm = make_llm()
    assert llm.chat(user(QUESTION)).additional_kwargs["total_tokens"] == 42
    hit = llm.chat(user(PARAPHRASE))
    why = hit.additional_kwargs["costopt"]
    assert (why["cache"], why["matched"], why["avoided_input_tokens"]) == ("semantic", QUESTION, 30)
    assert float(why["avoided_usd"]) == pytest.approx(30 * 0.15e-6 + 12 * 0.6e-6)
    assert hit.raw is not None
    assert hit.raw["model"] == "gpt-4o-mini"
    assert {hit.additional_kwargs["total_tokens"], hit.raw["usage"]["total_tokens"]} == {0}
    stats = llm.stats()
    assert (stats.lookups, stats.semantic, stats.saved_tokens) == (2, 1, 42)
    assert "1 semantic" in str(stats)


@pytest.mark.parametrize("method", METHODS)
async def test_trackers_count_a_call_once_and_a_hit_at_nothing(
    make_llm: MakeLLM, told: Counter[str], tmp_path: Path, method: str
) -> None:
    llm, counter = make_llm(), TokenCountingHandler()
    llm.callback_manager = CallbackManager([counter])
    with CostTracker(tmp_path / "ledger.db").installed() as tracker:
        await pieces_of(llm, method, QUESTION)
        first = tracker.totals()
        for _ in range(3):
            await pieces_of(llm, method, QUESTION)
        totals = tracker.totals()
    assert (first.attempts, totals.attempts, totals.cache_hits) == (1, 4, 3)
    assert (totals.input_tokens, totals.output_tokens, totals.cost) == (30, 12, first.cost)
    assert totals.avoided_cost == 3 * first.cost
    assert (counter.prompt_llm_token_count, counter.completion_llm_token_count) == (30, 12)
    kind = "Chat" if "chat" in method else "Completion"
    assert told[f"LLM{kind}StartEvent"] == told[f"LLM{kind}EndEvent"] == 4


def test_callbacks_come_in_pairs_once_for_each_call(make_llm: MakeLLM) -> None:
    llm, counter = make_llm(), TokenCountingHandler()
    begun: list[Any] = []

    def begin(kind: CBEventType, *_: Any, **__: Any) -> str:
        begun.append(kind)
        return ""

    counter.on_event_start = begin  # type: ignore[method-assign,assignment]
    llm.callback_manager = CallbackManager([counter])
    assert llm.llm.callback_manager is llm.callback_manager
    for text in (QUESTION, QUESTION, PARAPHRASE):
        llm.chat(user(text))
    assert begun == [CBEventType.LLM] * 3
    assert len(counter.llm_token_counts) == 3


def test_a_limiter_is_asked_for_calls_that_cost_and_for_no_others(make_llm: MakeLLM) -> None:
    class Limiter:
        passed = 0

        def acquire(self, num_tokens: int = 0) -> None:
            self.passed += 1

    llm = make_llm()
    llm.rate_limiter = limiter = Limiter()
    for _ in range(3):
        llm.chat(user(QUESTION))
    assert limiter.passed == 1


def weather(city: str) -> str:
    """The weather in a city."""
    return f"sunny in {city}"


async def test_tool_calls_survive_with_new_ids(make_llm: MakeLLM, server: OpenAIServer) -> None:
    llm, tool = make_llm(), FunctionTool.from_defaults(weather)
    ask: dict[str, Any] = {"user_msg": "What is the weather in 'Paris'?", "tool_required": True}
    paid, *served = [
        llm.chat_with_tools([tool], **ask),
        llm.chat_with_tools([tool], **ask),
        await llm.achat_with_tools([tool], **ask),
        list(llm.stream_chat_with_tools([tool], **ask))[-1],
        [piece async for piece in await llm.astream_chat_with_tools([tool], **ask)][-1],
    ]
    assert len(server.requests) == 1
    calls = [llm.get_tool_calls_from_response(response)[0] for response in (paid, *served)]
    assert {(call.tool_name, str(call.tool_kwargs)) for call in calls} == {("weather", str(calls[0].tool_kwargs))}
    assert len({call.tool_id for call in calls}) == len(calls)
    assert llm.predict_and_call([tool], **ask).response.startswith("sunny in")
    assert tier(llm.chat_with_tools([], user_msg=ask["user_msg"])) is None
    again = [*user(ask["user_msg"]), served[0].message]
    told = ChatMessage(role="tool", content="rain", additional_kwargs={"tool_call_id": calls[1].tool_id})
    llm.chat([*again, told])  # the provider takes a served message back
    assert server.requests[-1]["messages"][1]["tool_calls"][0]["id"] == calls[1].tool_id


async def test_a_streamed_tool_call_is_kept_whole(make_llm: MakeLLM, server: OpenAIServer) -> None:
    llm, tool = make_llm(), FunctionTool.from_defaults(weather)
    ask: dict[str, Any] = {"user_msg": "What is the weather in 'Paris'?", "tool_required": True}
    *_, streamed = llm.stream_chat_with_tools([tool], **ask)
    served = llm.chat_with_tools([tool], **ask)
    assert tier(served) == "exact"
    both = [llm.get_tool_calls_from_response(each)[0] for each in (streamed, served)]
    assert both[0].tool_kwargs == both[1].tool_kwargs
    assert len(server.requests) == 1


@pytest.mark.parametrize("model", ["gpt-4o-mini", "gpt-3.5-turbo"])
async def test_structured_prediction_goes_through_the_cache(
    make_llm: MakeLLM, server: OpenAIServer, model: str
) -> None:
    """The one model is given a schema, the other a tool, as `OpenAI` itself does."""
    llm, plain = make_llm(model=model), openai(server, model=model)
    expected = plain.structured_predict(City, PROMPT, city="Oslo")
    objects = [
        llm.structured_predict(City, PROMPT, city="Oslo"),
        llm.structured_predict(City, PROMPT, city="Oslo"),
        await llm.astructured_predict(City, PROMPT, city="Oslo"),
        llm.as_structured_llm(City).chat(user("Tell me about the city of Oslo.")).raw,
        list(llm.stream_structured_predict(City, PROMPT, city="Oslo"))[-1],
        [each async for each in await llm.astream_structured_predict(City, PROMPT, city="Oslo")][-1],
    ]
    assert [City.model_validate(each.model_dump()) for each in objects] == [expected] * 6
    first, second, *rest = server.requests
    assert first == second, "what is sent is what the wrapped model would have sent"
    assert len(rest) <= 2  # as_structured_llm and streams may ask in words of their own
    assert llm.structured_predict(City, PROMPT, city="Bergen") != expected


def test_a_model_without_tools_predicts_objects_in_its_own_way(cache: SemanticCache, server: OpenAIServer) -> None:
    from llama_index.llms.openai_like import OpenAILike

    server.behaviours["m"] = Behaviour(text='{"name": "Oslo", "people": 700000}')
    inner = OpenAILike(model="m", api_base=server.url, api_key="sk", is_chat_model=True)
    llm = CachedLLM(inner, cache=cache)
    assert llm.metadata.is_function_calling_model is False
    for _ in range(2):
        assert llm.structured_predict(City, PROMPT, city="Oslo") == City(name="Oslo", people=700_000)
    assert len(server.requests) == 1
    mock = CachedLLM(MockLLM(), cache=cache)
    with pytest.raises(ConfigError, match="MockLLM cannot call tools"):
        mock.chat_with_tools([], user_msg="Hi")


@pytest.mark.parametrize("told", [True, False])
def test_thinking_and_logprobs_survive(cache: SemanticCache, told: bool) -> None:
    class Thinker(MockLLM):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            more = {"signature": "s", "id": "rs_1"} if told else {}
            blocks = [ThinkingBlock(content="Hm.", additional_information=more), *user("Yes.")[0].blocks]
            rows = [[LogProb(token="Yes", logprob=-0.5, bytes=[1])]] if told else None
            return ChatResponse(message=ChatMessage(role="assistant", blocks=blocks), logprobs=rows)

    llm = CachedLLM(Thinker(max_tokens=None), cache=cache)
    paid, served = (llm.chat(user(QUESTION)) for _ in range(2))
    thought, text = served.message.blocks
    assert isinstance(thought, ThinkingBlock)
    assert (thought.content, text, served.logprobs) == ("Hm.", paid.message.blocks[1], paid.logprobs)
    assert thought.additional_information == ({"signature": "s"} if told else {}), "an id belongs to one response"


@pytest.mark.parametrize(
    ("behaviour", "reason"),
    [
        (Behaviour(finish="length"), "truncated"),
        (Behaviour(finish="content_filter"), "filtered"),
        (Behaviour(text=" "), "empty"),
    ],
)
async def test_what_is_not_whole_is_never_kept(
    make_llm: MakeLLM, server: OpenAIServer, behaviour: Behaviour, reason: str
) -> None:
    server.behaviours["gpt-4o-mini"] = behaviour
    llm = make_llm()
    for method in METHODS:
        assert tier((await pieces_of(llm, method, QUESTION))[-1]) is None
    assert llm.stats().stored == 0
    assert llm.stats().refused == {reason: len(METHODS)}


def test_a_broken_tool_call_is_never_kept(cache: SemanticCache) -> None:
    class Broken(MockLLM):
        def chat(self, messages: Any, **kwargs: Any) -> ChatResponse:
            call = ToolCallBlock(tool_call_id="a", tool_name="weather", tool_kwargs='{"city": "Par')
            return ChatResponse(message=ChatMessage(role="assistant", blocks=[call]))

    llm = CachedLLM(Broken(max_tokens=None), cache=cache)
    assert [tier(llm.chat(user(QUESTION))) for _ in range(2)] == [None, None]
    assert llm.stats().refused == {"failed": 2}


def test_a_rejected_answer_is_never_served_again(make_llm: MakeLLM, server: OpenAIServer) -> None:
    llm = make_llm()
    paid = llm.chat(user(QUESTION))
    with pytest.raises(ConfigError, match="not served from the cache"):
        llm.reject(paid)
    wrong = llm.chat(user(PARAPHRASE))
    llm.reject(wrong)
    assert tier(llm.chat(user(PARAPHRASE))) is None
    assert tier(llm.chat(user(QUESTION))) is None, "the entry itself is gone"
    assert llm.stats().rejected == 1


def test_invalidate_by_tag_model_and_tenant(make_llm: MakeLLM, make_cache: MakeCache) -> None:
    llm = make_llm(asked=make_cache(tags=["v1"], tenant="acme")).warm()
    for told in ({"tag": "v1"}, {"model": "gpt-4o-mini"}, {"tenant": "acme"}):
        llm.chat(user(QUESTION))
        assert llm.invalidate(**told) == 1
        assert llm.invalidate(**told) == 0


def test_shadow_serves_nothing_and_records(make_llm: MakeLLM, make_cache: MakeCache, server: OpenAIServer) -> None:
    llm = make_llm(asked=make_cache(shadow=True))
    assert [tier(llm.chat(user(text))) for text in (QUESTION, PARAPHRASE)] == [None, None]
    assert (len(server.requests), llm.stats().shadow) == (2, 1)


def test_an_entry_that_cannot_be_read_is_a_miss(make_llm: MakeLLM, cache: SemanticCache, server: OpenAIServer) -> None:
    llm = make_llm()
    request = llm._request("chat", user(QUESTION), {})
    assert request is not None
    for content in ([{"type": "hologram"}], [{"text": "no type"}]):
        cache.update(request, Answer(({"kind": "chat", "content": content, "tool_calls": [], "extra": {}},)))
        assert said(llm.chat(user(QUESTION))).startswith("answer")
    assert len(server.requests) == 2
    assert sum(llm.stats().failures.values()) == 2


def test_it_comes_out_of_a_pickle_without_cache_and_keys(make_llm: MakeLLM, caplog: pytest.LogCaptureFixture) -> None:
    headers = {"Authorization": "Bearer sk-secret"}
    more = {"default_headers": headers, "additional_kwargs": {"extra_headers": headers}}
    llm = make_llm(api_key="sk-secret", **more)
    assert tier(make_llm(**more).chat(user(QUESTION))) is None, "whose key it was is no part of the question"
    assert tier(llm.chat(user(QUESTION))) == "exact"
    for written in (llm.to_json(), str(llm.to_dict()), str(llm.to_payload())):
        assert "secret" not in written
        assert "gpt-4o-mini" in written
    data = pickle.dumps(llm)
    assert b"sk-secret" not in data
    with caplog.at_level(logging.WARNING, "costopt.caching"):
        again = pickle.loads(data)
    assert "set llm.cache" in caplog.text
    assert (again.cache, again.metadata, type(again.llm)) == (None, llm.metadata, OpenAI)
    with pytest.raises(ConfigError, match=r"set llm\.cache"):
        again.stats()
    again.llm.api_key = "sk-none"
    assert [tier(again.chat(user(QUESTION))) for _ in range(2)] == [None, None]
    again.cache = llm.cache
    assert (again.llm.default_headers, again.llm.additional_kwargs) == (None, {})
    again.llm = llm.llm
    assert tier(again.chat(user(QUESTION))) == "exact"


def test_copies_share_the_cache(make_llm: MakeLLM) -> None:
    llm = make_llm()
    for copy in (deepcopy(llm), llm.model_copy(), llm.model_copy(deep=True)):
        assert copy.cache is llm.cache
        assert copy.metadata == llm.metadata


def test_only_a_cache_of_the_core_will_do() -> None:
    with pytest.raises(ConfigError, match=r"give a costopt\.SemanticCache"):
        CachedLLM(MockLLM(), cache=object())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no LLM"):
        CachedLLM("gpt-4o", cache=None)  # type: ignore[arg-type]
