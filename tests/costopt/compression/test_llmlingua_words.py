"""What is kept or dropped by itself, and what is read together."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.compression import assemble
from costopt.compression.windows import windows
from costopt.compression.words import Tokens, averages, bridged, joined, units, would_merge

TEXTS = st.text(alphabet=st.sampled_from("aB9 .,-'\"()[]=\n\t。，是的ไม่カмф😀🏽\u200b\u0301\ud800"), max_size=60)


def by_character(text: str) -> Tokens:
    places = [i for i, sign in enumerate(text) if not sign.isspace()]
    return Tokens([7] * len(places), places, [i + 1 for i in places])


def split(text: str, tokens: Tokens | None = None) -> list[str]:
    return [text[start:end] for start, end in units(text, tokens or by_character(text))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The old bridge, too.", ["The", "old", "bridge", ",", "too", "."]),
        ("state-of-the-art, don't", ["state-of-the-art", ",", "don't"]),
        ('He said: "Go (now)!"', ["He", "said", ":", '"', "Go", "(", "now", ')!"']),
        ("$3.14M or 12.5% of 1,000", ["$3.14M", "or", "12.5%", "of", "1,000"]),
        ("see https://a.org/b?c=d now", ["see", "https://a.org/b?c=d", "now"]),
        ("x = f(a)[0]; <b>", ["x", "=", "f(a)[0];", "<b>"]),
        ("今天很好。去iPhone店", ["今", "天", "很", "好", "。", "去", "iPhone", "店"]),
        ("Он ушёл — давно!", ["Он", "ушёл", "—", "давно", "!"]),
        ("😀 great👍🏽!", ["😀", "great👍🏽", "!"]),
        (" \n\t ", []),
    ],
)
def test_units(text: str, expected: list[str]) -> None:
    assert split(text) == expected


def test_where_no_blanks_are_written_tokens_are_units_but_never_part_letters() -> None:
    text = "ไม่มี图书馆"
    # Cut between a consonant and the vowel sign over it (at 4), which must not stand alone.
    assert split(text, Tokens([1, 2, 3, 4], [0, 4, 5, 7], [4, 5, 7, 8])) == ["ไม่มี", "图书", "馆"]


@given(TEXTS)
def test_every_sign_but_white_space_is_in_exactly_one_unit(text: str) -> None:
    covered = "".join(split(text))
    assert covered == "".join(text.split())


def test_the_value_of_a_unit_is_the_mean_over_the_tokens_that_touch_it() -> None:
    tokens = Tokens([1, 2, 3, 4, 5], [0, 0, 3, 6, 9], [0, 3, 8, 9, 12])  # the first stands for nothing
    values = np.array([0.9, 0.2, 0.4, 0.6, 1.0], np.float32)
    assert averages([(0, 5), (6, 9), (9, 12), (20, 21)], tokens, values) == pytest.approx([0.3, 0.5, 1.0, 0.0])
    assert averages([], tokens, values).size == 0


@given(TEXTS, st.data())
def test_two_words_never_run_together(text: str, data: st.DataObject) -> None:
    every = units(text, by_character(text))
    kept = [span for span in every if data.draw(st.booleans())]
    spans = bridged(text, kept)
    for (_, end), (start, _) in pairwise(spans):
        assert start == end or not would_merge(text, end, start)
    assert {sign for start, end in kept for sign in range(start, end)} <= {
        sign for start, end in spans for sign in range(start, end)
    }


@given(TEXTS, st.data())
def test_what_is_counted_is_what_assemble_makes(text: str, data: st.DataObject) -> None:
    kept = bridged(text, [span for span in units(text, by_character(text)) if data.draw(st.booleans())])
    assert assemble([text], [kept], len).texts[0] == joined(text, kept)


@given(TEXTS.map(lambda text: text * 4), st.integers(1, 30))
def test_windows_hold_every_token_once_and_fit(text: str, room: int) -> None:
    tokens = by_character(text)
    cut = list(windows(text, tokens, room))
    assert [at for start, end in cut for at in range(start, end)] == list(range(len(tokens.ids)))
    assert all(end - start <= room for start, end in cut)


def test_windows_end_with_sentences_and_are_of_like_length() -> None:
    text = " ".join(f"Sentence {i} has some words in it." for i in range(40))
    cut = list(windows(text, by_character(text), 300))
    assert len(cut) == 4
    places = by_character(text).ends
    assert all(text[places[end - 1] - 1] == "." for _, end in cut)
    lengths = [end - start for start, end in cut]
    assert max(lengths) < 1.4 * min(lengths)


def test_a_word_longer_than_a_window_is_read_all_the_same() -> None:
    text = "x" * 1_000
    assert len(list(windows(text, by_character(text), 300))) >= 4
