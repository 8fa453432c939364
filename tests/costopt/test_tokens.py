"""Token counts: the model's own where its vocabulary is at hand, else an estimate that says so; never a download."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.tokens import TokenCount, count_tokens, encoding_of, estimate_tokens, most_tokens

TEXTS = [
    "The quick brown fox jumps over the lazy dog, and then sleeps for a while under an old tree.",
    "def main(argv: list[str]) -> int:\n    return sum(len(word) for word in argv)\n",
    "如何重置我的密码？请帮助我。今天天气很好，我们去公园吧。",
    "Как сбросить мой пароль? Помогите, пожалуйста, я не могу войти в систему.",
    '{"a":1,"b":[2,3,{"c":null}]}',
    "<|endoftext|> is plain text in a prompt",
]


def test_openai_models_are_counted_with_their_own_vocabulary() -> None:
    assert count_tokens("tiktoken is great!", "gpt-4") == TokenCount(6, True, "cl100k_base")
    assert count_tokens("tiktoken is great!", "gpt-4o").by == "o200k_base"
    assert count_tokens("<|endoftext|>", "gpt-4o").tokens > 1  # special tokens in a text are text


def test_others_are_estimated_and_the_count_says_so() -> None:
    count = count_tokens(TEXTS[0], "claude-haiku-4-5")
    assert (count.exact, count.by) == (False, "estimate")


@pytest.mark.parametrize("text", TEXTS)
def test_the_estimate_is_near_and_the_bound_holds(text: str) -> None:
    counted = count_tokens(text, "gpt-4o").tokens
    assert 0.4 <= estimate_tokens(text) / counted <= 2.5
    assert most_tokens(text) >= counted


@given(st.text(max_size=200))
def test_no_text_has_more_tokens_than_bytes(text: str) -> None:
    assert count_tokens(text, "gpt-4o").tokens <= most_tokens(text)


def test_messages_count_their_words_and_their_form() -> None:
    words = "What is in this picture?"
    plain = count_tokens([{"role": "user", "content": words}], "gpt-4o")
    assert not plain.exact  # what the form adds is the provider's business
    assert plain.tokens == count_tokens(words, "gpt-4o").tokens + 7
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64," + "A" * 100_000}}
    both = count_tokens([{"role": "user", "content": [{"type": "text", "text": words}, image]}], "gpt-4o")
    assert 500 < both.tokens - plain.tokens < 2000  # not the length of its base64
    call = {"name": "weather", "args": {"city": "Paris"}, "id": "call_1"}
    assert count_tokens([{"content": "", "tool_calls": [call]}], "gpt-4o").tokens > 15


@pytest.mark.parametrize(
    ("model", "encoding"),
    [
        ("gpt-4o-mini", "o200k_base"),
        ("gpt-4.1-nano", "o200k_base"),
        ("gpt-5.4", "o200k_base"),
        ("o3-mini", "o200k_base"),
        ("ft:gpt-4o-mini-2024-07-18:acme::x", "o200k_base"),
        ("openai/gpt-4-turbo", "cl100k_base"),
        ("gpt-3.5-turbo", "cl100k_base"),
        ("claude-sonnet-4-5", None),
        ("o", None),
    ],
)
def test_which_vocabulary_a_model_has(model: str, encoding: str | None) -> None:
    assert encoding_of(model) == encoding


def test_without_its_files_tiktoken_is_never_asked_to_fetch_them() -> None:
    code = (
        "import socket, sys\n"
        "def no(*args, **kwargs): raise AssertionError('it connects')\n"
        "socket.socket.connect = socket.getaddrinfo = no\n"
        "import costopt.tokens as tokens\n"
        "tokens._folders = lambda: iter(())\n"
        "print(tokens.count_tokens('How do I reset my password?', 'gpt-4o'))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "exact=False" in done.stdout
