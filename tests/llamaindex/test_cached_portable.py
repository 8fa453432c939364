"""One store under a LangChain and a LlamaIndex process: each is served what the other asked, where so declared."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from langchain_core.messages import AIMessage
from langchain_core.outputs import ChatGeneration, Generation
from llama_index.core.base.llms.types import CompletionResponse
from llama_index.core.llms import MockLLM

import langchain_costopt
from costopt import Answer, ConfigError, LocalStore, SemanticCache, Usage
from costopt.caching.answer import why_not_stored
from costopt.caching.portable import portable_params
from langchain_costopt import messages
from llamaindex_costopt import CachedLLM
from llamaindex_costopt.cached_asked import turns_of
from llamaindex_costopt.cached_told import answer_of
from tests.faults.words import Process
from tests.langchain.models import CountingModel
from tests.llamaindex.served import user
from tests.openai_server import OpenAIServer

# Each reads a line of JSON (messages, options) and prints what was said, and which tier served it.
BEGIN = """
import json, sys
from costopt import LocalStore, SemanticCache
from tests.faults.words import NEAR, Words
url, path = sys.argv[1:3]
cache = SemanticCache(LocalStore(path), embedder=Words(), judge=NEAR, time_budget=10.0, portable=sys.argv[3:])
TOOL = {"type": "function", "function": {"name": "weather", "description": "", "parameters": {"type": "object"}}}
"""
END = """
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(ask(**json.loads(line))), flush=True)
"""
LANGCHAIN = f"""{BEGIN}
import langchain_costopt
from langchain_core.messages import AIMessage
from langchain_openai import ChatOpenAI

def ask(messages, model="gpt-4o-mini", temperature=0, tools=False):
    chat = ChatOpenAI(model=model, temperature=temperature, base_url=url, api_key="sk-lc",
                      cache=langchain_costopt.SemanticCache(core=cache))
    made = [(role, text) for role, text in messages]
    message = (chat.bind(tools=[TOOL]) if tools else chat).invoke(made)
    assert message.usage_metadata["total_tokens"] == (0 if "costopt" in message.response_metadata else 42)
    calls = [[call["name"], call["args"]] for call in message.tool_calls]
    return [message.content, calls, message.response_metadata.get("costopt", {{}}).get("cache")]
{END}"""
LLAMAINDEX = f"""{BEGIN}
from llama_index.core.llms import ChatMessage
from llama_index.llms.openai import OpenAI
from llamaindex_costopt import CachedLLM

ROLES = {{"human": "user", "ai": "assistant", "system": "system"}}

def ask(messages, model="gpt-4o-mini", temperature=0, tools=False):
    llm = CachedLLM(OpenAI(model, temperature=temperature, api_base=url, api_key="sk-li"), cache=cache)
    made = [ChatMessage(role=ROLES[role], content=text) for role, text in messages]
    response = llm.chat(made, **({{"tools": [TOOL]}} if tools else {{}}))
    told = response.additional_kwargs
    assert told["total_tokens"] == (0 if "costopt" in told else 42)
    found = llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
    calls = [[call.tool_name, call.tool_kwargs] for call in found]
    return [response.message.content or "", calls, told.get("costopt", {{}}).get("cache")]
{END}"""


class Asker:
    """A process of either framework."""

    def __init__(self, process: Process) -> None:
        self.process = process

    def ask(self, *messages: tuple[str, str], **options: Any) -> tuple[str, Any, str | None]:
        self.process.send(json.dumps({"messages": messages, **options}))
        said, calls, tier = json.loads(self.process.line())
        return said, calls, tier


@pytest.fixture
def askers(server: OpenAIServer, tmp_path: Path) -> Iterator[tuple[Asker, Asker]]:
    with ExitStack() as stack:
        arguments = (server.url, tmp_path / "cache.db", "gpt-4o-mini")
        processes = [stack.enter_context(Process(code, *arguments)) for code in (LANGCHAIN, LLAMAINDEX)]
        assert [process.line() for process in processes] == ["ready"] * 2
        first, second = map(Asker, processes)
        yield first, second


def test_each_framework_is_served_what_the_other_asked(askers: tuple[Asker, Asker], server: OpenAIServer) -> None:
    subjects = iter(("moon", "sun"))
    for one, other in (askers, askers[::-1]):
        server.requests.clear()
        subject = next(subjects)
        asked, reworded = ("human", f"how old is the {subject}"), ("human", f"the {subject} is how old")
        said, _, tier = one.ask(asked)
        assert tier is None
        assert other.ask(asked) == (said, [], "exact")
        assert other.ask(reworded) == (said, [], "semantic")
        chat = [
            ("system", "Be brief."),
            ("human", "Who wrote Hamlet?"),
            ("ai", f"The {subject}."),
            ("human", "and Faust?"),
        ]
        assert one.ask(*chat)[2] is None
        assert other.ask(*chat)[2] == "exact"
        weather = ("human", f"What is the weather on the '{subject}'?")
        said, calls, tier = one.ask(weather, tools=True)
        assert (calls[0][0], tier) == ("weather", None)
        assert other.ask(weather, tools=True) == (said, calls, "exact")
        assert len(server.requests) == 3
        # Neither another parameter, nor another history, nor a model of which nothing was declared.
        assert other.ask(asked, temperature=0.5)[2] is None
        assert other.ask(chat[0], asked)[2] is None
        assert one.ask(asked, model="gpt-4o")[2] is None
        assert other.ask(asked, model="gpt-4o")[2] is None


NUMBERS = st.none() | st.floats(0, 2, allow_nan=False).map(lambda x: round(x, 2))
SETTINGS = st.fixed_dictionaries({}, optional={"temperature": NUMBERS, "top_p": NUMBERS, "seed": st.integers(0, 9)})


@given(SETTINGS, SETTINGS, st.sampled_from(["max_tokens", "max_completion_tokens", "num_predict"]))
def test_equal_parameters_are_equal_in_every_spelling(
    settings: dict[str, Any], other: dict[str, Any], name: str
) -> None:
    """Where they are set (model, call, bag of extras), under which name, and whether 1 is 1.0, does not matter."""
    plain = portable_params("chat", {**settings, "max_tokens": 5, "api_base": "a"}, {})
    assert plain == portable_params("chat", {name: 5.0, "timeout": 3}, dict(settings))
    assert plain == portable_params("chat", {"model_kwargs": settings, name: 5}, {"stop": None, "stream": True})
    kept = {n: v for n, v in settings.items() if v is not None}
    same = kept == {n: v for n, v in other.items() if v is not None}
    assert (plain == portable_params("chat", {**other, "max_tokens": 5}, {})) == same
    assert plain != portable_params("completion", {**settings, "max_tokens": 5}, {})


def by_langchain(core: SemanticCache) -> object:
    return CountingModel(cache=langchain_costopt.SemanticCache(core=core)).invoke("Hi")


def by_llamaindex(core: SemanticCache) -> object:
    return CachedLLM(MockLLM(), cache=core).chat(user("Hi"))


@pytest.mark.parametrize("ask", [by_langchain, by_llamaindex])
def test_a_hit_of_which_no_response_can_be_made_saves_nothing(
    ask: Callable[[SemanticCache], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = SemanticCache(LocalStore(tmp_path / "cache.db"), exact_only=True)
    foreign = Answer(({"kind": "chat", "content": [{"type": "hologram"}]},), Usage(1000, 100), Decimal("0.01"))
    keep = core.update
    monkeypatch.setattr(core, "update", lambda request, answer: keep(request, foreign))
    for _ in range(2):
        ask(core)
    stats = core.stats()
    assert (stats.lookups, stats.hits, stats.saved_tokens, stats.saved_usd, stats.misses["unfit"]) == (2, 0, 0, 0, 1)
    core.close()


@pytest.mark.parametrize(
    ("text", "role"),
    [
        ("What is a llama?", "user"),
        ("Human: hi\nAI:", "prompt"),
        ("user: hi\nassistant: hello\nuser: how are you?", "prompt"),
        ('[{"lc": 1}] is what?', "prompt"),
    ],
)
def test_both_frameworks_see_the_same_transcripts_in_a_text(text: str, role: str) -> None:
    assert messages.turns_of(text, completion=True) == turns_of(text) == [{"role": role, "content": text}]


@pytest.mark.parametrize(
    "told", [{"finish_reason": "length"}, {"done_reason": "length"}, {"stop_reason": "max_tokens"}]
)
def test_both_frameworks_know_an_answer_that_was_cut_off(told: dict[str, str]) -> None:
    answers = [
        messages.answer_of([Generation(text="The answer is", generation_info=told)], "m"),
        messages.answer_of([ChatGeneration(message=AIMessage("The", response_metadata=told))], "m"),
        answer_of([CompletionResponse(text="The answer is", raw=told)], "m"),
    ]
    assert list(map(why_not_stored, answers)) == ["truncated"] * 3


def test_what_is_no_data_is_not_portable() -> None:
    assert portable_params("chat", {}, {"response_format": object()}) is None
    assert portable_params("chat", {"temperature": float("nan")}, {}) is None
    with pytest.raises(ConfigError, match=r"portable=\['gpt-4o'\]"):
        SemanticCache(portable="gpt-4o")
