"""What the textbook promises of each lever, and whether a measurement bears it out."""

from __future__ import annotations

from dataclasses import dataclass

from cookbook.benchmarks.resample import Measured

__all__ = ["CLAIMS", "Claim", "verdict"]

_ROUNDING = 1e-9
_KEPT, _UNSURE, _BROKEN = "holds", "cannot be told", "**does not hold**"


@dataclass(frozen=True, slots=True)
class Claim:
    """A promise as it is worded, and in numbers.

    Attributes:
        words: "saves ... at ... quality", as promised.
        least: The least share that it saves.
        most: The most that it is said to save.
        lost: The most of the quality that it is said to cost.
    """

    words: str
    least: float
    most: float
    lost: float


# As the issue words it that asked for this table; it names no source but "the textbook".
CLAIMS = {
    "routing": Claim("50-70 % at under 5 % quality", 0.5, 0.7, 0.05),
    "semantic caching": Claim("20-40 % at 0 %", 0.2, 0.4, 0.0),
    "compression": Claim("30-50 % at 1-5 %", 0.3, 0.5, 0.05),
    "4-bit": Claim("40-60 % at 1-3 %", 0.4, 0.6, 0.03),
    "batch": Claim("30-50 % at 0 %", 0.3, 0.5, 0.0),
}


def verdict(claim: Claim | None, saved: Measured, change: Measured) -> str:
    """Whether the promise holds here, in words: what is within the interval cannot be told.

    Args:
        claim: The promise; None where there is none.
        saved: Share that was saved.
        change: Quality won or lost, as a share of what it was.
    """
    if claim is None:
        return "–"
    found = [_saving(claim, saved), _quality(claim, change)]
    holds = {word for word, _ in found}
    said = next(word for word in (_BROKEN, _UNSURE, _KEPT) if word in holds)
    return f"{said}: {', '.join(words for _, words in found)}"


def _saving(claim: Claim, saved: Measured) -> tuple[str, str]:
    if saved.high < claim.least - _ROUNDING:
        return _BROKEN, "saves less"
    if saved.low < claim.least - _ROUNDING:
        return _UNSURE, "the saving may be less"
    return _KEPT, "saves more" if saved.low > claim.most + _ROUNDING else "saves as much"


def _quality(claim: Claim, change: Measured) -> tuple[str, str]:
    if -change.high > claim.lost + _ROUNDING:
        return _BROKEN, "costs more quality"
    if -change.low <= claim.lost + _ROUNDING:
        return _KEPT, "quality as claimed" if change.value < 0 else "no quality lost"
    # Of "nothing at all" no sample can be sure.
    return (_KEPT, "no loss that chance does not explain") if claim.lost == 0 else (_UNSURE, "it may cost more quality")
