"""A log whose repeats, over-routing, waste and idle work are known, because they were planted.

Nothing is drawn at will that a figure depends on: each kind of row has its share of the rows, to the row.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from costopt.embedding import default_model
from costopt.pricing import Price, Usage, listed
from costopt.routing import GainEstimator, Outcomes, train_router
from costopt.tokens import count_tokens

__all__ = ["PAIRS", "Planted", "planted_log", "planted_router", "router_outcomes"]

START = 1_795_161_600.0  # 20 November 2026, a quarter of an hour before eight
DAY_S = 86_400
STRONG, CHEAP = "gpt-4o", "gpt-4o-mini"

# Two ways to ask one thing, which the shipped judge knows for one (`bench_quality` measures how many
# it knows of others). In one scope lie questions that sound alike and are not: another verb, or another thing.
PAIRS = ("How do I {verb} my {thing}?", "I want to {verb} my {thing}, how do I do that?")
_VERBS = "reset change cancel find print renew".split()
_THINGS = (
    "password", "invoice", "delivery address", "user name", "phone number", "bank account", "newsletter",
    "subscription", "parcel", "ticket", "voucher", "contract", "profile picture", "modem", "calendar", "thermostat",
    "printer", "keyboard", "router", "gift card", "membership", "insurance", "passport", "parking permit",
    "library card",
)  # fmt: skip
_HARD = (
    "Prove that the sum of the first {n} odd numbers is a square, and derive a closed form for the sum of their cubes.",
    "Given a graph with {n} nodes, derive the complexity of finding all its shortest cycles, and prove it is optimal.",
    "Solve the differential equation y'' + {n} y = sin(x) step by step, and show that the solution is unique.",
)
_SYSTEM = "You are {name}, the assistant of a shop. Answer in at most three sentences, and never promise a refund. " * 3
_DATA = {
    "customer": {"name": "Kim Novak", "city": "Graz", "orders": [{"id": 17, "total": 41.5}, {"id": 18, "total": 9}]}
}
_PASSAGE = (
    "The warranty covers two years from the day of purchase. In that time all parts that fail in ordinary use are "
    "replaced at no charge, and the customer pays neither for the journey nor for the work. It does not cover what was "
    "dropped, opened or left in the rain, and it ends at once if the serial number can no longer be read. "
)
_TOOLS = [
    {"type": "function", "function": {"name": name, "description": f"{what} " * 8, "parameters": {"type": "object"}}}
    for name, what in (("track", "Says where a parcel is."), ("refund", "Pays back what an order has cost."))
]
_PARTS = ("system", "blanks", "twice", "history", "unused")


@dataclass(frozen=True, slots=True)
class Planted:
    """What was planted, as shares.

    Attributes:
        exact: Requests that repeat an earlier one to the letter.
        worded: Requests that repeat one in other words.
        over_routed: Calls to the strong model that the cheap one would have answered as well, of all calls.
        marked: Calls whose tags say that nobody waits.
        bursts: Calls of a nightly job.
        system: Tokens of system prompts that an earlier request had, of all input.
        blanks: Tokens of blanks in JSON, of all input.
        twice: Tokens of passages that are there twice, of all input.
        history: Tokens of the turns before the last question, of all input.
        unused: Tokens of a tool's definition that no answer ever called, of all input.
        hits: Requests that a cache has answered.
        savings: What each lever would have saved by itself, of the bill.
    """

    exact: float
    worded: float
    over_routed: float
    marked: float
    bursts: float
    system: float
    blanks: float
    twice: float
    history: float
    unused: float
    hits: float
    savings: dict[str, float]


def planted_log(path: Path, rows: int = 2_000, seed: int = 0) -> Planted:
    """Write a log of about this many rows, and say what is in it."""
    drawn = random.Random(seed)
    made = list(_rows(rows, drawn))
    made.sort(key=lambda row: row["timestamp"])
    sums = dict.fromkeys(("exact", "worded", "easy", "marked", "burst", "hit", *_PARTS, "input"), 0)
    seen: set[str] = set()
    saved: Counter[str] = Counter()
    with path.open("w", encoding="utf-8") as file:
        for row in made:
            kinds = row.pop("kinds")
            for kind in kinds:
                sums[kind] += 1
            parts = row.pop("parts")
            if row["messages"][0]["role"] == "system":
                sums["system"] += parts["system"] if row["messages"][0]["content"] in seen else 0
                seen.add(row["messages"][0]["content"])
            for name in _PARTS[1:]:
                sums[name] += parts[name]
            sums["input"] += row["usage"]["prompt_tokens"]
            saved.update(_savings(row, kinds, parts))
            file.write(json.dumps(row) + "\n")
    count, calls, read = len(made), len(made) - sums["hit"], sums["input"]
    return Planted(
        sums["exact"] / count, sums["worded"] / count, sums["easy"] / calls, sums["marked"] / calls,
        sums["burst"] / calls, *(sums[name] / read for name in _PARTS), sums["hit"] / count,
        {lever: amount / saved["bill"] for lever, amount in saved.items() if lever != "bill"},
    )  # fmt: skip


def _savings(row: dict[str, Any], kinds: list[str], parts: dict[str, int]) -> dict[str, float]:
    """Dollars that each lever saves on one row by itself, from the price list, and what the row costs."""
    if "hit" in kinds:
        return {}
    usage = Usage(row["usage"]["prompt_tokens"], row["usage"]["completion_tokens"])
    full = _price(row["model"], batch=False).cost(usage)
    found = {"bill": full, "exact cache": full * ("exact" in kinds), "semantic cache": full * ("worded" in kinds)}
    found["routing"] = (full - _price(CHEAP, batch=False).cost(usage)) * ("easy" in kinds)
    shorter = Usage(usage.input_tokens - parts["blanks"] - parts["twice"], usage.output_tokens)
    found["compression"] = full - _price(row["model"], batch=False).cost(shorter)
    waits = "marked" in kinds or "burst" in kinds
    found["batch"] = (full - _price(row["model"], batch=True).cost(usage)) * waits
    return {name: float(amount) for name, amount in found.items()}


@cache
def _price(model: str, *, batch: bool) -> Price:
    known = listed(model)
    price = known.price(batch=batch) if known else None
    assert price is not None
    return price


def _rows(rows: int, drawn: random.Random) -> Iterator[dict[str, Any]]:
    """18 % exact and 9 % reworded repeats, 10 % hits, 12 % marked, 15 % of a nightly job, and others."""
    for i in range(int(rows * 0.03)):
        yield from _talk(START + drawn.randrange(3 * DAY_S), i)
    questions = [(verb, thing) for thing in _THINGS for verb in _VERBS]
    drawn.shuffle(questions)
    day = lambda: START + drawn.randrange(3 * DAY_S)  # noqa: E731
    fresh = iter(range(10**9))

    def about() -> str:
        return f"order {100_000 + 37 * next(fresh)}"

    for i in range(int(rows * 0.09)):  # asked, and within the day asked again in other words
        verb, thing = questions[i % len(questions)]
        shop = f"shop {i // len(questions)}"
        at = day()
        yield _row(at, PAIRS[0].format(verb=verb, thing=thing), CHEAP, shop, [])
        yield _row(at + drawn.randrange(60, 7_200), PAIRS[1].format(verb=verb, thing=thing), CHEAP, shop, ["worded"])
    for _ in range(int(rows * 0.18)):
        at, text = day(), f"Where is my {about()}?"
        yield _row(at, text, STRONG, "tracking", ["easy"])
        yield _row(at + drawn.randrange(60, 7_200), text, STRONG, "tracking", ["exact", "easy"])
    for i in range(int(rows * 0.10)):
        yield _row(day(), _HARD[i % 3].format(n=next(fresh) + 3), STRONG, "maths", [])
    for _ in range(int(rows * 0.10)):
        yield _row(day(), f"When does the {about()} arrive?", CHEAP, "arrivals", ["hit"], cache="exact")
    for _ in range(int(rows * 0.12)):
        text = f"Summarise the complaint about {about()}:\n\n{_PASSAGE}\n\n{about()}\n\n{_PASSAGE}"
        yield _row(day(), text, CHEAP, "complaints", ["marked"], tags=["nightly"], twice=_PASSAGE.strip())
    for i in range(int(rows * 0.15)):
        night = START + (i % 3) * DAY_S + 18 * 3_600 + drawn.randrange(1_500)
        data = json.dumps(_DATA | {"order": about()}, indent=4)
        yield _row(
            night, f"Classify this order.\n{data}\nAnswer by a word.", CHEAP, "sorting", ["burst"], json_text=data
        )


def _talk(at: float, number: int) -> Iterator[dict[str, Any]]:
    """A conversation of two turns, with two tools, one of which is called."""
    first = _row(at, f"My parcel {number} is late, and nobody answers the phone. What now?", CHEAP, "late", [])
    said = f"I am sorry about parcel {number}. Which address was it sent to? " * 3
    more = [*first["messages"], {"role": "assistant", "content": said}]
    second = _row(at + 60, f"To the old one, number {number}.", CHEAP, "late", [])
    second["messages"] = [*more, second["messages"][-1]]
    history = _tokens(first["messages"][-1]["content"], CHEAP) + _tokens(said, CHEAP)
    second["parts"]["history"] = history
    second["usage"]["prompt_tokens"] += history
    call = {"id": f"c{number}", "type": "function", "function": {"name": "track", "arguments": "{}"}}
    second["response"] = {"choices": [{"message": {"role": "assistant", "content": None, "tool_calls": [call]}}]}
    sizes = [_tokens(json.dumps(tool, separators=(",", ":")), CHEAP) for tool in _TOOLS]
    for row in (first, second):
        row["tools"] = _TOOLS
        row["parts"]["unused"] = sizes[1]
        row["usage"]["prompt_tokens"] += sum(sizes)
        yield row


def _row(
    at: float,
    text: str,
    model: str,
    shop: str,
    kinds: list[str],
    *,
    tags: list[str] | None = None,
    cache: str | None = None,
    twice: str = "",
    json_text: str = "",
) -> dict[str, Any]:
    system = _SYSTEM.format(name=shop)
    short = json.dumps(json.loads(json_text), separators=(",", ":")) if json_text else ""
    count = {name: _tokens(each, model) for name, each in (("system", system), ("text", text), ("twice", twice))}
    read = count["system"] + count["text"] + 11
    row = {
        "timestamp": at,
        "model": model,
        "messages": [{"role": "system", "content": system}, {"role": "user", "content": text}],
        "temperature": 0,
        "answer": "As you wish. " * 10,
        "usage": {"prompt_tokens": read, "completion_tokens": 60, "prompt_tokens_details": {"cached_tokens": 0}},
        "name": shop.split()[0],
        "kinds": kinds,
        "parts": {
            "system": count["system"],
            "twice": count["twice"],
            "history": 0,
            "unused": 0,
            "blanks": _tokens(json_text, model) - _tokens(short, model),
        },
    }
    if tags:
        row["tags"] = tags
    if cache:
        row["cache"] = cache
    return row


def _tokens(text: str, model: str) -> int:
    return count_tokens(text, model).tokens


def planted_router() -> GainEstimator:
    """A router that knows what was planted: it stays where the strong model adds less than half a point of quality.

    Without thresholds of its own the audit sets them by a quality floor of 95 %, which lets one hard question in twenty
    go to the cheap model, and so finds more over-routing than was planted.
    """
    router = train_router(router_outcomes(), default_model()).router
    return router.calibrated((0.5,), {}, None)


def router_outcomes(rows: int = 400, seed: int = 1) -> Outcomes:
    """Outcomes from which a router learns what the planted log takes for granted: only mathematics needs the strong."""
    drawn = random.Random(seed)
    prompts, scores = [], []
    for i in range(rows):
        if i % 3 == 0:
            prompts.append(_HARD[(i // 3) % 3].format(n=drawn.randrange(3, 9_000)))
            scores.append((0.0, 1.0))
        else:
            text = drawn.choice(("Where is my order {n}?", "When does the order {n} arrive?", *PAIRS))
            verb, thing = drawn.choice(_VERBS), drawn.choice(_THINGS)
            prompts.append(text.format(n=drawn.randrange(100_000, 900_000), verb=verb, thing=thing))
            scores.append((1.0, 1.0))
    unique = dict(zip(prompts, scores, strict=True))
    return Outcomes(tuple(unique), (CHEAP, STRONG), np.array(list(unique.values())))
