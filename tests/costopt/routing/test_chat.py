"""What every adapter tells the router of a chat, and how an answer is relayed."""

from __future__ import annotations

import pickle
from types import SimpleNamespace
from typing import Any

import pytest

from costopt import Budget, BudgetExceededError, ConfigError, Router, Tier
from costopt.audit.about_call import about_call
from costopt.routing import Reply, RouteRequest, Sticky, StrongShare, serve
from costopt.routing.chat import Turn, chat_request, said_in
from costopt.routing.options import router_of
from costopt.routing.streaming import Relay, relayed


def turns(*texts: str) -> list[Turn]:
    """The user and the model, in turn."""
    return [
        Turn(
            {"role": "user" if i % 2 == 0 else "assistant", "content": text}, text, asks=i % 2 == 0, answers=i % 2 == 1
        )
        for i, text in enumerate(texts)
    ]


def test_a_conversation_is_known_by_its_first_two_turns() -> None:
    first = chat_request(turns("Hello"), {})
    assert first.conversation is None
    assert first.next_conversation is not None
    later = chat_request(turns("Hello", "Hi!", "And now?"), {})
    assert later.conversation == first.next_conversation(Reply("Hi!"))
    assert chat_request(turns("Hello"), {}, conversation="7").conversation == "7"
    assert chat_request([], {}).text == ""


def test_what_a_call_gives_away_of_what_it_needs() -> None:
    asked = turns("Hello")
    offered = chat_request(asked, {"tools": [{"name": "a"}], "max_tokens": 5, "n": 2})
    assert (offered.tools, offered.max_output_tokens, offered.generations) == (True, 5, 2)
    assert offered.size > chat_request(asked, {}).size
    told = Turn({"role": "tool", "content": "sunny", "tool_call_id": "1"}, "sunny")
    assert chat_request([*asked, told], {}).tools
    assert chat_request(asked, {"response_format": {"type": "json_object"}}).json
    assert chat_request([Turn({"content": ""}, "", images=True)], {}).vision


def test_what_the_application_says_of_a_call() -> None:
    said = said_in(
        {"session_id": "s", "conversation_id": "c", "costopt_required_tags": ["a", "b"], "costopt_tags": "x"}
    )
    assert said == {"conversation": "c", "regions": None, "tags": frozenset({"a", "b"})}
    assert about_call({"session_id": "s", "conversation_id": "c"})["session"] == "c"  # as a router has it
    assert said_in({"thread_id": ""})["conversation"] is None


def test_a_router_is_given_or_made() -> None:
    router = Router(["a"])
    assert router_of((), router, {}) is router
    with pytest.raises(ConfigError, match="no tag eu"):
        router_of(["a", "b"], None, {"required_tags": ["eu"]}).decide(RouteRequest("Hello"))
    with pytest.raises(ConfigError, match="not both"):
        router_of(["a"], router, {})


@pytest.mark.parametrize("cumulative", [True, False])
def test_of_a_long_stream_only_the_end_is_kept(cumulative: bool) -> None:
    """Where each chunk holds all that came before, or a long answer would be held as often as it has tokens."""
    router, request = Router(["a"]), RouteRequest("Hello")
    flow, held = serve(router, request, router.decide(request)), []
    relay: Relay[str] = Relay(flow, bool, lambda _, made: Reply(made[-1], raw=list(made)), cumulative=cumulative)

    def start(_: Any) -> Any:
        for i in range(100):
            yield "a" * i
            held.append(len(relay._chunks))

    shown = list(relayed(relay, start, lambda served: served.reply.text))
    assert shown == ["a" * i for i in range(100)] + ["a" * 99]
    assert max(held) == (3 if cumulative else 100)


def test_a_budget_of_the_models_own_is_no_fault_of_theirs() -> None:
    """A gate before a model: the next one is asked; if all refuse, the last word is the budget's."""
    router, request = Router(["a", "b"]), RouteRequest("Hello")
    flow = serve(router, request, router.decide(request))
    assert next(flow).tier.name == "a"  # type: ignore[union-attr]
    asked = flow.throw(BudgetExceededError("is spent"))
    assert (asked.tier.name, asked.why) == ("b", "budget")  # type: ignore[union-attr]
    with pytest.raises(BudgetExceededError, match="is spent"):
        flow.throw(BudgetExceededError("is spent"))
    assert router.stats().failed == {"budget": 2}
    assert not any(rest.resting for rest in router.rests)


def test_a_router_travels_but_what_it_counted_does_not() -> None:
    router = Router(
        [Tier("gpt-4o-mini", region="eu"), Tier("gpt-4o")], policy=StrongShare(0.3), sticky=Sticky(5), regions=["eu"]
    )
    found = pickle.loads(pickle.dumps(router))
    assert (found.names, found.sticky._most) == (router.names, 5)
    assert found.decide(RouteRequest("Hello")).excluded == router.decide(RouteRequest("Hello")).excluded
    assert found.tiers[0].price_at(0) == router.tiers[0].price_at(0)
    with pytest.raises(ConfigError, match="make one there"):
        pickle.dumps(Budget(1, 60))


def test_what_a_model_of_llamaindex_says_of_itself() -> None:
    def model(window: int, calls: bool) -> Any:
        metadata = SimpleNamespace(model_name="own", context_window=window, is_function_calling_model=calls)
        return SimpleNamespace(metadata=metadata)

    able, unable = Tier(model(32_000, True)), Tier(model(3900, False))
    assert (able.name, able.window, able.lacks(tools=True, vision=True, json=True)) == ("own", 32_000, None)
    assert (unable.window, unable.lacks(tools=True, vision=False, json=False)) == (None, "tools")
