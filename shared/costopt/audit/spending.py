"""A budget for a day or a month, kept on the ledger: alerts, and a hard stop for all processes that share it."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Literal

from costopt.arguments import able, is_list
from costopt.audit.attempt import Attempt
from costopt.audit.ledger import Ledger
from costopt.audit.spending_books import Span, SpendingBooks, first_unpriced
from costopt.errors import BudgetExceededError, ConfigError
from costopt.forks import fork_aware

__all__ = ["Held", "SpendingAlert", "SpendingLimit"]

_log = logging.getLogger("costopt.audit")

_MOST_SHARE = 10.0  # of a budget, at which an alert may be wanted; what is over it was meant in per cent

Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class SpendingAlert:
    """A share of a budget is spent.

    Attributes:
        share: The share that was passed, e.g. 0.8.
        spent: US dollars spent in the period so far.
        dollars: The budget.
        period: The UTC day or month, as "2026-11-23" or "2026-11".
        account: Whose budget it is.
    """

    share: float
    spent: Decimal
    dollars: Decimal
    period: str
    account: str

    def __str__(self) -> str:
        return f"{self.account}: ${self.spent:.2f} of ${self.dollars} for {self.period} is spent, over {self.share:.0%}"


class SpendingLimit:
    """So many dollars for each UTC day or month, counted on a ledger.

    It counts what its routers settle, as `Router(budget=...)`, and the ledger's rows that no router made, as a
    `CostTracker` writes them; rows of routers that do not have it are not in it. What a router is about to spend is
    kept first, in one step with the check and for all processes, so that they cannot overspend together. Given to a
    `CostTracker` it forbids calls once the budget is spent; calls that were under way then are over it. If the file
    cannot be written, this process goes on counting by itself.

    A call whose price is not known counts nothing, so a limit alone never stops a model that the price list does not
    know: the log warns of it, once for each model. Give the price to the `CostTracker`, ``prices={"my-model": ...}``.

    Args:
        ledger: The ledger, or its file. What a tracker of this process records counts at once if both have one
            `Ledger`; what others record, when it is in the file.
        dollars: The budget of one period.
        period: "day" or "month".
        hard: Whether calls are refused when it is spent; if not, there are only alerts.
        alerts: Shares, as 0.5 for half, at which `on_alert` is called, each once a period, in one of the processes.
        on_alert: Called with a `SpendingAlert`, in a thread of its own; what it raises is passed over. The ledger keeps
            a limit that has one: of several that are alike, the last.
        tenant: Count this tenant's rows only; its router needs a limit of its own.
        account: Limits of one name share what is spent; by default by period and tenant.
        clock: Seconds since 1970.

    Raises:
        ConfigError: If an amount or share is not above 0, the period is none of those, or `on_alert` is no function.

    Example:
        >>> limit = SpendingLimit(Ledger(tmp / "ledger.db"), "0.01", "month")
        >>> first, second = limit.reserve(Decimal("0.006")), limit.reserve(Decimal("0.006"))
        >>> second is None
        True
        >>> first.settle(Decimal("0.002"))
        >>> limit.left
        Decimal('0.008')
    """

    def __init__(
        self,
        ledger: Ledger | str | os.PathLike[str],
        dollars: Decimal | float | str,
        period: Period = "month",
        *,
        hard: bool = True,
        alerts: Iterable[float] = (0.5, 0.8, 1.0),
        on_alert: Callable[[SpendingAlert], object] | None = None,
        tenant: str | None = None,
        account: str | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.dollars = _amount(dollars)
        if period not in ("day", "month"):
            raise ConfigError(f"period={period!r}: give 'day' or 'month'")
        if on_alert is not None:
            able("on_alert", on_alert, "__call__", "give a function of the alert, as in on_alert=print")
        self.ledger = ledger = ledger if isinstance(ledger, Ledger) else Ledger(ledger)
        self.period = period
        self.hard = hard
        self.account = account or (f"{period} of {tenant}" if tenant else period)
        self._alerts = _shares(alerts)
        self._on_alert = on_alert
        self._clock = clock
        self._told: set[tuple[str, float]] = set()
        self._tenant = tenant
        self._books = SpendingBooks(ledger, self.account, tenant)
        # Of limits that are alike one listens: a limit for each request must not pile up.
        alike = (self.account, tenant, period, self.dollars, self._alerts, on_alert is None)
        ledger.on_written(_weakly(self._written) if on_alert is None else self._written, alike)
        fork_aware(self)

    def before_fork(self) -> None:
        """Close the file: SQLite in the child would count on locks that only the parent has."""
        self._books.file.hold_closed()

    def after_fork_in_parent(self) -> None:
        """Allow it to be opened again."""
        self._books.file.let_open()

    def after_fork_in_child(self) -> None:
        """Start anew, for the locks of the parent's threads are theirs."""
        self._books.start()

    # -- what is left ----------------------------------------------------------------------------------

    @property
    def seconds(self) -> float:
        """The length of the period."""
        span = self._span()
        return span.end - span.start

    @property
    def frees_in(self) -> float:
        """Seconds until the next period."""
        now = self._clock()
        return _span_of(self.period, now).end - now

    @property
    def spent(self) -> Decimal:
        """Dollars spent in this period so far."""
        return self._books.sums(self._span())[0]

    @property
    def reserved(self) -> Decimal:
        """Dollars kept for calls under way, in all processes."""
        return self._books.sums(self._span())[1]

    @property
    def left(self) -> Decimal:
        """Dollars that may still be spent in this period; below 0 if it is overspent."""
        spent, held = self._books.sums(self._span())
        return self.dollars - spent - held

    def check(self) -> None:
        """Ask whether a call may be made, without keeping anything for it.

        Raises:
            BudgetExceededError: If the budget is hard, and spent.
        """
        if self.hard and self.left <= 0:
            raise BudgetExceededError(
                f"${self.spent:.4f} of ${self.dollars} for {self._span().name} (UTC) is spent; the "
                f"next {self.period} begins in {self.frees_in:.0f} s. Give a larger budget, or hard=False"
            )

    # -- for routers -----------------------------------------------------------------------------------

    def reserve(self, amount: Decimal) -> Held | None:
        """Keep this much for a call; None if the budget does not allow it now.

        Args:
            amount: The most that the call can cost, in dollars.
        """
        now = self._clock()
        span = _span_of(self.period, now)
        held = Held(self, secrets.token_hex(8), amount, span.name)
        most = self.dollars if self.hard else None
        return held if self._books.keep(held.id, amount, span, now, most) else None

    def _settle(self, held: Held, actual: Decimal) -> None:
        self._books.settle(held.id, held.amount, actual, held.period, self._span())
        self._alert()

    def _span(self) -> Span:
        return _span_of(self.period, self._clock())

    # -- alerts ----------------------------------------------------------------------------------------

    def _written(self, attempts: Sequence[Attempt]) -> None:
        for attempt in attempts:
            if self._misses(attempt) and first_unpriced(self.ledger, attempt.model):
                _log.warning(
                    "costopt: no price is known for %s, which counts nothing against the limit: give its price, "
                    "prices={%r: Price(input, output)}, to the cost tracker",
                    attempt.model,
                    attempt.model,
                )
        self._alert()

    def _misses(self, attempt: Attempt) -> bool:
        """Whether it should count, and cannot. What a router made is counted by what it settles."""
        ours = attempt.route is None and self._tenant in (None, attempt.tenant)
        return ours and attempt.cost is None and attempt.usage is not None and attempt.usage.total_tokens > 0

    def _alert(self) -> None:
        """Tell of each share that was passed, if nobody has; the callback runs in a thread of its own."""
        if self._on_alert is None:
            return
        span = self._span()
        spent = self._books.sums(span)[0]
        for share in self._alerts:
            if spent < self.dollars * Decimal(str(share)) or (span.name, share) in self._told:
                continue
            self._told.add((span.name, share))
            if self._books.first_to_tell(span.name, share):
                alert = SpendingAlert(share, spent, self.dollars, span.name, self.account)
                threading.Thread(target=self._tell, args=(alert,), name="costopt-alert", daemon=True).start()

    def _tell(self, alert: SpendingAlert) -> None:
        assert self._on_alert is not None
        with suppress(Exception):
            self._on_alert(alert)


class Held:
    """Dollars kept for one call, until `settle`."""

    def __init__(self, limit: SpendingLimit, name: str, amount: Decimal, period: str) -> None:
        self.id = name
        self.amount = amount
        self.period = period
        self._limit = limit
        self._lock = threading.Lock()
        self._open = True

    @property
    def stored(self) -> bool:
        """Whether other processes know of it."""
        return self._limit._books.stored(self.id)

    def settle(self, actual: Decimal) -> None:
        """Say what the call cost. The first word counts; a second one changes nothing, so no call is charged twice."""
        with self._lock:
            was, self._open = self._open, False
        if was:
            self._limit._settle(self, actual)


def _span_of(period: Period, now: float) -> Span:
    """The UTC day or month that holds this moment."""
    day = datetime.fromtimestamp(now, UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    if period == "day":
        return Span(f"{day:%Y-%m-%d}", day.timestamp(), (day + timedelta(days=1)).timestamp())
    first = day.replace(day=1)
    return Span(f"{day:%Y-%m}", first.timestamp(), (first + timedelta(days=32)).replace(day=1).timestamp())


def _weakly(method: Callable[[Sequence[Attempt]], None]) -> Callable[[Sequence[Attempt]], None]:
    """The method, for as long as somebody else holds its object: an alarm is wanted by itself, a guard is not."""
    held = weakref.WeakMethod(method)

    def call(attempts: Sequence[Attempt]) -> None:
        alive = held()
        if alive is not None:
            alive(attempts)

    return call


def _shares(alerts: Iterable[float]) -> tuple[float, ...]:
    given = list(alerts) if is_list(alerts) else []
    wrong = any(not isinstance(each, float | int | Decimal) or not 0 < each <= _MOST_SHARE for each in given)
    if wrong or not is_list(alerts):
        raise ConfigError(f"alerts={alerts!r}: give shares of the budget, as in alerts=(0.5, 1.0) for half and all")
    return tuple(sorted(given))


def _amount(dollars: Decimal | float | str) -> Decimal:
    try:
        amount = dollars if isinstance(dollars, Decimal) else Decimal(str(dollars))
    except InvalidOperation:
        amount = Decimal("NaN")
    if not (amount.is_finite() and amount > 0):
        raise ConfigError(f"a budget of {dollars} dollars: give an amount above 0")
    return amount
