"""Model calls of every kind through LangChain and LlamaIndex, by real SDKs, and servers that count what they bill."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from langchain_anthropic import ChatAnthropic
from langchain_core.caches import InMemoryCache
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai import OpenAI
from openai import BadRequestError, RateLimitError

import langchain_costopt as lc
import llamaindex_costopt as li
from costopt import LocalStore, Price, Tier
from costopt.audit import Ledger
from costopt.batch import Backoff
from tests.anthropic_server import AnthropicServer, anthropic_server
from tests.batch_server import BatchServer, batch_server
from tests.billing import PRICES, Bill
from tests.llamaindex.claude import Claude
from tests.openai_server import Behaviour, OpenAIServer, openai_server

__all__ = ["Mixed", "mixed"]

# What the batch server is paid for a token, in nano-dollars: half of what a single call is.
_BATCH_RATES = 75, 300
_AGAIN = Behaviour(status=429, error="slow down", headers={"retry-after-ms": "1"})
_WORKERS = 4


@dataclass
class Mixed:
    """Models of both frameworks, trackers on one ledger, and the bill.

    Attributes:
        calls: How many were made, by kind.
        bill: What single calls were billed.
        ledger: What the trackers say.
    """

    folder: Path
    openai: OpenAIServer
    anthropic: AnthropicServer
    batches: BatchServer
    ledger: Ledger
    bill: Bill
    seed: int = 0
    calls: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._chance = random.Random(self.seed)
        for model in ("gpt-4o-mini", "o4-mini", "gpt-4o"):
            self.openai.behaviours[model] = lambda _, model=model: self.bill.openai(model)  # type: ignore[misc]
        # Two of five are told to come again, and are not billed.
        self.openai.behaviours["gpt-4.1-mini"] = lambda number: (
            _AGAIN if random.Random(number).random() < 0.4 else self.bill.openai("gpt-4.1-mini")
        )
        self.openai.behaviours["broken"] = Behaviour(status=400)
        self.anthropic.usage = self.bill.anthropic
        batch_prices = {"gpt-4o-mini": Price(*(Decimal(rate) / 1000 for rate in _BATCH_RATES))}
        self.tracker = lc.CostTracker(self.ledger, prices=PRICES, batch_prices=batch_prices, tags=["langchain"])
        self.handler = li.CostTracker(self.ledger, prices=PRICES, batch_prices=batch_prices, tags=["llamaindex"])
        self.cache = lc.SemanticCache(LocalStore(self.folder / "cache.db"), exact_only=True, time_budget=10.0)
        self._config: Any = {"callbacks": [self.tracker]}
        self._make()

    @property
    def dollars(self) -> Decimal:
        """What both servers billed."""
        read, written = self.batches.usage
        return self.bill.dollars + Decimal(read * _BATCH_RATES[0] + written * _BATCH_RATES[1]) / 10**9

    @property
    def tokens(self) -> dict[str, int]:
        """The tokens of both."""
        read, written = self.batches.usage
        return dict(self.bill.tokens + Counter(input_tokens=read, output_tokens=written))

    @property
    def counted(self) -> dict[str, int]:
        """The tokens that the ledger has."""
        totals = self.ledger.totals()
        return {name: getattr(totals, name) for name in self.tokens}

    def run(self, calls: int) -> None:
        """Make so many calls, an eighth of them through a batch."""
        kinds = list(self._kinds())
        single = calls - calls // 8
        plan = [(self._chance.choice(kinds), f"question {number}") for number in range(single)]
        with ThreadPoolExecutor(_WORKERS) as pool:
            list(pool.map(lambda each: self._one(*each), plan))
        options: Any = {"journal": self.folder / "batch.db", "backoff": Backoff(first=0.01, most=0.05), "settle": 0.05}
        url = f"{self.batches.url}/v1"
        lc.BatchRunner(self._chat("gpt-4o-mini", base_url=url), **options).batch(
            self._rows("batch", calls // 8 - calls // 16), self._config
        )
        li.BatchRunner(self._llama("gpt-4o-mini", api_base=url), **options).batch(
            self._rows("LlamaIndex batch", calls // 16)
        )
        assert self.ledger.flush(60)

    def _one(self, kind: str, question: str) -> None:
        self.calls[kind] += 1
        self._doing[kind](question)

    def _rows(self, kind: str, count: int) -> list[str]:
        """Questions of which three stand there twice."""
        self.calls[kind] += count
        return [f"{kind} {number % (count - 3)}" for number in range(count)]

    def _kinds(self) -> Iterator[str]:
        yield from self._doing

    def _make(self) -> None:
        mini, flaky = self._chat("gpt-4o-mini"), self._chat("gpt-4.1-mini", max_retries=0)
        reasoning, broken = self._chat("o4-mini"), self._chat("broken", max_retries=0)
        cached = self._chat("gpt-4o", cache=self.cache)
        other = self._chat("gpt-4o", cache=InMemoryCache())
        patient = self._chat("gpt-4.1-mini", max_retries=20)
        retried = flaky.with_retry(
            retry_if_exception_type=(RateLimitError,), wait_exponential_jitter=False, stop_after_attempt=30
        )
        fallen = broken.with_fallbacks([flaky.with_fallbacks([mini])])
        claude = ChatAnthropic(model_name="claude-haiku-4-5", base_url=self.anthropic.url, api_key="sk-none")  # type: ignore[call-arg, arg-type]
        tiers = [Tier(chat, price=PRICES[chat.model_name]) for chat in (flaky, self._chat("gpt-4o"))]
        router = lc.RouterRunnable(tiers=tiers)
        llama, nested = self._llama("gpt-4o-mini"), Claude(self.anthropic.url)
        remembering = li.CachedLLM(self._llama("gpt-4o"), cache=self.cache.core)
        llamas = [self._llama(name, max_retries=0) for name in ("gpt-4.1-mini", "gpt-4o")]
        routing = li.RouterLLM(tiers=[Tier(each, name=each.model, price=PRICES[each.model]) for each in llamas])
        config = self._config

        async def awaited(question: str) -> None:
            await mini.ainvoke(question, config)
            [_ async for _ in reasoning.astream(question, config)]

        self._doing: dict[str, Callable[[str], Any]] = {
            "invoke": lambda q: mini.invoke(q, config),
            "stream": lambda q: list(mini.stream(q, config)),
            "reasoning": lambda q: reasoning.invoke(q, config),
            "awaited": lambda q: asyncio.run(awaited(q)),
            "retried": lambda q: retried.invoke(q, config),
            "retried by the SDK": lambda q: patient.invoke(q, config),
            "fallen back": lambda q: fallen.invoke(q, config),
            "failed": lambda q: _failing(broken, q, config),
            "hit": lambda q: cached.invoke(_few(q), config),
            "hit of another cache": lambda q: other.invoke(_few(q), config),
            "Anthropic": lambda q: claude.invoke(q, config),
            "Anthropic, streamed": lambda q: list(claude.stream(q, config)),
            "routed": lambda q: router.invoke(q, config),
            "routed, streamed": lambda q: list(router.stream(q, config)),
            "LlamaIndex chat": lambda q: llama.chat([ChatMessage(role="user", content=q)]),
            "LlamaIndex completion": lambda q: llama.complete(q),
            "LlamaIndex, streamed": lambda q: list(llama.stream_chat([ChatMessage(role="user", content=q)])),
            "LlamaIndex hit": lambda q: remembering.complete(_few(q)),
            "LlamaIndex routed": lambda q: routing.chat([ChatMessage(role="user", content=q)]),
            "LlamaIndex, Anthropic": lambda q: nested.complete(q),
            "LlamaIndex, Anthropic, streamed": lambda q: list(nested.stream_complete(q)),
        }

    def _llama(self, model: str, **options: Any) -> OpenAI:
        return OpenAI(**{"model": model, "api_base": self.openai.url, "api_key": "sk-none", **options})

    def _chat(self, model: str, **options: Any) -> ChatOpenAI:
        return ChatOpenAI(**{"model": model, "base_url": self.openai.url, "api_key": "sk-none", **options})


@contextmanager
def mixed(folder: Path, seed: int = 0) -> Iterator[Mixed]:
    """Servers, models and trackers, ready to run."""
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder / "ledger.db"))
        servers = [stack.enter_context(make()) for make in (openai_server, anthropic_server, batch_server)]
        made = Mixed(folder, *servers, ledger, Bill(seed), seed)  # type: ignore[arg-type]
        stack.callback(made.cache.close)
        stack.enter_context(made.handler.installed())
        yield made


def _failing(chat: ChatOpenAI, question: str, config: Any) -> None:
    with pytest.raises(BadRequestError, match="told to fail"):
        chat.invoke(question, config)


def _few(question: str) -> str:
    """One of a few questions, so that it has mostly been asked before."""
    return f"{question.split()[0]} {int(question.split()[1]) % 5}"
