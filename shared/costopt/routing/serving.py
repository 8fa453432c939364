"""From a decision to an answer: budget, calls, fallback, cascade. One generator flow; whoever drives it does the I/O.

The flow yields `Ask` (call this tier, send its `Reply`, or throw what failed) and `Work` (compute this, off the event
loop), and returns `Served`. So the blocking and the awaiting driver, and those that stream, share every decision.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NamedTuple

from costopt import driving
from costopt.errors import BudgetExceededError
from costopt.failure import failure_of
from costopt.pricing import Usage
from costopt.routing.budget import Hold
from costopt.routing.cascade import Reply
from costopt.routing.decision import Attempt, RouteDecision
from costopt.routing.request import RouteRequest
from costopt.routing.router import Router
from costopt.routing.tier import Tier
from costopt.tokens import estimate_tokens

__all__ = ["Ask", "Flow", "Interrupted", "Served", "Work", "adrive", "drive", "serve"]

_log = logging.getLogger("costopt.routing")


class Ask(NamedTuple):
    """Call this tier.

    Attributes:
        tier: Whom to call.
        hold: Whether its answer will be looked at before anything of it may be shown.
        why: Why it is this tier: as decided, or what was wrong with the one before.
    """

    tier: Tier
    hold: bool
    why: str = ""


class Work(NamedTuple):
    """Compute something, off the event loop."""

    do: Callable[[], Any]


class Interrupted(Exception):  # noqa: N818
    """Thrown into the flow if an answer broke off after part of it was shown: nobody else can go on with it.

    Args:
        cause: What happened; None if whoever reads it stopped reading.
        reply: What was shown.
    """

    def __init__(self, cause: BaseException | None, reply: Reply) -> None:
        super().__init__(repr(cause))
        self.cause = cause
        self.reply = reply


@dataclass(frozen=True, slots=True)
class Served:
    """An answer, and how it came about."""

    reply: Reply
    decision: RouteDecision


Flow = Generator[Ask | Work, Any, Served]


def serve(router: Router, request: RouteRequest, decision: RouteDecision) -> Flow:
    """Get an answer as decided: or from a tier above, if that fails or its answer will not do.

    Raises:
        BudgetExceededError: If no tier fits into what is left of the budget.
        Exception: What the last tier raised, if all failed; its notes name the others.

    Example:
        >>> router = Router([Tier("gpt-4o-mini"), Tier("gpt-4o")])
        >>> request = RouteRequest("What is the capital of France?")
        >>> flow = serve(router, request, router.decide(request))
        >>> next(flow).tier.name, flow.throw(ConnectionRefusedError()).tier.name
        ('gpt-4o-mini', 'gpt-4o')
        >>> try:
        ...     flow.send(Reply("Paris", Usage(30, 12)))
        ... except StopIteration as stop:
        ...     print(stop.value.decision.chosen, stop.value.decision.why, stop.value.decision.cost)
        gpt-4o connection 0.000195
    """
    return _Serving(router, request, decision).run()


def drive(flow: Flow, ask: Callable[[Ask], Reply]) -> Served:
    """Carry a flow out, blocking."""
    return driving.drive(flow, lambda step: ask(step) if isinstance(step, Ask) else step.do())


async def adrive(flow: Flow, ask: Callable[[Ask], Awaitable[Reply]]) -> Served:
    """Carry a flow out, awaiting."""
    return await driving.adrive(flow, lambda step: ask(step) if isinstance(step, Ask) else asyncio.to_thread(step.do))


class _Serving:
    """One request on its way."""

    def __init__(self, router: Router, request: RouteRequest, decision: RouteDecision) -> None:
        self._router = router
        self._request = request
        self._decision = decision
        self._attempts: list[Attempt] = []
        self._errors: list[tuple[str, Exception]] = []
        self._cause: str | None = None  # why the tier that was chosen is not the one that is asked
        self._held: tuple[int, Reply] | None = None  # an answer that would not do, if nobody has another
        self._broke = False  # whether the budget did not allow a call
        self._short: BudgetExceededError | None = None  # what our own budget said; a model may have one, too

    def run(self) -> Flow:
        for place in self._places():
            reply = yield from self._tried(place)
            if reply is not None:
                return self._served(place, reply)
        if self._held is not None:
            return self._served(*self._held)
        raise self._error()

    def _places(self) -> Generator[int, None, None]:
        """The chosen tier and those above it; those that rest, last. Without budget for the first: cheapest first."""
        names, rests = self._router.names, self._router.rests
        candidates = [names.index(name) for name in self._decision.candidates]
        first = names.index(self._decision.chosen)
        later = []
        for place in (place for place in candidates if place >= first):
            if self._overflown(place):
                continue
            if not rests[place].claim():
                self._note(place, "skipped", "resting")
                later.append(place)
                continue
            yield place
            if self._broke and not self._errors and self._held is None:
                candidates.remove(place)
                yield from sorted(candidates, key=lambda place: self._router.books.bound(place, self._request))
                return
        yield from later

    def _overflown(self, place: int) -> bool:
        """Whether an answer cannot be had here because it did not fit into a larger window."""
        window = self._router.tiers[place].window
        for name, error in self._errors:
            before = self._router.tiers[self._router.names.index(name)].window
            known = window is not None and before is not None
            if failure_of(error).cause == "context overflow" and known and window < before:  # type: ignore[operator]
                self._note(place, "skipped", "context overflow")
                return True
        return False

    def _tried(self, place: int) -> Generator[Ask | Work, Any, Reply | None]:
        """The answer of one tier; None if it failed, or its answer will not do."""
        cascade = self._router.cascade
        names = self._decision.candidates
        judged = cascade is not None and names.index(self._router.names[place]) < len(names) - 1
        replies: list[Reply] = []
        for _ in range(cascade.samples if cascade and judged else 1):
            try:
                reply = yield from self._call(place, judged)
            except Interrupted as cut:
                self._closed(place, cut.reply, answered=False)
                raise cut.cause or cut from None
            except Exception as error:
                if error is self._short:
                    self._broke = True
                    self._note(place, "skipped", "budget")
                    break
                self._errors.append((self._router.names[place], error))
                break
            replies.append(reply)
        if not replies:
            return None
        return (yield from self._judged(place, replies)) if judged else replies[0]

    def _judged(self, place: int, replies: list[Reply]) -> Generator[Ask | Work, Any, Reply | None]:
        cascade = self._router.cascade
        assert cascade is not None
        verdict = yield Work(lambda: cascade.verdict(self._request, replies, cheapest=place == 0))
        if verdict is None:
            return replies[0]
        answered = self._attempts.pop(next(i for i in reversed(range(len(self._attempts))) if self._attempts[i].usage))
        self._note(place, "rejected", verdict, answered.usage, answered.cost, answered.estimated)
        self._cause = f"rejected: {verdict}"
        self._held = place, replies[0]
        return None

    def _call(self, place: int, hold: bool) -> Generator[Ask | Work, Any, Reply]:
        reservation = self._reserve(place)
        rest, started = self._router.rests[place], time.monotonic()
        # Should it time out, or the caller go away, nobody will say what it cost: all that was reserved, to be safe.
        charged = reservation.amount if reservation else Decimal(0)
        try:
            reply: Reply = yield Ask(self._router.tiers[place], hold, self._cause or self._decision.why)
            usage, estimated = self._usage(reply)
            cost = self._router.tiers[place].cost(usage)
            charged = self._charge(cost, reservation)
        except Interrupted as cut:
            usage, estimated = self._usage(cut.reply)
            cost = self._router.tiers[place].cost(usage)
            charged = self._charge(cost, reservation)
            self._note(place, "failed", "cut after it was shown", usage, cost, estimated)
            raise
        except Exception as error:
            failure = failure_of(error)
            if failure.unpaid:
                charged = Decimal(0)
            rest.failed(failure, time.monotonic() - started)
            self._cause = failure.cause
            self._note(place, "failed", failure.cause, cost=Decimal(0) if failure.unpaid else None)
            raise
        finally:
            if reservation is not None:
                reservation.settle(charged)
        rest.succeeded()
        self._router.books.learn(place, usage.output_tokens)
        self._note(place, "answered", None, usage, cost, estimated)
        return reply

    def _reserve(self, place: int) -> Hold | None:
        budget = self._router.budget
        if budget is None:
            return None
        most = self._router.books.bound(place, self._request)
        reservation = budget.reserve(most)
        if reservation is None:
            self._short = self._too_dear(most)
            raise self._short
        return reservation

    def _too_dear(self, most: Decimal) -> BudgetExceededError:
        budget = self._router.budget
        assert budget is not None
        return BudgetExceededError(
            f"a call may cost ${most:.6f}, and ${budget.left:.6f} of ${budget.dollars} in {budget.seconds:.10g} s is "
            f"left (${budget.reserved:.6f} is kept for calls under way); the next part of it is free in "
            f"{budget.frees_in:.0f} s. Give a larger budget, or max_tokens, so that less need be kept"
        )

    def _charge(self, cost: Decimal | None, reservation: Hold | None) -> Decimal:
        if reservation is None or cost is None:
            return Decimal(0)
        if cost > reservation.amount:
            if self._router.books.overrun():
                _log.warning(
                    "costopt: a provider reports usage of $%s for a call that can cost $%s at most: the budget counts "
                    "that most",
                    cost,
                    reservation.amount,
                )
            return reservation.amount
        return cost

    def _usage(self, reply: Reply) -> tuple[Usage, bool]:
        """(tokens of an answer, whether they are an estimate)."""
        said = reply.usage
        if said is not None and said.input_tokens >= 0 and said.output_tokens >= 0 and said.total_tokens > 0:
            return said, False
        return Usage(self._request.likely_tokens, estimate_tokens(reply.text)), True

    def _note(
        self,
        place: int,
        outcome: str,
        cause: str | None = None,
        usage: Usage | None = None,
        cost: Decimal | None = None,
        estimated: bool = False,
    ) -> None:
        attempt = Attempt(self._router.names[place], outcome, cause, usage, cost, estimated)
        self._attempts.append(attempt)
        self._router.books.attempted(attempt)
        if outcome == "skipped" and self._cause is None:
            self._cause = cause

    def _served(self, place: int, reply: Reply) -> Served:
        final = self._closed(place, reply)
        sticky, request = self._router.sticky, self._request
        if sticky is not None and final.paper is None:
            known = request.next_conversation(reply) if request.next_conversation else request.conversation
            sticky.keep(known, place)
        return Served(reply, final)

    def _closed(self, place: int, reply: Reply, answered: bool = True) -> RouteDecision:
        """The decision with what came of it, in the books and in the log."""
        router, decision, name = self._router, self._decision, self._router.names[place]
        changed = name != decision.chosen
        why = self._cause or decision.why if changed or self._held else decision.why
        moved = decision.moved
        if decision.previous not in (None, name) and changed:
            moved = why
        usage = self._usage(reply)[0]
        costs = [attempt.cost for attempt in self._attempts if attempt.outcome != "skipped"]
        known = [cost for cost in costs if cost is not None]
        final = decision.because(
            chosen=name,
            why=why,
            moved=moved,
            estimated_cost=router.books.estimate(place, self._request) if changed else decision.estimated_cost,
            attempts=tuple(self._attempts),
            usage=usage,
            cost=sum(known, Decimal(0)) if len(known) == len(costs) else None,
            baseline_cost=router.tiers[router.default].cost(usage),
        )
        router.books.closed(final, answered)
        if router.log is not None:
            router.logged(self._request, final)
        return final

    def _error(self) -> Exception:
        if not self._errors:
            places = [self._router.names.index(name) for name in self._decision.candidates]
            return self._too_dear(min(self._router.books.bound(place, self._request) for place in places))
        *others, (_, error) = self._errors
        for name, other in others:
            error.add_note(f"before that, tier {name!r} failed: {other!r}")
        return error
