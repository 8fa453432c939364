"""Every guard on near misses it must catch and on honest paraphrases that no guard may veto."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt.caching.guards import GUARDS, MAX_CHARS, READ, features, veto
from tests.costopt.caching.guard_pairs import NEAR_MISSES, PARAPHRASES
from tests.timed import timed


@pytest.mark.parametrize(("guard", "one", "two"), [(g, *pair) for g, pairs in NEAR_MISSES.items() for pair in pairs])
def test_near_miss_is_vetoed(guard, one, two):
    assert GUARDS[guard](features(one), features(two))
    assert GUARDS[guard](features(two), features(one))
    assert veto(one, two) in GUARDS


@pytest.mark.parametrize(("guard", "one", "two"), [(g, *pair) for g, pairs in PARAPHRASES.items() for pair in pairs])
def test_paraphrase_passes_every_guard(guard, one, two):
    assert veto(one, two) is None
    assert veto(two, one) is None
    assert not GUARDS[guard](features(one), features(two))


def test_every_guard_has_its_table():
    assert list(NEAR_MISSES) == list(PARAPHRASES) == list(GUARDS)
    assert all(len(pairs) >= 12 for pairs in NEAR_MISSES.values())
    assert all(len(pairs) >= 8 for pairs in PARAPHRASES.values())


def test_a_judge_that_reads_is_left_the_numbers_that_one_text_lacks_and_nothing_else():
    for guard, pairs in NEAR_MISSES.items():
        for one, two in pairs:
            assert (veto(one, two, leave=READ) is None) == (guard in READ), (one, two)


def test_the_first_guard_names_the_veto():
    assert veto("Top 5 films", "Top 10 films") == "number"
    assert veto("Best museums in Paris", "Best museums in London") == "name"
    assert veto("Top 5 films in Paris", "Top 10 films in London") == "number"


def test_longer_texts_are_not_looked_at():
    def padded(number: str, length: int) -> str:
        return number + "x" * (length - len(number))

    assert veto("1", padded("2 ", MAX_CHARS)) == "number"
    assert veto("1", padded("2 ", MAX_CHARS + 1)) is None
    assert veto(padded("2 ", MAX_CHARS + 1), "1") is None


_PIECES = st.sampled_from(
    [
        *"not n't don't no 3 1,000 1,0 5k $ € km °C per day from to than A Paris paris US II May 'x' \" ` ```".split(),
        *"site:a /a/b/c a@b.c https://x.y un do undo enable disable the what why how many in German".split(),
        *[
            "ist",
            "das",
            "ß",
            "ſ",
            "İ",
            "ﬁ",
            "Σ",
            "ς",
            "②",
            "½",
            "٣",
            "漢",
            "か",
            "ไ",
            "\n",
            "\x00",
            "\ud800",
            "\u200f",
            "💥",
            ". ",
            "? ",
            "9" * 30,
        ],
        "what is the best way to do it when nobody is at home",
    ]
)
_TEXTS = st.one_of(
    st.text(max_size=60),
    st.text(st.characters(exclude_categories=[]), max_size=40),  # lone surrogates too
    st.lists(_PIECES, max_size=25).map(" ".join),
    st.lists(_PIECES, max_size=25).map("".join),
)


@given(_TEXTS, _TEXTS)
@settings(max_examples=400, deadline=None)
def test_symmetric_and_deterministic_on_any_text(one, two):
    first = veto(one, two)
    assert first is None or first in GUARDS
    assert veto(two, one) == first
    a, b = features(one), features(two)
    assert [guard(a, b) for guard in GUARDS.values()] == [guard(b, a) for guard in GUARDS.values()]
    features.cache_clear()
    assert veto(one, two) == first


@given(_TEXTS)
@settings(max_examples=300, deadline=None)
def test_no_guard_vetoes_a_text_beside_itself(text):
    assert veto(text, text) is None
    # `veto` stops early on equal texts; the guards themselves must agree.
    assert [name for name, forbids in GUARDS.items() if forbids(features(text), features(text))] == []


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "'",
        '"',
        "`",
        "```",
        "a-",
        "/a",
        "a@",
        "a'b",
        "1,",
        "1.",
        "I.S.",
        "9",
        "9 ",
        "a.",
        "http://",
        "-site:",
        "漢",
        "Zb ",
        "a b c d ",
    ],
)
@timed
def test_no_text_takes_long(unit):
    text = (unit * MAX_CHARS)[: MAX_CHARS - 2]
    start = time.perf_counter()
    veto(text, "x " + text)
    veto(text[:-9], text[::-1])
    assert time.perf_counter() - start < 1.0


@timed
def test_a_megabyte_is_no_burden():
    start = time.perf_counter()
    assert veto("1 " * 500_000, "2 " * 500_000) is None
    assert time.perf_counter() - start < 0.2


def test_features_are_remembered_and_bounded():
    features.cache_clear()
    for candidate in ("one apple", "a pear", "plums"):
        veto("which fruit is sweet?", candidate)
    assert features.cache_info().misses == 4
    assert features.cache_info().maxsize is not None
