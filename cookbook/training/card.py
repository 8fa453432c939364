"""The model card, written by the run that made the model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import safe_open

from costopt.caching.policy import Policy

__all__ = ["model_card"]

_CARD = """# The judge

A cross-encoder that says how likely two questions want the same answer. It is all-MiniLM-L6-v2 (Apache-2.0), whose
first {depth} layers read each text alone and are unchanged, and whose other {trained} layers, fine-tuned, read both
texts in one sequence. Only their difference to the original is stored, as int8 with one scale a row.

Made by `python -m cookbook.training`; this file, too. {run}

- file: {size:,} bytes
- trained on: question pairs (Quora question pairs as published in zilliztech/GPTCache, 8 of 10 clusters; Quora's terms:
  non-commercial use of the data), prompt pairs (redislabsdev/langcache-customer-data-eval, MIT, half of the clusters),
  our own clusters of questions in {domains} domains (cookbook/training/pairs, MIT, 85 of 100 clusters), near misses and
  paraphrases generated from all of these
- split: by cluster of connected pairs, by a hash of the text; no text is on two sides
- licence of the weights: MIT, as the rest of the package; whoever may not use weights trained on Quora's data trains
  without them: leave question_pairs.jsonl.gz out of the folder
- seed, size, time: {about}

## What it does on what it has never seen

With the guards, the exact tier and the policy of this folder, cosine at least {floor}. Some
question pairs that are the same text are labelled different: their precision has a ceiling. The domain "medical" is our
own and no pair of it is trained on; "near misses" were written to be mistaken, "neighbours" are the most similar
questions of other clusters, which is what a cache meets most.

| set | pairs | max_error | precision | recall |
| --- | --- | --- | --- | --- |
{rows}

## Where it does not hold

English only; texts up to 128 tokens (longer ones are never matched by it). The error figure is the share of wrong ones
among the answers served to reworded questions on hard traffic: {same:.0%} of the candidates want the same answer, and
{near:.0%} of the others are near misses. Where fewer candidates want the same answer, or more of the others are near
misses (a catalogue of products that differ in one word), there are more errors; where wrong candidates are merely of
the same subject, there are fewer. `costopt cache tune` fits threshold and probability to your own pairs.
"""


def _precision(value: float | None) -> str:
    return "nothing served" if value is None else f"{value:.3f}"


def model_card(weights: Path, policy: Policy, figures: list[dict[str, Any]], domains: int) -> str:
    """The card in Markdown."""
    with safe_open(str(weights), "pt") as stored:
        about = json.loads(stored.metadata()["about"])
    rows = "\n".join(
        f"| {it['set']} | {it['pairs']:,} | {it['max_error']} | {_precision(it['precision'])} | {it['recall']:.3f} |"
        for it in figures
    )
    same, near = (float(value) for name, value in policy.about.items() if name.startswith("share"))
    return _CARD.format(
        depth=about["depth"],
        trained=6 - about["depth"],
        run=f"Trained for {about['minutes']} minutes on {about['date']}.",
        size=weights.stat().st_size,
        domains=domains,
        about=", ".join(f"{name} {value}" for name, value in about.items()),
        floor=policy.min_similarity,
        rows=rows,
        same=same,
        near=near,
    )
