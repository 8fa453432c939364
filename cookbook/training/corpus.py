"""What the judge learns from: labelled pairs of several domains, split so that no cluster is on two sides."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cookbook.training.generate import generate
from costopt.embedding import default_model
from costopt.jsonl import read_jsonl

__all__ = ["PAIRS", "UNSEEN", "Example", "Set", "own_sets", "public_sets", "training_examples"]

PAIRS = Path(__file__).parent / "pairs"
UNSEEN = "medical"
"""The domain of our own that is never trained on."""

_HELD_OUT = 0.15
_NEAR = 0.3
_SAME_AGAIN = 0.97


@dataclass(frozen=True, slots=True)
class Example:
    """A labelled pair.

    Attributes:
        a: One text.
        b: The other.
        same: Whether one answer serves both.
        weight: In the loss.
        doubt: How far its label is smoothed: the share of such labels that are wrong.
    """

    a: str
    b: str
    same: bool
    weight: float = 1.0
    doubt: float = 0.02


@dataclass(frozen=True, slots=True)
class Set:
    """The pairs of one domain, in three parts that share no cluster."""

    train: list[Example]
    calibrate: list[Example]
    test: list[Example]


def public_sets(data: Path) -> dict[str, Set]:
    """Question pairs (8 : 1 : 1) and prompt pairs (1 : 0 : 1) of the development data.

    Some question pairs that are the same text are labelled different, so their labels are smoothed most.
    """
    questions = _read(data / "caching/question_pairs.jsonl.gz", doubt=0.08)
    prompts = _read(data / "caching/prompt_pairs.jsonl.gz")
    train, calibrate, test = _split(questions, (0.8, 0.9))
    some, others = _split(prompts, (0.5,))
    return {"questions": Set(train, calibrate, test), "prompts": Set(some, [], others)}


def own_sets(*, train: bool = False) -> tuple[dict[str, Set], dict[str, Set]]:
    """Our own clusters by domain, as (near misses, neighbours): the same positives, other negatives.

    Without `train`, the parts for training are left empty: to find neighbours takes its time.

    Near misses are the texts written to be tempting; neighbours are, for each text, the most similar text of
    another cluster of its domain, which is what a cache meets most.
    """
    misses, neighbours = {}, {}
    for file in sorted(PAIRS.glob("*.jsonl")):
        clusters = [row for _, row in read_jsonl(str(file))]
        test = file.stem == UNSEEN
        held = [row for row in clusters if not test and _place(row["question"]) >= 1 - _HELD_OUT]
        learnt = [row for row in clusters if train and not test and _place(row["question"]) < 1 - _HELD_OUT]
        parts = (learnt, held, clusters if test else [])
        misses[file.stem] = Set(*([pair for row in part for pair in _cluster(row)] for part in parts))
        neighbours[file.stem] = Set(*(_neighbours(part) for part in parts))
    return misses, neighbours


def training_examples(data: Path, seed: int) -> list[Example]:
    """All that is trained on, shuffled."""
    public = public_sets(data)
    misses, neighbours = own_sets(train=True)
    examples = [*public["questions"].train, *public["prompts"].train, *public["prompts"].train]
    for part in misses.values():
        # Three paraphrases stand against ten near misses.
        examples += [_weighed(one, 1.6 if one.same else 0.8) for one in part.train]
    for part in neighbours.values():
        examples += [_weighed(one, 0.7) for one in part.train if not one.same]
    texts = sorted({text for one in examples for text in (one.a, one.b)})
    chosen = random.Random(seed)
    chosen.shuffle(texts)
    made = [Example(a, b, same, 0.7) for a, b, same, _ in generate(texts[:16_000], 7_000, seed)]
    examples += made
    chosen.shuffle(examples)
    return examples


def _weighed(one: Example, weight: float) -> Example:
    return Example(one.a, one.b, one.same, weight, one.doubt)


def _read(file: Path, doubt: float = 0.02) -> list[Example]:
    rows = read_jsonl(str(file)) if file.exists() else ()
    return [Example(row["a"], row["b"], bool(row["same"]), 1.0, doubt) for _, row in rows]


def _place(key: str) -> float:
    """A number in [0, 1) that depends on the text alone, so that more data moves nothing from side to side."""
    return int(hashlib.sha256(f"s1{key}".encode()).hexdigest()[:8], 16) / 2**32


def _split(pairs: Iterable[Example], cuts: Sequence[float]) -> list[list[Example]]:
    parent: dict[str, str] = {}

    def head(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    pairs = list(pairs)
    for pair in pairs:
        parent[head(pair.a.lower())] = head(pair.b.lower())
    parts: list[list[Example]] = [[] for _ in range(len(cuts) + 1)]
    for pair in pairs:
        place = _place(head(pair.a.lower()))
        parts[sum(place >= cut for cut in cuts)].append(pair)
    return parts


def _cluster(row: dict[str, Any]) -> list[Example]:
    same, different = [row["question"], *row["same"]], row["different"]
    pairs = [Example(same[i], same[j], True) for i in range(len(same)) for j in range(i)]
    return pairs + [Example(text, other, False) for text in same for other in different]


def _neighbours(clusters: Sequence[dict[str, Any]]) -> list[Example]:
    if not clusters:
        return []
    pairs = [[pair for pair in _cluster(row) if pair.same] for row in clusters]
    texts = [(text, i) for i, part in enumerate(pairs) for text in dict.fromkeys(t for p in part for t in (p.a, p.b))]
    vectors = default_model().embed([text for text, _ in texts])
    owners = np.array([owner for _, owner in texts])
    found = [pair for part in pairs for pair in part]
    for (text, owner), vector in zip(texts, vectors, strict=True):
        similarities = vectors @ vector
        # What is nearly the same text may well want the same answer.
        similarities[(owners == owner) | (similarities > _SAME_AGAIN)] = -1
        nearest = int(similarities.argmax())
        if similarities[nearest] > _NEAR:
            found.append(Example(text, texts[nearest][0], False))
    return found
