"""`RouterLLM` over LlamaIndex's own `OpenAI`: one LLM to whoever asks it, and each call told of once."""

from __future__ import annotations

import copy
import pickle
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from llama_index.core import Settings
from llama_index.core.base.llms.types import ChatMessage, ImageBlock, LLMMetadata, MessageRole, TextBlock
from llama_index.core.callbacks import CallbackManager, CBEventType, LlamaDebugHandler, TokenCountingHandler
from llama_index.core.llms import MockLLM
from llama_index.llms.openai_like import OpenAILike
from llama_index_instrumentation.dispatcher import instrument_tags

from costopt import Budget, ConfigError, LocalStore, Price, Router, SemanticCache, Tier
from costopt.audit import Ledger
from costopt.routing import Sticky
from llamaindex_costopt import CachedLLM, CostTracker, RouterLLM
from tests.costopt.routing.models import ByVector, Scored, Vectors
from tests.llamaindex.routed import NAMES, drained, every_way, llm, routed, said, user, words
from tests.openai_server import Behaviour, OpenAIServer


def test_the_simple_start(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    Settings.llm = RouterLLM(tiers=[llm(server, name) for name in NAMES])
    try:
        answer = Settings.llm.complete("What is the capital of France?")
    finally:
        Settings._llm = None
    assert said(answer)["chosen"] == "gpt-4o-mini"
    assert Decimal(said(answer)["cost"]) == Decimal("30") * Decimal("0.15e-6") + 12 * Decimal("0.6e-6")
    assert Decimal(said(answer)["saved"]) > 0


async def test_each_of_the_eight_methods_is_routed_and_says_so(server: OpenAIServer) -> None:
    router = routed(server)
    for text, chosen in (("0.1", "gpt-4o-mini"), ("0.9", "gpt-4o")):
        for response in await every_way(router, text):
            assert words(response).startswith("answer ")
            assert said(response)["chosen"] == response.raw.model == chosen
            assert (said(response)["why"], said(response)["score"]) == ("score", float(text))
            assert said(response)["attempts"][0]["output_tokens"] == 12
            assert response.additional_kwargs["total_tokens"] == 42
    assert router.stats().answered == {"gpt-4o-mini": 8, "gpt-4o": 8}
    assert len(server.requests) == 16


def test_three_tiers_share_it_out(server: OpenAIServer) -> None:
    tiers = [llm(server, model) for model in ("gpt-4o-mini", "gpt-4.1", "gpt-5")]
    router = RouterLLM(tiers=tiers, thresholds=(0.3, 0.7), estimator=Scored())
    chosen = [said(router.complete(score))["chosen"] for score in ("0.1", "0.5", "0.9")]
    assert chosen == ["gpt-4o-mini", "gpt-4.1", "gpt-5"]


async def test_each_call_is_told_of_once(server: OpenAIServer, tmp_path: Path) -> None:
    """Handlers of both kinds, and the ledger: a call that failed and the one that answered, each by its own name."""
    debug, counter = LlamaDebugHandler(print_trace_on_end=False), TokenCountingHandler()
    router = routed(server, callback_manager=CallbackManager([debug, counter]))
    with Ledger(tmp_path / "ledger.db") as ledger, CostTracker(ledger).installed() as tracker:
        answers = await every_way(router, "0.1")
        assert len(debug.get_event_pairs(CBEventType.LLM)) == 8
        assert counter.total_llm_token_count == 8 * 42
        server.behaviours["gpt-4o-mini"] = Behaviour(status=500)
        answers += await every_way(router, "0.1")
        totals = tracker.totals()
        rows = list(ledger.attempts())
    answered = [row for row in rows if row.status == "ok"]
    assert len(rows) == len(server.requests)
    assert [row.model for row in answered] == ["gpt-4o-mini"] * 8 + ["gpt-4o"] * 8
    assert totals.cost == router.stats().cost == sum(Decimal(said(answer)["cost"]) for answer in answers)
    assert {row.request_id for row in rows} == {said(answer)["id"] for answer in answers}
    assert {row.route for row in answered} == set(NAMES)
    assert {row.route_why for row in answered} == {"score", "server error", "resting"}


def test_where_handlers_are_set_the_models_hear_of_it(server: OpenAIServer) -> None:
    router, debug = routed(server), LlamaDebugHandler(print_trace_on_end=False)
    Settings.callback_manager = CallbackManager([debug])
    try:
        Settings.llm = router
        Settings.llm.complete("0.1")
    finally:
        Settings._llm = Settings._callback_manager = None
    assert len(debug.get_event_pairs(CBEventType.LLM)) == 1


def test_what_it_promises_every_tier_can_hold(server: OpenAIServer) -> None:
    """The window is the smallest, so that what LlamaIndex packs fits the cheapest; the rest is a matter of who can."""
    small = OpenAILike(
        model="small", api_base=server.url, api_key="none", context_window=8000, max_tokens=500, is_chat_model=False
    )
    router = RouterLLM(tiers=[Tier(small, price=Price(0, 0)), llm(server, "gpt-4o", max_tokens=900)])
    assert router.metadata == LLMMetadata(
        context_window=8000,
        num_output=500,
        is_chat_model=True,
        is_function_calling_model=True,
        model_name="router(small|gpt-4o)",
    )
    assert said(router.complete("word " * 9000))["excluded"] == {"small": "needs 12,382 tokens, has 8,000"}


def test_a_window_that_nobody_told_limits_nothing(server: OpenAIServer) -> None:
    untold = OpenAILike(model="own", api_base=server.url, api_key="none", is_chat_model=True)
    router = RouterLLM(tiers=[Tier(untold, price=Price(0, 0)), llm(server, "gpt-4o")])
    assert untold.metadata.context_window == 3900
    assert said(router.complete("word " * 5000))["excluded"] == {}


def test_an_image_needs_a_tier_that_sees(server: OpenAIServer) -> None:
    tiers = [Tier(llm(server, "gpt-4o-mini"), vision=False), llm(server, "gpt-4o")]
    router = RouterLLM(tiers=tiers, estimator=Scored(), thresholds=(0.5,))
    blocks = [TextBlock(text="0.1"), ImageBlock(url="http://localhost/none.png")]
    answer = router.chat([ChatMessage(role=MessageRole.USER, blocks=blocks)])
    assert (said(answer)["chosen"], said(answer)["excluded"]) == ("gpt-4o", {"gpt-4o-mini": "no vision"})


def test_a_conversation_stays_on_its_tier(server: OpenAIServer) -> None:
    router = routed(server)
    chosen = [said(router.chat(user(text), thread_id="7"))["chosen"] for text in ("0.1", "0.9", "0.1")]
    assert chosen == ["gpt-4o-mini", "gpt-4o", "gpt-4o"]
    with instrument_tags({"session_id": "7"}):
        assert said(drained(router.stream_complete("0.1")))["chosen"] == "gpt-4o"
    assert said(router.complete("0.1"))["chosen"] == "gpt-4o-mini"
    assert "thread_id" not in server.requests[0]


def test_without_an_id_a_conversation_is_known_by_its_first_turns(server: OpenAIServer) -> None:
    router = routed(server)
    history = [ChatMessage(role=MessageRole.SYSTEM, content="It is 9:00."), *user("0.9")]
    history += [drained(router.stream_chat(history)).message, *user("0.1")]
    history[0] = ChatMessage(role=MessageRole.SYSTEM, content="It is 9:01.")
    later = router.chat(history)
    assert (said(later)["chosen"], said(later)["why"], said(later)["previous"]) == ("gpt-4o", "conversation", "gpt-4o")
    other = router.chat([*user("0.9"), ChatMessage(role=MessageRole.ASSISTANT, content="Another"), *user("0.1")])
    assert said(other)["chosen"] == "gpt-4o-mini"


def test_regions_tags_and_a_tier_for_one_request(server: OpenAIServer) -> None:
    tiers = [Tier(llm(server, NAMES[0]), region="us"), Tier(llm(server, NAMES[1]), region="eu", tags="a")]
    router = RouterLLM(tiers=tiers, estimator=Scored(), thresholds=(0.5,))
    for asked in ({"costopt_regions": ["eu"]}, {"costopt_required_tags": "a"}, {"model": "gpt-4o"}):
        assert said(router.complete("0.1", **asked))["chosen"] == "gpt-4o"
        assert not set(asked) & (set(server.requests[-1]) - {"model"})
    with pytest.raises(ConfigError, match="'gpt-4o-mini': region us is not among mars"):
        router.stream_complete("0.1", costopt_regions="mars")
    with pytest.raises(ConfigError, match="there is no tier 'gpt-9'"):
        router.complete("0.1", model="gpt-9")


def test_labels_of_the_ledger_demand_nothing_of_the_tiers(server: OpenAIServer) -> None:
    with instrument_tags({"costopt_tags": ["nightly"]}):
        assert said(routed(server).complete("0.1"))["chosen"] == "gpt-4o-mini"


async def test_async_calls_embed_off_the_loop_and_once(server: OpenAIServer) -> None:
    embedder = Vectors()
    router = routed(server, estimator=ByVector(), embedder=embedder)
    assert said(await router.acomplete("0.9"))["chosen"] == "gpt-4o"
    assert embedder.calls == [["0.9"]]


def test_shadow_and_exploration(server: OpenAIServer) -> None:
    shadowed = routed(server, shadow=True).complete("0.1")
    assert (of(shadowed), said(shadowed)["paper"]) == ("gpt-4o", "gpt-4o-mini")
    exploring = routed(server, explore=0.5, seed=1)
    seen = {(said(answer)["why"], said(answer)["propensity"]) for answer in map(exploring.complete, ["0.1"] * 12)}
    assert ("explored", 0.25) in seen


def test_many_threads_each_get_their_own_answer(server: OpenAIServer) -> None:
    server.behaviours |= {name: Behaviour(text=name) for name in NAMES}
    router, texts = routed(server), ["0.1", "0.9"] * 32
    with ThreadPoolExecutor(16) as pool:
        answers = list(pool.map(router.complete, texts))
    assert [answer.text for answer in answers] == list(NAMES) * 32
    assert [said(answer)["chosen"] for answer in answers] == list(NAMES) * 32


def test_it_travels_without_keys(server: OpenAIServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-found")
    router = routed(server, system_prompt="Be brief.", sticky=Sticky(conversations=5))
    data = pickle.dumps(router)
    assert b"sk-secret" not in data
    found = pickle.loads(data)
    assert (found.router.names, found.system_prompt, found.metadata) == (NAMES, "Be brief.", router.metadata)
    assert {model.api_key for model in found.models.values()} == {"sk-found"}
    assert said(found.complete("0.9"))["chosen"] == "gpt-4o"
    assert found.stats().answered == {"gpt-4o": 1}
    plain = router.to_dict()
    assert "sk-secret" not in str(plain)
    assert (plain["class_name"], list(plain["models"])) == ("costopt_router_llm", list(NAMES))
    assert copy.deepcopy(router).complete("0.1").text
    with pytest.raises(ConfigError, match="make one there"):
        pickle.dumps(routed(server, budget=Budget(1, 60)))


def test_a_router_may_be_a_tier_of_another(server: OpenAIServer) -> None:
    inner = Tier(routed(server), name="inner", price=Price(0, 0))
    outer = RouterLLM(tiers=[inner, llm(server, "gpt-4.1")], estimator=Scored(), thresholds=(0.9,))
    found = outer.complete("0.1")
    assert (of(found), said(found)["chosen"]) == ("gpt-4o-mini", "inner")


def test_a_router_may_be_shared(server: OpenAIServer) -> None:
    core = Router([MockLLM_named("a"), MockLLM_named("b")])
    one, other = RouterLLM(router=core), RouterLLM(router=core)
    one.complete("Hello")
    assert other.router.stats().answered == {"a": 1}


def of(response: Any) -> str:
    """The model that answered, as the provider names it."""
    return str(response.raw.model)


def MockLLM_named(name: str) -> Tier:  # noqa: N802
    return Tier(MockLLM(), name=name)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tiers": []}, "there are no tiers"),
        ({"tiers": ["gpt-4o"]}, "is a str: give an LLM of LlamaIndex"),
        ({"tiers": [MockLLM_named("a")], "treshold": 1}, "has no option treshold"),
        ({"tiers": [MockLLM_named("a")], "router": Router(["a"])}, "not both"),
        ({"tiers": [MockLLM_named("a")], "thresholds": (0.5,)}, "thresholds are"),
    ],
)
def test_what_does_not_fit_says_how_to_mend_it(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        RouterLLM(**options)


def test_a_cache_goes_before_the_router(tmp_path: Path) -> None:
    cached = CachedLLM(MockLLM(), cache=SemanticCache(LocalStore(tmp_path / "cache.db")))
    with pytest.raises(ConfigError, match=r"as in CachedLLM\(RouterLLM"):
        RouterLLM(tiers=[Tier(cached, name="cached")])
