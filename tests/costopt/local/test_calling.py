"""From a framework's call to a request: what goes first, what is refused, what tools may take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.errors import ConfigError
from costopt.local.calling import SETTINGS, request_for, tool_choice_of

ADD: dict[str, Any] = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}

values = st.fixed_dictionaries(
    {},
    optional={
        "temperature": st.floats(0, 2),
        "max_tokens": st.integers(1, 100),
        "top_p": st.floats(0.1, 1),
        "seed": st.integers(0, 9),
        "logprobs": st.integers(0, 5),
        "stop": st.lists(st.text(min_size=1), max_size=2),
    },
)


@given(values, values)
def test_a_call_goes_before_the_model_setting_by_setting(settings: dict[str, Any], call: dict[str, Any]) -> None:
    request = request_for("Hello", settings, call)
    for name in SETTINGS:
        wanted = call.get(name, settings.get(name))
        found: Any = getattr(request, name)
        assert (list(found) if name == "stop" else found) == ((wanted or []) if name == "stop" else wanted)


def test_a_tool_takes_no_arguments_but_those_it_declares() -> None:
    said_open = {"name": "any", "parameters": {"type": "object", "additionalProperties": True}}
    tools = [ADD, {"type": "function", "function": said_open}, {"type": "function", "function": {"name": "none"}}]
    closed, opened, bare = request_for("?", {}, {"tools": tools}).tools
    assert closed["function"]["parameters"] == {"type": "object", "additionalProperties": False}
    assert opened["function"] == said_open
    assert bare["function"] == {"name": "none"}
    assert ADD["function"]["parameters"] == {"type": "object"}, "what the caller holds is left as it was"


def test_log_probabilities_by_either_name() -> None:
    assert request_for("?", {"logprobs": True}, {}).logprobs == 0
    assert request_for("?", {}, {"logprobs": True, "top_logprobs": 3}).logprobs == 3
    assert request_for("?", {"logprobs": 3}, {"logprobs": False}).logprobs is None


def test_what_is_none_or_of_no_consequence_is_let_through() -> None:
    call = {"stream": True, "strict": True, "verbose": False, "frequency_penalty": None}
    assert request_for("?", {}, call).prompt == "?"
    with pytest.raises(ConfigError, match="no option frequency_penalty"):
        request_for("?", {}, {"frequency_penalty": 0.5})


def test_a_choice_of_nothing() -> None:
    assert tool_choice_of(None, ["add"]) is None
    assert tool_choice_of(False, ["add"]) is None
    with pytest.raises(ConfigError, match="no tool at all"):
        tool_choice_of("add", [])
