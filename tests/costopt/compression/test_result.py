"""What was kept is put together again out of the original, and what was not is named."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError
from costopt.compression import Counter, Piece, assemble
from costopt.compression.result import separator

COUNT = Counter("gpt-4o")
TEXT = "# Head\n\nOne is one.  Two is two.\nThree."


def kept(text: str, *parts: str) -> list[tuple[int, int]]:
    return [(text.index(part), text.index(part) + len(part)) for part in parts]


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        (["One is one.", "Three."], "One is one.\nThree."),
        (["# Head", "Two is two."], "# Head\n\nTwo is two."),
        (["# Head", "One is one.", "Two is two."], "# Head\n\nOne is one.  Two is two."),
        (["One", "one"], "One one"),
        (["Two is two."], "Two is two."),
        ([], ""),
    ],
)
def test_white_space_between_is_that_of_the_original(parts: list[str], expected: str) -> None:
    result = assemble([TEXT], [kept(TEXT, *parts)], COUNT)
    assert result.text == expected
    assert "".join(piece.text for piece in result.kept) == expected
    assert all(piece.text == TEXT[piece.start : piece.end] for piece in result.kept)


def test_the_indentation_of_a_line_stays() -> None:
    text = "def f():\n    x = 1\n\n    return x"
    assert assemble([text], [kept(text, "def f():", "return x")], COUNT).text == "def f():\n\n    return x"


def test_words_without_white_space_between_are_not_parted() -> None:
    assert separator("他来了。她走了。我在。", 4, 8) == (8, 8)


def test_spans_are_sorted_and_joined() -> None:
    text = "abcdefghij"
    assert assemble([text], [[(6, 8), (0, 3), (2, 5), (8, 9)]], len).kept == (
        Piece(0, 0, 5, "abcde"),
        Piece(0, 6, 9, "ghi"),
    )


def test_what_is_dropped_is_named_with_its_tokens() -> None:
    result = assemble([TEXT], [kept(TEXT, "Two is two.")], COUNT)
    dropped = [(TEXT[each.start : each.end], each.reason, each.tokens) for each in result.dropped]
    assert dropped == [
        ("# Head\n\nOne is one.", "not needed", COUNT("# Head\n\nOne is one.")),
        ("Three.", "not needed", COUNT("Three.")),
    ]
    span = (TEXT.index("One"), len(TEXT))
    result = assemble([TEXT], [kept(TEXT, "# Head", "Two is two.")], COUNT, dropped=[[(span, "old")]])
    assert [(TEXT[each.start : each.end], each.reason) for each in result.dropped] == [
        ("One is one.", "old"),
        ("Three.", "old"),
    ]


def test_several_documents_are_joined_by_a_blank_line_where_anything_is_left() -> None:
    result = assemble(["one two", "three", "four five"], [[(0, 3)], [], [(5, 9)]], COUNT)
    assert result.texts == ("one", "", "five")
    assert result.text == "one\n\nfive"
    assert result.restore() == ("one two", "three", "four five")


def test_what_would_come_out_longer_is_left_as_it_is() -> None:
    """By this strange counter the parts have more tokens than the whole."""
    result = assemble(["one two", "x"], [[(0, 3)], []], lambda text: 1 if text == "one two" else 5)
    assert result.texts == ("one two", "")
    assert (result.tokens_before, result.tokens_after, result.saved_tokens) == (6, 1, 5)
    assert [each.document for each in result.dropped] == [1]


def test_the_share_that_is_kept() -> None:
    assert assemble(["abcd"], [[(0, 1)]], len).kept_ratio == 0.25
    assert assemble([], [], len).kept_ratio == 1.0
    assert assemble([""], [[]], len).text == ""


def test_who_counted_is_said() -> None:
    result = assemble(["one"], [[]], Counter("some-other-model"))
    assert (result.exact, result.counted_by) == (False, "estimate")
    assert assemble(["one"], [[]], len).counted_by == "len"


def test_the_view_shows_what_stays_and_what_goes() -> None:
    text = 'Cats purr.\nDogs bark.\n{"a":  1}\n'
    json_at = text.index("{")
    spans = [(0, 10), (json_at, json_at + 9)]
    result = assemble([text, "x"], [spans, []], COUNT, rewritten={(0, spans[1]): '{"a":1}'})
    assert result.show().splitlines() == [
        "# 1",
        "  Cats purr.",
        "- Dogs bark.  [not needed, 3 tokens]",
        '~ {"a":1}',
        "# 2",
        "- x  [not needed, 1 tokens]",
    ]


@pytest.mark.parametrize(
    ("given_", "named"),
    [([[(0, 9)]], "has 3 characters"), ([[(-1, 2)]], "is not in document 0"), ([], "one list for each")],
)
def test_spans_that_cannot_be_are_refused(given_: list[list[tuple[int, int]]], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        assemble(["abc"], given_, len)


@given(st.text(" \nab。", max_size=30), st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30)), max_size=6))
def test_whatever_the_spans_every_piece_is_a_slice(text: str, pairs: list[tuple[int, int]]) -> None:
    spans = [(min(a, b), max(a, b)) for a, b in pairs if max(a, b) <= len(text)]
    result = assemble([text], [spans], len)
    assert "".join(piece.text for piece in result.kept) == result.text
    assert all(text[piece.start : piece.end] == piece.text for piece in result.kept)
    assert len(result.text) <= len(text)
    everything = {place for start, end in spans for place in range(start, end)}
    seen = {place for piece in result.kept for place in range(piece.start, piece.end)}
    assert everything <= seen
    assert all(text[place].isspace() for place in seen - everything)
