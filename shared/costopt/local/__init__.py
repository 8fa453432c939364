"""A model of one's own: four-bit inference and batches on one machine. See `TransformersEngine` and `MemoryPlan`."""

from costopt.local.batch_report import BatchProgress, BatchReport, MachinePrice
from costopt.local.batch_runner import LocalBatchRunner
from costopt.local.engine import (
    Delta,
    Engine,
    EngineStats,
    Generation,
    GenerationRequest,
    Handle,
    LocalUsage,
    TokenLogprob,
    ToolCall,
)
from costopt.local.openai_engine import OpenAICompatibleEngine
from costopt.local.plan import MemoryPlan
from costopt.local.shared import shared_engine
from costopt.local.transformers_engine import EngineOptions, TransformersEngine

__all__ = [
    "BatchProgress",
    "BatchReport",
    "Delta",
    "Engine",
    "EngineOptions",
    "EngineStats",
    "Generation",
    "GenerationRequest",
    "Handle",
    "LocalBatchRunner",
    "LocalUsage",
    "MachinePrice",
    "MemoryPlan",
    "OpenAICompatibleEngine",
    "TokenLogprob",
    "ToolCall",
    "TransformersEngine",
    "shared_engine",
]
