"""Invariants of text and scope."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError
from costopt.caching import build_request
from costopt.caching.request import digest, normalise

# Lone surrogates and NUL are in it.
texts = st.text(st.characters(), max_size=60)
blocks = st.one_of(
    texts.map(lambda text: {"type": "text", "text": text}),
    texts.map(lambda url: {"type": "image_url", "image_url": {"url": url}}),
)
contents = st.one_of(texts, st.none(), st.lists(blocks, max_size=3))
messages = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant", "tool"]), "content": contents}),
    max_size=5,
)


def user(text: Any, *before: dict[str, Any], **options: Any) -> Any:
    return build_request([*before, {"role": "user", "content": text}], model="m", **options)


@given(messages)
def test_any_conversation_has_a_request_and_always_the_same(conversation: list[dict[str, Any]]) -> None:
    request = build_request(conversation, model="m")
    assert request == build_request(conversation, model="m")
    assert len(request.key) == len(request.scope) == 40
    assert request.text is None or request.text == normalise(request.text) != ""


@given(messages, texts)
def test_ids_usage_and_costs_change_nothing(conversation: list[dict[str, Any]], noise: str) -> None:
    noisy = [
        {**message, "extra": {"usage": noise, "total_cost": noise, "created": noise, "token_usage": {"n": noise}}}
        for message in conversation
    ]
    assert build_request(noisy, model="m") == build_request(conversation, model="m")


@given(texts, texts)
def test_the_last_text_is_in_the_key_and_not_in_the_scope(a: str, b: str) -> None:
    first, second = user(a), user(b)
    if first.text and second.text:
        assert (first.key == second.key) == (normalise(a) == normalise(b))
        assert first.scope == second.scope
    else:
        assert a == b or first.key != second.key


@given(texts, texts)
def test_system_prompts_share_a_scope_only_if_they_are_equal(a: str, b: str) -> None:
    scopes = [user("Hello", {"role": "system", "content": text}).scope for text in (a, b)]
    assert (scopes[0] == scopes[1]) == (a == b)


@given(texts.filter(str.strip), texts.filter(str.strip))
def test_tenants_share_a_scope_only_if_they_are_equal(a: str, b: str) -> None:
    assert (user("Hello", tenant=a).scope == user("Hello", tenant=b).scope) == (a == b)


@given(texts)
def test_a_lone_text_block_says_what_a_string_says(text: str) -> None:
    assert user([{"type": "text", "text": text}]).key == user(text).key or not normalise(text)


def test_an_empty_tenant_is_refused() -> None:
    for tenant in ("", "  "):
        with pytest.raises(ConfigError, match="tenant is empty"):
            user("Hello", tenant=tenant)


@pytest.mark.parametrize("content", ["", "  \n", None, [], [{"type": "text", "text": " "}]])
def test_without_human_text_nothing_matches_loosely(content: Any) -> None:
    assert user(content).text is None
    assert build_request([{"role": "system", "content": "Be kind."}], model="m").text is None


def test_moving_words_between_messages_changes_the_key() -> None:
    one = build_request([{"role": "system", "content": "ab"}, {"role": "user", "content": "c"}], model="m")
    two = build_request([{"role": "system", "content": "a"}, {"role": "user", "content": "bc"}], model="m")
    assert one.key != two.key


def test_an_id_that_names_content_is_scope_and_one_that_names_a_block_is_not() -> None:
    def shown(kind: str, name: str) -> str:
        return user([{"type": "text", "text": "What is this?"}, {"type": kind, "id": name}]).scope

    assert shown("image", "file-1") != shown("image", "file-2")
    assert shown("reasoning", "rs-1") == shown("reasoning", "rs-2")


def test_calls_are_told_apart_by_place_even_if_a_model_gives_them_one_id() -> None:
    def called(*ids: str) -> str:
        turns = []
        for call_id in ids:
            turns.append({"role": "assistant", "content": "", "tool_calls": [{"id": call_id, "name": "f", "args": {}}]})
            turns.append({"role": "tool", "content": "ok", "tool_call_id": call_id})
        return build_request([{"role": "user", "content": "Go"}, *turns], model="m").key

    assert called("a", "b") == called("c", "d") == called("e", "e")
    assert called("a") != called("a", "b")


def test_cache_markers_and_context_split() -> None:
    marked = [{"type": "text", "text": "Hello", "cache_control": {"type": "ephemeral"}}]
    assert user(marked).key == user("Hello").key
    split = user("Some context. Question: Who?", split="Question:")
    assert split.text == "Who?"
    assert split.scope != user("Other context. Question: Who?", split="Question:").scope
    assert user("No marker here", split="Question:").text == "No marker here"


@given(
    st.recursive(st.none() | st.booleans() | st.integers() | texts, lambda x: st.lists(x) | st.dictionaries(texts, x))
)
def test_a_digest_depends_on_its_value_only(value: Any) -> None:
    assert digest(value) == digest(value)
    assert digest(value) != digest([value])
