"""Reworded repeats: the nearest earlier text of the same scope, judged, in time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from costopt import SimilarityJudge
from costopt.audit import semantic
from costopt.audit.columns import Log
from costopt.audit.repeats import exact_hits
from costopt.audit.semantic import Texts, WordedRepeats, worded_repeats
from costopt.caching.judge import Verdict
from tests.costopt.audit.rows import DAY_S, START, log_of, record


class Points:
    """An embedder for texts that are angles in degrees: "30" lies near "32"."""

    name, dimension = "points", 2

    def __init__(self) -> None:
        self.texts: list[str] = []

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        self.texts.extend(texts)
        angles = np.radians([float(text.split()[0]) for text in texts])
        return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)

    def fits(self, text: str) -> bool:
        return "long" not in text


class Even:
    """Accepts every other pair that it is asked about."""

    min_similarity = 0.9

    def __init__(self) -> None:
        self.asked = 0

    def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[Verdict]:
        self.asked += 1
        return [Verdict(self.asked % 2 == 0, "even") for _ in candidates]


def played(log: Log, judge: Any = None, ttl_s: float = DAY_S) -> tuple[WordedRepeats, Points]:
    points = Points()
    found = worded_repeats(
        log,
        Texts(log.texts, points),
        points,
        judge or SimilarityJudge(0.99, guards=False),
        exact_hits(log, ttl_s),
        ttl_s,
    )
    return found, points


def test_only_an_earlier_text_that_is_near_enough_serves_a_later_one() -> None:
    log = log_of(record(text, at=START + i) for i, text in enumerate(["0", "50", "3", "47", "100"]))
    found, _ = played(log)
    assert found.chance[1].tolist() == [0, 0, 1, 1, 0]
    assert set(found.examples) == {("3", "0"), ("47", "50")}


def test_another_scope_serves_nobody_and_is_not_even_embedded() -> None:
    rows = [record("0"), record("1", at=START + 1, tenant="acme"), record("2", at=START + 2, model="gpt-4o-mini")]
    found, points = played(log_of(rows))
    assert found.chance.sum() == 0
    assert points.texts == []


def test_each_text_is_embedded_once_whatever_the_scopes() -> None:
    rows = [record(text, at=START + i, tenant=tenant) for i, text in enumerate("0 9 40".split()) for tenant in "abc"]
    found, points = played(log_of(rows))
    assert sorted(points.texts) == ["0", "40", "9"]
    assert found.texts == 3


def test_what_the_exact_tier_answers_is_not_counted_twice() -> None:
    found, _ = played(log_of(record(text, at=START + i) for i, text in enumerate(["0", "1", "0", "1"])))
    assert found.chance[1].tolist() == [0, 1, 0, 0]


def test_an_answer_that_is_too_old_serves_nobody() -> None:
    rows = [
        record("0"),
        record("1", at=START + 2 * DAY_S),
        record("50", at=START),
        record("51", at=START + 0.5 * DAY_S),
    ]
    found, _ = played(log_of(rows))
    assert found.chance[1].sum() == 1


def test_texts_that_the_vector_does_not_tell_of_are_left_out() -> None:
    found, points = played(log_of(record(text, at=START + i) for i, text in enumerate(["0 long", "1 long", "2"])))
    assert found.chance.sum() == 0
    assert not any("long" in text for text in points.texts)


@pytest.mark.parametrize("rows", [40, 3_000])
def test_the_nearest_is_found_among_many_as_by_looking_at_all(rows: int) -> None:
    drawn = np.random.default_rng(1)
    texts = [f"{angle:.7f}" for angle in drawn.uniform(0, 360, rows)]
    log = log_of(record(text, at=START + i) for i, text in enumerate(texts))
    found, points = played(log, SimilarityJudge(0.99, guards=False))
    vectors = points.embed(texts)
    near = np.tril(vectors @ vectors.T, -1).max(axis=1, initial=0)
    sure = np.abs(near - 0.99) > 2e-3  # vectors are kept as halves
    assert (near[sure] >= 0.99).any()
    assert (found.chance[1][sure] > 0).tolist() == (near[sure] >= 0.99).tolist()


def test_of_many_pairs_a_sample_is_judged_and_the_others_counted_by_their_like(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_MOST_JUDGED", 100)
    log = log_of(record(f"{i * 0.01:.2f}", at=START + i) for i in range(1_000))
    judge = Even()
    found, _ = played(log, judge)
    assert (found.pairs, found.judged, judge.asked) == (999, 100, 100)
    assert found.chance[1].sum() == pytest.approx(999 / 2, rel=0.05)
    assert abs(found.chance[1].sum() - 999 / 2) <= found.margin < 0.11 * 999


def test_what_was_judged_whole_has_no_margin() -> None:
    found, _ = played(log_of(record(f"{i * 0.01:.2f}", at=START + i) for i in range(50)))
    assert (found.pairs, found.judged, found.margin) == (49, 49, 0.0)


def test_what_one_model_is_asked_again_is_not_booked_on_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(semantic, "_MOST_JUDGED", 200)

    class OneWorded(Even):
        def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[Verdict]:
            return [Verdict("same" in asked, "") for _ in candidates]

    names = {"gpt-4o": "other", "gpt-4o-mini": "same"}
    rows = [
        record(f"{i * 0.01:.2f} {word}", at=START + i, model=name) for i in range(500) for name, word in names.items()
    ]
    log = log_of(rows)
    found, _ = played(log, OneWorded())
    assert found.judged == 200
    cheap = log["model"] == [name for name, _ in log.models].index("gpt-4o-mini")
    assert found.chance[1][~cheap].sum() < 0.05 * 500 < 0.95 * 499 < found.chance[1][cheap].sum()
