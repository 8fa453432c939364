"""A document is taken apart where a reader would: at sentences, items, rows, turns, and never within code or JSON."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.compression.segment import is_dialogue, units
from costopt.compression.sentences import sentence_spans
from tests.costopt.compression.random_documents import documents


def sentences(text: str) -> list[str]:
    return [text[start:end] for start, end in sentence_spans(text)]


def parts(text: str, dialogue: bool | None = None) -> list[tuple[str, str]]:
    return [(unit.kind, text[unit.start : unit.end]) for unit in units(text, dialogue)]


@pytest.mark.parametrize(
    "expected",
    [
        ["Dr. Who met Prof. Smith at 3.30 p.m. on Fig. 2.", "He left!", "Why?"],
        ["J. R. R. Tolkien wrote it.", "It sold 1.5 million copies.", "See www.example.com for more."],
        ['"Stop!" he said.', "(It was late.)", "She asked: “Why?”", "Nobody knew..."],
        ["It grew.[13]", "It fell [4, 5].", "The U.S. economy did not."],
        ["Am 3. Oktober 1990 kam er z.B. nach Berlin.", "Das war im 19. Jahrhundert.", "Es kostet ca. 3 Mio. Euro."],
        ["В 1990 г. он родился в г. Москва.", "А. С. Пушкин писал стихи, т.е. поэмы.", "Хорошо!"],
        ["他来了。", "她说：“好的。”", "然后走了！", "价格是3.5元。"],
        ["東京は大きい。", "「はい。」", "人口は多い？"],
        ["هذا هو البيت.", "هل أنت بخير؟", "نعم؛ أنا بخير."],
        ["यह घर है।", "वह कौन है?"],
        ["What is it?!", "It is e.g. a cat, i.e. an animal.", "The end"],
        ["Voy a la tienda.", "¿Vienes?", "¡Claro!", "M. Dupont est là."],
        ["1. First we eat.", "Then we sleep."],
    ],
)
def test_sentences(expected: list[str]) -> None:
    blank = "" if "\u3000" <= expected[0][0] <= "\u9fff" else " "
    assert sentences(blank.join(expected)) == expected


def test_a_list() -> None:
    text = "We need:\n- milk, which\n  must be fresh\n- two eggs. Large ones.\n1) salt\n• oil"
    assert parts(text)[1:] == [
        ("item", "- milk, which\n  must be fresh"),
        ("item", "- two eggs. Large ones."),
        ("item", "1) salt"),
        ("item", "• oil"),
    ]


def test_a_table_is_taken_row_by_row() -> None:
    text = "| city | people |\n|---|---|\n| Ulm | 12. |\n| Bonn | 3. |"
    assert [kind for kind, _ in parts(text)] == ["row"] * 4
    assert [kind for kind, _ in parts("a\tb\nc\td")] == ["row"] * 2


def test_a_talk_is_taken_turn_by_turn() -> None:
    text = "Ann: Is it? I hope so.\nBob Lee: Yes. Of course.\nand more\nAnn: Good."
    assert parts(text) == [
        ("turn", "Ann: Is it? I hope so."),
        ("turn", "Bob Lee: Yes. Of course.\nand more"),
        ("turn", "Ann: Good."),
    ]
    assert [kind for kind, _ in parts("甲：你好。\n乙：再见。\n甲：好。")] == ["turn"] * 3


def test_an_abstract_is_no_talk() -> None:
    assert [kind for kind, _ in parts("Abstract: We did it. It works.\n\nMethods are plain. So are results.")] == [
        "sentence"
    ] * 4


def test_turns_that_come_as_documents_are_a_talk() -> None:
    turns = ["Ann: Is it? I hope so.", "Bob: Yes.", "Ann: Good. Very good."]
    assert is_dialogue(turns)
    assert not is_dialogue(["Ann: Is it?"])
    assert parts(turns[0], True) == [("turn", turns[0])]


def test_headings() -> None:
    text = "# One\nText is here.\n\nTitle\n=====\nMore text.\n\nA short title\n\nIts text. And more."
    kinds = parts(text)
    assert [part for kind, part in kinds if kind == "heading"] == ["# One", "Title\n=====", "A short title"]
    assert [part for kind, part in kinds if kind == "sentence"] == [
        "Text is here.",
        "More text.",
        "Its text.",
        "And more.",
    ]


def test_code_and_json_are_never_cut() -> None:
    text = 'Run this.\n\n```\na. b. c.\n\nd\n```\n{"a": "One. Two.",\n\n "b": 1}\nDone. So.'
    assert parts(text) == [
        ("sentence", "Run this."),
        ("code", "```\na. b. c.\n\nd\n```"),
        ("json", '{"a": "One. Two.",\n\n "b": 1}'),
        ("sentence", "Done."),
        ("sentence", "So."),
    ]


def test_lines_of_a_log_and_settings_are_whole() -> None:
    text = "2024-01-01 10:00 ERROR It failed. Badly.\n2024-01-01 10:01 INFO Up again.\nname = value. x"
    assert parts(text) == [("record", line) for line in text.splitlines()]


def test_lines_that_were_broken_at_a_width_are_joined() -> None:
    text = (
        "This was wrapped at a width of about sixty columns, so that\n"
        "line ends say nothing at all about where a sentence ends. A\n"
        "second one goes on.\n"
    )
    assert [part.count("\n") for _, part in parts(text)] == [1, 1]
    assert [part for _, part in parts("First point\nSecond point\nThird point")] == [
        "First point",
        "Second point",
        "Third point",
    ]


def test_what_has_no_end_is_cut_at_clauses_and_never_within_a_word() -> None:
    text = "one two, " * 400
    found = parts(text)
    assert all(len(part) <= 700 and part.endswith(",") for _, part in found)
    assert parts("x" * 5_000) == [("sentence", "x" * 5_000)]


def test_passages_are_some_neighbours_and_begin_at_headings() -> None:
    text = "# A\n\n" + "One sentence of some length is here. " * 30 + "\n\n# B\n\nLast."
    found = units(text)
    numbers = [unit.passage for unit in found]
    assert numbers == sorted(numbers)
    assert 2 <= numbers[-1] <= 4
    assert found[-2].kind == "heading"
    assert found[-2].passage == found[-1].passage != found[-3].passage


@given(documents, st.sampled_from([None, True, False]))
def test_units_hold_everything_once_and_in_order(text: str, dialogue: bool | None) -> None:
    found = units(text, dialogue)
    assert all(unit.start < unit.end for unit in found)
    assert all(first.end <= second.start for first, second in pairwise(found))
    held = "".join(text[unit.start : unit.end] for unit in found)
    assert "".join(held.split()) == "".join(text.split())
    assert all(text[unit.start : unit.end].strip() == text[unit.start : unit.end] for unit in found)
    assert [unit.passage for unit in found] == sorted(unit.passage for unit in found)
