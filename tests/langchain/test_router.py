"""`RouterRunnable` over real `ChatOpenAI`s: one model to callbacks, caches, tools, schemas and batches."""

from __future__ import annotations

import logging
from decimal import Decimal
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import BaseCallbackHandler, UsageMetadataCallbackHandler, get_usage_metadata_callback
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableLambda
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from costopt import ConfigError, Price, Router, Tier
from langchain_costopt import RouterRunnable
from tests.costopt.routing.models import ByVector, Scored, Vectors
from tests.langchain.models import CountingModel
from tests.langchain.test_router_conformance import chat
from tests.openai_server import Behaviour, OpenAIServer


def routed(server: OpenAIServer, **options: Any) -> RouterRunnable:
    tiers = [Tier(chat(server.url, name, max_retries=0)) for name in ("gpt-4o-mini", "gpt-4o")]
    return RouterRunnable(tiers=tiers, **{"estimator": Scored(), "thresholds": (0.5,), **options})


def said(message: Any) -> dict[str, Any]:
    found: dict[str, Any] = message.response_metadata["costopt"]
    return found


def test_the_simple_start(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
    router = RouterRunnable(tiers=[Tier(ChatOpenAI(model="gpt-4o-mini")), Tier(ChatOpenAI(model="gpt-4o"))])
    answer = router.invoke("What is the capital of France?")
    assert said(answer)["chosen"] == "gpt-4o-mini"
    assert Decimal(said(answer)["cost"]) == Decimal("30") * Decimal("0.15e-6") + 12 * Decimal("0.6e-6")
    assert Decimal(said(answer)["saved"]) > 0


def test_the_textbook_example(server: OpenAIServer) -> None:
    tiers = [chat(server.url, model) for model in ("gpt-4o-mini", "gpt-4.1", "gpt-5.4")]
    router = RouterRunnable(tiers=tiers, thresholds=(0.3, 0.7), estimator=Scored())
    assert [said(router.invoke(score))["chosen"] for score in ("0.1", "0.5", "0.9")] == [
        "gpt-4o-mini", "gpt-4.1", "gpt-5.4",
    ]  # fmt: skip


def test_the_answer_is_the_chosen_models_with_the_decision_in_it(server: OpenAIServer) -> None:
    answer = routed(server).invoke("0.9")
    assert (answer.content, answer.response_metadata["model_name"]) == ("answer 1", "gpt-4o")
    assert answer.usage_metadata == {
        "input_tokens": 30, "output_tokens": 12, "total_tokens": 42,
        "input_token_details": {}, "output_token_details": {},
    }  # fmt: skip
    assert (said(answer)["why"], said(answer)["score"], said(answer)["threshold"]) == ("score", 0.9, 0.5)


async def test_invoke_stream_and_batch_come_to_the_same(server: OpenAIServer) -> None:
    router = routed(server)
    for text, chosen in (("0.1", "gpt-4o-mini"), ("0.9", "gpt-4o")):
        whole = None
        for chunk in router.stream(text):
            whole = chunk if whole is None else whole + chunk
        awaited = None
        async for chunk in router.astream(text):
            awaited = chunk if awaited is None else awaited + chunk
        found = [router.invoke(text), await router.ainvoke(text), whole, awaited]
        found += router.batch([text, text]) + await router.abatch([text, text])
        for message in found:
            assert isinstance(message, AIMessage)
            assert said(message)["chosen"] == message.response_metadata["model_name"] == chosen
            assert message.usage_metadata is not None
            assert message.usage_metadata["total_tokens"] == 42
            assert said(message)["attempts"][0]["output_tokens"] == 12
    stats = router.stats()
    assert stats.answered == {"gpt-4o-mini": 8, "gpt-4o": 8}


class Heard(BaseCallbackHandler):
    def __init__(self) -> None:
        self.started: list[dict[str, Any]] = []
        self.tokens: list[str] = []
        self.ended = 0

    def on_chat_model_start(self, serialized: Any, messages: Any, **kwargs: Any) -> None:
        self.started.append(kwargs)

    def on_llm_new_token(self, token: Any, **kwargs: Any) -> None:
        self.tokens.append(token)

    def on_llm_end(self, response: Any, **kwargs: Any) -> None:
        self.ended += 1


async def test_callbacks_hear_of_each_request_once(server: OpenAIServer) -> None:
    router, heard, usage = routed(server), Heard(), UsageMetadataCallbackHandler()
    config: Any = {"callbacks": [heard, usage], "tags": ["t"], "metadata": {"user": "u"}, "run_name": "asked"}
    with get_usage_metadata_callback() as counted:
        router.invoke("0.1", config)
        list(router.stream("0.1", config))
        await router.ainvoke("0.1", config)
        router.batch(["0.1", "0.1"], config)
    assert len(heard.started) == heard.ended == 5
    assert [kwargs["name"] for kwargs in heard.started] == ["asked"] * 5
    assert all("t" in kwargs["tags"] and kwargs["metadata"]["user"] == "u" for kwargs in heard.started)
    assert usage.usage_metadata["gpt-4o-mini"]["total_tokens"] == 5 * 42
    assert counted.usage_metadata["gpt-4o-mini"]["total_tokens"] == 5 * 42
    assert "".join(heard.tokens) == "answer 2"


def test_tools_are_written_down_as_the_chosen_model_wants_them(server: OpenAIServer) -> None:
    @tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return "sunny"

    router = routed(server).bind_tools([weather], tool_choice="any")
    answer = router.invoke("0.9")
    assert [call["name"] for call in answer.tool_calls] == ["weather"]
    assert server.requests[0]["tool_choice"] == "required"
    assert server.requests[0]["tools"][0]["function"]["name"] == "weather"
    again = router.bind(tool_choice={"type": "function", "function": {"name": "weather"}}).invoke("0.9")
    assert again.tool_calls
    assert server.requests[1]["tool_choice"]["function"]["name"] == "weather"


class City(BaseModel):
    name: str


@pytest.mark.parametrize("method", ["json_schema", "function_calling"])
async def test_structured_output(server: OpenAIServer, method: str) -> None:
    router = routed(server).with_structured_output(City, method=method)
    assert router.invoke("0.9") == City(name="0.9") == await router.ainvoke("0.9")
    both = routed(server).with_structured_output(City, method=method, include_raw=True).invoke("0.1")
    assert both["parsed"] == City(name="0.1")
    assert both["parsing_error"] is None
    assert said(both["raw"])["chosen"] == "gpt-4o-mini"
    server.behaviours["gpt-4o-mini"] = Behaviour(text="no JSON at all")
    if method == "json_schema":
        broken = routed(server).with_structured_output(City.model_json_schema(), include_raw=True).invoke("0.1")
        assert broken["parsed"] is None
        assert broken["parsing_error"] is not None


def test_an_answer_that_breaks_the_schema_goes_on_to_the_next_tier(server: OpenAIServer) -> None:
    from costopt import Cascade

    server.behaviours["gpt-4o-mini"] = Behaviour(text="no JSON at all")
    router = routed(server, cascade=Cascade()).with_structured_output(City.model_json_schema(), include_raw=True)
    found = router.invoke("0.1")
    assert found["parsed"] == {"name": "0.1"}
    assert said(found["raw"])["why"] == "rejected: schema"
    assert [attempt["tier"] for attempt in said(found["raw"])["attempts"]] == ["gpt-4o-mini", "gpt-4o"]


def test_log_probabilities_are_read_where_they_are_given(server: OpenAIServer) -> None:
    from costopt import Cascade

    server.behaviours["gpt-4o-mini"] = Behaviour(logprobs=(-0.2, -3.0))
    answer = routed(server, cascade=Cascade(min_logprob=-1.0)).invoke("0.1")
    assert said(answer)["why"] == "rejected: log-probability"


def test_an_image_needs_a_tier_that_sees(server: OpenAIServer) -> None:
    blind = Tier(chat(server.url, "gpt-4o-mini"), vision=False)
    router = RouterRunnable(tiers=[blind, chat(server.url, "gpt-4o")], estimator=Scored(), thresholds=(0.5,))
    picture = {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}
    answer = router.invoke([HumanMessage([{"type": "text", "text": "0.1"}, picture])])
    assert (said(answer)["chosen"], said(answer)["excluded"]) == ("gpt-4o", {"gpt-4o-mini": "no vision"})


def test_a_conversation_stays_on_its_tier(server: OpenAIServer) -> None:
    router = routed(server)
    config: Any = {"configurable": {"thread_id": "7"}}
    chosen = [said(router.invoke(text, config))["chosen"] for text in ("0.1", "0.9", "0.1")]
    assert chosen == ["gpt-4o-mini", "gpt-4o", "gpt-4o"]
    assert "".join(str(chunk.content) for chunk in router.stream("0.1", config))
    assert server.requests[-1]["model"] == "gpt-4o"
    assert said(router.invoke("0.1"))["chosen"] == "gpt-4o-mini"


def test_without_an_id_a_conversation_is_known_by_its_first_turns(server: OpenAIServer) -> None:
    router = routed(server)
    history: list[Any] = [SystemMessage("It is 9:00."), HumanMessage("0.9")]
    history += [router.invoke(history), HumanMessage("0.1")]
    history[0] = SystemMessage("It is 9:01.")
    later = router.invoke(history)
    assert (said(later)["chosen"], said(later)["why"], said(later)["previous"]) == ("gpt-4o", "conversation", "gpt-4o")
    other = router.invoke([HumanMessage("0.9"), AIMessage("Another answer"), HumanMessage("0.1")])
    assert said(other)["chosen"] == "gpt-4o-mini"


def test_regions_and_tags_of_one_request(server: OpenAIServer) -> None:
    tiers = [
        Tier(chat(server.url, "gpt-4o-mini"), region="us"),
        Tier(chat(server.url, "gpt-4o"), region="eu", tags="a"),
    ]
    router = RouterRunnable(tiers=tiers, estimator=Scored(), thresholds=(0.5,))
    for configurable in ({"costopt_regions": ["eu"]}, {"costopt_required_tags": "a"}):
        assert said(router.invoke("0.1", {"configurable": configurable}))["chosen"] == "gpt-4o"
    with pytest.raises(ConfigError, match="'gpt-4o-mini': region us is not among mars"):
        router.invoke("0.1", {"configurable": {"costopt_regions": ["mars"]}})


def test_a_tier_may_be_asked_for_by_name(server: OpenAIServer) -> None:
    router = routed(server)
    answer = router.invoke("0.1", model="gpt-4o")
    assert (answer.response_metadata["model_name"], said(answer)["why"]) == ("gpt-4o", "asked for")
    with pytest.raises(ConfigError, match="there is no tier 'gpt-9'"):
        router.invoke("0.1", model="gpt-9")


def test_a_batch_is_embedded_once_and_keeps_its_order(server: OpenAIServer) -> None:
    embedder = Vectors()
    router = routed(server, estimator=ByVector(), embedder=embedder)
    texts = ["0.9", "0.1", "0.8", "0.2"]
    answers = router.batch(texts, {"max_concurrency": 1})
    assert [said(answer)["chosen"] for answer in answers] == ["gpt-4o", "gpt-4o-mini"] * 2
    assert embedder.calls == [texts]
    assert [request["model"] for request in server.requests] == ["gpt-4o-mini"] * 2 + ["gpt-4o"] * 2
    assert [request["messages"][0]["content"] for request in server.requests] == ["0.1", "0.2", "0.9", "0.8"]


async def test_one_bad_request_does_not_spoil_a_batch(server: OpenAIServer) -> None:
    router = routed(server)
    configs: list[Any] = [{}, {"configurable": {"costopt_regions": ["mars"]}}]
    for found in (
        router.batch(["0.1", "0.1"], configs, return_exceptions=True),
        await router.abatch(["0.1", "0.1"], configs, return_exceptions=True),
    ):
        assert isinstance(found[0], AIMessage)
        assert isinstance(found[1], ConfigError)
    with pytest.raises(ConfigError):
        router.batch(["0.1", "0.1"], configs)
    no_input: Any = ["0.1", 5]
    assert isinstance(router.batch(no_input, return_exceptions=True)[1], ValueError)
    assert router.batch([]) == await router.abatch([]) == []


def test_it_is_a_runnable_among_runnables(server: OpenAIServer) -> None:
    chain = ChatPromptTemplate.from_messages([("human", "{score}")]) | routed(server) | RunnableLambda(said)
    assert [found["chosen"] for found in chain.batch([{"score": "0.1"}, {"score": "0.9"}])] == ["gpt-4o-mini", "gpt-4o"]


def test_standard_arguments_hold_for_whichever_model_is_asked(server: OpenAIServer) -> None:
    router = routed(server, temperature=0.5, max_tokens=77, stop=["END"])
    for text in ("0.1", "0.9"):
        router.invoke(text)
        request = server.requests[-1]
        assert (request["temperature"], request["max_completion_tokens"], request["stop"]) == (0.5, 77, ["END"])
    router.invoke("0.1", temperature=0.9, stop=["STOP"])
    assert (server.requests[-1]["temperature"], server.requests[-1]["stop"]) == (0.9, ["STOP"])


def test_a_bound_model_keeps_what_was_bound(server: OpenAIServer) -> None:
    tiers = [Tier(chat(server.url, "gpt-4o-mini").bind(temperature=0.1)), Tier(chat(server.url, "gpt-4o"))]
    RouterRunnable(tiers=tiers, estimator=Scored(), thresholds=(0.5,)).invoke("0.1")
    assert server.requests[0]["temperature"] == 0.1


def test_models_that_do_not_stream_are_one_chunk() -> None:
    router = RouterRunnable(tiers=[CountingModel(model_name="gpt-4o-mini"), CountingModel(model_name="gpt-4o")])
    chunks = list(router.stream("Hello"))
    assert [chunk.content for chunk in chunks] == ["answer 1", ""]
    assert (chunks[0].chunk_position, chunks[-1].chunk_position) == (None, "last")


def test_a_router_may_be_a_tier_of_another(server: OpenAIServer) -> None:
    inner = Tier(routed(server), name="inner", price=Price(0, 0))
    outer = RouterRunnable(tiers=[inner, chat(server.url, "gpt-5.4")], estimator=Scored(), thresholds=(0.9,))
    for found in (outer.invoke("0.1"), *outer.batch(["0.1", "0.1"])):
        assert found.response_metadata["model_name"] == "gpt-4o-mini"
        assert said(found)["chosen"] == "inner"


def test_tokens_are_counted_without_asking_anybody(server: OpenAIServer) -> None:
    assert routed(server).get_num_tokens("How do I reset my password?") == 7


def test_what_its_models_can_do_it_can(server: OpenAIServer) -> None:
    profile = routed(server).profile
    assert profile is not None
    assert profile["tool_calling"]
    assert profile["max_input_tokens"] >= 128_000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiers": []}, "there are no tiers"),
        ({"tiers": [FakeListLLM(responses=["a"])]}, "does not say its name"),
        ({"tiers": [Tier(FakeListLLM(responses=["a"]), name="a")]}, "give a chat model, or one with .bind"),
        ({"tiers": [CountingModel(cache=InMemoryCache())]}, "give cache= to the RouterRunnable"),
        ({"tiers": [CountingModel()], "treshold": 1}, "has no option treshold"),
        ({"tiers": [CountingModel()], "thresholds": (0.5,)}, "thresholds are"),
        ({"tiers": [CountingModel()], "router": Router(["a"])}, "either router= or tiers"),
    ],
)
def test_options_that_do_not_fit_together_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RouterRunnable(**options)


def test_what_belongs_to_the_models_is_said(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "costopt.routing"):
        RouterRunnable(tiers=[CountingModel()], timeout=3)
    assert "timeout is a matter of the tiers' models" in caplog.text


def test_it_says_that_langchains_own_router_is_another_thing() -> None:
    assert "langchain_core" in (RouterRunnable.__doc__ or "").splitlines()[0]
