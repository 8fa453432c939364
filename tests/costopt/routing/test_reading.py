"""Prompts that carry documents: the estimator reads the question, everything else sees the whole prompt."""

from __future__ import annotations

import json
import logging
import pickle
from pathlib import Path
from typing import Any

import pytest

from costopt import ConfigError, Router, RouteRequest, SemanticCache, Tier
from costopt.routing import StrongShare
from costopt.routing.decision_log import DecisionLog
from costopt.tokens import count_tokens
from langchain_costopt import RouterRunnable
from llamaindex_costopt import RouterLLM
from tests.costopt.routing.models import ByVector, Scored, Vectors
from tests.langchain.test_router_conformance import chat
from tests.llamaindex.routed import llm, user
from tests.openai_server import OpenAIServer

PAGES = "First, prove the theorem: f(x) = 3 x + 4. Then compare 12 and 13, step by step. " * 60
QUESTION = "How long is a refund?"
NAMES = ("gpt-4o-mini", "gpt-4o")


def router(**options: Any) -> Router:
    return Router(list(NAMES), **{"estimator": Scored(), "thresholds": (0.5,), **options})


def test_documents_make_no_question_hard() -> None:
    prompt = RouteRequest(f"{PAGES}\nQuestion: {QUESTION}")
    whole, question = Router(list(NAMES)), Router(list(NAMES), split="Question:")
    assert whole.decide(prompt).chosen == "gpt-4o"
    assert question.decide(prompt).chosen == "gpt-4o-mini"
    assert question.decide(prompt).score == question.decide(RouteRequest(f" {QUESTION}")).score
    assert question.decide(RouteRequest("Prove that there are infinitely many primes.")).chosen == "gpt-4o"


def test_a_function_parts_the_prompt_and_survives_a_pickle() -> None:
    made = pickle.loads(pickle.dumps(router(split=_halves)))
    assert made.decide(RouteRequest("0.9|0.1")).score == 0.1


@pytest.mark.parametrize("given", [None, lambda model: count_tokens("word " * 5_000, model)])
def test_windows_and_costs_are_those_of_the_whole_prompt(given: Any) -> None:
    tiers = [Tier("gpt-4o-mini", context_window=3_000), Tier("gpt-4o")]
    prompt = RouteRequest("word " * 5_000 + "|0.1", count=given)
    with_it = Router(tiers, estimator=Scored(), thresholds=(0.5,), split="|").decide(prompt)
    assert (with_it.chosen, with_it.why) == ("gpt-4o", "only one")
    assert with_it.estimated_cost == Router(tiers).decide(prompt).estimated_cost


def test_the_embedder_policies_and_the_log_get_the_question(tmp_path: Path) -> None:
    embedder, log = Vectors(), DecisionLog(tmp_path / "log.jsonl")
    made = router(estimator=ByVector(), embedder=embedder, thresholds=None, policy=StrongShare(0.5), split="|", log=log)
    made.calibrate([f"pages|{number / 10}" for number in range(10)])
    request = RouteRequest("pages|0.25")
    made.logged(request, made.decide(request))
    assert embedder.calls == [[str(number / 10) for number in range(10)], ["0.25"]]
    assert json.loads((tmp_path / "log.jsonl").read_text("utf-8").splitlines()[0])["prompt"] == "0.25"


def test_a_function_that_fails_is_stepped_over_and_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    made = router(split=lambda text: text.index("nowhere"))
    with caplog.at_level(logging.WARNING):
        assert [made.decide(RouteRequest("0.1")).chosen for _ in range(3)] == ["gpt-4o-mini"] * 3
    assert [record.message.count("split=") for record in caplog.records] == [1]


@pytest.mark.parametrize("wrong", ["", 7])
def test_what_parts_nothing_is_refused(wrong: Any, tmp_path: Path) -> None:
    for make in (router, SemanticCache):
        with pytest.raises(ConfigError, match="split='Question: '"):
            make(split=wrong)


async def test_both_frameworks_have_it(server: OpenAIServer) -> None:
    options: dict[str, Any] = {"estimator": Scored(), "thresholds": (0.5,), "split": "|"}
    langchain = RouterRunnable(tiers=[chat(server.url, name) for name in NAMES], **options)
    llamaindex = RouterLLM(tiers=[llm(server, name) for name in NAMES], **options)
    for score, model in (("0.1", NAMES[0]), ("0.9", NAMES[1])):
        asked = f"documents|{score}"
        langchain.invoke(asked)
        await langchain.ainvoke(asked)
        llamaindex.chat(user(asked))
        await llamaindex.achat(user(asked))
        assert [request["model"] for request in server.requests] == [model] * 4
        assert {request["messages"][-1]["content"] for request in server.requests} == {asked}
        server.requests.clear()


def _halves(text: str) -> tuple[str, str]:
    context, _, question = text.partition("|")
    return context, question
