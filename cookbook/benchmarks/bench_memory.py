"""What a plan says a model takes, against what it takes: the bytes of its tensors, and what its process grows by.

Each model is loaded and run in a process of its own, whose memory is looked at all the while.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options
from costopt.local.plan import MemoryPlan
from costopt.local.sizes import QUANTIZATIONS, shown
from tests.tiny_models import Shape, facts_model, random_model

__all__ = ["keep", "measure", "run"]

# 89 million parameters, as in `bench_local_throughput`.
_SHAPE = Shape(hidden=768, layers=14, heads=12, kv_heads=4, inner=2048, context=512)
_ROWS, _NEW = 8, 16
_CARD = 80 * 2**30
_LONG, _MANY = 8_192, 4
_LIMIT = 0.1

# Hidden, inner, layers, query heads, key heads, vocabulary, as their publishers' configurations have them.
_PUBLISHED: dict[str, tuple[str, dict[str, int]]] = {
    "Mistral 7B v0.3": ("mistral", dict(zip("hicqkv", (4096, 14336, 32, 32, 8, 32768), strict=True))),
    "Qwen2.5 7B": ("qwen2", dict(zip("hicqkv", (3584, 18944, 28, 28, 4, 152064), strict=True))),
    "Llama 3.1 8B": ("llama", dict(zip("hicqkv", (4096, 14336, 32, 32, 8, 128256), strict=True))),
    "Qwen2.5 14B": ("qwen2", dict(zip("hicqkv", (5120, 13824, 48, 40, 8, 152064), strict=True))),
    "Qwen2.5 32B": ("qwen2", dict(zip("hicqkv", (5120, 27648, 64, 40, 8, 152064), strict=True))),
    "Llama 3.1 70B": ("llama", dict(zip("hicqkv", (8192, 28672, 80, 64, 8, 128256), strict=True))),
    "Qwen2.5 72B": ("qwen2", dict(zip("hicqkv", (8192, 29568, 80, 64, 8, 152064), strict=True))),
}


def run(options: Options) -> dict[str, Any]:
    """Planned and measured for each quantisation; what models of 7 to 72 billion parameters would take."""
    rows, worst_bytes, worst_all = _measured(options)
    computed, slowest = _computed()
    return {
        "bars": [
            at_most("planned to real bytes of weights, state, keys and values, furthest off", worst_bytes, _LIMIT),
            at_most("planned total to all bytes in use at the fullest moment, furthest off", worst_all, _LIMIT),
            at_most("planning a model of 7 to 72 billion parameters, the slowest model", slowest, 0.3, " s"),
        ],
        "tables": [rows, computed],
        "notes": [
            (
                "Measured in a process for each row, weights in bfloat16 where they are not quantised: those of the "
                "tensors of the loaded model after its first pass, quantisation state included; keys and values with "
                f"{_ROWS} answers of {_SHAPE.context:,} tokens under way; activations are what else was handed out on "
                "the device at the fullest moment, looked at every 3 ms. What the process grew by has in it what the C "
                "library keeps for later. A small model was run before, so that libraries, threads and kernels are not "
                "counted; quantised weights come from disk, as at every start but the first. "
                + ("" if len(_devices()) > 1 else "This machine has no GPU: there it was not measured.")
            ),
            (
                "The second table is computed from the published configurations, by the same code; nothing of it was "
                "measured. Embeddings and output layer stay in bfloat16."
            ),
        ],
    }


def _measured(options: Options) -> tuple[dict[str, Any], float, float]:
    """The first table, and how far off the plan is at the most: without activations, and with them."""
    rows, off_bytes, off_all = [], [], []
    with tempfile.TemporaryDirectory() as name:
        folder = random_model(Path(name) / "model", _SHAPE, dtype="bfloat16")
        for device in _devices():
            for quantization in QUANTIZATIONS if not options.quick else ("none", "nf4"):
                if quantization != "none":
                    _in_a_process("keep", folder, quantization, name, device)
                found = _in_a_process("measure", folder, quantization, name, device)
                plan = MemoryPlan.of(
                    folder, quantization=quantization, context=_SHAPE.context, concurrency=_ROWS, device=device
                )
                real = found["weights"] + found["cache"]
                off_bytes.append(abs((plan.weights + plan.quant_state + plan.kv_cache) / real - 1))
                off_all.append(abs(plan.total / (real + found["passing"]) - 1))
                rows.append([f"{quantization}, {device}", *_cells(plan, found)])
    columns = ["", "weights and state", "keys and values", "activations", "in all", "off by"]
    columns.append("process grew by: running, loading")
    title = f"89 million parameters, {_ROWS} answers of {_SHAPE.context:,} tokens at once: planned / measured"
    return table(title, columns, rows), max(off_bytes), max(off_all)


def _cells(plan: MemoryPlan, found: dict[str, int]) -> list[str]:
    real = found["weights"] + found["cache"] + found["passing"]
    pairs = (
        (plan.weights + plan.quant_state, found["weights"]),
        (plan.kv_cache, found["cache"]),
        (plan.activations, found["passing"]),
        (plan.total, real),
    )
    shares = [f"{shown(planned)} / {shown(measured)}" for planned, measured in pairs]
    return [*shares, f"{plan.total / real - 1:+.1%}", f"{shown(found['process'])}, {shown(found['loading'])}"]


def _devices() -> list[str]:
    import torch

    return ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def _in_a_process(what: str, folder: Path, quantization: str, cache: str, device: str) -> dict[str, int]:
    code = f"import sys; from cookbook.benchmarks.bench_memory import {what}; {what}(*sys.argv[1:])"
    command = [sys.executable, "-c", code, str(folder), quantization, f"{cache}/cache", device]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"measuring {quantization} failed:\n{done.stderr}")
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def keep(folder: str, quantization: str, cache: str, device: str) -> None:
    """Quantise a model, so that the next process finds it on disk."""
    _engine(folder, quantization, cache, device).load().close()
    print("{}")


def measure(folder: str, quantization: str, cache: str, device: str) -> None:
    """Load a model, fill its cache, and print what that took; for a process of its own."""
    from costopt.local.engine import GenerationRequest

    # A small model first: libraries, threads and kernels are in memory before anything is measured.
    with tempfile.TemporaryDirectory() as name, _engine(facts_model(), quantization, name, device) as small:
        small.submit(GenerationRequest(prompt="Hello there", max_tokens=4)).result()
    watch = _Watch(device)
    with _engine(folder, quantization, cache, device) as engine:
        prompt = engine.tokenizer.decode([5] * (_SHAPE.context - _NEW))
        length = len(engine.tokenizer(prompt)["input_ids"])
        loading, _ = watch.restart()
        before = watch.in_use()
        request = GenerationRequest(prompt=prompt, max_tokens=_SHAPE.context - length)
        handles = [engine.submit(request) for _ in range(_ROWS)]
        kept = 0
        while engine.stats().finished < _ROWS:
            kept = max(kept, engine.stats().cache_bytes)
            time.sleep(0.005)
        for handle in handles:
            handle.result()
        weights = engine.stats().weight_bytes
        process, most = watch.restart()
    found = {"weights": weights, "cache": kept, "passing": most - before - kept}
    print(json.dumps({**found, "loading": loading, "process": process}))


def _engine(folder: str | Path, quantization: str, cache: str, device: str) -> Any:
    from costopt.local.transformers_engine import TransformersEngine

    return TransformersEngine(
        folder,
        quantization=quantization,
        dtype="bfloat16",
        device=device,
        context=_SHAPE.context,
        concurrency=_ROWS,
        cache_dir=cache,
    )


def _give_back() -> None:
    """Hand freed memory back to the system, which the C library otherwise keeps for later."""
    gc.collect()
    with contextlib.suppress(OSError, AttributeError):  # other C libraries have no such function
        ctypes.CDLL(None).malloc_trim(0)


class _Watch:
    """Looks at the memory of this process all the while, and at that of its GPU."""

    def __init__(self, device: str) -> None:
        _give_back()
        self._device = device
        self._most, self._in_use = 0, 0
        self._first = _resident()
        threading.Thread(target=self._look, daemon=True).start()

    def restart(self) -> tuple[int, int]:
        """What the process has grown by, and how much was in use on the device: the most since it was last asked."""
        found = self._most, self._in_use
        _give_back()
        self._most = self._in_use = 0
        return found

    def in_use(self) -> int:
        """Bytes that were handed out on the device, and not been given back."""
        if self._device == "cpu":
            return _handed_out()
        import torch

        return int(torch.cuda.memory_allocated())

    def _look(self) -> None:
        while True:
            self._most = max(self._most, _resident() - self._first)
            self._in_use = max(self._in_use, self.in_use())
            time.sleep(0.003)


def _resident() -> int:
    lines = Path("/proc/self/status").read_text("ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS"))


class _Mallinfo(ctypes.Structure):
    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()
    )


def _handed_out() -> int:
    """Bytes that glibc has handed out and not been given back, in all its arenas."""
    look = ctypes.CDLL(None).mallinfo2
    look.restype = _Mallinfo
    found = look()
    return int(found.uordblks + found.hblkhd)


def _computed() -> tuple[dict[str, Any], float]:
    rows, slowest = [], 0.0
    for name in _PUBLISHED:
        took = []
        for _ in range(5):
            config = _config(name)
            began = time.perf_counter()
            plan = MemoryPlan.of(config, context=_LONG, concurrency=_MANY, device="cpu", free=_CARD)
            took.append(time.perf_counter() - began)
        slowest = max(slowest, statistics.median(took))
        plan = plan.at(repacked=False)
        sizes = [plan.at(quantization=each) for each in ("none", "int8", "nf4")]
        rows.append(
            [
                name,
                f"{plan.inventory.parameters / 1e9:.2f}",
                *(shown(each.weights + each.quant_state) for each in sizes),
                shown(plan.kv_cache),
                *(f"{shown(each.total)}{'' if each.fits else ' (does not fit)'}" for each in (sizes[0], sizes[2])),
            ]
        )
    columns = [
        "model",
        "parameters, 10⁹",
        "weights, bfloat16",
        "weights, int8",
        "weights, NF4",
        f"keys and values, {_MANY} × {_LONG:,}",
        "in all, bfloat16",
        "in all, NF4",
    ]
    return table(f"Computed, not measured: models on a GPU with {_CARD >> 30} GiB free", columns, rows), slowest


def _config(name: str) -> Any:
    from transformers import AutoConfig

    kind, shape = _PUBLISHED[name]
    return AutoConfig.for_model(
        kind,
        hidden_size=shape["h"],
        intermediate_size=shape["i"],
        num_hidden_layers=shape["c"],
        num_attention_heads=shape["q"],
        num_key_value_heads=shape["k"],
        vocab_size=shape["v"],
        max_position_embeddings=32_768,
        **({"sliding_window": None} if kind == "mistral" else {}),
    )
