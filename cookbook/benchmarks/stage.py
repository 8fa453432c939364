"""Caches of every size, filled once and shared by the benchmarks of lookups."""

from __future__ import annotations

import atexit
import gc
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import redis
from langchain_core.load import dumps
from langchain_core.messages import HumanMessage, SystemMessage

import costopt
from cookbook.benchmarks.material import MODEL, Options, Vectors, embedded, fill, model, questions
from costopt import LocalStore, RedisStore, SharedEmbedder, SimilarityJudge
from costopt.caching.request import CacheRequest, normalise
from langchain_costopt import SemanticCache
from tests.servers import RedisServer

__all__ = ["COSINE", "KINDS", "LLM", "Probe", "Stage", "reworded", "stage"]

LLM = f"[('model_name', '{MODEL}'), ('stop', None), ('temperature', 0.0)]---"
COSINE = SimilarityJudge(0.9)
"""What decides where the cache itself is timed: it takes no time, and accepts most other wordings."""
KINDS = ("one scope", "half in one scope", "scopes of 250", "singletons")
_MID = 250
_TRIES = 400
_FORMS = ("{}, please?", "{} please", "Please tell me: {}?", "Hello, {}?", "{}? Thanks!", "Tell me, {}?")
_FORMS += ("Hi! {}?", "I wonder: {}?", "{}? Thank you.", "Question: {}?", "{}, do you know?", "Please, {}?")


@dataclass(frozen=True, slots=True)
class Probe:
    """Another wording of a stored question: a lookup that hits in the semantic tier."""

    row: int
    text: str
    prompt: str
    request: CacheRequest


@dataclass
class Stage:
    """Redis, the questions, and a cache for each (store, layout, size); `COSINE` decides, if not said otherwise."""

    options: Options
    server: RedisServer = field(default_factory=RedisServer)
    folder: Path = field(default_factory=lambda: Path(tempfile.mkdtemp(prefix="costopt-bench-")))
    caches: dict[tuple[str, str, int], SemanticCache] = field(default_factory=dict)
    judged_caches: dict[tuple[str, str, int], SemanticCache] = field(default_factory=dict)
    filled_s: dict[str, float] = field(default_factory=dict)
    asked: set[tuple[str, int, str]] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.texts, self.source = questions(self.options, self.options.sizes[-1])
        self.vectors: Vectors = embedded(self.texts)
        self.raw: Any = redis.Redis.from_url(self.server.url)
        plan = [("one", size) for size in self.options.sizes]
        plan += [("many", size) for size in (self.options.sizes[0], self.options.sizes[-1])]
        with ThreadPoolExecutor(2) as pool:
            # Redis builds its index in its own process meanwhile.
            list(pool.map(lambda kind: [self._fill(kind, layout, size) for layout, size in plan], ("redis", "local")))
        # What is loaded now stays: the collector need not look at it in the middle of a lookup.
        gc.collect()
        gc.freeze()

    def cache(self, kind: str, layout: str, size: int) -> SemanticCache:
        """The adapter over a filled store; `.core` is the core."""
        return self.caches[kind, layout, size]

    def judged(self, kind: str, layout: str, size: int) -> SemanticCache:
        """Another cache over the same store, with the judge that comes by default, warm."""
        if (kind, layout, size) not in self.judged_caches:
            store = self.cache(kind, layout, size).core.store
            made = SemanticCache(store, embedder=SharedEmbedder(model(), memo_size=100_000)).warm()
            self.judged_caches[kind, layout, size] = made
        return self.judged_caches[kind, layout, size]

    def scope(self, layout: str, size: int, row: int) -> str | None:
        """The system prompt that a row was asked under."""
        if layout == "one":
            return None
        if row < size // 2:
            return "You answer for everybody."
        if row < size * 3 // 4:
            return f"You answer for group {(row - size // 2) // _MID}."
        return f"You answer for customer {row} alone."

    def prompt(self, text: str, scope: str | None) -> str:
        """What LangChain hands to its cache for a chat model."""
        system = [] if scope is None else [SystemMessage(scope)]
        return str(dumps([*system, HumanMessage(text)]))

    def request(self, text: str, scope: str | None, cache: SemanticCache) -> CacheRequest:
        """The same as the core sees it."""
        system = [] if scope is None else [{"role": "system", "content": scope}]
        return cache.core.request([*system, {"role": "user", "content": text}], model=MODEL, params=LLM)

    def span(self, size: int, kind: str) -> tuple[int, int]:
        """First row of a kind of scope, and the one after its last."""
        return {
            "one scope": (0, size),
            "half in one scope": (0, size // 2),
            "scopes of 250": (size // 2, size * 3 // 4),
            "singletons": (size * 3 // 4, size),
        }[kind]

    def probes(
        self, layout: str, size: int, kind: str, count: int, longest: int = 400, *, judged: bool = False
    ) -> list[Probe]:
        """Other wordings of stored questions, such as the cache answers in its semantic tier; never the same again.

        With `judged`, such as it answers with either judge.
        """
        low, high = self.span(size, kind)
        chosen, found = random.Random(f"{kind}{size}{len(self.asked)}"), list[Probe]()
        cache = self.cache("local", layout, size)
        # A cache of its own over the same store: those that are timed must not know the texts yet.
        embedder = SharedEmbedder(model())
        scouts = [costopt.SemanticCache(cache.core.store, embedder=embedder, judge=COSINE, time_budget=5.0)]
        if judged:
            scouts.append(costopt.SemanticCache(cache.core.store, embedder=embedder, time_budget=5.0))
        for _ in range(_TRIES):
            rows = [chosen.randrange(low, high) for _ in range(256)]
            texts = [reworded(self.texts[row], chosen) for row in rows]
            embedder.embed(texts)  # in batches, for the scout
            for row, text in zip(rows, texts, strict=True):
                if len(text) > longest or (layout, size, text) in self.asked:
                    continue
                scope = self.scope(layout, size, row)
                request = self.request(text, scope, cache)
                hits = (scout.lookup(request) for scout in scouts)
                if all(hit is not None and hit.tier == "semantic" for hit in hits):
                    self.asked.add((layout, size, text))
                    found.append(Probe(row, text, self.prompt(text, scope), request))
                if len(found) == count:
                    return found
        raise RuntimeError(f"{size:,} entries give only {len(found):,} wordings that hit, not {count:,}")

    def close(self) -> None:
        """Give everything back."""
        for cache in (*self.judged_caches.values(), *self.caches.values()):
            cache.close()
        self.server.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _fill(self, kind: str, layout: str, size: int) -> None:
        started = time.perf_counter()
        name = f"{layout}{size}"
        store = (
            RedisStore(self.server.url, namespace=f"bench{name}", timeout=5.0)
            if kind == "redis"
            else LocalStore(self.folder / f"{name}.db")
        )
        # A memo and a dispatcher of its own, over the same model.
        cache = SemanticCache(store, embedder=SharedEmbedder(model(), memo_size=100_000), judge=COSINE)
        store.open()
        fill(store, self._requests(layout, size, cache), self.vectors)
        if kind == "redis":
            self._until_indexed(f"bench{name}", size)
        self.caches[kind, layout, size] = cache
        self.filled_s[f"{kind}, {layout}, {size:,}"] = time.perf_counter() - started

    def _requests(self, layout: str, size: int, cache: SemanticCache) -> Iterator[tuple[int, CacheRequest]]:
        for row in range(size):
            yield row, self.request(self.texts[row], self.scope(layout, size, row), cache)

    def _until_indexed(self, namespace: str, size: int) -> None:
        names = [name.decode() for name in self.raw.execute_command("FT._LIST")]
        index = next(name for name in names if name.startswith(f"{namespace}:"))
        while int(self.raw.ft(index).info()["num_docs"]) < size:
            time.sleep(0.1)


def reworded(text: str, chosen: random.Random) -> str:
    """The text as somebody else might put it; whether a cache finds that is not looked at."""
    bare = text.rstrip("?!. ")
    return normalise(chosen.choice(_FORMS).format(bare))


@lru_cache(maxsize=1)
def stage(options: Options) -> Stage:
    """The one stage of this run."""
    made = Stage(options)
    atexit.register(made.close)
    return made
