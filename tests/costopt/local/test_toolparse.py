"""Tool calls are found in every format that models write, and nothing else is taken for one."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.local.toolparse import CallFinder, find_calls, template_parser

NAMES = {"add", "now"}
ADD = {"a": 1, "b": "x; y"}
WRITTEN = json.dumps({"name": "add", "arguments": ADD})

FORMATS = {
    "hermes": f"<tool_call>\n{WRITTEN}\n</tool_call>",
    "hermes, stopped by its last token": f"<tool_call>\n{WRITTEN}\n",
    "qwen coder": "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n<parameter=b>\nx; y\n</parameter>\n"
    "</function>\n</tool_call>",
    "mistral": f"[TOOL_CALLS] [{WRITTEN}]",
    "mistral, newer": f"[TOOL_CALLS]add[ARGS]{json.dumps(ADD)}",
    "llama": f"<|python_tag|>{json.dumps({'name': 'add', 'parameters': ADD})}",
    "llama, bare": json.dumps({"name": "add", "parameters": ADD}),
    "llama, as OpenAI has it": json.dumps({"type": "function", "function": {"name": "add", "arguments": ADD}}),
    "llama 3.1": f"<function=add>{json.dumps(ADD)}</function>",
    "pythonic": "[add(a=1, b='x; y')]",
}


@pytest.mark.parametrize("text", FORMATS.values(), ids=FORMATS)
def test_every_format_is_understood(text: str) -> None:
    left, (call,) = find_calls(text, NAMES)
    assert left == ""
    assert call.name == "add"
    assert json.loads(call.arguments) == ADD
    assert call.id.startswith("call_")


@pytest.mark.parametrize(
    "text",
    [
        f"<tool_call>{WRITTEN}</tool_call>\n<tool_call>" + '{"name": "now", "arguments": {}}</tool_call>',
        f'[TOOL_CALLS] [{WRITTEN}, {{"name": "now", "arguments": {{}}}}]',
        f"[TOOL_CALLS]add[ARGS]{json.dumps(ADD)}[TOOL_CALLS]now[ARGS]{{}}",
        f'<|python_tag|>{WRITTEN}; {{"name": "now", "parameters": {{}}}}',
        "[add(a=1, b='x; y'), now()]",
    ],
)
def test_several_calls_keep_their_order_and_have_ids_of_their_own(text: str) -> None:
    _, calls = find_calls(text, NAMES)
    assert [call.name for call in calls] == ["add", "now"]
    assert len({call.id for call in calls}) == 2


@pytest.mark.parametrize(
    "text",
    [
        "",
        "The sum is 3.",
        '{"name": "Anna", "arguments": {}}',  # a thing that has a name
        '{"name": "add", "arguments": 3}',
        '{"name": "add", "argum',
        "<tool_call>not json</tool_call>",
        "<tool_call></tool_call>",
        '<tool_call>{"name": "rm", "arguments": {}}</tool_call>',  # not on offer
        "[TOOL_CALLS]",
        "[TOOL_CALLS]add",
        "[add(1)]",
        "[add(a=__import__('os'))]",
        "[" * 5_000,
        '{"a":' * 5_000,
        "<function=add>[1]</function>",
    ],
)
def test_what_is_no_call_of_a_known_function_stays_text(text: str) -> None:
    assert find_calls(text, NAMES) == (text, ())


@given(
    before=st.sampled_from(["", "Let me see. ", "a < b [1] {x} "]),
    call=st.sampled_from([*FORMATS.values(), "", "no call"]),
    cuts=st.lists(st.integers(0, 120)),
)
def test_streamed_or_not_the_same_is_found(before: str, call: str, cuts: list[int]) -> None:
    text = before + call
    whole, calls = find_calls(text, NAMES)
    finder = CallFinder(NAMES)
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    shown = "".join(finder.add(text[a:b]) for a, b in itertools.pairwise(places))
    rest, found = finder.end()
    assert [(each.name, each.arguments) for each in found] == [(each.name, each.arguments) for each in calls]
    assert (shown + rest).strip() == whole.strip()


def test_text_that_cannot_be_a_call_is_not_held_back() -> None:
    finder = CallFinder(NAMES)
    assert finder.add("It is 3 < 4") == "It is 3 < 4"
    assert finder.add(" and <to") == " and "
    assert finder.add("p>") == "<top>"


def test_the_tokenizers_own_template_comes_first(reference: Any) -> None:
    class Tokenizer:
        response_template = "whatever it may be"

        def parse_response(self, made: list[int], *, prefix: list[int], tools: list[Any]) -> dict[str, Any]:
            assert (made, prefix) == ([3], [1, 2])
            call = {"type": "function", "function": {"name": "add", "arguments": {"a": 7}}}
            return {"role": "assistant", "content": "I add.", "tool_calls": [call]}

    tool = {"type": "function", "function": {"name": "add", "parameters": {}}}
    parse = template_parser(Tokenizer(), [1, 2], (tool,))
    assert parse is not None
    text, (call,) = parse([3])
    assert (text, call.name, call.arguments) == ("I add.", "add", '{"a": 7}')
    assert template_parser(reference[1], [1], (tool,)) is None, "this tokenizer has none"
