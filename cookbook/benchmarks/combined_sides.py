"""The ways to serve the stream: an application with some of the levers, or with a peer in a lever's place."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.documents import Document
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_openai import ChatOpenAI
from langchain_redis import RedisSemanticCache
from pydantic import SecretStr

from cookbook.benchmarks.combined_stream import CHEAP, STRONG, Question
from cookbook.benchmarks.compression_peers import optimised
from cookbook.benchmarks.material import model
from cookbook.benchmarks.peers import OurEmbeddings
from costopt import Optimizer, RedisStore, RouteDecision, SemanticCache, SharedEmbedder
from costopt.batch import Backoff
from costopt.routing import Estimator, QualityFloor, RouteRequest, StrongShare
from tests.servers import RedisServer

__all__ = ["FLOOR", "LAST", "PEERS", "RATIO", "SENTENCES", "SIDES", "Application", "Kit", "application"]

FLOOR, RATIO = 0.95, 0.33
SENTENCES = 0.5  # of each passage, for LlamaIndex's optimiser: with fewer it sends fewer tokens than ours
_BATCH: dict[str, Any] = {"backoff": Backoff(first=0.01, most=0.05)}
_PATIENCE_S = 60.0  # nothing may time out: what is compared is what is served

LAST = "cache, router, compression and batch"
SIDES: dict[str, tuple[str, ...]] = {
    "nothing": (),
    "cache": ("cache",),
    "router": ("router",),
    "compression": ("compression",),
    "batch": ("batch",),
    "cache and router": ("cache", "router"),
    "cache, router and compression": ("cache", "router", "compression"),
    LAST: ("cache", "router", "compression", "batch"),
}
PEERS = {
    "langchain-redis for the cache": ("langchain-redis",),
    "the longest to the dear model": ("longest",),
    "some by chance to the dear model": ("lot",),
    "LlamaIndex's sentence optimiser for the compressor": ("sentences",),
}
SIDES |= PEERS


@dataclass(frozen=True)
class Kit:
    """What the sides are made of.

    Attributes:
        url: The server, as OpenAI's SDK wants it.
        folder: For stores, ledgers and journals.
        estimator: Trained on outcomes of the exam's kind.
        recent: Prompts of that kind without labels, for thresholds.
    """

    url: str
    folder: Path
    estimator: Estimator
    recent: Sequence[str]


@dataclass(frozen=True)
class _Blind:
    """Sorts by something that knows nothing of the models: the first thing that a router must beat."""

    name: str
    of: Callable[[str], float]
    tiers: None = None
    wants_vectors: bool = False

    def scores(self, texts: Sequence[str], vectors: Any = None) -> Any:
        """As in `Estimator`."""
        return np.array([[self.of(text)] for text in texts])


_LENGTH = _Blind("length", lambda text: float(len(text)))
_LOT = _Blind("lot", lambda text: random.Random(text).random())


class Application:
    """An `Optimizer`, and what it makes for each part of the stream."""

    def __init__(self, kit: Kit, name: str, share: float, server: RedisServer | None) -> None:
        self.levers = SIDES[name]
        self.embedder = SharedEmbedder(model(), memo_size=100_000)  # each side embeds for itself
        self._cheap, self._strong = (
            ChatOpenAI(model=each, base_url=kit.url, api_key=SecretStr("none"), max_retries=0)
            for each in (CHEAP, STRONG)
        )
        self.optimizer = self._made(kit, share, server)
        self._desk = self.optimizer.langchain(self._strong)
        self._exam = self._desk
        if self._routing(kit, share) is not None:
            self._exam = self.optimizer.langchain(self._cheap, self._strong)
            self._exam.llm.router.calibrate(kit.recent)
        self._shorten: Callable[[Sequence[str], str], list[str]] | None = None
        if "compression" in self.levers:
            self._shorten = self._compressed
        elif "sentences" in self.levers:
            self._shorten = optimised(self.embedder, SENTENCES)
        if "langchain-redis" in self.levers and server is not None:
            # Into a model as a user would put it.
            theirs = RedisSemanticCache(OurEmbeddings(self.embedder), redis_url=server.url)
            self._desk.llm = self._strong.model_copy(update={"cache": theirs, "callbacks": [self._desk.tracker]})

    def _made(self, kit: Kit, share: float, server: RedisServer | None) -> Optimizer:
        given: dict[str, Any] = {"ledger": kit.folder / "ledger.db", "batch": _BATCH | {"journal": kit.folder / "j.db"}}
        if "cache" in self.levers and server is not None:
            store = RedisStore(server.url, timeout=_PATIENCE_S)
            given["cache"] = SemanticCache(store, embedder=self.embedder, time_budget=_PATIENCE_S).warm()
        if "compression" in self.levers:
            given["compressor"] = {"target_ratio": RATIO, "model": STRONG, "embedder": self.embedder}
        return Optimizer(**given, router=self._routing(kit, share))

    def _routing(self, kit: Kit, share: float) -> dict[str, Any] | None:
        chosen: dict[str, dict[str, Any]] = {
            "router": {"estimator": kit.estimator, "policy": QualityFloor(FLOOR)},
            "longest": {"estimator": _LENGTH, "policy": StrongShare(share)},
            "lot": {"estimator": _LOT, "policy": StrongShare(share)},
        }
        options = next((chosen[lever] for lever in self.levers if lever in chosen), None)
        return None if options is None else {**options, "embedder": self.embedder}

    def _compressed(self, passages: Sequence[str], question: str) -> list[str]:
        compressor = self._desk.document_compressor
        assert compressor is not None
        return [kept.page_content for kept in compressor.compress_documents(list(map(Document, passages)), question)]

    def ask(self, question: Question) -> AIMessage:
        """Now, by the part's model."""
        app = self._exam if question.part == "exam" else self._desk
        answer: AIMessage = app.llm.invoke(self._messages(question))
        return answer

    def ask_later(self, questions: Sequence[Question]) -> list[AIMessage]:
        """By the provider's batch API, all at once: a batch for each model."""
        found: dict[int, AIMessage] = {}
        tiers = [self._tier(question) for question in questions]
        for llm in (self._cheap, self._strong):
            own = [i for i, tier in enumerate(tiers) if tier == llm.model_name]
            answers = self._desk.batch_runner(llm).batch([self._messages(questions[i]) for i in own]) if own else []
            found |= dict(zip(own, answers, strict=True))
        return [found[i] for i in range(len(questions))]

    def _tier(self, question: Question) -> str:
        if question.part != "exam" or self._exam is self._desk:
            return STRONG
        decision: RouteDecision = self._exam.llm.router.decide(RouteRequest(question.text))
        return decision.chosen

    def _messages(self, question: Question) -> list[Any]:
        """The prompt, with the passages shortened if that is a lever here."""
        passages: Sequence[str] = question.passages
        if passages and self._shorten:
            passages = self._shorten(passages, question.text)
        system = "\n\n".join([question.instruction, *passages])
        return [*([SystemMessage(system)] if system else []), HumanMessage(question.text)]

    def spent(self) -> Decimal:
        """What the ledger says."""
        ledger = self.optimizer.ledger
        assert ledger is not None
        ledger.flush()
        return ledger.totals().cost


@contextmanager
def application(kit: Kit, name: str, share: float) -> Iterator[Application]:
    """One side, with what it needs; `share` is for the routers that know nothing: how much goes to the dear model.

    Raises:
        RuntimeError: If a cache stepped over anything, for then it is another cache that was measured.
    """
    with ExitStack() as stack:
        server = stack.enter_context(RedisServer()) if {"cache", "langchain-redis"}.intersection(SIDES[name]) else None
        app = Application(kit, name, share, server)
        stack.enter_context(app.optimizer)
        yield app
        stats = app.optimizer.cache.stats() if app.optimizer.cache else None
        if stats and (stats.failures or stats.refused):
            raise RuntimeError(f"not a healthy cache: {dict(stats.failures)}, {dict(stats.refused)}")
