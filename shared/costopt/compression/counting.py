"""Counting tokens as the model that will be paid does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from costopt._minilm import _printable
from costopt.errors import ConfigError
from costopt.tokens import count_tokens

__all__ = ["Counter"]

_REMEMBERED = 16_384
_SHORT_CHARS = 400


class Counter:
    """Tokens of a text: `Counter(model)(text)`.

    Args:
        model: The name of a model, as `costopt.tokens` takes it; or a tokenizer (of tiktoken, tokenizers or
            transformers), or a function from a text to a number of tokens.

    Raises:
        ConfigError: `model` is none of these; or, when it is called, it counts no whole number of at least 0.

    Example:
        >>> count = Counter("gpt-4o")
        >>> count("How do I reset my password?"), count.by, count.exact
        (7, 'o200k_base', True)
        >>> Counter(len)("abc")
        3
    """

    def __init__(self, model: str | Callable[[str], int] | Any = "gpt-4o") -> None:
        self._memo: dict[str, int] = {}
        self._model: Any = model._model if isinstance(model, Counter) else model
        self._count = self._by_name if isinstance(self._model, str) else _counting(self._model)

    @property
    def by(self) -> str:
        """What counts, e.g. "o200k_base", "estimate", or the name of the tokenizer or function."""
        if isinstance(self._model, str):
            return count_tokens("", self._model).by
        return str(getattr(self._model, "name", None) or getattr(self._model, "__name__", type(self._model).__name__))

    @property
    def exact(self) -> bool:
        """Whether the model's own tokenizer counts; one that was handed in is taken to be that."""
        return not isinstance(self._model, str) or count_tokens("", self._model).exact

    def __call__(self, text: str) -> int:
        """Tokens of `text`; 0 if it is empty."""
        if not text:
            return 0
        if len(text) > _SHORT_CHARS:
            return self._count(text)
        known = self._memo.get(text)
        if known is None:
            known = self._count(text)
            if len(self._memo) >= _REMEMBERED:
                self._memo.clear()
            self._memo[text] = known
        return known

    def _by_name(self, text: str) -> int:
        return count_tokens(text, self._model).tokens


def _counting(model: Any) -> Callable[[str], int]:
    """How to count with a tokenizer or function."""
    if hasattr(model, "encode_ordinary"):  # tiktoken, whose encode() refuses the names of special tokens
        return lambda text: len(model.encode_ordinary(text))
    if hasattr(model, "to_str") and hasattr(model, "no_truncation"):  # tokenizers
        whole = type(model).from_str(model.to_str())
        whole.no_truncation()
        whole.no_padding()
        return lambda text: len(whole.encode(_printable(text), add_special_tokens=False).ids)
    if hasattr(model, "convert_tokens_to_ids") and callable(model):  # transformers
        return lambda text: len(
            model(_printable(text), add_special_tokens=False, truncation=False, verbose=False)["input_ids"]
        )
    if callable(model):
        return lambda text: _whole(model(text), model)
    raise ConfigError(f"model={model!r}: give the name of a model, a tokenizer, or a function that counts tokens")


def _whole(counted: Any, model: Any) -> int:
    if isinstance(counted, bool) or not hasattr(counted, "__index__") or counted < 0:
        raise ConfigError(f"{model!r} counted {counted!r} tokens: it must give a whole number of at least 0")
    return int(counted)
