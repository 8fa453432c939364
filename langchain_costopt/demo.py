"""`costopt demo`: replay a request log through LangChain, with and without the cache, at a simulated provider."""

from __future__ import annotations

import json
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from decimal import Decimal
from importlib import resources
from pathlib import Path
from typing import Any

from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, convert_to_messages
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatResult
from rich.console import Console
from rich.progress import Progress
from rich.table import Table

from costopt.caching import LocalStore, RedisStore
from costopt.errors import ConfigError
from costopt.jsonl import read_jsonl
from costopt.pricing import Usage, cost
from langchain_costopt.cache import SemanticCache

__all__ = ["Outcome", "Request", "SimulatedChatModel", "read_log", "replay", "run_demo", "sample_log"]

_WORD = re.compile(r"\w+|[^\w\s]")
_SAMPLE = "requests.jsonl"
# What the simulated provider would take to answer; nobody waits for it.
_FIRST_TOKEN_S = 0.4
_TOKENS_PER_S = 60.0
_PATIENCE_S = 10.0


class SimulatedChatModel(BaseChatModel):
    """A chat model that answers from a log: no network, no waiting, usage counted and priced as if real.

    Args:
        model_name: The model it stands for.
        temperature: Part of its identity, as with a real model.
        answer: What it says next.
    """

    model_name: str
    temperature: float = 0.0
    response_format: dict[str, Any] | None = None
    answer: str = ""

    @property
    def _llm_type(self) -> str:
        return "costopt-simulated"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "model_name": self.model_name,
            "temperature": self.temperature,
            "response_format": self.response_format,
        }

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        usage = UsageMetadata(
            input_tokens=sum(_tokens(str(message.content)) for message in messages),
            output_tokens=_tokens(self.answer),
            total_tokens=0,
        )
        usage["total_tokens"] = usage["input_tokens"] + usage["output_tokens"]
        message = AIMessage(
            content=self.answer,
            usage_metadata=usage,
            response_metadata={"model_name": self.model_name, "finish_reason": "stop"},
        )
        return ChatResult(generations=[ChatGeneration(message=message)])


@dataclass(frozen=True, slots=True)
class Request:
    """A line of a request log; `answer_id` and `kind` are None in a log without labels."""

    messages: Sequence[Mapping[str, str]]
    model: str
    tenant: str
    temperature: float
    response_format: dict[str, Any] | None
    answer: str
    answer_id: str | None
    kind: str | None


@dataclass(slots=True)
class Outcome:
    """What a replay cost.

    Attributes:
        name: How the application was set up.
        calls: Calls that were paid for.
        input_tokens: Their input tokens.
        output_tokens: Their output tokens.
        usd: Their price; calls to models without a known price are counted in `unpriced` instead.
        hits: Hits by tier.
        wrong: Served answers whose `answer_id` is not the one asked for; None if the log has no labels.
        lookups_s: What LangChain took for each request, simulated waiting left out.
        provider_s: What the provider would have taken for the paid calls.
        by_kind: (kind, "served" or "wrong") -> how often.
    """

    name: str
    calls: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    usd: Decimal = Decimal(0)
    unpriced: int = 0
    hits: Counter[str] = field(default_factory=Counter)
    wrong: int | None = None
    lookups_s: list[float] = field(default_factory=list)
    provider_s: float = 0.0
    by_kind: Counter[tuple[str, str]] = field(default_factory=Counter)

    def as_dict(self, requests: int) -> dict[str, Any]:
        """For `--json`."""
        return {
            "name": self.name,
            "requests": requests,
            "calls": self.calls,
            "input_tokens": self.input_tokens,
            "output_tokens": self.output_tokens,
            "usd": str(self.usd),
            "unpriced_calls": self.unpriced,
            "hit_rate": sum(self.hits.values()) / requests,
            "hits": dict(self.hits),
            "wrong_hits": self.wrong,
            "median_request_ms": statistics.median(self.lookups_s) * 1000,
            "simulated_provider_s": self.provider_s,
            "by_kind": {f"{kind}: {what}": count for (kind, what), count in sorted(self.by_kind.items())},
        }


def sample_log() -> Path:
    """The sample log that comes with costopt."""
    packaged = resources.files("langchain_costopt") / "data" / _SAMPLE
    if packaged.is_file():
        return Path(str(packaged))
    return Path(__file__).parents[1] / "cookbook" / "data" / _SAMPLE


def read_log(source: str | Path) -> list[Request]:
    """The requests of a log.

    Raises:
        ConfigError: If a line is not a request; names the line and what is missing.
    """
    requests = [_request(row, f"{source}, line {number}") for number, row in read_jsonl(source)]
    if not requests:
        raise ConfigError(f"{source} holds no requests")
    return requests


def _request(row: Mapping[str, Any], where: str) -> Request:
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages or not all(isinstance(m, dict) and "role" in m for m in messages):
        raise ConfigError(f'{where}: "messages" is missing, a list of {{"role": "...", "content": "..."}}')
    answer = row.get("answer")
    if answer is None:
        # As long as an answer usually is; what it says does not matter to the bill.
        answer = "(simulated answer) " + "word " * 120
    return Request(
        messages=messages,
        model=str(row.get("model") or "gpt-4o-mini"),
        tenant=str(row.get("tenant") or "default"),
        temperature=float(row.get("temperature") or 0.0),
        response_format=row.get("response_format"),
        answer=str(answer),
        answer_id=row.get("answer_id"),
        kind=row.get("kind"),
    )


def replay(
    requests: Sequence[Request], outcome: Outcome, cache: SemanticCache | None, tenant: list[str]
) -> Iterator[Request]:
    """Send every request, in order, and count; yields each when it is answered.

    Args:
        requests: The log.
        outcome: Where to count.
        cache: The cache in front of the model; None for none.
        tenant: A cell that the cache's `tenant=` function reads.
    """
    labelled = all(request.answer_id is not None for request in requests)
    ids = {request.answer: request.answer_id for request in requests}
    outcome.wrong = 0 if labelled else None
    for request in requests:
        tenant[0] = request.tenant
        # `cache=False` and not None: None means the global cache, if there is one.
        model = SimulatedChatModel(
            model_name=request.model,
            temperature=request.temperature,
            response_format=request.response_format,
            answer=request.answer,
            cache=False if cache is None else cache,
        )
        messages = convert_to_messages([dict(message) for message in request.messages])
        started = time.perf_counter()
        message = model.invoke(messages)
        outcome.lookups_s.append(time.perf_counter() - started)
        _count(outcome, request, message, ids)
        yield request


def _count(outcome: Outcome, request: Request, message: AIMessage, ids: Mapping[str, str | None]) -> None:
    served = message.response_metadata.get("costopt")
    kind = request.kind or "request"
    if served:
        outcome.hits[served["cache"]] += 1
        right = ids.get(str(message.content)) == request.answer_id
        outcome.by_kind[kind, "served"] += 1
        if outcome.wrong is not None and not right:
            outcome.wrong += 1
            outcome.by_kind[kind, "wrong"] += 1
        return
    usage = message.usage_metadata
    assert usage is not None
    outcome.calls += 1
    outcome.input_tokens += usage["input_tokens"]
    outcome.output_tokens += usage["output_tokens"]
    outcome.provider_s += _FIRST_TOKEN_S + usage["output_tokens"] / _TOKENS_PER_S
    price = cost(request.model, Usage(usage["input_tokens"], usage["output_tokens"]))
    if price is None:
        outcome.unpriced += 1
    else:
        outcome.usd += price


def run_demo(*, log: str | None, redis: str | None, as_json: bool, out: Console, err: Console) -> None:
    """Replay a log three times (no cache, exact tier only, both tiers) and print what each cost."""
    source = log or sample_log()
    requests = read_log(source)
    outcomes = []
    with Progress(console=err, transient=True) as progress:
        bar = progress.add_task("replaying", total=3 * len(requests))
        for name, options in (("no cache", None), ("exact only", {"exact_only": True}), ("costopt", {})):
            tenant = ["default"]
            with _cache(redis, options, tenant) as cache:
                outcome = Outcome(name)
                for _ in replay(requests, outcome, cache, tenant):
                    progress.advance(bar)
                outcomes.append(outcome)
    if as_json:
        sys.stdout.write(json.dumps([outcome.as_dict(len(requests)) for outcome in outcomes], indent=2) + "\n")
        return
    where = "the sample log" if log is None else str(log)
    out.print(
        f"{len(requests)} requests of {where} through LangChain, at a SIMULATED provider: answers come from the log, "
        "tokens are words and marks, prices are real list prices, and nothing was sent anywhere.\n"
        f"Cache in {'Redis' if redis else 'a local file'}, emptied before and after.\n"
    )
    out.print(_table(outcomes, len(requests)))
    out.print(_verdict(outcomes[0], outcomes[-1]))


@contextmanager
def _cache(redis: str | None, options: dict[str, Any] | None, tenant: list[str]) -> Iterator[SemanticCache | None]:
    """A cache of the demo's own, gone when it is over."""
    if options is None:
        yield None
        return
    with tempfile.TemporaryDirectory() as folder:
        # A namespace of its own: the demo must never meet, or remove, what an application has stored.
        # What is shown is what is decided: on a busy machine, too, nothing may be missed for want of time.
        patient = {"time_budget": _PATIENCE_S, **options}
        store = (
            RedisStore(redis, namespace="costopt-demo", timeout=_PATIENCE_S)
            if redis
            else LocalStore(Path(folder) / "demo.db")
        )
        cache = SemanticCache(store, tenant=lambda: tenant[0], **patient)
        cache.warm()
        cache.clear()
        try:
            yield cache
        finally:
            cache.clear()
            cache.close()


def _table(outcomes: Sequence[Outcome], requests: int) -> Table:
    table = Table()
    table.add_column("")
    for outcome in outcomes:
        table.add_column(outcome.name, justify="right")
    rows: list[tuple[str, Any]] = [
        ("paid calls", lambda o: f"{o.calls:,}"),
        ("input tokens", lambda o: f"{o.input_tokens:,}"),
        ("output tokens", lambda o: f"{o.output_tokens:,}"),
        ("cost", lambda o: f"${o.usd:.4f}" + (f" (+{o.unpriced} unpriced)" if o.unpriced else "")),
        ("hit rate", lambda o: f"{sum(o.hits.values()) / requests:.1%}"),
        ("  exact / semantic", lambda o: f"{o.hits['exact']} / {o.hits['semantic']}"),
        ("wrong hits", lambda o: "not labelled" if o.wrong is None else str(o.wrong)),
        ("median ms a request *", lambda o: f"{statistics.median(o.lookups_s) * 1000:.1f}"),
        ("provider time, simulated", lambda o: f"{o.provider_s:.0f} s"),
    ]
    for label, show in rows:
        table.add_row(label, *(show(outcome) for outcome in outcomes))
    return table


def _verdict(before: Outcome, after: Outcome) -> str:
    lines = ["* measured: what LangChain, the embedding and the cache take; the provider's own time is not in it"]
    if before.usd:
        saved = before.usd - after.usd
        lines.append(f"\nSaved ${saved:.4f} of ${before.usd:.4f}, {float(saved / before.usd):.1%}.")
    if after.wrong:
        hits = sum(after.hits.values())
        worst = ", ".join(f"{kind} {n}" for (kind, what), n in after.by_kind.most_common() if what == "wrong")
        lines.append(f"{after.wrong} of {hits} served answers were wrong ({worst}).")
    elif after.wrong == 0:
        lines.append("No served answer was wrong.")
    return "\n".join(lines)


def _tokens(text: str) -> int:
    return len(_WORD.findall(text))
