"""From a model call as a framework tells of it to the attempts that it was: the part that all cost trackers share."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from typing import Any, TypeVar

from costopt.arguments import names
from costopt.audit.attempt import Attempt, CacheOutcome, Status
from costopt.audit.charge import Charges
from costopt.audit.fingerprint import fingerprint
from costopt.audit.guard import Guard, checked_guard, ledger_of
from costopt.audit.ledger import Ledger
from costopt.audit.levers import compared
from costopt.audit.otel import Spans
from costopt.audit.spending_books import is_limited
from costopt.audit.totals import Totals, summed
from costopt.failure import failure_of
from costopt.forks import ForkLock
from costopt.pricing import Price, Usage
from costopt.tokens import count_tokens

__all__ = ["Answered", "Call", "Guard", "Recorder"]

Messages = Sequence[Mapping[str, Any]]
T = TypeVar("T")

_NOTHING: Messages = ()
# For so long a call waits, where there is a limit and nobody says how many tokens it took, until they are counted.
_COUNTED_S = 0.25


@dataclass(slots=True)
class Call:
    """A model call under way.

    Attributes:
        id: Of the call.
        model: The model that is asked; empty if the framework does not say.
        messages: Makes its messages, as `{"role", "content", ...}`; called later, in another thread.
        provider: Who sells it; None if the framework does not say.
        tools: Descriptions of the tools that it is offered.
        params: Its parameters.
        request_id: Calls for one request share it; the call's own id if empty.
        batch: The provider's batch that it goes through.
        session: The conversation or job it belongs to.
        tenant: Whose it is.
        tags: The application's.
        route: The tier that a router chose, where this call is one attempt of it.
        route_why: Why it did.
        trimmed_tokens: Of its messages: what compression left out.
        default_model: Whom everything would go to without a router; None if it may not be the answer that is given.
        streamed: Whether the answer is streamed.
        started: When, in seconds since 1970.
        first_token_s: After how many seconds the first token came.
    """

    id: str
    model: str
    messages: Callable[[], Messages]
    provider: str | None = None
    tools: Sequence[Any] = ()
    params: Mapping[str, Any] = field(default_factory=dict)
    request_id: str = ""
    batch: str | None = None
    session: str | None = None
    tenant: str | None = None
    tags: tuple[str, ...] = ()
    route: str | None = None
    route_why: str | None = None
    trimmed_tokens: int = 0
    default_model: str | None = None
    streamed: bool = False
    started: float = field(default_factory=time.time)
    first_token_s: float | None = None
    _clock: float = field(default_factory=time.perf_counter)

    @property
    def seconds(self) -> float:
        """Since it began."""
        return time.perf_counter() - self._clock

    def token(self) -> None:
        """A token came."""
        if self.first_token_s is None:
            self.first_token_s = self.seconds
            self.streamed = True


@dataclass(frozen=True, slots=True)
class Answered:
    """What came back, as far as it did.

    Attributes:
        model: As the answer names it; None if it does not.
        usage: As reported; None if it was not.
        text: Makes the text of the answer, tool calls included; called later, in another thread.
        called: Names of the tools that it calls.
        service_tier: The service that the provider says it gave.
        routed: What a router says of the answer: `RouteDecision.as_dict()`; of one that broke off its "tier".
        cached: What our cache says of the answer: a mapping with "cache" and "avoided_..."; or that it came out of
            somebody else's: `{"cache": "exact"}`, its usage being what was avoided.
    """

    model: str | None = None
    usage: Usage | None = None
    text: Callable[[], str] = str
    called: Sequence[str] = ()
    service_tier: str | None = None
    routed: Mapping[str, Any] | None = None
    cached: Mapping[str, Any] | None = None


class Recorder:
    """Writes calls into a ledger. Whatever takes time is done in the ledger's thread.

    Args:
        ledger: The ledger, or its file; None: the limit's, else the default one.
        prices: Prices of one's own by the model's name.
        batch_prices: Likewise in the provider's batch API.
        limit: What may forbid calls.
        tenant: Whose the calls are, where they do not say.
        tags: Added to those of each call.

    Raises:
        ConfigError: If a price, the limit or the tags are none.

    Example:
        >>> recorder = Recorder(tmp / "ledger.db")
        >>> call = Call("1", "gpt-4o-mini", messages=lambda: [{"role": "user", "content": "Why?"}])
        >>> recorder.answered(call, Answered(usage=Usage(1000, 100)))
        >>> recorder.totals().cost
        Decimal('0.00021')
    """

    def __init__(
        self,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        *,
        prices: Mapping[str, Price] | None = None,
        batch_prices: Mapping[str, Price] | None = None,
        limit: Guard | None = None,
        tenant: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        self._limit = None if limit is None else checked_guard(limit)
        self._charges = Charges(prices, batch_prices)
        self._tenant = tenant
        self._tags = names("tags", tags)
        self.ledger = ledger_of(ledger, limit)
        self._spans = Spans()
        self._lock = ForkLock()
        self._totals = Totals()

    def begin(self) -> None:
        """A call is about to be made.

        Raises:
            BudgetExceededError: If the limit does not allow it.
        """
        if self._limit is not None:
            self._limit.check()

    def answered(self, call: Call, answer: Answered) -> None:
        """A call was answered: by a model, by a cache, or by a router after so many attempts."""
        if answer.cached is not None:
            self._record(call, _hit(self._attempt(call, answer), answer), answer)
        elif answer.routed is not None and answer.routed.get("attempts"):
            self._routed(call, answer, answer.routed)
        else:
            self._record(call, self._attempt(call, answer), answer)

    def failed(self, call: Call, error: BaseException, partial: Answered | None = None) -> None:
        """A call failed, was cancelled, or broke off.

        Args:
            call: The call.
            error: Why.
            partial: What had come of the answer, which is billed.
        """
        status = status_of(error)
        answer = partial or Answered()
        attempt = replace(self._attempt(call, answer), status=status, error=type(error).__name__)
        if partial is None:
            # A provider that answered with an error does not bill it; what a call costs that was given up is not known.
            refused = failure_of(error).unpaid
            attempt = replace(attempt, cost=Decimal(0) if refused else None, cost_source="refused" if refused else "")
        self._record(call, attempt, answer, estimate=partial is not None or status == "cancelled")

    def totals(self) -> Totals:
        """What this object has recorded so far."""
        self.ledger.completed(3.0)
        with self._lock:
            return self._totals

    def _attempt(self, call: Call, answer: Answered) -> Attempt:
        return Attempt(
            model=answer.model or call.model or "unknown",
            provider=call.provider,
            started=call.started,
            latency_s=call.seconds,
            first_token_s=call.first_token_s,
            usage=answer.usage,
            batch=call.batch,
            route=call.route or (answer.routed or {}).get("tier"),
            route_why=call.route_why,
            trimmed_tokens=call.trimmed_tokens or None,
            service_tier=answer.service_tier,
            streamed=call.streamed,
            tags=tuple(dict.fromkeys((*self._tags, *call.tags))),
            session=call.session,
            tenant=call.tenant or self._tenant,
            request_id=call.request_id or call.id,
            id=call.id,
        )

    def _routed(self, call: Call, answer: Answered, decision: Mapping[str, Any]) -> None:
        """One row for each attempt of a router: those that failed, those that would not do, and the answer."""
        known = str(decision.get("id") or call.id)
        made = [attempt for attempt in decision["attempts"] if attempt.get("outcome") != "skipped"]
        shown = _place_of_answer(made, decision)
        base = replace(self._attempt(call, answer), request_id=known, route_why=decision.get("why"))
        for place, told in enumerate(made):
            attempt = replace(_routed_attempt(base, told), id=f"{known}-{place}")
            if place == shown:
                cost = decision.get("baseline_cost")
                attempt = replace(attempt, baseline_cost=None if cost is None else Decimal(cost))
                self._record(call, attempt, answer)
            else:
                # When it began and how long it took, the router does not say.
                attempt = replace(attempt, model=str(told["tier"]), latency_s=None, first_token_s=None)
                attempt = replace(attempt, baseline_cost=Decimal(0))
                self._record(call, attempt, Answered(), estimate=False)

    def _record(self, call: Call, attempt: Attempt, answer: Answered, estimate: bool = True) -> None:
        parent = self._spans.parent()

        def complete(attempt: Attempt) -> Attempt:
            messages, text = _tried(call.messages, _NOTHING), _tried(answer.text, "")
            if estimate and attempt.cache is None:
                attempt = _with_usage(attempt, messages, call.tools, text)
            attempt = self._priced(call, attempt)
            attempt = compared(attempt, lambda usage, batch: self._charged(call, attempt, usage, batch)[0])
            with self._lock:
                self._totals += summed([attempt])
            self._spans.emit(attempt, parent)
            return _described(attempt, call, messages, answer, text if self.ledger.keep_text else None)

        # The ledger's thread takes its time, and a limit must know before the next call begins.
        counts = attempt.route is None and attempt.cost is None and is_limited(self.ledger)
        told = _is_told(attempt)
        if counts and told:
            priced = attempt
            attempt = _tried(lambda: self._priced(call, priced), priced)
        self.ledger.record(attempt, complete)
        if counts and estimate and not told:
            self.ledger.completed(_COUNTED_S)

    def _priced(self, call: Call, attempt: Attempt) -> Attempt:
        if attempt.cache is not None and attempt.avoided_usage is not None:
            # The cache comes before the batch: without it this would have been a call by itself, like all others.
            cost, source = self._charged(call, attempt, attempt.avoided_usage, batch=False)
            # A cache knows the price list only.
            return replace(attempt, avoided_cost=cost) if attempt.avoided_cost is None or source == "given" else attempt
        if attempt.cost is not None or attempt.usage is None:
            return attempt
        if attempt.batch is not None and not attempt.usage.total_tokens:
            return replace(attempt, cost=Decimal(0), cost_source="paid before")
        cost, source = self._charged(call, attempt, attempt.usage)
        if call.default_model is not None and attempt.status == "ok":
            baseline = self._charges.of(call.default_model, attempt.usage, when=attempt.started).cost
            attempt = replace(attempt, baseline_cost=baseline)
        return replace(attempt, cost=cost, cost_source=source)

    def _charged(
        self, call: Call, attempt: Attempt, usage: Usage, batch: bool | None = None
    ) -> tuple[Decimal | None, str]:
        """(cost, source) by the name in the answer; if that has no price, by the name that was asked for."""
        for model in dict.fromkeys((attempt.model, call.model)):
            charge = self._charges.of(
                model,
                usage,
                provider=attempt.provider,
                batch=attempt.batch is not None if batch is None else batch,
                when=attempt.started,
                service_tier=attempt.service_tier,
            )
            if charge.cost is not None:
                return charge.cost, charge.source
        return None, ""


def status_of(error: BaseException) -> Status:
    """The status of an attempt that ended with this error.

    Example:
        >>> status_of(TimeoutError()), status_of(KeyboardInterrupt()), status_of(ValueError())
        ('timeout', 'cancelled', 'error')
    """
    if isinstance(error, GeneratorExit | KeyboardInterrupt | asyncio.CancelledError):
        return "cancelled"
    if isinstance(error, TimeoutError) or "Timeout" in type(error).__name__:
        return "timeout"
    return "error"


def _tried(make: Callable[[], T], otherwise: T) -> T:
    try:
        return make()
    except Exception:  # a message of a kind that we do not know: what it cost counts all the same
        return otherwise


def _hit(attempt: Attempt, answer: Answered) -> Attempt:
    said = answer.cached or {}
    tier = said.get("cache")
    outcome: CacheOutcome = tier if tier in ("exact", "semantic", "in_flight") else "exact"
    avoided = answer.usage
    if "avoided_input_tokens" in said:
        avoided = Usage(int(said["avoided_input_tokens"]), int(said["avoided_output_tokens"]))
    cost = said.get("avoided_usd")
    return replace(
        attempt,
        usage=Usage(),
        cost=Decimal(0),
        cost_source="cache",
        cache=outcome,
        avoided_usage=avoided,
        avoided_cost=None if cost is None else Decimal(cost),
    )


def _place_of_answer(made: Sequence[Mapping[str, Any]], decision: Mapping[str, Any]) -> int:
    """Which attempt's answer was served: of several samples, or of answers that would not do, it is the first."""
    places = [place for place, told in enumerate(made) if told.get("tier") == decision.get("chosen")]
    return next((place for place in places if made[place].get("outcome") != "failed"), len(made) - 1)


def _routed_attempt(base: Attempt, told: Mapping[str, Any]) -> Attempt:
    cost, failed = told.get("usd"), told.get("outcome") == "failed"
    usage = Usage(**{name: int(told.get(name) or 0) for name in Usage.__slots__}) if "input_tokens" in told else None
    return replace(
        base,
        route=str(told["tier"]),
        usage=usage,
        usage_estimated=bool(told.get("estimated")),
        cost=None if cost is None else Decimal(cost),
        cost_source="router" if cost is not None else "",
        status="error" if failed else "ok",
        error=str(told.get("cause")) if failed else None,
    )


def _is_told(attempt: Attempt) -> bool:
    """Whether its tokens are what somebody reported of a whole answer."""
    said = attempt.usage
    return said is not None and attempt.status == "ok" and (said.total_tokens > 0 or attempt.batch is not None)


def _with_usage(attempt: Attempt, messages: Messages, tools: Sequence[Any], text: str) -> Attempt:
    """With an estimate of its tokens, if nobody said; output that broke off is counted as far as it came."""
    if _is_told(attempt):
        return attempt
    said, model = attempt.usage, attempt.model
    if said is not None and said.input_tokens:
        output = max(said.output_tokens, count_tokens(text, model).tokens)
        return replace(attempt, usage=replace(said, output_tokens=output), usage_estimated=True)
    described = count_tokens(json.dumps(list(tools), default=str), model).tokens if tools else 0
    read = count_tokens(messages, model).tokens + described
    return replace(attempt, usage=Usage(read, count_tokens(text, model).tokens), usage_estimated=True)


def _described(attempt: Attempt, call: Call, messages: Messages, answer: Answered, text: str | None) -> Attempt:
    found = fingerprint(messages, call.tools, call.params)
    attempt = replace(
        attempt,
        prompt_hash=found.prompt_hash,
        question_hash=found.question_hash,
        shape=replace(found.shape, tools_called=len(set(answer.called))),
    )
    if text is None:
        return attempt
    return replace(
        attempt,
        prompt=json.dumps(messages, ensure_ascii=False, default=str),
        tools=json.dumps(call.tools, ensure_ascii=False, default=str) if call.tools else None,
        answer=text,
    )
