"""One small model for all, which knows two hundred facts, and engines that run it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from costopt.local.transformers_engine import TransformersEngine


@pytest.fixture(scope="session")
def reference(facts_model: Path) -> Any:
    """The model and its tokenizer, loaded by transformers itself, in fp32."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    return AutoModelForCausalLM.from_pretrained(facts_model), AutoTokenizer.from_pretrained(facts_model)


@pytest.fixture(scope="module")
def engine(facts_model: Path) -> Iterator[TransformersEngine]:
    """The model as it was trained, in fp32."""
    with TransformersEngine(facts_model, quantization="none", dtype="float32") as engine:
        yield engine
