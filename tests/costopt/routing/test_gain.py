"""A trained router ranks prompts by what the strong model adds, knows what it does not know, and keeps on disk."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costopt import ConfigError, SharedEmbedder, default_embedder
from costopt.routing import Estimator, GainEstimator, Outcomes, Training, load_router, train_router
from costopt.routing.evaluate import evaluate_router, unseen
from costopt.routing.files import read_router, write_router
from costopt.routing.metrics import curve
from costopt.routing.smoothing import blend, fit_neighbours, fit_ridge
from tests.costopt.routing.rows import outcomes, vectors

FOREIGN = (
    "Schreibe ein Gedicht über den Herbst, in dem kein einziges Adjektiv vorkommt, bitte ohne Reime!",
    "{\"level\": \"error\", \"msg\": \"ECONNRESET\", \"stack\": [\"at Socket.<anonymous> (net.js:12)\"]}",
    "我的猫昨天晚上一直在叫，我应该带它去看兽医吗？",
)  # fmt: skip


def trained(count: int, seed: int = 0) -> Training:
    made = outcomes(800).split(count, seed)[0]
    return train_router(made, default_embedder(), vectors=vectors(made.prompts), seed=seed)


@pytest.fixture(scope="module")
def training() -> Training:
    return trained(400)


@pytest.fixture(scope="module")
def router(training: Training) -> GainEstimator:
    return training.router


@pytest.fixture(scope="module")
def another() -> GainEstimator:
    """Of fewer labels; 150 are enough for a router that says something."""
    return trained(150).router


def held_out(count: int = 400) -> Outcomes:
    return outcomes(800).split(count, 0)[1]


def test_prompts_it_has_not_seen_are_ranked_by_what_the_strong_model_adds(router: GainEstimator) -> None:
    rest = held_out()
    found = evaluate_router(rest, router, vectors(rest.prompts), resamples=200)
    over = found.router.over_length["apgr"].interval
    assert found.router.figures["apgr"].value > 0.7
    assert over is not None
    assert over[0] > 0
    assert set(found.controls) == {"random", "length", "shuffled", "oracle"}
    assert found.controls["oracle"].figures["apgr"].value > found.router.figures["apgr"].value


def test_what_it_expects_is_right_on_average_and_in_each_half(router: GainEstimator) -> None:
    rest = held_out()
    gains, expected = (
        router.gains(rest.prompts, vectors(rest.prompts)),
        router.expected(rest.prompts, vectors(rest.prompts)),
    )
    assert np.allclose(expected[:, 1] - expected[:, 0], gains)
    assert expected.mean(axis=0) == pytest.approx(rest.scores.mean(axis=0), abs=0.08)
    upper = gains > np.median(gains)
    for half in (upper, ~upper):
        assert gains[half].mean() == pytest.approx(rest.gains[half].mean(), abs=0.1)


def test_left_out_predictions_are_as_good_as_those_of_new_prompts(training: Training) -> None:
    rest = held_out()
    inside = curve(training.gains, *outcomes(800).split(400, 0)[0].scores.T).apgr
    outside = curve(training.router.gains(rest.prompts, vectors(rest.prompts)), *rest.scores.T).apgr
    assert inside == pytest.approx(outside, abs=0.08)


def test_labels_that_say_nothing_are_not_made_to_say_something() -> None:
    """Shuffled scores: left out, the predictions are no better than chance, and no worse either."""
    made, areas = outcomes(400), []
    for seed in range(8):
        scores = np.random.default_rng(seed).permutation(made.scores)
        training = train_router(
            Outcomes(made.prompts, made.tiers, scores), default_embedder(), vectors=vectors(made.prompts)
        )
        areas.append(curve(training.gains, *scores.T).apgr)
        assert np.ptp(training.router.gains(made.prompts, vectors(made.prompts))) < 0.5
    assert np.mean(areas) == pytest.approx(0.5, abs=0.05)


def test_a_prompt_unlike_all_others_gets_no_opinion(router: GainEstimator) -> None:
    both = (*FOREIGN, *held_out().prompts[:100])
    scores, novel = router.scores(both, vectors(both)), router.novel(both, vectors(both))
    assert np.isnan(scores[:3]).all()
    assert np.isnan(scores[3:]).mean() < 0.06
    assert (np.isnan(scores[:, 0]) == novel).all()
    assert np.isfinite(router.gains(both, vectors(both))).all()


@pytest.mark.parametrize(("labels", "mode"), [(99, "off"), (100, "shadow"), (299, "shadow"), (300, "route")])
def test_with_few_labels_it_stays_off_then_shadows(labels: int, mode: str) -> None:
    router = trained(labels).router
    texts = held_out(labels).prompts[:20]
    gains = router.gains(texts, vectors(texts))
    assert router.mode == mode
    if mode == "off":
        assert np.isnan(router.scores(texts, vectors(texts))).all()
        assert np.ptp(gains) == 0
        assert gains[0] == pytest.approx(outcomes(800).split(labels, 0)[0].gains.mean(), abs=1e-5)
    else:
        assert len(set(gains)) > 10


def test_three_tiers_have_a_score_for_each_step() -> None:
    """The middle tier does as well as the best: beyond it nothing is to be gained, before it much."""
    made = outcomes(400)
    middle = made.scores[:, 1] - 0.02
    tiers = Outcomes(made.prompts, ("s", "m", "l"), np.column_stack([made.scores[:, 0], middle, made.scores[:, 1]]))
    router = train_router(tiers, default_embedder(), vectors=vectors(made.prompts)).router
    scores = router.scores(made.prompts, vectors(made.prompts))
    known = ~np.isnan(scores).any(axis=1)
    assert scores.shape == (400, 2)
    assert scores[known, 1] == pytest.approx(0.02, abs=0.02)
    assert scores[known, 0].mean() == pytest.approx(made.gains.mean(), abs=0.05)
    expected = router.expected(made.prompts, vectors(made.prompts))
    assert np.allclose(scores[known, 0], (expected[:, 1:].max(axis=1) - expected[:, 0])[known])


def test_it_comes_off_the_disk_as_it_went_there(router: GainEstimator, tmp_path: Path) -> None:
    texts = held_out().prompts[:50]
    set_up = router.calibrated((0.25,), {"policy": "by hand"}, cascade=0.8)
    set_up.save(tmp_path / "my.router")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my.router.json", "my.router.npz"]
    for name in ("my.router", "my.router.npz", "my.router.json"):
        again = load_router(tmp_path / name, default_embedder())
        assert np.array_equal(again.scores(texts, vectors(texts)), router.scores(texts, vectors(texts)), equal_nan=True)
    answers = ["So it is 4."] * 50
    assert np.array_equal(again.for_answers().gains(texts, answers), router.for_answers().gains(texts, answers))
    assert (again.thresholds, again.cascade_threshold, again.mode, again.rows) == ((0.25,), 0.8, "route", 400)
    facts = json.loads((tmp_path / "my.router.json").read_text())
    made = outcomes(800).split(400, 0)[0]
    assert facts["about"]["data"] == made.digest
    assert {"seed", "date", "calibration"} <= facts["about"].keys()
    assert facts["embedder"] == default_embedder().name


def test_the_same_labels_make_the_same_router(tmp_path: Path) -> None:
    for name in ("one", "two"):
        trained(150, seed=3).router.save(tmp_path / name)
    one, two = ((tmp_path / f"{name}.npz").read_bytes() for name in ("one", "two"))
    assert one == two


def test_a_router_is_measured_on_what_it_has_not_seen(router: GainEstimator) -> None:
    rest = unseen(outcomes(800), router)
    assert rest.prompts == tuple(text for text in outcomes(800).prompts if text in set(held_out().prompts))
    with pytest.raises(ConfigError, match="trained on all 400 prompts"):
        unseen(outcomes(800).split(400, 0)[0], router)


class _Other:
    name, dimension = "another-embedder", 384

    def embed(self, texts: Any) -> Any:
        return np.eye(len(texts), 384, dtype=np.float32)


def test_a_router_for_another_embedder_is_refused_with_both_names(router: GainEstimator, tmp_path: Path) -> None:
    router.save(tmp_path / "router")
    for refused in (lambda: load_router(tmp_path / "router", _Other()), lambda: router.for_answers(_Other())):
        with pytest.raises(ConfigError, match="'all-MiniLM-L6-v2', and 'another-embedder'"):
            refused()
    router.check(SharedEmbedder(default_embedder()))


@pytest.mark.parametrize(
    ("harm", "named"),
    [
        (lambda folder: (folder / "r.json").unlink(), r"no router at .*r\.json .*router train"),
        (lambda folder: (folder / "r.npz").unlink(), r"no router at .*r\.npz"),
        (lambda folder: (folder / "r.json").write_text("{"), r"r\.json is not JSON"),
        (lambda folder: (folder / "r.json").write_text("[]"), "is not of a router"),
        (lambda folder: (folder / "r.json").write_bytes(b"\xff\xfe"), "is not JSON"),
        (lambda folder: _change(folder, version=99), "of version 99"),
        (lambda folder: _change(folder, features=["x"]), "another version of costopt"),
        (lambda folder: _change(folder, tiers=None), "is no router"),
        (
            lambda folder: (folder / "r.npz").write_bytes((folder / "r.npz").read_bytes()[:-9]),
            "damaged, or not the one",
        ),
        (lambda folder: shutil.copy(folder / "other.npz", folder / "r.npz"), "damaged, or not the one"),
        (lambda folder: write_router(folder / "r", {"a": np.zeros(1)}, read_router(folder / "r")[1]), "is no router"),
    ],
)
def test_a_damaged_file_is_named_with_the_mend(
    router: GainEstimator, another: GainEstimator, tmp_path: Path, harm: Any, named: str
) -> None:
    router.save(tmp_path / "r")
    another.save(tmp_path / "other")
    harm(tmp_path)
    with pytest.raises(ConfigError, match=named):
        load_router(tmp_path / "r")


def _change(folder: Path, **facts: Any) -> None:
    head = json.loads((folder / "r.json").read_text())
    (folder / "r.json").write_text(json.dumps({**head, **facts}))


def test_an_array_of_objects_is_never_unpickled(tmp_path: Path) -> None:
    import hashlib
    import io

    buffer = io.BytesIO()
    np.savez(buffer, evil=np.array([{"a": 1}], object), allow_pickle=True)
    data = buffer.getvalue()
    (tmp_path / "r.npz").write_bytes(data)
    digest = hashlib.blake2b(data, digest_size=16).hexdigest()
    (tmp_path / "r.json").write_text(json.dumps({"format": "costopt router", "version": 1, "arrays": digest}))
    with pytest.raises(ConfigError, match="holds no arrays"):
        load_router(tmp_path / "r")


def test_a_place_that_cannot_be_written_is_named(router: GainEstimator, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be written"):
        router.save(tmp_path / "absent" / "router")


def test_one_class_and_too_few_labels_are_named() -> None:
    made = outcomes(100)
    same = Outcomes(made.prompts, made.tiers, np.tile([0.0, 1.0], (100, 1)))
    with pytest.raises(ConfigError, match=r"one class only: .*large-model scores \[1.0\] more than small-model"):
        train_router(same, default_embedder())
    with pytest.raises(ConfigError, match="9 labelled prompts are too few"):
        train_router(made.take(range(9)), default_embedder())


def test_vectors_that_are_none_of_the_embedder_s_are_named(router: GainEstimator) -> None:
    with pytest.raises(ConfigError, match="those given are none"):
        router.scores(["a"], None)
    with pytest.raises(ConfigError, match=r"of shape \(1, 3\)"):
        router.expected(["a"], np.zeros((1, 3), np.float32))
    with pytest.raises(ConfigError, match="2 thresholds for 2 tiers"):
        router.calibrated((0.1, 0.2), {}, None)


def test_a_vector_that_is_no_number_is_no_opinion(router: GainEstimator) -> None:
    given = np.array(vectors(("What is the currency of Peru?",) * 1))
    given[0, 0] = np.nan
    assert np.isnan(router.scores(["What is the currency of Peru?"], given)).all()


def test_nothing_asked_is_nothing_answered(router: GainEstimator) -> None:
    assert router.scores([], np.zeros((0, 384), np.float32)).shape == (0, 1)
    assert router.expected([], np.zeros((0, 384), np.float32)).shape == (0, 2)


def test_it_is_an_estimator(router: GainEstimator) -> None:
    estimator: Estimator = router
    assert (estimator.name, estimator.tiers, estimator.wants_vectors) == ("gain", ("small-model", "large-model"), True)


# -- the parts ---------------------------------------------------------------------------------------------


def test_leave_one_out_is_what_leaving_one_out_gives() -> None:
    """In closed form and by hand, around the mean of all targets."""
    chosen = np.random.default_rng(0)
    rows = chosen.standard_normal((40, 5))
    targets = rows @ chosen.standard_normal((5, 2)) + chosen.standard_normal((40, 2))
    ridge, left_out = fit_ridge(rows, targets, [3.0])
    centred, wanted = rows - rows.mean(axis=0), targets - targets.mean(axis=0)
    for i in range(0, 40, 7):
        kept = np.arange(40) != i
        weights = np.linalg.solve(centred[kept].T @ centred[kept] + 3 * np.eye(5), centred[kept].T @ wanted[kept])
        assert left_out[i] == pytest.approx(targets.mean(axis=0) + centred[i] @ weights)
    assert rows @ ridge.weights + ridge.intercept == pytest.approx(
        targets.mean(axis=0) + centred @ np.linalg.solve(centred.T @ centred + 3 * np.eye(5), centred.T @ wanted)
    )


def test_nobody_is_a_neighbour_of_themself() -> None:
    rows = np.eye(4, dtype=np.float32)
    rows[3] = rows[2]
    targets = np.array([[0.0], [0.0], [0.0], [1.0]])
    near, left_out, nearest = fit_neighbours(rows, targets, [50.0])
    assert nearest.tolist() == [0, 0, 1, 1]
    assert left_out[:, 0] == pytest.approx(np.array([1 / 3, 1 / 3, 1, 0]) + (targets[:, 0] - 0.25) / 3, abs=1e-6)
    said, cosine = near.predict(rows[:1])
    assert (said[0, 0], cosine[0]) == (pytest.approx(0, abs=1e-6), 1)


def test_only_so_many_neighbours_are_kept() -> None:
    chosen = np.random.default_rng(0)
    rows = chosen.standard_normal((3_000, 8)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    near, left_out, nearest = fit_neighbours(rows, rows[:, :1].astype(np.float64))
    assert len(near.rows) == 2_048
    assert left_out.shape == (3_000, 1)
    assert np.isfinite(nearest).all()


def test_a_blend_of_contrary_predictions_is_level_not_turned_round() -> None:
    x = np.linspace(-1, 1, 50)[:, None]
    found = blend(x, x, -x).apply(x, x)
    assert 0 < np.ptp(found) < 0.2
    assert found[-1] > found[0]
