"""What the benchmarks work on: questions, their embeddings, answers, and where they come from."""

from __future__ import annotations

import gzip
import hashlib
import itertools
import json
import random
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt import MiniLMEmbedder
from costopt.caching.answer import Answer
from costopt.caching.entry import Entry, encode
from costopt.caching.request import CacheRequest, normalise
from costopt.caching.store import Record, Store
from costopt.embedding import default_model
from costopt.pricing import Usage

__all__ = ["MODEL", "SOURCES", "Library", "Options", "answer", "embedded", "fill", "model", "questions", "read_rows"]

Vectors = NDArray[np.float32]

MODEL = "gpt-4o-mini"
TTL_S = 24 * 3600.0
_CHUNK = 4096

SOURCES = {
    "caching/question_pairs.jsonl.gz": "https://github.com/zilliztech/GPTCache/tree/main/examples/benchmark",
    "caching/prompt_pairs.jsonl.gz": "https://github.com/redislabsdev/langcache-customer-data-eval",
    "caching/banking77.jsonl.gz": "https://github.com/PolyAI-LDN/task-specific-datasets",
    "compression/nq_passages.jsonl.gz": "https://github.com/nelson-liu/lost-in-the-middle",
    "compression/covid_qa.jsonl.gz": "https://github.com/deepset-ai/COVID-QA",
    "compression/qmsum.jsonl.gz": "https://github.com/Yale-LILY/QMSum",
    "routing/mmlu.jsonl.gz": "https://github.com/lm-sys/RouteLLM/tree/main/routellm/evals",
    "routing/gsm8k.jsonl.gz": "https://github.com/lm-sys/RouteLLM/tree/main/routellm/evals",
}

_ASKING = (
    "How do I", "What is the best way to", "Why can't I", "When should I", "Who can help me", "Is it safe to",
    "Can somebody explain how to", "Where do I go to", "What happens if I", "Should a beginner", "What does it cost to",
)  # fmt: skip
_DOING = (
    "repair", "sell", "paint", "insure", "clean", "move", "replace", "photograph", "measure", "borrow", "return",
    "store", "test", "share", "register", "cancel", "upgrade", "explain", "design", "import",
)  # fmt: skip
_THING = (
    "a bicycle", "my telephone", "the kitchen table", "an old piano", "a garden fence", "my health insurance",
    "the company car", "a train ticket", "a wedding dress", "the washing machine", "a rented flat", "my bank card",
    "a neural network", "the holiday photos", "a wooden boat", "the tax return", "a parcel", "my passport",
    "a swimming pool", "the coffee maker", "a thesis", "the heating", "an e-mail account", "a violin",
)  # fmt: skip
_WHEN = (
    "in winter", "without tools", "abroad", "before a holiday", "after an accident", "on a small budget", "at night",
    "with children around", "when nobody is home", "in a big city", "under warranty", "by myself", "over the internet",
    "for the first time", "in a hurry", "as a student", "on the road", "without a receipt", "in the rain",
    "during the exams",
)  # fmt: skip
_WORDS = "the of and to in is that for it as with on be at by this from or an are not can may your which will".split()


@dataclass(frozen=True, slots=True)
class Options:
    """How to run: `data` is the folder of the public data sets or None, `quick` is for trying things out.

    `minutes` is how long the soak takes.
    """

    data: Path | None
    quick: bool
    minutes: float = 60.0

    @property
    def sizes(self) -> tuple[int, int, int]:
        """Entries in a store."""
        return (250, 1_000, 4_000) if self.quick else (1_000, 10_000, 100_000)

    @property
    def rounds(self) -> int:
        """Rounds of a timing."""
        return 5 if self.quick else 7


def read_rows(options: Options, name: str) -> list[dict[str, Any]] | None:
    """The rows of a data set; None where it is absent."""
    path = None if options.data is None else options.data / name
    if path is None or not path.is_file():
        return None
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        return [json.loads(line) for line in lines]


def questions(options: Options, count: int) -> tuple[list[str], str]:
    """`count` different questions and where they are from: real ones first, generated ones for the rest."""
    rows = read_rows(options, "caching/question_pairs.jsonl.gz") or []
    real = dict.fromkeys(normalise(row[side]) for row in rows for side in ("a", "b"))
    texts = [text for text in real if 20 <= len(text) <= 200][:count]
    made = [" ".join(words) + "?" for words in itertools.product(_ASKING, _DOING, _THING, _WHEN)]
    random.Random(7).shuffle(made)
    generated = count - len(texts)
    # Spread evenly, so that a smaller store holds the same mixture.
    mixed = texts + made[:generated]
    random.Random(11).shuffle(mixed)
    return mixed, f"{len(texts):,} questions of question_pairs and {generated:,} generated ones"


def answer(row: int) -> Answer:
    """About 120 words, different for every row."""
    chosen = random.Random(row)
    words = f"Answer {row}: " + " ".join(chosen.choices(_WORDS, k=120))
    extra = {"name": None, "invalid": [], "kwargs": {}, "metadata": {"model_name": MODEL}, "info": {}}
    generation = {"kind": "chat", "content": words, "tool_calls": [], "finish": "stop", "refusal": False}
    return Answer(({**generation, "extra": extra},), Usage(40, 150))


def model() -> MiniLMEmbedder:
    """The bare embedder, no memo, no dispatcher: the one that the judge reads with, too."""
    default_model().load()
    return default_model()


def embedded(texts: Sequence[str]) -> Vectors:
    """Embeddings of the texts, in batches; kept in the system's folder for temporary files, by content."""
    embedder = model()
    content = hashlib.blake2b("\0".join((embedder.name, embedder.dtype, *texts)).encode("utf-8", "replace"))
    path = Path(tempfile.gettempdir()) / "costopt-benchmarks" / f"{content.hexdigest()[:24]}.npy"
    if path.is_file():
        kept: Vectors = np.load(path)
        return kept
    vectors = np.concatenate([embedder.embed(texts[i : i + _CHUNK]) for i in range(0, len(texts), _CHUNK)])
    path.parent.mkdir(exist_ok=True)
    np.save(path, vectors)
    return vectors


class Library:
    """An embedder that knows some texts already; it asks the model for the others."""

    loaded = True

    def __init__(self, texts: Sequence[str], vectors: Vectors) -> None:
        self.name, self.dimension = model().name, model().dimension
        self._rows = {text: row for row, text in enumerate(texts)}
        self._vectors = vectors
        self._fits: dict[str, bool] = {}

    def embed(self, texts: Sequence[str]) -> Vectors:
        """As in `Embedder`."""
        rows = [self._rows.get(text) for text in texts]
        if None in rows:
            return model().embed(texts)
        return self._vectors[rows]

    def fits(self, text: str) -> bool:
        """As in `Embedder`."""
        if text not in self._fits:
            self._fits[text] = model().fits(text)
        return self._fits[text]


def fill(store: Store, rows: Iterator[tuple[int, CacheRequest]], vectors: Vectors) -> None:
    """Put entries into a store by its own `put`, and wait until its index has them."""
    now = time.time()
    for row, request in rows:
        entry = Entry(
            request.key, request.scope, request.tenant, request.model, request.text, answer(row), now, now + TTL_S
        )
        store.put(Record(entry, encode(entry), vectors[row], TTL_S))
    store.open()
