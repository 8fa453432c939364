"""Sums in an answer, worked out again: models that slip often slip in plain sight."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["Equation", "equations", "numbers"]

_NUMBER = r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+"
# No alternative begins as another one does, and none is repeated: reading takes time in proportion to the text.
_TOKEN = re.compile(rf"{_NUMBER}|[^\W\d_]+|\S")
_FIGURE = re.compile(_NUMBER)
_SIGNS = {"+": "+", "-": "-", "*": "*", "/": "/", "×": "*", "·": "*", "÷": "/", "−": "-", "–": "-", "x": "*", "X": "*"}
_CURRENCIES = frozenset("$€£¥")
_MOST = 60  # sums of one answer that are worked out
_MOST_TOKENS = 60  # of one sum
_MOST_CHARS = 20_000


@dataclass(frozen=True, slots=True)
class Equation:
    """A sum as it stands in a text.

    Attributes:
        left: What is to be worked out, without units and currencies.
        claimed: What the text says it comes to.
        value: What it comes to.
    """

    left: str
    claimed: float
    value: float

    @property
    def wrong(self) -> bool:
        """Whether it does not add up, allowing for rounding and for percent read either way."""
        return not any(
            math.isclose(self.value * factor, self.claimed, rel_tol=0.006, abs_tol=0.011) for factor in (1, 100, 0.01)
        )


def equations(text: str) -> list[Equation]:
    """The sums of a text, `<<3*20=60>>` and plain ones, in their order; at most 60.

    What has unknowns in it, or a sum on both sides, is passed over.

    Example:
        >>> [found.wrong for found in equations("3 x 20 = <<3*20=60>>60, and 60 + 5 apples = 66.")]
        [False, True]
    """
    tokens = _TOKEN.findall(text[:_MOST_CHARS])
    found: list[Equation] = []
    for place, part in enumerate(tokens):
        if part != "=" or len(found) == _MOST:
            continue
        claimed, terms = _claimed(tokens, place + 1), _terms(tokens, place - 1)
        value = _value(terms) if claimed is not None else None
        if claimed is not None and value is not None:
            found.append(Equation(" ".join(terms), claimed, value))
    return found


def numbers(text: str) -> list[float]:
    """The figures of a text, in their order.

    Example:
        >>> numbers("1,200 llamas and 3.5 alpacas")
        [1200.0, 3.5]
    """
    found = (_float(figure) for figure in _FIGURE.findall(text[:_MOST_CHARS]))
    return [value for value in found if math.isfinite(value)]


def _float(figure: str) -> float:
    return float(figure.replace(",", ""))


def _is_number(tokens: Sequence[str], place: int) -> bool:
    # Of the tokens only numbers begin with a digit; a figure of another script is left alone.
    return 0 <= place < len(tokens) and tokens[place][-1:].isdecimal() and tokens[place].isascii()


def _claimed(tokens: Sequence[str], place: int) -> float | None:
    """The number that stands after "=", if it stands alone."""
    negative = False
    while place < len(tokens) and (tokens[place] in _CURRENCIES or tokens[place] in "-−"):
        negative |= tokens[place] in "-−"
        place += 1
    if not _is_number(tokens, place):
        return None
    value, after = _float(tokens[place]), place + 1
    goes_on = after < len(tokens) and tokens[after] in _SIGNS
    return None if goes_on or not math.isfinite(value) else -value if negative else value


def _terms(tokens: Sequence[str], place: int) -> list[str]:
    """The sum that ends at `place`, from left to right; empty if there is none, or a term of it is unknown."""
    terms: list[str] = []
    first = max(0, place - _MOST_TOKENS)
    while place >= first:
        part = tokens[place]
        if _is_number(tokens, place) or part in "()%":
            terms.append(part)
        elif part in _SIGNS and not _is_unit(tokens, place):
            terms.append(_SIGNS[part])
        elif part not in _CURRENCIES:
            step = _unit(tokens, place)
            if not step:
                break
            place -= step - 1
        place -= 1
    unknown = place >= 0 and (tokens[place].isalpha() or place < first)
    terms.reverse()
    if terms and terms[0] in ("+", "*", "/", "-") and (unknown or terms[0] != "-"):
        return []
    return terms


def _is_unit(tokens: Sequence[str], place: int) -> bool:
    """Whether an x is a unit or an unknown, and no sign: "2x = 28"."""
    return tokens[place].isalpha() and not (
        _is_number(tokens, place + 1) or tokens[place + 1 : place + 2] in (["("], *([each] for each in _CURRENCIES))
    )


def _unit(tokens: Sequence[str], place: int) -> int:
    """How many tokens, up to this one, are the unit of a number: "meters", "meters/sprint"; 0: none."""
    if not tokens[place].isalpha():
        return 0
    if _is_number(tokens, place - 1) or (place and tokens[place - 1] == "%"):
        return 1
    compound = place >= 3 and tokens[place - 1] == "/" and tokens[place - 2].isalpha() and _is_number(tokens, place - 3)
    return 3 if compound else 0


def _value(terms: list[str]) -> float | None:
    """What a sum comes to, by the usual precedence; None if it is none."""
    if not any(term in "+-*/" for term in terms[1:]):
        return None
    try:
        value, rest = _plus(terms)
    except (IndexError, ValueError, ZeroDivisionError, OverflowError):
        return None
    return value if not rest and math.isfinite(value) else None


def _plus(terms: list[str]) -> tuple[float, list[str]]:
    value, terms = _times(terms)
    while terms and terms[0] in "+-":
        sign, (other, terms) = terms[0], _times(terms[1:])
        value = value + other if sign == "+" else value - other
    return value, terms


def _times(terms: list[str]) -> tuple[float, list[str]]:
    value, terms = _atom(terms)
    while terms and terms[0] in "*/":
        sign, (other, terms) = terms[0], _atom(terms[1:])
        value = value * other if sign == "*" else value / other
    return value, terms


def _atom(terms: list[str]) -> tuple[float, list[str]]:
    if terms[0] == "-":
        value, rest = _atom(terms[1:])
        return -value, rest
    if terms[0] == "(":
        value, rest = _plus(terms[1:])
        if not rest or rest[0] != ")":
            raise ValueError("a bracket is open")
        rest = rest[1:]
    else:
        value, rest = _float(terms[0]), terms[1:]
    return (value / 100, rest[1:]) if rest and rest[0] == "%" else (value, rest)
