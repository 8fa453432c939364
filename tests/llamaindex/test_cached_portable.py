"""One store under a LangChain and a LlamaIndex process: each is served what the other asked, where so declared."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError, SemanticCache
from costopt.caching.portable import portable_params
from tests.faults.words import Process
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


def test_what_is_no_data_is_not_portable() -> None:
    assert portable_params("chat", {}, {"response_format": object()}) is None
    assert portable_params("chat", {"temperature": float("nan")}, {}) is None
    with pytest.raises(ConfigError, match=r"portable=\['gpt-4o'\]"):
        SemanticCache(portable="gpt-4o")
