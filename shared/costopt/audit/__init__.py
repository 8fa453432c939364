"""What is spent on model calls: a ledger of attempts, budgets on it, and what each lever would save."""

from costopt.audit.attempt import Attempt, PromptShape
from costopt.audit.ledger import Ledger, LedgerStats
from costopt.audit.readers import LogReader
from costopt.audit.report import CostReport, audit
from costopt.audit.spending import SpendingAlert, SpendingLimit
from costopt.audit.totals import Totals, summed
from costopt.gpu import GpuSampler
from costopt.usage import usage_of

__all__ = [
    "Attempt",
    "CostReport",
    "GpuSampler",
    "Ledger",
    "LedgerStats",
    "LogReader",
    "PromptShape",
    "SpendingAlert",
    "SpendingLimit",
    "Totals",
    "audit",
    "summed",
    "usage_of",
]
