"""What is spent on model calls: a ledger of attempts, budgets on it, and what each lever would save."""

from typing import TYPE_CHECKING

from costopt.lazy import lazy

if TYPE_CHECKING:
    from costopt.audit.attempt import Attempt, PromptShape
    from costopt.audit.ledger import Ledger, LedgerStats
    from costopt.audit.levers import Saving
    from costopt.audit.readers import LogReader
    from costopt.audit.report import CostReport, audit
    from costopt.audit.savings import LeftOut, SavingsReport
    from costopt.audit.spending import SpendingAlert, SpendingLimit
    from costopt.audit.totals import Totals, summed
    from costopt.gpu import GpuSampler
    from costopt.usage import usage_of
else:
    # The books are kept in every application; what reads a log takes as long to import as all of that.
    __getattr__, __dir__ = lazy(
        __name__,
        {
            "costopt.audit.attempt": "Attempt PromptShape",
            "costopt.audit.ledger": "Ledger LedgerStats",
            "costopt.audit.readers": "LogReader",
            "costopt.audit.report": "CostReport audit",
            "costopt.audit.levers": "Saving",
            "costopt.audit.savings": "LeftOut SavingsReport",
            "costopt.audit.spending": "SpendingAlert SpendingLimit",
            "costopt.audit.totals": "Totals summed",
            "costopt.gpu": "GpuSampler",
            "costopt.usage": "usage_of",
        },
    )

__all__ = [
    "Attempt",
    "CostReport",
    "GpuSampler",
    "Ledger",
    "LedgerStats",
    "LeftOut",
    "LogReader",
    "PromptShape",
    "Saving",
    "SavingsReport",
    "SpendingAlert",
    "SpendingLimit",
    "Totals",
    "audit",
    "summed",
    "usage_of",
]
