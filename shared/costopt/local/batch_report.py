"""What a batch on a machine of one's own took, and what that costs."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from costopt.errors import ConfigError
from costopt.gpu import GpuUse

__all__ = ["BatchProgress", "BatchReport", "MachinePrice"]

_HOUR, _KWH = Decimal(3_600), Decimal(3_600_000)


@dataclass(frozen=True, slots=True)
class MachinePrice:
    """What a machine costs, in US dollars.

    Attributes:
        per_hour: While it runs: rent, or what it was bought for over its life.
        per_kwh: Of electricity.
        watts: What the machine draws beside its GPUs, or at all where their energy cannot be measured.

    Example:
        >>> MachinePrice(per_hour=Decimal("0.60"), per_kwh=Decimal("0.30"), watts=100).cost(3_600, joules=720_000)
        Decimal('0.690')
    """

    per_hour: Decimal = Decimal(0)
    per_kwh: Decimal = Decimal(0)
    watts: float = 0.0

    def __post_init__(self) -> None:
        for name in ("per_hour", "per_kwh", "watts"):
            amount = getattr(self, name)
            if not 0 <= amount < float("inf"):
                raise ConfigError(f"{name}={amount}: give an amount of at least 0")

    def cost(self, seconds: float, joules: float | None = None) -> Decimal:
        """Dollars for so long a time, and so much energy of the GPUs."""
        energy = Decimal(str((joules or 0.0) + self.watts * seconds))
        return Decimal(str(seconds)) / _HOUR * self.per_hour + energy / _KWH * self.per_kwh


@dataclass(frozen=True, slots=True)
class BatchProgress:
    """How far a run has come.

    Attributes:
        total: Rows of the file; None if they come from a pipe.
        done: Rows answered in this run.
        failed: Rows that ended with an error in this run.
        before: Rows that an earlier run had answered, or that are in the file twice.
        prompt_tokens: Tokens read in this run.
        completion_tokens: Tokens made in this run.
        seconds: Since it began.
        dollars: What it has cost, but for the energy of the GPUs, which is counted at the end; None without a price.
        utilisation: Of the GPUs, at the last look; None where it is not available.
    """

    total: int | None
    done: int
    failed: int
    before: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    dollars: Decimal | None
    utilisation: float | None

    @property
    def tokens_per_second(self) -> float:
        """Tokens made in each second."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    def __str__(self) -> str:
        of = "" if self.total is None else f" of {self.total:,}"
        parts = [f"{self.before + self.done + self.failed:,}{of} rows", f"{self.tokens_per_second:,.0f} tokens/s"]
        parts += [f"{self.failed:,} failed"] if self.failed else []
        parts += [f"${self.dollars:,.4f}"] if self.dollars is not None else []
        parts += [f"GPU {self.utilisation:.0%}"] if self.utilisation is not None else []
        return ", ".join(parts)


@dataclass(frozen=True, slots=True)
class BatchReport:
    """What a run did, took and cost.

    Attributes:
        output: The file with the answers.
        errors: The file with the rows that failed; None if none did.
        first_error: What the first of them said; empty if none did.
        done: Rows answered in this run.
        failed: Rows that ended with an error; they are asked again the next time.
        before: Rows that an earlier run had answered, or that were in the file twice.
        prompt_tokens: Tokens read.
        completion_tokens: Tokens made.
        seconds: How long it took.
        gpu: What the GPUs did; None where that is not available.
        gpu_note: Why it is not.
        dollars: What it cost; None without a price.
    """

    output: Path
    errors: Path | None
    first_error: str
    done: int
    failed: int
    before: int
    prompt_tokens: int
    completion_tokens: int
    seconds: float
    gpu: GpuUse | None
    gpu_note: str
    dollars: Decimal | None

    @property
    def tokens_per_second(self) -> float:
        """Tokens made in each second."""
        return self.completion_tokens / self.seconds if self.seconds > 0 else 0.0

    @property
    def joules_per_token(self) -> float | None:
        """Energy of the GPUs for each token made; None where it is not measured."""
        if self.gpu is None or self.gpu.joules is None or not self.completion_tokens:
            return None
        return self.gpu.joules / self.completion_tokens

    @property
    def dollars_per_million_tokens(self) -> Decimal | None:
        """Of all tokens, read and made: to compare with what a provider asks."""
        tokens = self.prompt_tokens + self.completion_tokens
        return None if self.dollars is None or not tokens else self.dollars / tokens * 1_000_000

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        facts = {name: getattr(self, name) for name in self.__dataclass_fields__}
        derived = ("tokens_per_second", "joules_per_token", "dollars_per_million_tokens")
        facts |= {name: getattr(self, name) for name in derived}
        return {**facts, "gpu": None if self.gpu is None else self.gpu.as_dict()}
