"""A neighbour is a candidate, not a hit: who decides whether an answer may be served."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from costopt.caching.guards import veto
from costopt.errors import ConfigError

__all__ = ["Judge", "SimilarityJudge", "Verdict"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word on one candidate.

    Attributes:
        accepted: Whether its answer may be served.
        reason: Why, in a few words: "similarity 0.97 >= 0.92", "guard: number".
    """

    accepted: bool
    reason: str


class Judge(Protocol):
    """Any object with this method is a judge; it is handed all candidates of a lookup at once."""

    def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> Sequence[Verdict]:
        """One verdict for each (cached text, cosine similarity), in order."""
        ...


@dataclass(frozen=True, slots=True)
class SimilarityJudge:
    """Accepts what is similar enough and passes the guards.

    Args:
        min_similarity: Least cosine similarity, in [0, 1].
        guards: Whether a different number, name, negation and the like forbids serving (see `guards.veto`).

    Raises:
        ConfigError: If `min_similarity` is outside [0, 1].

    Example:
        >>> judge = SimilarityJudge(min_similarity=0.9)
        >>> [v.reason for v in judge.judge("Top 5 films?", [("Top 10 films?", 0.97)])]
        ['guard: number']
    """

    min_similarity: float
    guards: bool = True

    def __post_init__(self) -> None:
        # `not (a <= b)` and not `a > b`: NaN is refused too.
        if not 0.0 <= self.min_similarity <= 1.0:
            raise ConfigError(f"min_similarity is {self.min_similarity}: give a cosine similarity in [0, 1]")

    def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[Verdict]:
        """One verdict for each (cached text, cosine similarity), in order."""
        return [self._verdict(asked, text, similarity) for text, similarity in candidates]

    def _verdict(self, asked: str, cached: str, similarity: float) -> Verdict:
        if not similarity >= self.min_similarity:
            return Verdict(False, f"similarity {similarity:.3f} < {self.min_similarity}")
        guard = veto(asked, cached) if self.guards else None
        if guard is not None:
            return Verdict(False, f"guard: {guard}")
        return Verdict(True, f"similarity {similarity:.3f} >= {self.min_similarity}")
