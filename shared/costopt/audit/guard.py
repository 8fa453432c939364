"""What may forbid a call, and the ledger that it counts on."""

from __future__ import annotations

import os
from typing import Protocol

from costopt.arguments import able
from costopt.audit.ledger import Ledger

__all__ = ["Guard", "checked_guard", "ledger_of"]


class Guard(Protocol):
    """What may forbid a call, as `SpendingLimit` does."""

    def check(self) -> None:
        """Raise `BudgetExceededError` if no call may be made now."""


def checked_guard(limit: Guard) -> Guard:
    """The same, once it is known to be of use.

    Raises:
        ConfigError: If it forbids nothing, as a number of dollars.
    """
    able("limit", limit, "check", "give a SpendingLimit, as in limit=SpendingLimit(ledger, 20)")
    return limit


def ledger_of(given: Ledger | str | os.PathLike[str] | None, limit: Guard | None) -> Ledger:
    """The ledger; for one file the object that the limit counts on, which knows what is not in the file yet.

    Args:
        given: The ledger, or its file; None: the limit's, else the default one.
        limit: The limit, if there is one.
    """
    counts = getattr(limit, "ledger", None)
    if isinstance(given, Ledger):
        return given
    made = Ledger(given)
    if isinstance(counts, Ledger) and (given is None or counts.path.absolute() == made.path.absolute()):
        return counts
    return made
