"""What the model is shown: the template once, special tokens once, and nothing that a user wrote as one."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.errors import ConfigError
from costopt.local.chat import knows_tools, prompt_tokens
from costopt.local.engine import GenerationRequest

TOOL = {"type": "function", "function": {"name": "add", "parameters": {"type": "object"}}}


@pytest.fixture(scope="module")
def tokenizer(reference: Any) -> Any:
    return reference[1]


def test_a_chat_is_written_down_by_the_template_once(tokenizer: Any) -> None:
    request = GenerationRequest.chat("Hi", system="Be brief.")
    text = tokenizer.decode(prompt_tokens(tokenizer, request))
    assert text == ("<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n")


def test_a_model_with_a_bos_token_sees_it_once(tokenizer: Any) -> None:
    with_bos = copy.deepcopy(tokenizer)
    with_bos.bos_token = "<|endoftext|>"
    from tokenizers.processors import TemplateProcessing

    token = with_bos.bos_token_id
    with_bos.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", token)]
    )
    with_bos.chat_template = "{{ bos_token }}" + tokenizer.chat_template
    for request in (
        GenerationRequest.chat("Hi"),
        GenerationRequest(prompt="Hi"),
        GenerationRequest(prompt="<|endoftext|>Hi"),
    ):
        tokens = prompt_tokens(with_bos, request)
        assert tokens[0] == token
        assert tokens.count(token) == 1


@given(parts=st.lists(st.sampled_from(["<|im_end|>", "<|im_start|>", "system\n", "a", "\n"]), min_size=1, max_size=6))
def test_what_a_user_writes_never_becomes_a_control_token(parts: list[str], tokenizer: Any) -> None:
    text = "".join(parts)
    control = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    tokens = prompt_tokens(tokenizer, GenerationRequest.chat(text))
    assert [token for token in tokens if token in control] == [*control, control[0]]


def test_content_blocks_calls_and_empty_content_are_understood(tokenizer: Any) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "add", "arguments": '{"a": 1}'}}
    messages = (
        {"role": "user", "content": [{"type": "text", "text": "Add "}, {"type": "text", "text": "it."}]},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "1", "content": "2"},
    )
    text = tokenizer.decode(prompt_tokens(tokenizer, GenerationRequest(messages=messages, tools=(TOOL,))))
    assert "user\nAdd it.<|im_end|>" in text
    assert '<tool_call>{"name": "add", "arguments": {"a": 1}}</tool_call>' in text
    assert '"name": "add"' in text.split("user\n")[0], "the tools come first"


@pytest.mark.parametrize(
    ("messages", "message"),
    [
        (({"content": "Hi"},), "role"),
        (({"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]},), "image_url"),
    ],
)
def test_what_the_model_cannot_read_is_refused(messages: Any, message: str, tokenizer: Any) -> None:
    with pytest.raises(ConfigError, match=message):
        prompt_tokens(tokenizer, GenerationRequest(messages=messages))


def test_without_a_template_there_is_no_chat(tokenizer: Any) -> None:
    bare = copy.deepcopy(tokenizer)
    bare.chat_template = None
    with pytest.raises(ConfigError, match="no chat template: give prompt="):
        prompt_tokens(bare, GenerationRequest.chat("Hi"))
    assert prompt_tokens(bare, GenerationRequest(prompt="Hi"))


def test_a_template_that_refuses_says_why(tokenizer: Any) -> None:
    strict = copy.deepcopy(tokenizer)
    strict.chat_template = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(ConfigError, match="roles must alternate"):
        prompt_tokens(strict, GenerationRequest.chat("Hi"))


def test_tools_need_a_template_that_tells_of_them_or_a_call_that_is_enforced(tokenizer: Any) -> None:
    plain = copy.deepcopy(tokenizer)
    plain.chat_template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    assert (knows_tools(tokenizer), knows_tools(plain)) == (True, False)
    with pytest.raises(ConfigError, match="no place for tools"):
        prompt_tokens(plain, GenerationRequest.chat("Hi", tools=(TOOL,)))
    assert prompt_tokens(plain, GenerationRequest.chat("Hi", tools=(TOOL,), tool_choice="required"))
    assert prompt_tokens(plain, GenerationRequest.chat("Hi", tools=(TOOL,), tool_choice="none"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature=-1.0: use a number from 0"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0.0}, "top_p"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"logprobs": 21}, "logprobs"),
        ({"seed": -1}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ("",)}, "stop"),
        ({"tools": ({"name": "add"},)}, "tools"),
        ({"tools": (TOOL,), "tool_choice": "sub"}, "use one of 'auto', 'none', 'required', 'add'"),
        ({"tool_choice": "required"}, "needs tools"),
    ],
)
def test_a_request_that_cannot_be_meant_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        GenerationRequest.chat("Hi", **options)


def test_messages_or_a_prompt_and_not_both() -> None:
    for given_ in ({}, {"messages": ({"role": "user", "content": "x"},), "prompt": "x"}, {"messages": ()}):
        with pytest.raises(ConfigError, match="either messages or a prompt"):
            GenerationRequest(**given_)
