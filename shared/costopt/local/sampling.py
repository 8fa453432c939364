"""From the scores of the next token to the token, for every row by its own request's rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

__all__ = ["Choice", "Constraint", "Sampling", "choose"]


class Constraint(Protocol):
    """What may come next, for an answer that must follow a schema."""

    @property
    def done(self) -> bool:
        """Whether the answer is whole, and nothing may follow."""

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """True for each token that may come next, shape (vocabulary,)."""

    def accept(self, token: int) -> None:
        """Go on from this token."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A token, its logarithm of probability, and the likeliest ones and theirs; what was not asked for is empty."""

    token: int
    logprob: float | None = None
    top: tuple[tuple[int, float], ...] = ()


@dataclass(slots=True)
class Sampling:
    """How one row draws its tokens.

    Attributes:
        temperature: 0 takes the likeliest.
        top_p: Share of the probability to draw from.
        logprobs: How many alternatives to report; None reports nothing.
        generator: Whose numbers decide; each seeded request has its own.
        constraint: What may be drawn.
    """

    temperature: float
    top_p: float
    logprobs: int | None
    generator: torch.Generator | None
    constraint: Constraint | None = None

    @property
    def plain(self) -> bool:
        """Whether the likeliest token is all that is wanted."""
        return self.temperature == 0 and self.logprobs is None and self.constraint is None


def choose(logits: torch.Tensor, rows: Sequence[Sampling]) -> list[Choice]:
    """The next token of each row.

    Args:
        logits: Scores, shape (rows, vocabulary).
        rows: How each draws.

    Example:
        >>> import torch
        >>> [choice.token for choice in choose(torch.tensor([[0.1, 2.0, 0.3]]), [Sampling(0.0, 1.0, None, None)])]
        [1]
    """
    likeliest = logits.argmax(dim=-1).tolist()
    return [Choice(likeliest[i]) if row.plain else _one(logits[i].float(), row) for i, row in enumerate(rows)]


def _one(scores: torch.Tensor, row: Sampling) -> Choice:
    import torch

    masked = scores
    if row.constraint is not None:
        allowed = row.constraint.allowed(scores.shape[-1]).to(scores.device)
        masked = scores.masked_fill(~allowed, -torch.inf)
    token = int(masked.argmax()) if row.temperature == 0 else _draw(masked / row.temperature, row)
    if row.logprobs is None:
        return Choice(token)
    logs = torch.log_softmax(scores, dim=-1)
    values, places = logs.topk(min(row.logprobs, logs.shape[-1]))
    top = tuple(zip(places.tolist(), values.tolist(), strict=True))
    return Choice(token, float(logs[token]), top)


def _draw(scores: torch.Tensor, row: Sampling) -> int:
    import torch

    # On the CPU, where generators live: a seed draws the same whatever the device.
    shares = torch.softmax(scores.double(), dim=-1).cpu()
    if row.top_p < 1:
        ordered, places = shares.sort(descending=True, stable=True)
        before = ordered.cumsum(0) - ordered
        shares = torch.zeros_like(shares).scatter(0, places, ordered * (before < row.top_p))
    return int(torch.multinomial(shares, 1, generator=row.generator))
