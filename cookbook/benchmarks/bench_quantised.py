"""What four bits cost in quality and save in memory and time, and whether the weights stay right under load."""

from __future__ import annotations

import statistics
import tempfile
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options
from cookbook.benchmarks.perplexity import COLUMNS, QUANTISATIONS, Quality, compare
from costopt.local.engine import GenerationRequest
from costopt.local.loading import ModelSource, load
from costopt.local.transformers_engine import TransformersEngine
from tests.tiny_models import FACTS, Shape, answer, facts_model, question, random_model, small_model, stdlib_text

__all__ = ["run"]

# QLoRA (Dettmers et al. 2023), arXiv 2305.14314: LLaMA fine-tuned with adapters, mean 5-shot MMLU accuracy, per cent.
_PUBLISHED = [
    ["bfloat16", "38.4", "45.6", "47.2", "50.6", "57.7", "60.5", "61.8", "62.5", "53.0"],
    ["FP4", "37.2", "44.0", "47.3", "50.0", "55.9", "58.5", "61.3", "63.3", "52.2"],
    ["NF4, double quantisation", "39.0", "44.5", "47.5", "50.7", "57.3", "59.2", "61.8", "63.9", "53.1"],
]
_SIZES = [f"{size} {data}" for size in ("7B", "13B", "33B", "65B") for data in ("Alpaca", "FLAN v2")]
_THREADS = 4
_LARGE = Shape(hidden=1024, layers=16, heads=16, kv_heads=4, inner=4096)  # 243 million parameters


def run(options: Options) -> dict[str, Any]:
    """Quality on held-out text, facts, loading, and first calls from many threads at once."""
    windows, rounds = (16, 3) if options.quick else (128, 10)
    found = compare(small_model(), stdlib_text("held-out"), windows=windows)
    facts = {name: _facts(name) for name in ("none", *QUANTISATIONS)}
    with tempfile.TemporaryDirectory() as folder:
        first, kept = _loads(Path(folder))
        ours, bare = _wrong(Path(folder), rounds)
    asked = 40 * rounds
    title = f"2.2M parameters, perplexity on held-out sources of the standard library, {windows} windows of 128 tokens"
    return {
        "bars": [
            at_least(f"facts of {len(FACTS)} right, bfloat16", facts["none"], 0.99 * len(FACTS)),
            at_least(f"facts of {len(FACTS)} right, NF4", facts["nf4"], 0.99 * len(FACTS)),
            at_most("perplexity with NF4 to bfloat16", found[1].ratio()[0], 1.1, "×"),
            at_least("loading quantised weights from disk to quantising them, 243M parameters", first / kept, 10, "×"),
            at_most(f"wrong of {asked} answers, first asked for by threads and tasks at once, NF4", ours, 0),
        ],
        "tables": _tables(title, found, facts),
        "notes": [
            (
                "Intervals are of 95 %, by resampling windows, the same for both sides. Small models flatter NF4: "
                "their weights are close to normally distributed, and have none of the outliers that large ones have. "
                "Before you trust a model of yours to four bits, run `python -m cookbook.benchmarks.perplexity MODEL`, "
                "on a GPU where there is one."
            ),
            f"Loading 243M parameters: {first:.1f} s to quantise them, {kept:.2f} s from the kept checkpoint.",
            (
                f"First calls of {rounds} fresh copies: with transformers alone, {_THREADS} threads at once, {bare} "
                f"of {_THREADS * rounds} answers were wrong (bitsandbytes rearranges weights in place at their first "
                f"use on a processor with AVX512-BF16); with the engine, 40 callers at once, {ours} of {asked}."
            ),
            "No GPU was at hand: nothing here says how fast or how exact its kernels are.",
        ],
    }


def _tables(title: str, found: Sequence[Quality], facts: Mapping[str, int]) -> list[dict[str, Any]]:
    return [
        table(title, COLUMNS, [quality.row() for quality in found]),
        table(
            f"{len(FACTS)} facts, half a million parameters, exact answers",
            ["bfloat16", *QUANTISATIONS],
            [[str(facts[name]) for name in ("none", *QUANTISATIONS)]],
        ),
        table(
            "Published, not measured here: mean 5-shot MMLU accuracy of LLaMA fine-tuned with adapters "
            "(QLoRA, arXiv 2305.14314)",
            ["", *_SIZES, "mean"],
            _PUBLISHED,
        ),
    ]


def _ask(name: str) -> GenerationRequest:
    return GenerationRequest.chat(question(name), max_tokens=20)


def _facts(quantization: str) -> int:
    with TransformersEngine(facts_model(), quantization=quantization, dtype="bfloat16") as engine:
        handles = [engine.submit(_ask(name)) for name in FACTS]
        return sum(handle.result().text == answer(name) for handle, name in zip(handles, FACTS, strict=True))


def _loads(folder: Path) -> tuple[float, float]:
    """Seconds to quantise a model, and to load what came of it."""
    model = random_model(folder / "model", _LARGE, dtype="bfloat16")
    source = ModelSource(str(model), "nf4", "bfloat16", "cpu", folder=str(folder / "kept"))
    first = load(source)
    again = [load(source) for _ in range(3)]
    assert (first.kept, *(each.kept for each in again)) == (False, True, True, True)
    return first.seconds, statistics.median(each.seconds for each in again)


def _wrong(folder: Path, rounds: int) -> tuple[int, int]:
    """Wrong answers of ours, and of transformers alone, when many call fresh weights at once."""
    options: Any = {"quantization": "nf4", "cache_dir": folder / "facts"}
    names = list(FACTS)[:40]
    with TransformersEngine(facts_model(), **options) as engine:
        expected = [engine.submit(_ask(name)).result().text for name in names]
    ours = bare = 0
    for _ in range(rounds):
        with TransformersEngine(facts_model(), **options) as engine:
            said = _at_once(len(names), lambda i, engine=engine: engine.submit(_ask(names[i])).result().text)
        ours += sum(one != other for one, other in zip(said, expected, strict=True))
        bare += sum(one != other for one, other in zip(_bare(folder, names[:_THREADS]), expected, strict=False))
    return ours, bare


def _bare(folder: Path, names: list[str]) -> list[str]:
    import torch

    loaded = load(ModelSource(str(facts_model()), "nf4", "bfloat16", "cpu", folder=str(folder / "facts")))

    def ask(number: int) -> str:
        chat = [{"role": "user", "content": question(names[number])}]
        tokens = loaded.tokenizer.apply_chat_template(
            chat, add_generation_prompt=True, return_tensors="pt", return_dict=False
        )
        with torch.no_grad():
            made = loaded.model.generate(tokens, max_new_tokens=20, do_sample=False)
        text: str = loaded.tokenizer.decode(made[0, tokens.shape[1] :], skip_special_tokens=True)
        return text

    return _at_once(len(names), ask)


def _at_once(count: int, call: Any) -> list[str]:
    start, said = threading.Barrier(count), [""] * count

    def one(number: int) -> None:
        start.wait()
        try:
            said[number] = call(number)
        except Exception as error:  # weights that are rearranged twice may not even fit
            said[number] = repr(error)

    threads = [threading.Thread(target=one, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return said
