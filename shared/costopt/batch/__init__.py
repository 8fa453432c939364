"""Batch inference: half the price of single calls, for work that can wait."""

from costopt.batch.anthropic import AnthropicBatches
from costopt.batch.journal import Journal
from costopt.batch.openai import OpenAIBatches
from costopt.batch.pace import Backoff
from costopt.batch.protocol import AnswerCache, BatchProvider, BatchRequest, Limits
from costopt.batch.result import BatchItem, BatchJob, BatchResult, BatchStatus, ItemError
from costopt.batch.runner import BatchRunner

__all__ = [
    "AnswerCache",
    "AnthropicBatches",
    "Backoff",
    "BatchItem",
    "BatchJob",
    "BatchProvider",
    "BatchRequest",
    "BatchResult",
    "BatchRunner",
    "BatchStatus",
    "ItemError",
    "Journal",
    "Limits",
    "OpenAIBatches",
]
