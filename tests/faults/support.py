"""A model that counts what it is paid for, embedders that fail, and faults to inflict on a Redis."""

from __future__ import annotations

import asyncio
import hashlib
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr

from costopt.caching import Answer, CacheRequest
from langchain_costopt import SemanticCache

# The bar is 250 ms added, measured by `make bench`; a test on a shared machine guards against seconds.
MOST_ADDED_S = 0.35
BREAKER_OPEN_S = 0.001
COLD = "What is the capital of France?"
REWORDED = "what is the capital of France ?"


class Model(BaseChatModel):
    """Answers in words that tell which question it was asked; may take its time, or fail."""

    seconds: float = 0.0
    fail_first: bool = False
    _asked: list[str] = PrivateAttr(default_factory=list)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def _llm_type(self) -> str:
        return "fault-test"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model": "fault-test-1"}

    @property
    def calls(self) -> int:
        return len(self._asked)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        first = self._note(messages)
        time.sleep(self.seconds)
        return self._result(messages, first)

    async def _agenerate(self, messages: list[BaseMessage], *_: Any, **kwargs: Any) -> ChatResult:
        first = self._note(messages)
        await asyncio.sleep(self.seconds)
        return self._result(messages, first)

    def _note(self, messages: list[BaseMessage]) -> bool:
        with self._lock:
            self._asked.append(str(messages[-1].content))
            return len(self._asked) == 1

    def _result(self, messages: list[BaseMessage], first: bool) -> ChatResult:
        if self.fail_first and first:
            raise ConnectionError("the provider is down")
        message = AIMessage(content=answer_to(messages[-1].content))
        return ChatResult(generations=[ChatGeneration(message=message)])


def answer_to(question: Any) -> str:
    """What `Model` answers; a served answer that is another question's shows at once."""
    return "answer " + hashlib.sha256(repr(question).encode()).hexdigest()[:12]


def tier(message: Any) -> str | None:
    """Which tier served a message; None if it was paid for."""
    served = message.response_metadata.get("costopt")
    return None if served is None else served["cache"]


Ask = Callable[[BaseChatModel, Any], Any]


def ask(model: BaseChatModel, question: Any) -> tuple[Any, float]:
    """The answer and the seconds it took."""
    started = time.perf_counter()
    answer = model.invoke(question)
    return answer, time.perf_counter() - started


async def aask(model: BaseChatModel, question: Any) -> tuple[Any, float]:
    """`ask`, awaited."""
    started = time.perf_counter()
    answer = await model.ainvoke(question)
    return answer, time.perf_counter() - started


def questions(topic: str, count: int) -> list[str]:
    """Questions that are new and unlike each other, so that each is a miss in every tier."""
    animals = ("llama", "otter", "heron", "badger", "lynx", "newt", "ibex", "wombat", "gecko", "puffin")
    verbs = ("sleep", "swim", "weigh", "migrate", "breed", "drink", "hunt", "dig")
    return [f"{topic}: how long does a {animals[i % 10]} {verbs[i // 10 % 8]} in year {1900 + i}?" for i in range(count)]


def median_lookup_s(cache: SemanticCache, topic: str, count: int = 30) -> float:
    """Median seconds of a core lookup of a new question."""
    taken = []
    for question in questions(topic, count):
        request = chat(cache, question)
        started = time.perf_counter()
        cache.core.lookup(request)
        taken.append(time.perf_counter() - started)
    return sorted(taken)[count // 2]


def chat(cache: SemanticCache, content: Any, **more: Any) -> CacheRequest:
    """The core request for one human message."""
    return cache.core.request([{"role": "user", "content": content, **more}], model="fault-test-1")


def said(content: str) -> Answer:
    """An answer for the core."""
    return Answer(({"kind": "chat", "content": content},))


class Words:
    """A deterministic embedder of one vector per bag of words, which fails on demand."""

    name = "words"
    dimension = 64

    def __init__(self) -> None:
        self.fault: Callable[[Sequence[str]], Any] | None = None

    def embed(self, texts: Sequence[str]) -> Any:
        return self.good(texts) if self.fault is None else self.fault(texts)

    def good(self, texts: Sequence[str]) -> Any:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().replace("?", " ").split():
                seed = int.from_bytes(hashlib.sha256(word.encode("utf-8", "replace")).digest()[:4], "little")
                row += np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)
            row[0] += 1e-3
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
