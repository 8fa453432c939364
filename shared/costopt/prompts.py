"""A prompt that carries its context with it, and the question in it."""

from __future__ import annotations

from collections.abc import Callable

from costopt.errors import ConfigError

__all__ = ["Split", "checked_split", "parted"]

Split = str | Callable[[str], tuple[str, str]]
"""How to part a prompt into (context, question): a marker that stands before the question, or a function."""


def parted(split: Split, text: str) -> tuple[str, str]:
    """The context and the question; where the marker is missing, all of it is the question.

    Args:
        split: The marker, whose last place counts, or a function.
        text: The prompt.

    Example:
        >>> parted("Question: ", "Rain is wet. Question: Is it?")
        ('Rain is wet. ', 'Is it?')
        >>> parted("Question: ", "Is it?")
        ('', 'Is it?')
    """
    if not isinstance(split, str):
        return split(text)
    context, marker, question = text.rpartition(split)
    return (context, question) if marker else ("", text)


def checked_split(split: Split | None) -> Split | None:
    """The same, once it is known to be of use.

    Raises:
        ConfigError: If it is neither a marker nor a function.

    Example:
        >>> checked_split("Question: ")
        'Question: '
    """
    if split is None or callable(split) or (isinstance(split, str) and split):
        return split
    raise ConfigError(
        f"split is {split!r}: give what stands before the question, e.g. split='Question: ', or a function"
    )
