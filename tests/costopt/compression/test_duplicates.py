"""What is there twice goes once, and nothing goes that says anything new."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError
from costopt.compression.duplicates import _shingles, near_duplicates, repeated

TEXT = "The basic plan costs 12 EUR a month for each user and can be cancelled by Ann at any time before it renews"


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (TEXT + ".", True),
        (TEXT.replace("can be", "may be"), True),
        (TEXT.removesuffix(" before it renews"), True),
        (TEXT.replace("12", "15"), False),
        (TEXT.replace("Ann", "Bob"), False),
        (TEXT.replace("can be", "can not be"), False),
        (TEXT.upper(), False),
        ("Something else is said here that has nothing whatever to do with the plan above", False),
    ],
)
def test_nearly_the_same_and_nothing_new(other: str, found: bool) -> None:
    duplicates = near_duplicates([TEXT, other], threshold=0.6)
    assert [(each.text, each.of) for each in duplicates] == ([(1, 0)] if found else [])


def test_of_many_the_first_stays() -> None:
    texts = ["Nothing of the kind is said in this text, which stands alone", TEXT, TEXT + "!", TEXT + "?", TEXT]
    assert [(each.text, each.of) for each in near_duplicates(texts)] == [(2, 1), (3, 1), (4, 1)]


def test_short_texts_are_left_alone() -> None:
    assert near_duplicates(["Yes, of course.", "Yes, of course."]) == []


@given(
    st.lists(st.lists(st.sampled_from("ant bee cow dog elk fox".split()), min_size=8, max_size=14), max_size=8),
    st.sampled_from([0.3, 0.5, 0.8, 1.0]),
)
def test_every_pair_at_the_threshold_is_found(texts: list[list[str]], threshold: float) -> None:
    """The search looks at a few words of each text only: it must miss nothing for that."""
    joined = [" ".join(words) for words in texts]
    shingles = [_shingles(text) for text in joined]
    stay: list[int] = []
    expected = []
    for i, own in enumerate(shingles):
        if any(len(own & shingles[j]) / len(own | shingles[j]) >= threshold for j in stay):
            expected.append(i)
        else:
            stay.append(i)
    assert [each.text for each in near_duplicates(joined, threshold=threshold)] == expected


def test_the_same_but_for_white_space() -> None:
    line = "All rights reserved by Example Ltd in 2024."
    assert list(repeated([line, "Short.", line.replace(" ", "\n"), "Short.", line + " More."])) == [2]


@pytest.mark.parametrize("threshold", [0, 1.1, float("nan")])
def test_a_threshold_that_is_none_is_named(threshold: float) -> None:
    with pytest.raises(ConfigError, match="near_duplicates="):
        near_duplicates([TEXT], threshold=threshold)
