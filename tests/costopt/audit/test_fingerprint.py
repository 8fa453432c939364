"""Requests that ask the same share a hash, others do not; and nothing of their words is in it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from costopt.audit.fingerprint import fingerprint, text_of

SYSTEM = {"role": "system", "content": "You are brief."}
ASKED = {"role": "user", "content": "Why is the sky blue?"}
TOOL = {"name": "weather", "description": "The weather of a city", "parameters": {"type": "object"}}

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


def called(name: str) -> list[dict[str, Any]]:
    """A conversation in which a tool was called."""
    call = {"id": name, "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    return [
        ASKED,
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": name, "content": "rain"},
    ]


def test_ids_made_for_a_conversation_do_not_count() -> None:
    assert fingerprint(called("call_1")).prompt_hash == fingerprint(called("call_2")).prompt_hash
    assert fingerprint([{**ASKED, "id": "run-7"}]).prompt_hash == fingerprint([ASKED]).prompt_hash


def test_what_changes_the_answer_changes_the_hash() -> None:
    hashes = {
        fingerprint([ASKED]).prompt_hash,
        fingerprint([SYSTEM, ASKED]).prompt_hash,
        fingerprint([SYSTEM, ASKED], [TOOL]).prompt_hash,
        fingerprint([SYSTEM, ASKED], params={"temperature": 0.5}).prompt_hash,
        fingerprint([SYSTEM, ASKED], params={"temperature": 0.7}).prompt_hash,
        fingerprint([{**ASKED, "content": ASKED["content"] + " "}]).prompt_hash,
        fingerprint([ASKED, ASKED]).prompt_hash,
    }
    assert len(hashes) == 7


def test_what_does_not_change_it_does_not() -> None:
    plain = fingerprint([ASKED], params={"temperature": 0.5})
    dressed = {"temperature": 0.5, "stream": True, "api_key": "sk-1", "user": "u", "model": "m", "top_p": None}
    assert fingerprint([ASKED], params=dressed).prompt_hash == plain.prompt_hash


def test_the_shape_says_where_the_characters_are() -> None:
    history = [ASKED, {"role": "assistant", "content": "It scatters."}]
    found = fingerprint([SYSTEM, *history, {"role": "user", "content": "And red?"}], [TOOL])
    shape = found.shape
    assert (shape.system, shape.history, shape.question) == (14, 20 + 12, 8)
    assert (shape.tools_offered, shape.tools) == (1, len(json.dumps([TOOL])))
    assert found.question_hash == fingerprint([{"role": "user", "content": "And red?"}]).question_hash


def test_requests_of_one_template_share_the_hash_of_their_system_prompt() -> None:
    one, other = fingerprint([SYSTEM, ASKED]), fingerprint([SYSTEM, {"role": "user", "content": "x"}])
    assert one.shape.system_hash == other.shape.system_hash is not None
    assert fingerprint([ASKED]).shape.system_hash is None


def test_text_is_read_out_of_blocks() -> None:
    blocks = [{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": "x"}}, "this?"]
    assert text_of(blocks) == "What is\nthis?"
    assert text_of(None) == ""


@settings(max_examples=40)
@given(st.lists(st.dictionaries(st.sampled_from(["role", "content", "tool_calls", "name"]), JSON)), st.lists(JSON))
def test_no_prompt_is_too_odd(messages: list[dict[str, Any]], tools: list[Any]) -> None:
    found = fingerprint(messages, tools)
    assert found == fingerprint(json.loads(json.dumps(messages)), json.loads(json.dumps(tools)))
    assert len(found.prompt_hash) == 32


def test_half_a_character_has_a_hash() -> None:
    assert fingerprint([{"role": "user", "content": "\ud83d"}]).question_hash is not None
