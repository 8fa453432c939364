"""Text as it is streamed: the pieces joined are what decoding all at once gives, up to the first stop text."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.local.text import StopFinder, TextStream

TEXTS = st.text(st.sampled_from("abcSTOP \n"), max_size=40)


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(places)] or [""]


@given(
    text=TEXTS,
    stops=st.lists(st.sampled_from(["STOP", "TO", "b c", "\n\n"]), max_size=3),
    cuts=st.lists(st.integers(0, 40)),
)
def test_text_ends_before_the_first_stop_text_however_it_comes(text: str, stops: list[str], cuts: list[int]) -> None:
    finder = StopFinder(stops)
    shown = "".join(map(finder.add, pieces(text, cuts)))
    found = [text.find(stop) for stop in stops if stop in text]
    if found:
        assert finder.stopped
        # Text is looked at as it comes: a stop text that is complete ends it, though a longer one began earlier.
        assert shown == text[: len(shown)]
        assert len(shown) in found
    else:
        assert not finder.stopped
        assert shown + finder.rest() == text


def test_of_two_stop_texts_in_one_piece_the_earlier_one_counts() -> None:
    finder = StopFinder(("later", "sooner"))
    assert finder.add("a sooner b later") == "a "


def test_nothing_is_held_back_that_cannot_become_a_stop_text() -> None:
    finder = StopFinder(("STOP",))
    assert finder.add("go on, S") == "go on, "
    assert finder.add("o it goes") == "So it goes"


@given(data=st.data())
def test_streamed_text_is_the_decoded_text(data: Any, reference: Any) -> None:
    _, tokenizer = reference
    tokens = data.draw(st.lists(st.integers(0, len(tokenizer) - 1), max_size=30))
    stream = TextStream(tokenizer)
    text = "".join(map(stream.add, tokens)) + stream.rest()
    assert text == tokenizer.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)


@given(text=st.text(max_size=20))
def test_no_half_character_is_ever_shown(text: str, reference: Any) -> None:
    _, tokenizer = reference
    if "\ufffd" in text:
        return
    stream = TextStream(tokenizer)
    shown = [stream.add(token) for token in tokenizer(text, add_special_tokens=False)["input_ids"]]
    assert not any("\ufffd" in piece for piece in shown)
    assert "".join(shown) + stream.rest() == tokenizer.decode(
        tokenizer(text, add_special_tokens=False)["input_ids"], skip_special_tokens=True
    )


@pytest.mark.parametrize(("special", "shown"), [(False, "ab"), (True, "a<|im_end|>b")])
def test_special_tokens_are_shown_only_if_asked_for(special: bool, shown: str, reference: Any) -> None:
    _, tokenizer = reference
    stream = TextStream(tokenizer, special=special)
    tokens = tokenizer("a<|im_end|>b", add_special_tokens=False)["input_ids"]
    assert "".join(map(stream.add, tokens)) + stream.rest() == shown
