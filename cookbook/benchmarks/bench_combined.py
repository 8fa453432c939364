"""Every lever on one stream whose right answers are known: what the bill is, what the answers are, paired."""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
from langchain_core.messages import AIMessage

from cookbook.benchmarks.combined_sides import (
    FLOOR,
    LAST,
    PEERS,
    RATIO,
    SENTENCES,
    SIDES,
    Application,
    Kit,
    application,
)
from cookbook.benchmarks.combined_stream import CHEAP, PARTS, SETS, STRONG, Stream, Teacher, stream
from cookbook.benchmarks.findings import at_most, percent, table
from cookbook.benchmarks.material import SOURCES, Options, embedded, model
from cookbook.benchmarks.resample import Change, Numbers, Sampler
from costopt.pricing import Usage, cost
from costopt.routing import train_router
from tests.batch_server import BatchServer, batch_server

__all__ = ["Served", "run", "serve"]

_MILLION = Usage(1_000_000, 0)
_PLAIN = "nothing"


@dataclass(frozen=True)
class Served:
    """What came of the stream on one side; arrays have a place for each request.

    Attributes:
        cost: Dollars.
        right: 1 where the answer is right.
        dear: 1 where the dear model answered.
        cpu: Seconds of processor time of the whole process, for what was asked one by one.
        calls: Requests that the server answered one by one.
        batched: Requests that it answered in batches.
        apart: Dollars by which the ledger differs from the server's bill.
        told: Share of the bill that is saved, as `Optimizer.report` tells it from the ledger.
    """

    cost: Numbers
    right: Numbers
    dear: Numbers
    cpu: float
    calls: int
    batched: int
    apart: Decimal
    told: float


def run(options: Options) -> dict[str, Any]:
    """The same stream to every side, one after another."""
    found = stream(options)
    if found is None:
        notes = [f"{name} is not there: it can be had from {SOURCES[name]}; set COSTOPT_DATA." for name in SETS]
        return {"bars": [], "tables": [], "notes": notes}
    vectors = embedded(found.training.prompts)
    estimator = train_router(found.training, model(), vectors=vectors).router
    served: dict[str, Served] = {}
    for name in SIDES:
        with tempfile.TemporaryDirectory() as folder, batch_server() as server:
            teacher = Teacher(found.questions)
            server.answer = teacher.answer
            kit = Kit(f"{server.url}/v1", Path(folder), estimator, found.recent)
            share = _share(found, served["router"]) if "router" in served else 0.5
            with application(kit, name, share) as app:
                served[name] = serve(app, found, server, teacher)
    return _findings(found, served)


def _share(found: Stream, routed: Served) -> float:
    """Of the exam, the share that a router sent to the dear model."""
    exam = _where(found, "exam")
    return float(routed.dear[exam].mean())


def _where(found: Stream, part: str) -> Any:
    return np.array([question.part == part for question in found.questions])


def serve(app: Application, found: Stream, server: BatchServer, teacher: Teacher) -> Served:
    """Each request in its turn; those that may wait together at the end, if there is a batch API."""
    questions = found.questions
    now = sum(not waits for waits in found.waits) if "batch" in app.levers else len(questions)
    answers, costs = [], []
    app.embedder.embed(["Is it on?"])
    started = time.process_time()
    for question in questions[:now]:
        before = len(server.single)
        answers.append(app.ask(question))
        costs.append(sum((teacher.bill(body) for body in server.single[before:]), Decimal(0)))
    cpu = time.process_time() - started
    if now < len(questions):
        answers += app.ask_later(questions[now:])
        costs += [_batched(answer) for answer in answers[now:]]
    return Served(
        np.array(costs, np.float64),
        np.array([answer.content in asked.right for asked, answer in zip(questions, answers, strict=True)], float),
        np.array([_model(answer) == STRONG for answer in answers], float),
        cpu,
        len(server.single),
        sum(server.billed.values()),
        abs(app.spent() - _owed(server, teacher)),
        app.optimizer.report().share,
    )


def _batched(answer: AIMessage) -> Decimal:
    """What came from a cache, or for an equal request, has no usage."""
    used = answer.usage_metadata
    if used is None or not used["total_tokens"]:
        return Decimal(0)
    return cost(_model(answer), Usage(used["input_tokens"], used["output_tokens"]), batch=True) or Decimal(0)


def _model(answer: AIMessage) -> str:
    return str(answer.response_metadata["model_name"])


def _owed(server: BatchServer, teacher: Teacher) -> Decimal:
    """The server's bill."""
    single = sum((teacher.bill(body) for body in server.single), Decimal(0))
    batched = (times * teacher.bill(json.loads(text), batch=True) for text, times in server.billed.items())
    return single + sum(batched, Decimal(0))


def _findings(found: Stream, served: dict[str, Served]) -> dict[str, Any]:
    questions = found.questions
    sampler = Sampler([question.cluster for question in questions], [question.part for question in questions])
    plain = served[_PLAIN]
    parts = {part: _where(found, part) for part in PARTS}
    places = {"all": np.ones(len(questions), bool), "waiting": np.array(found.waits)} | parts
    changes = {
        name: {
            place: sampler.change(own.cost, own.right, plain.cost, plain.right, where)
            for place, where in places.items()
        }
        for name, own in served.items()
    }
    ours = {name: own for name, own in served.items() if name not in PEERS}
    apart = float(max(own.apart for own in ours.values()))
    return {
        "bars": [
            at_most("every lever on one stream: dollars by which ledger and bill differ", apart, 0),
            at_most(
                "every lever on one stream: right answers lost, greater end of the interval",
                max(0.0, -changes[LAST]["all"].change.low) * 100, 5, " %",
            ),
            at_most(
                "every lever on one stream: saving as `costopt report` tells it, over the real one",
                max(100 * (own.told - changes[name]["all"].saved.value) for name, own in ours.items()), 1, " points",
            ),
        ],
        "tables": [_whole(served, changes), _parts(changes)],
        "notes": _notes(found, served),
        "figures": {
            "peers": list(PEERS),
            "requests": {place: int(where.sum()) for place, where in places.items()},
            "sides": {
                name: {place: _plain_data(change) for place, change in own.items()} for name, own in changes.items()
            },
        },
    }  # fmt: skip


def _plain_data(change: Change) -> dict[str, list[float]]:
    return {name: getattr(change, name).as_list() for name in ("saved", "quality", "change")}


def _own_cpu(served: dict[str, Served], name: str) -> float:
    """Seconds of processor time beyond those of the calls, at what a call takes without levers."""
    plain, own = served[_PLAIN], served[name]
    return round(max(0.0, own.cpu - own.calls * plain.cpu / plain.calls), 1)


def _whole(served: dict[str, Served], changes: dict[str, dict[str, Change]]) -> dict[str, Any]:
    rows = []
    for name, own in served.items():
        change = changes[name]["all"]
        rows.append(
            [
                name,
                f"{own.calls:,}",
                f"{own.batched:,}",
                f"${own.cost.sum():.4f}",
                percent(change.saved),
                percent(change.quality),
                "–" if name == _PLAIN else percent(change.change, sign=True),
                "–" if name in PEERS else f"{own.told:.1%}",
                f"{_own_cpu(served, name):.0f}",
            ]
        )
    columns = [
        "served with", "calls", "in batches", "bill", "saved", "right answers", "more or fewer right answers, paired",
        "saved, by `costopt report`", "CPU seconds of the levers",
    ]  # fmt: skip
    return table(f"{len(served[_PLAIN].cost):,} requests, one after another", columns, rows)


def _parts(changes: dict[str, dict[str, Change]]) -> dict[str, Any]:
    rows = []
    for name, own in changes.items():
        if name != _PLAIN:
            cells = [
                f"{percent(own[part].saved)}; {percent(own[part].change, sign=True)}"
                if own[part].saved.value or own[part].change.value
                else "–"
                for part in PARTS
            ]
            rows.append([name, *cells])
    return table("The same by part: saved; more or fewer right answers", ["served with", *PARTS], rows)


def _notes(found: Stream, served: dict[str, Served]) -> list[str]:
    parts = ", ".join(
        f"{_where(found, part).sum():,} {about} ({_bill_share(found, served, part):.0%} of the bill)"
        for part, about in PARTS.items()
    )
    router = served["router"].dear[_where(found, "exam")].mean()
    return [
        (
            f"The mix is ours: {parts}; {sum(found.waits):,} of all may wait for the night, drawn by lot, and come "
            "last on every side. What each lever saves depends on that mix; the second table has it by part."
        ),
        (
            "Triage: banking77, the right answer is the intent; intents by a Zipf law, a text of the intent by lot. "
            "Exam: each question once, right or wrong as published with RouteLLM for mixtral-8x7b and gpt-4-1106. "
            "Library: Natural Questions, the passage among the 19 nearest others, a quarter asked twice or more; the "
            "model is taken to answer if an answer is still in the passages that are sent, and to say that it does not "
            "know if not. Models of triage and library never err by themselves: what is lost there, a lever has lost."
        ),
        (
            f"{STRONG} and {CHEAP} stand for the two models of the outcomes, at their own list prices, 1 to "
            f"{_dearer(STRONG, CHEAP):.0f} by input; those of the outcomes cost 1 to "
            f"{_dearer('gpt-4-1106-preview', 'mixtral-8x7b'):.0f}. Without a router {STRONG} is asked. Only the exam "
            "is routed: how the cheap model would do on the rest, no data say. The router learned from "
            f"{len(found.training):,} other questions; QualityFloor({FLOOR}) set its threshold from "
            f"{len(found.recent)} more without labels, and {router:.0%} went to {STRONG}. The routers by length and by "
            "lot are told to send as many there, which costs less where those are short."
        ),
        (
            f"Passages are shortened to {RATIO:g} of their tokens. LlamaIndex's optimiser takes {SENTENCES:g} of each "
            "passage's sentences. langchain-redis is `RedisSemanticCache` with its defaults and the same embedder."
        ),
        (
            "Asked by OpenAI's SDK in LangChain, against a server on this machine that counts tokens as these models "
            "do and bills by the price list; batches through its batch API. Intervals: 95 %, by drawing intents and "
            "questions again within each part, the same draws for all sides. CPU seconds: of the whole process while "
            "requests are asked one by one, less what as many calls take without levers; embedder and judge are loaded."
        ),
    ]


def _bill_share(found: Stream, served: dict[str, Served], part: str) -> float:
    bill = served[_PLAIN].cost
    return float(bill[_where(found, part)].sum() / bill.sum())


def _dearer(strong: str, cheap: str) -> float:
    one, other = cost(strong, _MILLION), cost(cheap, _MILLION)
    return float(one / other) if one and other else float("nan")
