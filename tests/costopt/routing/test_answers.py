"""With the cheap answer on the table: sums are checked, loose ends are seen, and the estimate gets better by it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError, default_embedder
from costopt.routing import GainEstimator, Outcomes, train_router
from costopt.routing.answer_features import ANSWER_FEATURES, answer_features, is_cut_short, is_refusal
from costopt.routing.arithmetic import equations, numbers
from costopt.routing.evaluate import evaluate_router
from tests.costopt.routing.rows import CHEAP, outcomes, vectors


@pytest.mark.parametrize(
    "text",
    [
        "<<3*20=60>>", "3 x 20 = 60", "3 × 20 = 60", "$3 * 20 = $60.00", "1,200 + 300 = 1,500", "48/2=24",
        "10 - 12 = -2",
        "So: -3 + 5 = 2", "(47 + 52 + 57) / 3 = 52", "100 / 3 = 33.33", "20% * 50 = 10", "50 * 10% = 5",
        "1/4 = 25%", "2 + 3 * 4 = 14",
        "3 sprints * 60 meters/sprint = <<3*60=180>>180 meters", "3 sprints * 60 meters = 180 meters", "8 ÷ 2 = 4",
        "5 x $12 = $<<5*12=60>>60", ".5 * 4 = 2", "7 − 2 = 5",
    ],
)  # fmt: skip
def test_a_sum_that_adds_up_is_not_called_wrong(text: str) -> None:
    found = equations(text)
    assert found, text
    assert not any(each.wrong for each in found), found


@pytest.mark.parametrize(
    "text",
    [
        "<<12+5*3+4*1.5=39>>", "3 x 20 = 70", "5 * 75 + 120 = 795", "10 - 12 = 2", "7*(3+5) = <<7*(3+5)=63>>63",
        "4 + 20 + 7 + 8 = 49", "$5 * 3 = $16", "9 / 2 = 4",
    ],
)  # fmt: skip
def test_a_sum_that_does_not_add_up_is(text: str) -> None:
    assert [each.wrong for each in equations(text)] == [True], equations(text)


@pytest.mark.parametrize(
    "text",
    [
        "x = 4",
        "a + b = c",
        "x + 3 + 4 = 9",
        "3/4 of 16 = 12",
        "10x + x = 11x = 88",
        "2 + 3 = 4 + 1",
        "1 / 0 = 5",
        "<<=>>",
        "<<(3+=4>>",
        "",
        "2024-01-02",
        "E = mc^2",
    ],
)
def test_what_is_no_sum_is_not_called_wrong(text: str) -> None:
    assert not any(each.wrong for each in equations(text))


@given(st.integers(-999, 999), st.integers(1, 999), st.sampled_from("+-*"), st.integers(-50, 50))
def test_sums_are_checked_by_what_they_come_to(a: int, b: int, sign: str, off: int) -> None:
    true = {"+": a + b, "-": a - b, "*": a * b}[sign]
    (found,) = equations(f"<<{a}{sign}{b}={true + off}>>")
    assert found.value == true
    if off == 0:
        assert not found.wrong
    elif abs(off) > 0.01 * abs(true) + 1 and true + off not in (true * 100, true / 100):
        assert found.wrong


@given(st.text(st.characters(), max_size=300))
def test_any_answer_can_be_read(text: str) -> None:
    assert np.isfinite(answer_features([text], [text])).all()
    assert all(np.isfinite(numbers(text)))


def test_a_very_long_answer_takes_no_time_to_speak_of() -> None:
    for text in (
        "(" * 50_000,
        "3 + " * 30_000 + "4 = 5",
        "1" * 100_000,
        "- " * 50_000 + "=",
        "<<" * 30_000,
        "1 a " * 30_000,
    ):
        assert np.isfinite(answer_features(["Why?"], [text])).all()


@pytest.mark.parametrize(
    ("answer", "cut"),
    [
        ("That makes 15 + 1", True), ("She has 20 apples, so", True), ("```python\nprint(1)", True), ("= <<15+1", True),
        ("That makes 16.", False), ("#### 16\n\n", False), ("Paris", False), ("", False), ("答案是四。", False),
        ("Sure!", False),
        ("The answer is **4**", False), ("Answer: 12 apples", False), ("```\nx = 1\n```", False),
    ],
)  # fmt: skip
def test_an_answer_that_stops_in_the_middle_is_seen(answer: str, cut: bool) -> None:
    assert is_cut_short(answer) == cut


@pytest.mark.parametrize(
    ("answer", "refused"),
    [
        ("I'm sorry, but I can't help with that.", True), ("As an AI, I have no opinion.", True),
        ("抱歉，我无法回答。", True),
        ("The price cannot be determined.", True), ("The answer is 4.", False), ("She is sorry for him.", False),
    ],
)  # fmt: skip
def test_a_refusal_is_seen(answer: str, refused: bool) -> None:
    assert is_refusal(answer) == refused


def test_the_names_are_those_of_the_columns() -> None:
    assert answer_features(["a"], ["b"]).shape == (1, len(ANSWER_FEATURES))
    assert answer_features([], []).shape == (0, len(ANSWER_FEATURES))
    with pytest.raises(ValueError, match="argument"):
        answer_features(["a"], [])


@pytest.fixture(scope="module")
def router() -> GainEstimator:
    made = outcomes(800).split(400, 0)[0]
    return train_router(made, default_embedder(), vectors=vectors(made.prompts)).router


def test_the_cheap_answer_tells_more_than_the_prompt(router: GainEstimator) -> None:
    rest = outcomes(800).split(400, 0)[1]
    found = evaluate_router(rest, router, vectors(rest.prompts), resamples=100)
    assert found.cascade is not None
    assert found.cascade.figures["apgr"].value > found.router.figures["apgr"].value + 0.05
    assert found.as_dict()["cascade"]


def test_a_wrong_sum_and_a_loose_end_lower_the_score(router: GainEstimator) -> None:
    asked = "A shop in Peru sells 4 boxes at $7 each and takes 5 % off. How much is left after tax?"
    answers = ["First, 4 + 7 = 11. So the answer is 11.", "First, 4 + 7 = 18, so"]
    right, wrong = router.for_answers().scores([asked] * 2, answers)
    assert 0 <= wrong < right - 0.2 <= 0.8
    by_vectors = router.for_answers().gains([asked] * 2, answers, vectors((asked,) * 2))
    assert router.for_answers(default_embedder()).gains([asked] * 2, answers) == pytest.approx(by_vectors, abs=1e-3)
    assert len(router.for_answers().gains([], [])) == 0


def test_without_enough_answers_there_is_no_such_estimator() -> None:
    made = outcomes(300)
    few = {CHEAP: tuple(answer if i < 99 else None for i, answer in enumerate(made.answers[CHEAP]))}
    training = train_router(
        Outcomes(made.prompts, made.tiers, made.scores, few), default_embedder(), vectors=vectors(made.prompts)
    )
    assert training.answer_gains is None
    with pytest.raises(ConfigError, match=r'at least 100 outcomes with "answers": \{"small-model"'):
        training.router.for_answers()


def test_an_answer_for_each_prompt(router: GainEstimator) -> None:
    with pytest.raises(ConfigError, match="2 prompts and 1 answers"):
        router.for_answers().scores(["a", "b"], ["c"])
