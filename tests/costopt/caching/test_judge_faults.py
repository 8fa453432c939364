"""A judge that raises, hangs or returns nonsense costs the semantic tier, and nothing else."""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from costopt.caching import Answer, breaker, build_request
from costopt.caching.cross_encoder import CrossEncoder
from costopt.caching.entry import Entry
from costopt.caching.judge import Verdict
from costopt.caching.judging import Choice, Judging
from costopt.caching.steps import drive
from tests.costopt.caching.conftest import Asker, OpenCache
from tests.costopt.caching.judges import TRUSTING
from tests.faults.words import wait_for
from tests.timed import timed

# What hangs costs the whole budget; what fails at once costs none of it, however slow the machine is.
HANGING_S, FAILING_S = 1.0, 10.0
SLACK_S = 5.0  # on a busy machine; a fault that was waited for would take `HANGS_S`
HANGS_S = 60.0
YES = Verdict(True, "because", 0.99)
hung = threading.Event()


def fail(error: BaseException) -> Callable[..., Any]:
    def judge(*_: Any) -> Any:
        raise error

    return judge


def hang(*_: Any) -> Any:
    hung.wait(HANGS_S)
    return [YES]


FAULTS: dict[str, Callable[[Sequence[Any]], Any]] = {
    "raises": fail(ConnectionError("the judge's service is down")),
    "times out": fail(TimeoutError()),
    "exits": fail(SystemExit(1)),
    "out of memory": fail(MemoryError()),
    "hangs": hang,
    "None": lambda candidates: None,
    "a number": lambda candidates: 0.99,
    "words": lambda candidates: "yes",
    "too many": lambda candidates: [YES] * (len(candidates) + 1),
    "too few": lambda candidates: [YES] * (len(candidates) - 1),
    "no verdicts": lambda candidates: [None for _ in candidates],
    "half verdicts": lambda candidates: [SimpleNamespace(probability=0.99) for _ in candidates],
    "NaN": lambda candidates: [Verdict(True, "because", math.nan) for _ in candidates],
    "more than sure": lambda candidates: [Verdict(True, "because", 1.5) for _ in candidates],
    "a probability in words": lambda candidates: [SimpleNamespace(accepted=True, reason="", probability="high")],
}


class Faulty:
    """A judge that accepts everything until it is told to fail."""

    def __init__(self) -> None:
        self.fault: Callable[[Sequence[Any]], Any] | None = None
        self.calls = 0

    def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> Any:
        self.calls += 1
        return [YES for _ in candidates] if self.fault is None else self.fault(candidates)


@pytest.fixture
def judge() -> Iterator[Faulty]:
    hung.clear()
    yield Faulty()
    hung.set()


def rewordings(topic: str, count: int) -> list[str]:
    return [f"the {topic} is how old {'please ' * number}".strip() for number in range(1, count + 1)]


def budget(name: str) -> float:
    return HANGING_S if name == "hangs" else FAILING_S


def is_stepped_over(asker: Asker, judge: Faulty, calls: int, most_s: float) -> None:
    """Every question is a miss in time, is stored and then served exactly; the judge is asked `calls` times at most."""
    judge.calls = 0
    for question in rewordings("moon", 6):
        started = time.monotonic()
        assert asker.ask(question) is None
        assert time.monotonic() - started < most_s
        asker.tell(question, "its own")
        hit = asker.ask(question)
        assert hit is not None
        assert (hit.tier, hit.answer.generations[0]["content"]) == ("exact", "its own")
    assert 1 <= judge.calls <= calls
    failures = asker.failures()
    assert {kind.partition(":")[0] for kind in failures} == {"judge"}
    assert sum(failures.values()) <= calls


@timed
@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_costs_the_time_budget_once_and_then_the_breaker_keeps_the_judge_out(
    open_cache: OpenCache, judge: Faulty, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Quick failures may happen three times, a slow one once."""
    monkeypatch.setattr(breaker, "_FIRST_REST_S", 60.0)
    monkeypatch.setattr(breaker, "_LONGEST_REST_S", 60.0)
    asker = open_cache(judge=judge, time_budget=budget(name))
    asker.tell("how old is the moon")
    judge.fault = FAULTS[name]
    is_stepped_over(asker, judge, calls=1 if name == "hangs" else 3, most_s=budget(name) + SLACK_S)


@timed
@pytest.mark.parametrize("name", ["raises", "hangs", "None"])
def test_a_judge_that_is_well_again_is_asked_again(
    open_cache: OpenCache, judge: Faulty, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(breaker, "_FIRST_REST_S", 0.2)
    asker = open_cache(judge=judge, time_budget=budget(name))
    asker.tell("how old is the moon")
    judge.fault = FAULTS[name]
    for question in rewordings("moon", 4):
        assert asker.ask(question) is None
    judge.fault = None
    hung.set()
    hit = wait_for(lambda: asker.ask("the moon is how old"), "the judge is asked again", 30)
    assert hit.tier == "semantic"


MODEL_FAULTS: dict[str, Callable[[str, str], Any]] = {
    "raises": fail(RuntimeError("CUDA out of memory")),
    "hangs": hang,
    "returns nothing": lambda asked, cached: None,
    "returns words": lambda asked, cached: "very likely",
    "no probability": lambda asked, cached: 7.5,
    "NaN": lambda asked, cached: math.nan,
}


@timed
@pytest.mark.parametrize("name", MODEL_FAULTS)
def test_a_function_that_fails_breaks_no_call(open_cache: OpenCache, name: str, judge: Faulty) -> None:
    asker = open_cache(judge=MODEL_FAULTS[name], time_budget=budget(name))
    asker.tell("how old is the moon")
    for question in rewordings("moon", 3):
        started = time.monotonic()
        assert asker.ask(question) is None
        assert time.monotonic() - started < budget(name) + SLACK_S
    assert {kind.partition(":")[0] for kind in asker.failures()} == {"judge"}


def test_weights_that_cannot_be_read_cost_the_semantic_tier_alone(open_cache: OpenCache, tmp_path: Path) -> None:
    asker = open_cache(judge=CrossEncoder(tmp_path / "nowhere"), policy=TRUSTING)
    asker.tell("how old is the moon")
    assert asker.ask("the moon is how old") is None
    hit = asker.ask("how old is the moon")
    assert hit is not None
    assert hit.tier == "exact"
    assert asker.failures() == {"judge: EmbeddingError": 1}


def test_one_question_that_the_judge_fails_on_spoils_no_other_in_its_batch(open_cache: OpenCache) -> None:
    """They are put to the judge together, and then each alone."""
    gate = threading.Event()

    def same(asked: str, cached: str) -> float:
        gate.wait(10)
        if "bad" in asked:
            raise ValueError("this one I cannot read")
        return 0.99

    asker = open_cache(judge=same)
    asker.tell("how old is the moon")
    questions = ["the moon is how old", "the moon is how old bad", "the moon is how old then", "old is how the moon"]
    if asker.runner is None:
        with ThreadPoolExecutor(4) as pool:
            found = [pool.submit(asker.ask, question) for question in questions]
            time.sleep(0.3)
            gate.set()
            hits = [future.result() for future in found]
    else:

        async def ask_all() -> list[Any]:
            asyncio.get_running_loop().call_later(0.3, gate.set)
            return await asyncio.gather(*(asker.cache.alookup(asker.request(question)) for question in questions))

        hits = asker.runner.run(ask_all())
    assert [hit is not None for hit in hits] == [True, False, True, True]
    assert asker.failures() == {"judge: ValueError": 1}


@timed
def test_a_long_queue_that_moves_is_no_fault_of_the_judge() -> None:
    """Who waits in vain because others were first must not shut everybody else out."""

    class Slow:
        def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[Verdict]:
            time.sleep(0.08)
            return [Verdict(True, "slow") for _ in candidates]

    failures: list[Exception] = []
    judging = Judging(Slow(), 0.5, lambda _: iter(()), lambda _: 1.0, lambda _, error: failures.append(error))  # type: ignore[arg-type, return-value]
    question = build_request([{"role": "user", "content": "how old is the moon"}], model="m")
    entry = Entry(
        "k",
        question.scope,
        question.tenant,
        "m",
        "the moon is how old",
        Answer(({"kind": "chat", "content": "old"},)),
        0.0,
    )

    def ask(_: int) -> Choice | None:
        return drive(judging.choose(question, [(entry, 0.9)], time.monotonic() + 0.12))

    with ThreadPoolExecutor(8) as pool:
        at_once = list(pool.map(ask, range(8)))
    assert failures
    assert None in at_once
    time.sleep(0.8)
    assert ask(0) is not None
