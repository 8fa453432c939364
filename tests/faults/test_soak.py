"""Some seconds of the soak that `python -m cookbook.benchmarks --only soak` runs for an hour: every fault once."""

from __future__ import annotations

import random
import threading
from collections import Counter
from pathlib import Path

import pytest

from cookbook.benchmarks.bench_soak import Plan, soaked
from cookbook.benchmarks.soak_faults import FAULTS
from cookbook.benchmarks.soak_questions import TENANTS, Topic, right_answer, topics_by_text
from cookbook.benchmarks.soak_watch import HEALTHY, Books, slope

SLOT_S = 0.7
SHORT = Plan(int((len(FAULTS) + 1) * SLOT_S), SLOT_S, 0.25, 0.5, threads=8, tasks=12, rate=40.0, topics=3, present=6)


def test_no_error_no_wrong_answer_and_the_ledger_equals_the_providers_count(tmp_path: Path) -> None:
    found = soaked(SHORT, tmp_path)
    books, bill, counted = found.books, found.bill, found.counted
    assert [each.name for each in found.struck] == list(FAULTS)
    assert (books.errors, books.wrong, bill["unknown"]) == ([], [], 0)
    assert (counted["answered"], counted["refused"]) == (bill["answered"], bill["refused"])
    assert {name: count for name, count in counted["tokens"].items() if count} == +Counter(bill["tokens"])
    assert counted["dollars"] == bill["dollars"] > 0
    assert counted["unsure"] == 0
    assert counted["hits"] > 0
    assert bill["refused"] > 0
    assert found.stats.failures, "the faults were felt"
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("soak")]


def test_the_right_answer_differs_by_tenant_system_prompt_and_topic() -> None:
    topics = topics_by_text([Topic("topic 0", ("Is it cold?", "Is it chilly?"), ("Is it hot?",))])
    asked = [(tenant, system, text) for tenant in TENANTS for system in ("", "Be brief.") for text in topics]
    asked += [("acme", "", "Where is my parcel 7?"), ("acme", "", "Where is my parcel 77?")]
    answers = {right_answer(*each, topics) for each in asked}
    assert len(answers) == len(TENANTS) * 2 * 2 + 2  # two of the three texts want one answer
    assert right_answer("acme", "", "A page.\nQuestion: Is it chilly?", topics) == right_answer(
        "acme", "", "Is it cold?", topics
    )


@pytest.mark.parametrize(("rate", "flat"), [(0.0, True), (5.0, False)])
def test_growth_is_told_from_noise_that_wanders(rate: float, flat: bool) -> None:
    chance, level, values = random.Random(3), 0.0, []
    for second in range(500):
        level = 0.9 * level + chance.gauss(0, 20)  # what a process holds now resembles what it held a moment ago
        values.append(1000 + rate * second + level)
    found = slope(range(500), values)
    assert (found.low <= 0) is flat
    assert found.low <= rate <= found.high


def test_what_a_caller_meets_is_written_down() -> None:
    books = Books(60, ("Redis killed", HEALTHY))
    for number in range(100):
        with books.request("popular", "LangChain, invoke") as request:
            request.answered("right" if number else "wrong", "exact" if number % 2 else None, right="right")
    with books.request("popular", "LangChain, invoke"):
        raise ValueError("it broke")
    assert (books.counts["requests"], books.counts["wrong"], books.counts["errors"]) == (100, 1, 1)
    assert "it broke" in books.errors[0]
    assert "wrong for right" in books.wrong[0]
    assert books.hit_share(0, 60) == 0.5
    assert books.recovered_after(0, 60, 0.4, 5) == 0
    assert books.recovered_after(0, 60, 0.6, 5) is None
    assert books.took_ms(0.99, bare=False, faults=False)[1] == 100
