"""One attempt at a model call: what a ledger keeps of it, one row each."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from decimal import Decimal
from math import isfinite
from typing import Literal, get_args

from costopt.errors import ConfigError
from costopt.pricing import Usage

__all__ = ["Attempt", "CacheOutcome", "PromptShape", "Status"]

Status = Literal["ok", "error", "cancelled", "timeout"]
CacheOutcome = Literal["exact", "semantic", "in_flight"]

_STATUSES, _OUTCOMES = get_args(Status), get_args(CacheOutcome)


@dataclass(frozen=True, slots=True)
class PromptShape:
    """Of what a prompt consists, so that its waste can be told without its words. Sizes are characters.

    Attributes:
        system: Of system prompts.
        history: Of the turns before the last human one, tool results among them.
        question: Of the last human turn and what follows it.
        tools: Of the descriptions of tools.
        tools_offered: How many tools the model might call.
        tools_called: How many different ones it called.
        system_hash: Of the system prompt and the descriptions of tools: requests of one template share it.
    """

    system: int = 0
    history: int = 0
    question: int = 0
    tools: int = 0
    tools_offered: int = 0
    tools_called: int = 0
    system_hash: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """One attempt at a model call. A retry or a fallback is another attempt at the same request.

    Attributes:
        model: The model that was asked, as its provider names it.
        provider: Who sold it; None if not known.
        started: When, in seconds since 1970.
        latency_s: Seconds until the whole answer was there; None if not known.
        first_token_s: Seconds until its first token, of a stream; None if not known.
        usage: Tokens as they are billed; None if nobody said. Of an answer from a cache: none.
        usage_estimated: Whether `usage` was counted or guessed by us, because the provider did not say.
        cost: US dollars; None if not known, which is not zero.
        cost_source: Whence the cost: "given" (a price of one's own), "provider" (it said so), "cache" (nothing was
            bought), "batch ..." and the name and version of a price list, "" if the cost is not known.
        status: "ok"; "error"; "cancelled", by the caller; "timeout".
        error: What failed, e.g. "RateLimitError"; no message, which may quote a prompt.
        cache: How a cache answered in the model's place: "exact", "semantic" or "in_flight"; None if it did not.
        avoided_usage: Of an answer from a cache: the tokens that it once took.
        avoided_cost: What those would have cost, in US dollars.
        route: The tier that a router chose; None if no router was asked.
        route_why: Why it did.
        baseline_cost: What the same tokens cost at the router's default tier; 0 if another attempt gave the answer.
        trimmed_tokens: Input tokens that compression of the chat left out; None: none.
        trimmed_cost: What those would have cost.
        list_cost: Of a call in a batch: what it would have cost by itself.
        batch: The provider's batch that it went through; None: a single call.
        service_tier: The service that the provider says it gave, e.g. "flex"; None if it did not say.
        streamed: Whether the answer was streamed.
        tags: Whatever the application wants to ask for later.
        session: The conversation or job it belongs to.
        tenant: Whose it is.
        prompt_hash: Of the messages, tools and parameters, without the model: equal requests share it. Whoever guesses
            a prompt can see by its hash that the guess is right.
        question_hash: Of the last human turn alone.
        shape: Of what the prompt consists.
        prompt: The messages, as a JSON list of `{"role", "content", ...}`; None unless asked for.
        tools: The descriptions of tools, as a JSON list; None unless asked for.
        answer: The text of the answer; None unless asked for.
        request_id: Attempts at one request share it; by default the attempt's own id.
        id: Unlike any other. A ledger that is given an id twice keeps the first: what is recorded again after a crash
            is counted once.

    Raises:
        ConfigError: If status or cache outcome is none of those above, or a time or a cost is no finite number.

    Example:
        >>> Attempt("gpt-4o-mini", usage=Usage(1000, 100), cost=Decimal("0.00021"), cost_source="given").status
        'ok'
    """

    model: str
    provider: str | None = None
    started: float = 0.0
    latency_s: float | None = None
    first_token_s: float | None = None
    usage: Usage | None = None
    usage_estimated: bool = False
    cost: Decimal | None = None
    cost_source: str = ""
    status: Status = "ok"
    error: str | None = None
    cache: CacheOutcome | None = None
    avoided_usage: Usage | None = None
    avoided_cost: Decimal | None = None
    route: str | None = None
    route_why: str | None = None
    baseline_cost: Decimal | None = None
    trimmed_tokens: int | None = None
    trimmed_cost: Decimal | None = None
    list_cost: Decimal | None = None
    batch: str | None = None
    service_tier: str | None = None
    streamed: bool = False
    tags: tuple[str, ...] = ()
    session: str | None = None
    tenant: str | None = None
    prompt_hash: str | None = None
    question_hash: str | None = None
    shape: PromptShape | None = None
    prompt: str | None = None
    tools: str | None = None
    answer: str | None = None
    request_id: str = ""
    id: str = field(default_factory=lambda: uuid.uuid4().hex)

    def __post_init__(self) -> None:
        if self.status not in _STATUSES or (self.cache is not None and self.cache not in _OUTCOMES):
            raise ConfigError(
                f"status={self.status!r}, cache={self.cache!r}: give one of {_STATUSES}, and one of {_OUTCOMES} or None"
            )
        amounts = (self.cost, self.avoided_cost, self.baseline_cost, self.trimmed_cost, self.list_cost)
        # One that is no number would make every sum that it is in unknown.
        if not (isinstance(self.started, float | int) and isfinite(self.started) and all(map(_is_amount, amounts))):
            raise ConfigError(
                f"started={self.started}, costs={amounts}: give a finite time, and finite Decimals as costs, or None"
            )
        if not self.request_id:
            object.__setattr__(self, "request_id", self.id)


def _is_amount(amount: object) -> bool:
    return amount is None or (isinstance(amount, Decimal) and amount.is_finite())
