"""The heuristic: plain prompts are easy, proofs and programs hard, word problems not simple; in many languages."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.routing import Estimator, HeuristicEstimator
from costopt.routing.policies import choices


def score(*texts: str) -> list[float]:
    return [float(value) for value in HeuristicEstimator().scores(texts)[:, 0]]


@pytest.mark.parametrize(
    "text",
    [
        "Hi", "What is the capital of France?", "Translate 'good morning' into German.", "Is Pluto a planet?",
        "Was ist die Hauptstadt von Frankreich?", "法国的首都是哪里？", "ما هي عاصمة فرنسا؟",
        "Who won the cup in 1998?", "", " ",
    ],
)  # fmt: skip
def test_a_plain_question_is_below_the_first_threshold(text: str) -> None:
    assert score(text)[0] < 0.3


@pytest.mark.parametrize(
    "text",
    [
        "Prove that there are infinitely many primes.", "Beweise den Satz des Pythagoras.", "证明根号2是无理数",
        "Докажите, что корень из двух иррационален.", "Démontre que la suite converge.",
        "Write a Python function that parses CSV, then explain its complexity:\n```python\ndef f(): ...\n```",
    ],
)  # fmt: skip
def test_a_proof_or_a_program_is_above_the_second(text: str) -> None:
    assert score(text)[0] >= 0.7


@pytest.mark.parametrize(
    "text",
    [
        "James runs 3 sprints 3 times a week. He runs 60 meters each sprint. How many meters does he run a week?",
        "Un tren recorre 80 km por hora durante 3 horas y luego 15 km más. ¿Cuántos kilómetros recorre en total?",
        "小明有12个苹果，给了小红5个，又买了8个，每个3元，请问他一共花了多少钱，还剩多少个苹果？",
        "Compare REST with GraphQL for a mobile app, and explain why you would choose one.",
    ],
)
def test_a_word_problem_or_a_comparison_is_not_simple(text: str) -> None:
    assert score(text)[0] >= 0.3


def test_three_tiers_by_the_thresholds_of_the_textbook() -> None:
    texts = [
        "What is the capital of France?", "Compare REST with GraphQL for a mobile app.",
        "Prove that there are infinitely many primes, step by step.",
    ]  # fmt: skip
    assert choices(HeuristicEstimator().scores(texts), (0.3, 0.7)).tolist() == [0, 1, 2]


def test_longer_is_harder_with_and_without_blanks() -> None:
    for text in ("the same words again ", "x"):
        values = score(*(text * n for n in (1, 300, 3_000)))
        assert values == sorted(values)
        assert values[-1] > 0.5


@given(st.lists(st.text(st.characters(), max_size=300), max_size=5))
def test_any_text_has_a_score_in_range(texts: list[str]) -> None:
    found = HeuristicEstimator().scores(texts)
    assert found.shape == (len(texts), 1)
    assert ((found >= 0) & (found <= 1)).all()


def test_it_is_an_estimator_for_any_tiers_without_vectors() -> None:
    estimator: Estimator = HeuristicEstimator()
    assert (estimator.name, estimator.tiers, estimator.wants_vectors) == ("heuristic", None, False)
    assert np.array_equal(estimator.scores(["Why?"], None), estimator.scores(["Why?"], np.zeros((1, 384), np.float32)))
