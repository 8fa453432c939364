"""Dollars per window of time: reserved before a call, settled after it, so that concurrent calls cannot overspend."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from decimal import Decimal, InvalidOperation
from typing import NoReturn, Protocol

from costopt.errors import ConfigError
from costopt.forks import ForkLock

__all__ = ["Budget", "Hold", "Reservation", "Spendable"]

# What is settled this close together is kept as one, and expires with the last: a window of any length stays small.
_GRAIN = 0.001


class Hold(Protocol):
    """Dollars kept for one call."""

    @property
    def amount(self) -> Decimal:
        """How many."""

    def settle(self, actual: Decimal) -> None:
        """Say what the call cost."""


class Spendable(Protocol):
    """What a router asks of a budget: `Budget`, or `costopt.audit.SpendingLimit`."""

    dollars: Decimal

    @property
    def seconds(self) -> float:
        """The length of its window."""

    @property
    def reserved(self) -> Decimal:
        """Dollars kept for calls under way."""

    @property
    def left(self) -> Decimal:
        """Dollars that a call may reserve now."""

    @property
    def frees_in(self) -> float:
        """Seconds until some of what was spent is free again."""

    def reserve(self, amount: Decimal) -> Hold | None:
        """Keep this much for a call; None if it is not allowed now."""


class Budget:
    """So many dollars in any stretch of so many seconds, within this process. Safe to share between threads and tasks.

    What is spent counts from the moment it is settled. What is reserved counts until it is settled; a check and the
    reservation are one step, so that whatever number of calls asks at once, the sum never passes the limit as long
    as no call costs more than it reserved.

    Args:
        dollars: The limit.
        seconds: The length of the window.
        clock: Monotonic seconds.

    Raises:
        ConfigError: If one of them is not above 0.

    Example:
        >>> budget = Budget("0.01", seconds=3600)
        >>> first, second = budget.reserve(Decimal("0.006")), budget.reserve(Decimal("0.006"))
        >>> second is None
        True
        >>> first.settle(Decimal("0.002"))
        >>> budget.left
        Decimal('0.008')
    """

    def __init__(
        self, dollars: Decimal | float | str, seconds: float, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        try:
            self.dollars = dollars if isinstance(dollars, Decimal) else Decimal(str(dollars))
        except InvalidOperation:
            self.dollars = Decimal("NaN")
        if not (self.dollars.is_finite() and self.dollars > 0 and 0 < seconds < float("inf")):
            raise ConfigError(f"a budget of {dollars} dollars in {seconds} seconds: give amounts above 0")
        self._seconds = float(seconds)
        self._clock = clock
        self._lock = ForkLock()
        self._reserved = Decimal(0)
        self._spent = Decimal(0)
        self._settled: deque[tuple[float, Decimal]] = deque()  # (when it was, how much), oldest first

    @property
    def seconds(self) -> float:
        """The length of the window."""
        return self._seconds

    @property
    def spent(self) -> Decimal:
        """Dollars settled in the window that ends now."""
        with self._lock:
            self._expire()
            return self._spent

    @property
    def reserved(self) -> Decimal:
        """Dollars kept for calls under way."""
        return self._reserved

    @property
    def left(self) -> Decimal:
        """Dollars that a call may reserve now."""
        with self._lock:
            self._expire()
            return self.dollars - self._spent - self._reserved

    @property
    def frees_in(self) -> float:
        """Seconds until the oldest spending leaves the window; 0 if there is none."""
        with self._lock:
            self._expire()
            return max(0.0, self._settled[0][0] + self._length - self._clock()) if self._settled else 0.0

    def reserve(self, amount: Decimal) -> Reservation | None:
        """Keep this much for a call; None if the budget does not allow it now.

        Args:
            amount: The most that the call can cost, in dollars.
        """
        with self._lock:
            self._expire()
            if self._spent + self._reserved + amount > self.dollars:
                return None
            self._reserved += amount
        return Reservation(self, amount)

    @property
    def _length(self) -> float:
        return self.seconds * (1 + _GRAIN)

    def __reduce__(self) -> NoReturn:
        raise ConfigError("a budget cannot be copied or pickled, each copy would spend it once: make one there")

    def _settle(self, reservation: Reservation, actual: Decimal) -> None:
        with self._lock:
            if not reservation._open:
                return
            reservation._open = False
            self._reserved -= reservation.amount
            if not actual:
                return
            self._spent += actual
            now = self._clock()
            if self._settled and now - self._settled[-1][0] < self.seconds * _GRAIN:
                when, amount = self._settled.pop()
                self._settled.append((when, amount + actual))
            else:
                self._settled.append((now, actual))

    def _expire(self) -> None:
        past = self._clock() - self._length
        while self._settled and self._settled[0][0] <= past:
            self._spent -= self._settled.popleft()[1]


class Reservation:
    """Dollars kept for one call, until `settle`."""

    def __init__(self, budget: Budget, amount: Decimal) -> None:
        self.amount = amount
        self._budget = budget
        self._open = True  # until it is settled, under the budget's lock

    def settle(self, actual: Decimal) -> None:
        """Say what the call cost. The first word counts; a second one changes nothing, so no call is charged twice."""
        self._budget._settle(self, actual)
