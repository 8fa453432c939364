"""Answers of a batch that were paid before: how the runner says to whoever keeps books what they would have taken."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from costopt.pricing import Usage
from costopt.usage import usage_of

__all__ = ["given_again", "usage_paid_before"]

_FIELD = "costopt_paid_before"


def given_again(usage: Mapping[str, Any]) -> dict[str, Any]:
    """A provider's usage with 0 tokens everywhere, or they would be counted twice, and beside them what it was.

    Example:
        >>> given_again({"prompt_tokens": 30})
        {'prompt_tokens': 0, 'costopt_paid_before': {'prompt_tokens': 30}}
    """
    return {**_nothing(usage), _FIELD: usage}


def usage_paid_before(usage: Any) -> Usage | None:
    """What it was; None if nobody paid before.

    Args:
        usage: As the framework hands it on.

    Example:
        >>> usage_paid_before(given_again({"prompt_tokens": 30, "completion_tokens": 12}))
        Usage(input_tokens=30, output_tokens=12, ...)
    """
    return usage_of(usage.get(_FIELD)) if isinstance(usage, Mapping) else None


def _nothing(usage: Any) -> Any:
    if isinstance(usage, Mapping):
        return {name: _nothing(value) for name, value in usage.items()}
    return 0 if isinstance(usage, int | float) and not isinstance(usage, bool) else usage
