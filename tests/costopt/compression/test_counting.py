"""A text has as many tokens as its model counts, by whatever tokenizer is handed in."""

from __future__ import annotations

from typing import Any

import pytest

from costopt import ConfigError
from costopt.compression import Counter
from costopt.tokens import count_tokens

TEXTS = ("", "How do I reset my password?", "<|endoftext|> [SEP]", "x" * 1_000, "half a \ud83d character", "在北京 😀")


@pytest.mark.parametrize("model", ["gpt-4o", "gpt-4", "claude-haiku-4-5"])
@pytest.mark.parametrize("text", TEXTS)
def test_a_model_by_name_is_counted_as_costopt_counts(model: str, text: str) -> None:
    count, known = Counter(model), count_tokens(text, model)
    assert (count(text), count.exact, count.by) == (known.tokens, known.exact, known.by)
    assert count(text) == known.tokens, "from memory, too"


def test_tiktoken() -> None:
    import tiktoken

    from costopt.tokens import _tokenizer

    encoding = _tokenizer("cl100k_base")
    assert isinstance(encoding, tiktoken.Encoding)
    count = Counter(encoding)
    assert [count(text) for text in TEXTS] == [count_tokens(text, "gpt-4").tokens for text in TEXTS]
    assert (count.by, count.exact) == ("cl100k_base", True)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    from tokenizers import Tokenizer, models, pre_tokenizers, processors

    made = Tokenizer(models.WordLevel({"[UNK]": 0, "[CLS]": 1, "one": 2}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="[CLS] $A", special_tokens=[("[CLS]", 1)])
    made.enable_truncation(3)
    made.enable_padding(length=10)
    return made


def test_a_tokenizer_counts_neither_what_it_adds_nor_only_what_it_leaves(tokenizer: Any) -> None:
    """Special tokens and padding are not the text's; truncation is for models, not for counting."""
    count = Counter(tokenizer)
    assert count("one two three four five") == 5
    assert count("one \ud800 two") == 3
    assert tokenizer.truncation["max_length"] == 3, "the caller's own is left as it was"
    assert count.by == "Tokenizer"


def test_a_tokenizer_of_transformers(tokenizer: Any) -> None:
    from transformers import PreTrainedTokenizerFast

    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=3)
    assert Counter(wrapped)("one two three four five") == 5


def test_a_function() -> None:
    count = Counter(lambda text: len(text.split()))
    assert count("one two") == 2
    assert Counter(count)("one two") == 2
    assert count.exact


@pytest.mark.parametrize("wrong", [lambda text: -1, lambda text: 1.5, lambda text: None, lambda text: True])
def test_a_function_that_counts_no_tokens_is_named(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="whole number"):
        Counter(wrong)("text")


def test_what_cannot_count_is_refused() -> None:
    with pytest.raises(ConfigError, match="name of a model"):
        Counter(12)
