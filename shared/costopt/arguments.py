"""What arguments must be like: one check for each kind, so that a wrong one is told of where it is given."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from numbers import Integral, Real
from typing import Any

from costopt.errors import ConfigError
from costopt.pricing import Price

__all__ = ["able", "is_list", "known_options", "names", "number", "price", "prices", "switch", "text", "whole"]


def able(what: str, value: Any, method: str, mend: str) -> None:
    """Refuse what lacks a method, and a class in place of an object of it.

    Args:
        what: The argument's name.
        value: What was given.
        method: What it must have, e.g. "check"; "__call__" of a function.
        mend: What would be right.

    Raises:
        ConfigError: If it lacks it.
    """
    if isinstance(value, type) or not callable(getattr(value, method, None)):
        raise ConfigError(f"{what}={value!r:.200}: {mend}")


def is_list(value: Any) -> bool:
    """Whether it is several things; neither a text, which is read as letters, nor a model of pydantic's, as fields."""
    return isinstance(value, Collection | Iterator) and not isinstance(value, str | bytes)


def names(what: str, value: Any) -> tuple[Any, ...]:
    """The names in a list.

    Raises:
        ConfigError: If it is none, such as one bare name, which would be read as letters.

    Example:
        >>> names("regions", "eu")
        Traceback (most recent call last):
        ...
        costopt.errors.ConfigError: regions='eu': give a list, as in regions=['eu']
    """
    if not is_list(value):
        shown = value if isinstance(value, str) else "name"
        raise ConfigError(f"{what}={value!r:.200}: give a list, as in {what}=[{shown!r:.200}]")
    return tuple(value)


def known_options(whose: str, given: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that are not known, and say which are.

    Raises:
        ConfigError: If there is one.
    """
    listed = list(known)
    unknown = sorted(set(given) - set(listed))
    if unknown:
        raise ConfigError(f"{whose} has no option {', '.join(unknown)}: it has {', '.join(listed)}")


def number(what: str, value: Any, fits: Callable[[Any], bool], mend: str) -> None:
    """Refuse what is no number, or one that does not fit.

    Args:
        what: The argument's name.
        value: What was given.
        fits: Whether a number is in range; must say no to NaN.
        mend: What would be right.

    Raises:
        ConfigError: If it is none.

    Example:
        >>> number("ttl", "1h", lambda ttl: ttl > 0, "seconds above 0, as in ttl=3600")
        Traceback (most recent call last):
        ...
        costopt.errors.ConfigError: ttl='1h': give seconds above 0, as in ttl=3600
    """
    if isinstance(value, bool) or not isinstance(value, Real) or not fits(value):
        raise ConfigError(f"{what}={value!r:.200}: give {mend}")


def price(what: str, value: Any) -> Price:
    """A price.

    Raises:
        ConfigError: If it is none.
    """
    if not isinstance(value, Price):
        raise ConfigError(
            f"{what}={value!r:.200}: give a Price(input, output) in dollars per million tokens, as in Price(0.15, 0.60)"
        )
    return value


def prices(what: str, value: Any) -> dict[str, Price]:
    """Prices by the names of models; None is none.

    Raises:
        ConfigError: If it is no mapping of names to prices.
    """
    if not isinstance(value, Mapping | None):
        raise ConfigError(f'{what}={value!r:.200}: give them by name, as in {what}={{"my-model": Price(0.15, 0.60)}}')
    return {name: price(f"{what}[{name!r}]", each) for name, each in (value or {}).items()}


def switch(what: str, value: Any) -> None:
    """Refuse what is neither True nor False: "no" would count as yes.

    Raises:
        ConfigError: If it is neither.
    """
    if not isinstance(value, bool):
        raise ConfigError(f"{what}={value!r:.200}: give True or False")


def text(what: str, value: Any) -> None:
    """Refuse what is no text.

    Raises:
        ConfigError: If it is none.
    """
    if not isinstance(value, str):
        raise ConfigError(f"{what}={value!r:.200}: give a text")


def whole(what: str, value: Any, of: str) -> None:
    """Refuse what is no whole number above 0.

    Args:
        what: The argument's name.
        value: What was given.
        of: What it counts, e.g. "tokens".

    Raises:
        ConfigError: If it is none.
    """
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"{what}={value!r:.200}: give a number of {of} above 0")
