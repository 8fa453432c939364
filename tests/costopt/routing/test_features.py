"""What is read off a prompt is what stands there, in any script, alone as in a batch, and for any text at all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.routing.features import FEATURES, LEAST_SPREAD, count, features

ANY = st.text(st.characters(), max_size=200)  # surrogates too


def of(text: str, name: str) -> float:
    return float(features([text])[0, FEATURES.index(name)])


def test_the_names_are_those_of_the_columns() -> None:
    assert features(["a", "b"]).shape == (2, len(FEATURES)) == (2, len(LEAST_SPREAD))
    assert features([]).shape == (0, len(FEATURES))
    assert len(set(FEATURES)) == len(FEATURES)


@pytest.mark.parametrize(
    ("text", "words", "numbers"),
    [
        ("What is 3 + 20?", 2, 2),
        ("Straße, éléphant; naïve", 3, 0),
        ("Сколько будет 2 и 2", 3, 2),
        ("कितने लोग", 2, 0),
        ("كم عدد ٤٥", 2, 1),
        ("안녕 세상", 2, 0),
        ("ab12cd", 2, 1),
        ("", 0, 0),
    ],
)
def test_words_and_numbers_are_counted_in_any_script(text: str, words: int, numbers: int) -> None:
    found = count([text])
    assert (found.words[0], found.numbers[0]) == (words, numbers)


def test_scripts_without_blanks_have_words_too() -> None:
    chinese, japanese = count(["法国的首都是哪里"]).words[0], count(["フランスの首都はどこですか"]).words[0]
    assert 4 <= chinese <= 6
    assert 6 <= japanese <= 9


def test_each_script_has_a_share_of_its_own() -> None:
    for text, name in (
        ("αβγ", "Greek"), ("где", "Cyrillic"), ("שלום", "Semitic"), ("नमन", "Indic"), ("中文", "Han"), ("かな", "Kana"),
        ("한글", "Hangul"), ("მე", "letters of other scripts"),
    ):  # fmt: skip
        assert of(text, f"share of {name}") > 0.6, name
        assert of("plain words", f"share of {name}") == 0


def test_options_to_choose_from_are_seen() -> None:
    text = "Which is largest?\nA. 12 km\nB. 7 miles\nC. 900 m\nD. 4 leagues\nAnswer:"
    assert (of(text, "options"), of(text, "options in figures"), of(text, "asks")) == (4, 1, 1)
    assert of("Which is largest?", "options") == 0
    assert of("A. Yes\nB. No", "options") == 2


def test_code_and_maths_are_seen() -> None:
    assert of("if (a) { b(); } // #1 & 2", "log code signs") > of("a plain question", "log code signs") == 0
    assert of("∫ x² dx = 3 ≤ 4", "log maths signs") > of("a plain question", "log maths signs") == 0


@given(st.lists(ANY, min_size=1, max_size=6))
def test_a_prompt_is_read_alike_alone_and_in_a_batch(texts: list[str]) -> None:
    together = features(texts)
    assert np.isfinite(together).all()
    assert (together == np.concatenate([features([text]) for text in texts])).all()


@given(ANY, ANY)
def test_neighbours_in_a_batch_do_not_run_into_each_other(one: str, other: str) -> None:
    found = count([one, other])
    assert found.chars.tolist() == [len(one), len(other)]
    assert found.classes.sum(axis=1).tolist() == [len(one), len(other)]
    assert (found.classes >= 0).all()


def test_a_megabyte_is_read_at_its_ends_and_counted_in_full() -> None:
    text = "start 1 " + "x" * 1_000_000 + " 2 end"
    found = count([text])
    assert (found.chars[0], found.numbers[0]) == (len(text), 2)
