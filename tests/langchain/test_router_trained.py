"""The whole way: an estimator trained on outcomes, saved, loaded, calibrated, and asked by a router and its cascade."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from costopt import Cascade, ConfigError, default_embedder
from costopt.routing import GainEstimator, Outcomes, StrongShare, train_router
from langchain_costopt import RouterRunnable
from tests.costopt.routing.models import Vectors
from tests.langchain.models import CountingModel

TIERS = ("gpt-4o-mini", "gpt-4o")
EASY = [
    f"What colour is a {thing} in the year {n}?" for n in range(40) for thing in ("lemon", "tomato", "plum", "leek")
]
HARD = [
    f"Prove by induction that the sum of the first {n} {of} numbers is as stated, and explain each step."
    for n in range(40)
    for of in ("odd", "even", "square", "cubic")
]


@pytest.fixture(scope="module")
def router_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    prompts = (*EASY, *HARD)
    scores = np.array([[1.0, 1.0]] * len(EASY) + [[0.0, 1.0]] * len(HARD))
    answers = tuple(["Yellow, as ever."] * len(EASY) + ["I am not sure, perhaps."] * len(HARD))
    outcomes = Outcomes(prompts, TIERS, scores, {TIERS[0]: answers})
    path = tmp_path_factory.mktemp("router") / "router"
    train_router(outcomes, default_embedder()).router.save(path)
    return path


def models() -> list[CountingModel]:
    return [CountingModel(model_name=name) for name in TIERS]


def test_a_trained_router_sends_easy_questions_to_the_cheap_model(router_file: Path) -> None:
    router = RouterRunnable(tiers=models(), estimator=GainEstimator.load(router_file), policy=StrongShare(0.5))
    router.router.calibrate([*EASY[::4], *HARD[::4]])
    asked = [
        "What colour is a lemon in the year 77?",
        "Prove by induction that the sum of the first 77 odd numbers is as stated.",
    ]
    answers = router.batch(asked)
    assert [answer.response_metadata["costopt"]["chosen"] for answer in answers] == list(TIERS)
    novel = router.invoke("Translate this poem about the sea into Icelandic: o wild west wind")
    assert novel.response_metadata["costopt"]["chosen"] == "gpt-4o"


def test_the_cascade_reads_the_cheap_answer(router_file: Path) -> None:
    trained = GainEstimator.load(router_file)
    cascade = Cascade(estimator=trained.for_answers(), start="cheapest")
    router = RouterRunnable(tiers=models(), estimator=trained, thresholds=(0.5,), cascade=cascade)
    decision = router.invoke(HARD[5]).response_metadata["costopt"]
    assert (decision["why"], decision["chosen"]) == ("rejected: judged", "gpt-4o")
    assert router.invoke(EASY[5]).response_metadata["costopt"]["chosen"] == "gpt-4o-mini"


def test_other_tiers_thresholds_and_embedders_are_refused(router_file: Path) -> None:
    trained = GainEstimator.load(router_file)
    with pytest.raises(ConfigError, match="was trained for the tiers gpt-4o-mini, gpt-4o"):
        RouterRunnable(
            tiers=[CountingModel(model_name="gpt-4.1"), CountingModel(model_name="gpt-5.4")], estimator=trained
        )
    with pytest.raises(ConfigError, match="has no thresholds"):
        RouterRunnable(tiers=models(), estimator=trained)
    with pytest.raises(ConfigError, match="'numbers' is in use"):
        RouterRunnable(tiers=models(), estimator=trained, thresholds=(0.5,), embedder=Vectors())
