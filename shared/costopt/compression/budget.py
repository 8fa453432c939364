"""What was asked for: the texts, and how many tokens may be left of them."""

from __future__ import annotations

import math
from collections.abc import Sequence

from costopt.errors import ConfigError

__all__ = ["check_target", "target_of", "texts_of"]


def texts_of(text: str | Sequence[str]) -> tuple[str, ...]:
    """One text or several as a tuple.

    Raises:
        ConfigError: It is neither a text nor a sequence of texts.

    Example:
        >>> texts_of("one"), texts_of(["one", "two"])
        (('one',), ('one', 'two'))
    """
    if isinstance(text, str):
        return (text,)
    given: object = text  # a caller without types may hand in anything
    if isinstance(given, Sequence) and not isinstance(given, bytes | bytearray):
        for i, each in enumerate(given):
            if not isinstance(each, str):
                raise ConfigError(f"document {i} is of type {type(each).__name__}: give texts, e.g. its page_content")
        return tuple(given)
    raise ConfigError(f"what is to be compressed is of type {type(text).__name__}: give a text or a list of texts")


def check_target(target_ratio: float | None, target_tokens: int | None) -> None:
    """Raise ConfigError unless at most one target is given, and it can be meant.

    Example:
        >>> check_target(1.5, None)
        Traceback (most recent call last):
        costopt.errors.ConfigError: target_ratio=1.5: give the share of tokens to keep, above 0 and at most 1
    """
    if target_ratio is not None and target_tokens is not None:
        raise ConfigError("give target_ratio or target_tokens, not both")
    if target_ratio is not None and (
        isinstance(target_ratio, bool) or not isinstance(target_ratio, int | float) or not 0 < target_ratio <= 1
    ):
        raise ConfigError(f"target_ratio={target_ratio!r}: give the share of tokens to keep, above 0 and at most 1")
    if target_tokens is not None and (
        isinstance(target_tokens, bool) or not isinstance(target_tokens, int) or target_tokens < 1
    ):
        raise ConfigError(f"target_tokens={target_tokens!r}: give a whole number of at least 1")


def target_of(tokens_before: int, target_ratio: float | None, target_tokens: int | None) -> int:
    """The most tokens that may be left; all of them if there is no target.

    Raises:
        ConfigError: See `check_target`.

    Example:
        >>> target_of(1000, 0.3, None), target_of(1000, None, 200), target_of(100, None, 200), target_of(7, None, None)
        (300, 200, 100, 7)
    """
    check_target(target_ratio, target_tokens)
    if target_tokens is not None:
        return min(target_tokens, tokens_before)
    if target_ratio is None:
        return tokens_before
    # Rounded first: 0.29 * 100 is 28.999999999999996.
    return math.floor(round(target_ratio * tokens_before, 6))
