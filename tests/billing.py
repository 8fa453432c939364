"""What a provider bills, counted on its side: random usage for each answer, summed as it is given out."""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, Protocol

from costopt import Price, Usage
from costopt.audit import Attempt, Ledger, Totals
from tests.openai_server import Behaviour

__all__ = ["PRICES", "Bill", "assert_billed", "assert_one_fell_back_and_three_hit", "rows"]

# In a thousandth of a dollar for a million tokens, that is in nano-dollars for one: input, read, written, for an hour,
# output. So the bill is a sum of whole numbers, made without what it is there to check.
_RATES = {
    "gpt-4o-mini": (150, 75, 150, 150, 600),
    "o4-mini": (1_100, 275, 1_100, 1_100, 4_400),
    "gpt-4o": (2_500, 1_250, 2_500, 2_500, 10_000),
    "gpt-4.1-mini": (400, 100, 400, 400, 1_600),
    "claude-haiku-4-5": (1_000, 100, 1_250, 2_000, 5_000),
}
PRICES = {
    model: Price(
        Decimal(fresh) / 1000,
        Decimal(output) / 1000,
        Decimal(read) / 1000,
        cache_write=Decimal(write) / 1000,
        cache_write_1h=Decimal(hour) / 1000,
    )
    for model, (fresh, read, write, hour, output) in _RATES.items()
}


@dataclass
class Bill:
    """The provider's own count. Each answer is drawn, and counted, when it is given out."""

    seed: int = 0
    answers: int = 0
    tokens: Counter[str] = field(default_factory=Counter)
    nano_dollars: int = 0

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        self._lock = threading.Lock()

    @property
    def dollars(self) -> Decimal:
        return Decimal(self.nano_dollars) / 10**9

    def openai(self, model: str, told: Behaviour | None = None) -> Behaviour:
        """How OpenAI's server answers, and what it reports."""
        with self._lock:
            read, output = self._chance.randrange(1, 5_000), self._chance.randrange(1, 900)
            cached = self._chance.choice([0, 0, self._chance.randrange(read + 1)])
            reasoning = self._chance.randrange(output) if model.startswith("o") else 0
            self._count(model, read - cached, cached, 0, 0, output, reasoning)
        usage: dict[str, Any] = {"prompt_tokens": read, "completion_tokens": output, "total_tokens": read + output}
        usage["prompt_tokens_details"] = {"cached_tokens": cached, "audio_tokens": 0}
        usage["completion_tokens_details"] = {"reasoning_tokens": reasoning}
        return replace(told or Behaviour(), usage=usage)

    def anthropic(self, request: dict[str, Any]) -> dict[str, Any]:
        """What Anthropic's server reports: its input is without what was read from and written to the cache."""
        streamed = bool(request.get("stream"))
        with self._lock:
            fresh, output = self._chance.randrange(1, 3_000), self._chance.randrange(1, 900)
            read = self._chance.choice([0, self._chance.randrange(4_000)])
            brief, hour = self._chance.choice([(0, 0), (self._chance.randrange(2_000), self._chance.randrange(2_000))])
            # langchain-anthropic does not pass on for how long what a streamed call wrote is kept.
            hour = 0 if streamed else hour
            self._count(request["model"], fresh, read, brief, hour, output, 0)
        return {
            "input_tokens": fresh,
            "output_tokens": output,
            "cache_read_input_tokens": read,
            "cache_creation_input_tokens": brief + hour,
            "cache_creation": {"ephemeral_5m_input_tokens": brief, "ephemeral_1h_input_tokens": hour},
        }

    def _count(self, model: str, fresh: int, read: int, brief: int, hour: int, output: int, reasoning: int) -> None:
        self.answers += 1
        self.tokens["input_tokens"] += fresh + read + brief + hour
        self.tokens["cached_tokens"] += read
        self.tokens["cache_write_tokens"] += brief + hour
        self.tokens["output_tokens"] += output
        self.tokens["reasoning_tokens"] += reasoning
        amounts = (fresh, read, brief, hour, output)
        self.nano_dollars += sum(count * rate for count, rate in zip(amounts, _RATES[model], strict=True))


class Tracker(Protocol):
    """The cost tracker of either framework."""

    @property
    def ledger(self) -> Ledger: ...

    def totals(self) -> Totals: ...


def rows(tracker: Tracker) -> list[Attempt]:
    """What it has recorded, the earliest first."""
    return list(tracker.ledger.attempts())


def assert_billed(tracker: Tracker, bill: Bill) -> None:
    """To the token and the cent, in the file and in the object."""
    for totals in (tracker.ledger.totals(), tracker.totals()):
        assert {name: getattr(totals, name) for name in bill.tokens} == dict(bill.tokens)
        assert totals.cost == bill.dollars
        assert (totals.unpriced, totals.estimated) == (0, 0)


def assert_one_fell_back_and_three_hit(found: list[Attempt]) -> None:
    """Rows of five requests of session "s1": the first fell back, three were answered by the cache, one was new."""
    assert [(row.model, row.status, row.route, row.cache) for row in found] == [
        ("gpt-4o-mini", "error", "gpt-4o-mini", None),
        ("gpt-4o", "ok", "gpt-4o", None),
        ("gpt-4o", "ok", None, "exact"),
        ("gpt-4o", "ok", None, "semantic"),
        ("gpt-4o", "ok", None, "exact"),
        ("gpt-4o", "ok", "gpt-4o", None),  # the other one was told to slow down, and rests
    ]
    assert len({row.request_id for row in found}) == 5, "the tiers of one request share its id"
    assert {row.session for row in found} == {"s1"}
    paid = found[1].usage
    assert paid is not None
    for hit in found[2:5]:
        assert (hit.usage, hit.cost) == (Usage(), 0)
        assert hit.avoided_usage == Usage(paid.input_tokens, paid.output_tokens)
        assert hit.avoided_cost == PRICES["gpt-4o"].cost(hit.avoided_usage), "at the prices that the tracker was given"
