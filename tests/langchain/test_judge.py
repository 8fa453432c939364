"""The judge behind the adapter: what a served message tells of it, and what it learns from rejected messages."""

from __future__ import annotations

import json
from typing import Any

import pytest
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, messages_from_dict, messages_to_dict

from costopt import ConfigError
from costopt.caching.online import Evidence, decode_evidence
from langchain_costopt import SemanticCache
from tests.costopt.caching.judges import SURE_ENOUGH, TRUSTING, logit
from tests.langchain.conftest import MakeCache
from tests.langchain.models import CountingModel
from tests.langchain.test_scope import ask, tier
from tests.rewordings import PARAPHRASE, QUESTION, UNRELATED

FRENCH, GERMAN = SystemMessage("Answer in French."), SystemMessage("Answer in German.")
PHONE, PHONE_PARAPHRASE = "How do I unlock my phone?", "How can I unlock my phone?"


def learning(make_cache: MakeCache) -> SemanticCache:
    def same(asked: str, cached: str) -> float:
        return logit(0.9604 if asked.split()[-1] == cached.split()[-1] else 0.01)

    return make_cache(judge=same, policy=TRUSTING, max_error=0.05)


def seen(cache: SemanticCache) -> list[Evidence | None]:
    return [decode_evidence(row) for row in cache.core.store.all_evidence()]


def test_a_hit_tells_how_probable_it_is_that_it_is_right(make_cache: MakeCache) -> None:
    model = CountingModel(cache=learning(make_cache))
    model.invoke(QUESTION)
    why = model.invoke(PARAPHRASE).response_metadata["costopt"]
    assert (why["cache"], why["probability"], why["reason"]) == ("semantic", 0.9604, "probability 0.960 >= 0.950")
    assert (why["asked"], why["matched"]) == (PARAPHRASE, QUESTION)
    assert model.invoke(QUESTION).response_metadata["costopt"]["probability"] is None


def test_a_rejected_message_is_evidence_and_makes_its_scope_stricter(make_cache: MakeCache) -> None:
    cache = learning(make_cache)
    model = CountingModel(cache=cache)
    for system in (FRENCH, GERMAN):
        ask(model, system, HumanMessage(QUESTION))
        ask(model, system, HumanMessage(PHONE))
    cache.reject(ask(model, FRENCH, HumanMessage(PARAPHRASE)))
    assert seen(cache) == [Evidence(PARAPHRASE, QUESTION, same=False, probability=0.9604)]
    assert tier(ask(model, FRENCH, HumanMessage(PHONE_PARAPHRASE))) is None
    assert tier(ask(model, GERMAN, HumanMessage(PHONE_PARAPHRASE))) == "semantic"
    assert dict(cache.stats().failures) == {}


async def test_the_same_with_asyncio(make_async_cache: MakeCache) -> None:
    cache = learning(make_async_cache)
    model = CountingModel(cache=cache)
    for question in (QUESTION, PHONE):
        await model.ainvoke(question)
    cache.reject(await model.ainvoke(PARAPHRASE))
    assert seen(cache) == [Evidence(PARAPHRASE, QUESTION, same=False, probability=0.9604)]
    assert tier(await model.ainvoke(PHONE_PARAPHRASE)) is None


def test_a_message_can_be_rejected_when_it_comes_back_from_a_database(make_cache: MakeCache) -> None:
    cache = learning(make_cache)
    model = CountingModel(cache=cache)
    model.invoke(QUESTION)
    kept = json.dumps(messages_to_dict([model.invoke(PARAPHRASE)]))
    (wrong,) = messages_from_dict(json.loads(kept))
    assert isinstance(wrong, AIMessage)
    cache.reject(wrong)
    assert seen(cache) == [Evidence(PARAPHRASE, QUESTION, same=False, probability=0.9604)]
    assert tier(model.invoke(PARAPHRASE)) is None


def test_a_message_served_before_hits_told_their_scope_can_be_rejected_without_evidence(make_cache: MakeCache) -> None:
    cache = learning(make_cache)
    model = CountingModel(cache=cache)
    model.invoke(QUESTION)
    message = model.invoke(PARAPHRASE)
    for name in ("scope", "asked", "probability"):
        del message.response_metadata["costopt"][name]
    cache.reject(message)
    assert seen(cache) == []
    assert tier(model.invoke(PARAPHRASE)) is None


def test_the_shipped_judge_serves_a_rewording_and_no_other_question(make_cache: MakeCache) -> None:
    cache = make_cache(judge=None, policy=TRUSTING, max_error=SURE_ENOUGH)
    model = CountingModel(cache=cache)
    model.invoke(QUESTION)
    hit = model.invoke(PARAPHRASE)
    assert tier(hit) == "semantic"
    assert 0.5 < hit.response_metadata["costopt"]["probability"] <= 1
    for question in UNRELATED:
        assert tier(model.invoke(question)) is None
    cache.reject(hit)
    assert len(seen(cache)) == 1


def test_in_the_shadow_the_models_answer_says_whether_the_cached_one_was_right(make_cache: MakeCache) -> None:
    cache = make_cache(judge=lambda *_: 0.99, shadow=True)

    def reply(messages: list[Any], number: int) -> AIMessage:
        return AIMessage("By post." if "phone" in str(messages[-1].content) else "Click on the link.")

    model = CountingModel(cache=cache, reply=reply)
    for question in (QUESTION, PARAPHRASE, "How do I reset my phone?"):
        assert tier(model.invoke(question)) is None
    assert (cache.stats().agreed, cache.stats().disagreed) == (1, 1)
    assert [row.same for row in seen(cache) if row] == [True, False]


@pytest.mark.parametrize("options", [{"max_error": 1}, {"policy": "nowhere.json"}])
def test_what_the_judge_is_told_is_checked_by_the_adapter(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SemanticCache(**options)
