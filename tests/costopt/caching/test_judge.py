"""The judge around a model: which models it takes, what it asks them, and what it makes of their scores."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError, CostOptError, CrossEncoderJudge, SemanticCache, SimilarityJudge
from costopt.caching.judge import DEFAULT_MAX_ERROR, Verdict, as_judge, floor_of, for_all
from costopt.caching.policy import GRID, default_policy
from tests.costopt.caching.judges import TRUSTING, Oracle, logit

ASKED = "How do I reset my password?"
NEAR = [("How can I reset my password?", 0.97), ("I want to reset my password", 0.91)]
GUARDED = ("How do I reset 3 passwords?", "How do I reset 4 passwords?")


# -- which models --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A real `sentence_transformers.CrossEncoder` with weights drawn by lot."""
    import torch
    from sentence_transformers import CrossEncoder
    from transformers import BertConfig, BertForSequenceClassification, BertTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] how do can want to i reset my password ?".split()
    (folder / "vocab.txt").write_text("\n".join(words))
    BertTokenizerFast(str(folder / "vocab.txt")).save_pretrained(folder)
    torch.manual_seed(0)
    shape = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(words), num_labels=1, initializer_range=1.0, **shape)
    BertForSequenceClassification(config).save_pretrained(folder)
    return CrossEncoder(str(folder), device="cpu")


def test_a_cross_encoder_of_sentence_transformers_decides_by_its_probability(tiny: Any) -> None:
    expected = [float(score) for score in tiny.predict([(ASKED, text) for text, _ in NEAR])]
    assert len(set(expected)) == 2
    between = sum(expected) / 2
    verdicts = CrossEncoderJudge(tiny, max_error=1 - between).judge(ASKED, NEAR)
    assert [verdict.probability for verdict in verdicts] == pytest.approx(expected)
    assert [verdict.accepted for verdict in verdicts] == [score >= between for score in expected]


def test_a_cross_encoder_of_sentence_transformers_is_fitted_by_a_policy(tiny: Any) -> None:
    scores = [float(score) for score in tiny.predict([(ASKED, text) for text, _ in NEAR])]
    verdicts = CrossEncoderJudge(tiny, policy=TRUSTING).judge(ASKED, NEAR)
    assert [verdict.probability for verdict in verdicts] == pytest.approx([TRUSTING.probability(s) for s in scores])


def test_a_function_of_two_texts_is_asked_for_each_candidate_in_order() -> None:
    asked = []

    def same(one: str, other: str) -> float:
        asked.append((one, other))
        return 0.97 if "can" in other else 0.9

    judge = CrossEncoderJudge(same, max_error=0.05)
    assert judge.judge(ASKED, NEAR) == [
        Verdict(True, "probability 0.970 >= 0.950", 0.97),
        Verdict(False, "probability 0.900 < 0.950", 0.9),
    ]
    assert asked == [(ASKED, text) for text, _ in NEAR]


@given(st.floats(0, 1), st.floats(0.001, 0.999))
def test_without_a_policy_a_score_is_the_probability_of_being_right(score: float, max_error: float) -> None:
    (verdict,) = CrossEncoderJudge(lambda *_: score, max_error=max_error).judge(ASKED, NEAR[:1])
    assert (verdict.accepted, verdict.probability) == (score >= 1 - max_error, score)


@given(st.floats(-20, 20), st.floats(0.01, 0.5))
def test_with_a_policy_a_score_may_be_anything(score: float, max_error: float) -> None:
    (verdict,) = CrossEncoderJudge(lambda *_: score, max_error=max_error, policy=TRUSTING).judge(ASKED, NEAR[:1])
    assert verdict.probability == TRUSTING.probability(score)
    assert verdict.accepted == (TRUSTING.probability(score) >= TRUSTING.threshold(max_error))


@pytest.mark.parametrize("score", [1.0001, -0.01, 3.2, math.nan, math.inf, -math.inf])
def test_a_score_that_is_no_probability_needs_a_policy(score: float) -> None:
    with pytest.raises(CostOptError, match="no probability: fit a policy"):
        CrossEncoderJudge(lambda *_: score).judge(ASKED, NEAR)


@pytest.mark.parametrize("score", [math.nan, -math.inf])
def test_a_score_that_is_no_number_is_never_accepted_by_a_policy(score: float) -> None:
    (verdict,) = CrossEncoderJudge(lambda *_: score, policy=TRUSTING, max_error=0.99).judge(ASKED, NEAR[:1])
    assert (verdict.accepted, verdict.probability) == (False, 0.0)


def test_a_policy_that_was_never_seen_to_be_that_strict_says_so_and_accepts_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    judge = CrossEncoderJudge(Oracle(), policy=replace(TRUSTING, errors=(0.04,) * len(GRID)), max_error=0.02)
    for _ in range(2):
        assert [verdict.accepted for verdict in judge.judge(ASKED, NEAR)] == [False, False]
    assert [record.message.split(" is ")[0] for record in caplog.records] == ["costopt: max_error=0.02"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_a_model_that_miscounts_is_named(count: int) -> None:
    class Miscounting:
        def predict(self, sentences: list[tuple[str, str]]) -> Sequence[float]:
            return [0.99] * count

    with pytest.raises(CostOptError, match=f"{count} scores for 2 pairs"):
        CrossEncoderJudge(Miscounting()).judge(ASKED, NEAR)


# -- what it asks --------------------------------------------------------------------------------------------


def test_several_questions_are_one_pass_and_each_gets_its_own_verdicts() -> None:
    oracle = Oracle(lambda asked, cached: 0.99 if asked == cached.lower() else 0.01)
    questions = [("a b", [("A B", 0.9), ("C", 0.8)]), ("c", []), ("d", [("D", 0.9)])]
    found = CrossEncoderJudge(oracle, guards=False).judge_all(questions)
    assert [[verdict.accepted for verdict in verdicts] for verdicts in found] == [[True, False], [], [True]]
    assert (oracle.passes, len(oracle.pairs)) == (1, 3)


def test_what_a_guard_forbids_is_not_shown_to_the_model() -> None:
    oracle = Oracle()
    asked, cached = GUARDED
    verdicts = CrossEncoderJudge(oracle).judge(asked, [(cached, 0.99), NEAR[0], (cached.upper(), 0.98)])
    assert [verdict.reason for verdict in verdicts] == ["guard: number", "probability 0.990 >= 0.950", "guard: number"]
    assert [verdict.probability for verdict in verdicts] == [None, 0.99, None]
    assert oracle.pairs == [(asked, NEAR[0][0])]


def test_where_guards_forbid_everything_the_model_is_not_called() -> None:
    oracle = Oracle()
    asked, cached = GUARDED
    assert not CrossEncoderJudge(oracle).judge(asked, [(cached, 0.99)])[0].accepted
    assert oracle.passes == 0


def test_without_guards_the_model_decides() -> None:
    oracle = Oracle()
    asked, cached = GUARDED
    assert CrossEncoderJudge(oracle, guards=False).judge(asked, [(cached, 0.99)])[0].accepted
    assert oracle.pairs == [(asked, cached)]


def test_whether_a_number_that_only_one_text_has_matters_is_for_the_model() -> None:
    """To similarity alone, which does not read, a guard says no."""
    asked, cached = "How do I lose weight in 30 days?", [("How do I lose weight?", 0.95)]
    assert CrossEncoderJudge(Oracle()).judge(asked, cached)[0].accepted
    assert SimilarityJudge(0.9).judge(asked, cached)[0].reason == "guard: number missing"


@pytest.mark.parametrize("policy", [None, TRUSTING])
def test_at_a_max_error_of_0_nothing_is_asked_and_nothing_accepted(policy: Any) -> None:
    oracle = Oracle(lambda *_: 1.0)
    judge = CrossEncoderJudge(oracle, max_error=0, policy=policy)
    assert not any(verdict.accepted for verdict in judge.judge(ASKED, [*NEAR, (ASKED, 1.0)]))
    assert oracle.passes == 0


def test_no_candidates_are_no_call() -> None:
    oracle = Oracle()
    assert CrossEncoderJudge(oracle).judge(ASKED, []) == []
    assert oracle.passes == 0


# -- what it is told -----------------------------------------------------------------------------------------


def test_max_error_is_what_is_said_then_what_the_policy_was_tuned_for_then_the_default(tmp_path: Path) -> None:
    file = tmp_path / "policy.json"
    file.write_text(TRUSTING.as_json().replace('"max_error": null', '"max_error": 0.2'))
    assert CrossEncoderJudge(max_error=0.1, policy=file).threshold == TRUSTING.threshold(0.1)
    assert CrossEncoderJudge(policy=file).threshold == TRUSTING.threshold(0.2)
    assert CrossEncoderJudge(policy=TRUSTING).threshold == TRUSTING.threshold(DEFAULT_MAX_ERROR)
    assert CrossEncoderJudge(Oracle()).threshold == 1 - DEFAULT_MAX_ERROR


def test_the_default_judge_goes_by_the_shipped_policy() -> None:
    assert CrossEncoderJudge().policy == default_policy()
    assert floor_of(CrossEncoderJudge()) == default_policy().min_similarity


@pytest.mark.parametrize("max_error", [-0.01, 1, 1.5, math.nan, math.inf])
def test_a_max_error_that_is_no_share_is_refused(max_error: float) -> None:
    with pytest.raises(ConfigError, match="share of served answers that may be wrong"):
        CrossEncoderJudge(max_error=max_error)


@pytest.mark.parametrize("model", ["cross-encoder/stsb", 3, object(), [0.9]])
def test_what_scores_nothing_is_refused(model: Any) -> None:
    with pytest.raises(ConfigError, match="scores nothing"):
        CrossEncoderJudge(model)


def test_a_policy_that_is_not_there_is_refused_before_anything_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="costopt cache tune"):
        CrossEncoderJudge(policy=tmp_path / "policy.json")


def judged_by(judge: Any, **options: Any) -> Any:
    return as_judge(judge, **{"max_error": None, "policy": None, "guards": True, **options})


def test_a_whole_judge_is_taken_as_it_is() -> None:
    own = SimilarityJudge(0.9)
    assert judged_by(own) is own
    whole = CrossEncoderJudge(Oracle(), max_error=0.2)
    assert judged_by(whole) is whole


@pytest.mark.parametrize("options", [{"max_error": 0.05}, {"policy": TRUSTING}, {"guards": False}])
def test_a_whole_judge_decides_alone(options: dict[str, Any]) -> None:
    for make in (judged_by, lambda judge, **more: SemanticCache(judge=judge, **more)):
        with pytest.raises(ConfigError, match="decides by itself"):
            make(SimilarityJudge(0.9), **options)


def test_all_judges_of_a_process_share_one_copy_of_the_shipped_weights() -> None:
    assert CrossEncoderJudge().model is CrossEncoderJudge(max_error=0.2).model


def test_a_model_and_the_default_get_what_is_said_of_them() -> None:
    for model in (None, Oracle(), lambda asked, cached: 0.9):
        judge = judged_by(model, max_error=0.2, policy=TRUSTING, guards=False)
        assert isinstance(judge, CrossEncoderJudge)
        assert (judge.max_error, judge.policy, judge.guards) == (0.2, TRUSTING, False)


@pytest.mark.parametrize("options", [{"max_error": 1}, {"policy": "nowhere.json"}])
def test_what_is_said_of_a_model_is_checked(options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        judged_by(Oracle(), **options)


def test_a_judge_that_knows_no_floor_is_asked_from_06_on() -> None:
    assert floor_of(CrossEncoderJudge(Oracle())) == 0.6
    assert floor_of(CrossEncoderJudge(Oracle(), policy=TRUSTING)) == TRUSTING.min_similarity
    assert floor_of(SimilarityJudge(0.9)) == 0.9


def test_any_judge_judges_several_questions_and_one_around_a_model_in_one_pass() -> None:
    oracle = Oracle(lambda *_: logit(0.99))
    questions = [(ASKED, NEAR), ("password?", NEAR[:1])]
    found = for_all(CrossEncoderJudge(oracle, policy=TRUSTING))(questions)
    assert [[verdict.accepted for verdict in verdicts] for verdicts in found] == [[True, True], [True]]
    assert oracle.passes == 1
    found = for_all(SimilarityJudge(0.95))(questions)
    assert [[verdict.accepted for verdict in verdicts] for verdicts in found] == [[True, False], [True]]
