"""What the judge costs: time beside an embedding, time to load, and the calls that are spared."""

from __future__ import annotations

import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import MODEL, Options, Vectors, embedded, questions
from cookbook.benchmarks.timing import interleave
from costopt import CrossEncoderJudge, LocalStore, SemanticCache, SharedEmbedder
from costopt.caching import Answer
from costopt.caching.cross_encoder import CrossEncoder
from costopt.caching.guards import READ, veto
from costopt.caching.policy import default_policy
from costopt.embedding import default_model

__all__ = ["judge_cost"]

_QUESTIONS = 4_000
_CALLS = 20
_CANDIDATES = 5
_STORED = 20
_PROCESSES = 5
_PATIENCE_S = 60.0
_LOADING = """
import time
from costopt import default_embedder
from costopt.caching import CrossEncoderJudge
started = time.perf_counter()
default_embedder().embed_one("warm")
embedder = time.perf_counter()
judge = CrossEncoderJudge()
judge.load()
judge.threshold
loaded = time.perf_counter()
judge.judge("warm", [("warmer", 1.0)])
print(embedder - started, loaded - embedder, time.perf_counter() - loaded)
"""

Case = tuple[str, list[tuple[str, float]]]


def judge_cost(options: Options) -> dict[str, Any]:
    """Time, loading, calls."""
    texts, source = questions(options, _QUESTIONS)
    vectors = embedded(texts)
    bars, tables = [], []
    for bar, found in (_time(options, texts, vectors), _loading(options), _spared(texts, vectors)):
        bars += bar
        tables.append(found)
    note = (
        f"Time of the judge: {source}; each judged against its {_CANDIDATES} nearest neighbours among the others, "
        "those left out that a guard keeps back, so that the model reads all of them. Neither side knows the text; "
        "both run on one OpenMP thread. Loading: processes of their own, in which torch and the embedder's weights "
        "are in memory already."
    )
    return {"bars": bars, "tables": tables, "notes": [note]}


def _time(options: Options, texts: Sequence[str], vectors: Vectors) -> tuple[list[Any], dict[str, Any]]:
    model, judge = default_model(), CrossEncoderJudge()
    rounds, a_round = options.rounds, _CALLS + 1
    cases = _cases(texts, vectors, rounds * a_round)
    # The first text of each length makes torch compile for its shape; nobody here shall pay that for the others.
    for asked, candidates in cases:
        model.embed([asked])
        judge.judge(asked, candidates)
        judge.judge(asked, candidates[:1])
    one, five, alone = "one embedding", f"judge, {_CANDIDATES} candidates", "judge, 1 candidate"
    timed = interleave(
        {
            one: lambda case: model.embed([case[0]]),
            five: lambda case: judge.judge(*case),
            alone: lambda case: judge.judge(case[0], case[1][:1]),
        },
        lambda number: cases[number * a_round :][:a_round],
        rounds,
    )
    rows = [[name, timed.show(name), f"{timed.ratio(name, one):.2f}"] for name in timed.seconds]
    bar = at_most(f"judging {_CANDIDATES} candidates, to one embedding of the question", timed.ratio(five, one), 3, "×")
    return [bar], table("What judging takes", ["", "ms", "to one embedding"], rows)


def _cases(texts: Sequence[str], vectors: Vectors, count: int) -> list[Case]:
    """Questions and the nearest others that no guard keeps back."""
    found: list[Case] = []
    for row in random.Random(23).sample(range(len(texts)), len(texts)):
        similarities = vectors @ vectors[row]
        nearest = (int(other) for other in np.argsort(-similarities)[: 4 * _CANDIDATES] if other != row)
        open_ = [other for other in nearest if veto(texts[row], texts[other], leave=READ) is None]
        if len(open_) >= _CANDIDATES:
            chosen = open_[:_CANDIDATES]
            found.append((texts[row], [(texts[other], float(similarities[other])) for other in chosen]))
        if len(found) == count:
            return found
    raise RuntimeError(f"only {len(found)} of {count} questions have {_CANDIDATES} neighbours that no guard keeps back")


def _loading(options: Options) -> tuple[list[Any], dict[str, Any]]:
    laps = [_loaded() for _ in range(2 if options.quick else _PROCESSES)]
    embedder, judge, first = (list(column) for column in zip(*laps, strict=True))
    rows = [
        [name, f"{statistics.median(column):.3f} ({min(column):.3f}–{max(column):.3f})"]
        for name, column in (("embedder, first vector", embedder), ("judge", judge), ("its first verdict", first))
    ]
    bar = at_most("loading the judge, on top of loading the embedder", statistics.median(judge), 0.2, " s")
    return [bar], table("Loading, s (least to most)", ["", f"median of {len(laps)} processes"], rows)


def _loaded() -> tuple[float, float, float]:
    done = subprocess.run([sys.executable, "-c", _LOADING], capture_output=True, text=True, check=True)
    embedder, judge, first = map(float, done.stdout.split())
    return embedder, judge, first


def _spared(texts: Sequence[str], vectors: Vectors) -> tuple[list[Any], dict[str, Any]]:
    """Calls of the model where none is due."""
    model, policy = _Counting(), default_policy()
    far = np.flatnonzero((vectors @ vectors[:_STORED].T).max(1) < policy.min_similarity - 0.02)[:100]
    asked = {
        "the same text": list(texts[:_STORED]),
        "no neighbour at the floor": [texts[row] for row in far],
        "another wording (the counter does count)": [f"{text} please" for text in texts[:_STORED]],
    }
    rows, bars = [], []
    with tempfile.TemporaryDirectory() as folder:
        judge = CrossEncoderJudge(model, policy=policy)
        cache = SemanticCache(
            LocalStore(Path(folder) / "spared.db"),
            embedder=SharedEmbedder(default_model()),
            judge=judge,
            time_budget=_PATIENCE_S,
        ).warm()
        requests = {
            text: cache.request([{"role": "user", "content": text}], model=MODEL)
            for group in asked.values()
            for text in group
        }
        for text in texts[:_STORED]:
            cache.update(requests[text], Answer(({"kind": "chat", "content": text},)))
        for name, group in asked.items():
            before = model.calls
            tiers = [hit.tier for text in group if (hit := cache.lookup(requests[text])) is not None]
            calls = model.calls - before
            rows.append([name, f"{len(group):,}", f"{tiers.count('exact'):,}", f"{calls:,}"])
            if name != list(asked)[-1]:
                bars.append(at_most(f"calls of the judge, {name}, {len(group)} lookups", calls, 0))
            elif not calls:
                raise RuntimeError("the judge is not asked of other wordings, either: this counter counts nothing")
        cache.close()
    columns = ["lookups of", "lookups", "exact hits", "calls of the judge's model"]
    return bars, table("When the judge is asked", columns, rows)


class _Counting:
    """The shipped model, counted."""

    def __init__(self) -> None:
        self._model = CrossEncoder()
        self.calls = 0

    def predict(self, sentences: list[tuple[str, str]]) -> list[float]:
        self.calls += 1
        return self._model.predict(sentences)
