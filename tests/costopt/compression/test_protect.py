"""Code, JSON, links, numbers, citations and instructions are found whole."""

from __future__ import annotations

import re
import time
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt import ConfigError
from costopt.compression import DEFAULT_KINDS, protected_spans
from costopt.compression.protect import merge, named_spans, touches
from tests.costopt.compression.random_documents import documents


def found(text: str, kind: str) -> list[str]:
    return [text[start:end] for start, end in protected_spans(text, [kind])]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It rose by 12.5 % to $3.14M.", ["12.5 %", "$3.14M"]),
        ("It cost 1,200.50 EUR, or €1.200,50.", ["1,200.50 EUR", "€1.200,50"]),
        ("At 37 °C add 5 mg/l over 3 hours.", ["37 °C", "5 mg/l", "3 hours"]),
        ("On 2024-01-05 at 12:30 version v1.2.3 ran.", ["2024-01-05", "12:30", "v1.2.3"]),
        ("SARS-CoV-2 has 29 903 bases.", ["SARS-CoV-2", "29 903"]),
        ("Between -5 and +3, 10–20 km/h.", ["-5", "+3", "10–20 km/h"]),
        ("В 2020 году было 12 млн. человек.", ["2020 году", "12 млн."]),
        ("Um 3 Mio. Euro.", ["3 Mio. Euro"]),
        ("他在2020年付了12万元。", ["2020年", "12万元"]),
        ("½ of 10kg", ["½", "10kg"]),
        ("No numbers here", []),
    ],
)
def test_numbers_with_their_units(text: str, expected: list[str]) -> None:
    assert [each.strip() for each in found(text, "numbers")] == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "See https://example.com/a_(b)?c=1, or (www.example.org).",
            ["https://example.com/a_(b)?c=1", "www.example.org"],
        ),
        ("Mail to first.last+x@example.co.uk!", ["first.last+x@example.co.uk"]),
        ("请看https://example.com/路径。然后", ["https://example.com/路径"]),
        ("a.b.c", []),
    ],
)
def test_links(text: str, expected: list[str]) -> None:
    assert found(text, "urls") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("As shown [4], [5, 7–9] and [^note].", ["[4]", "[5, 7–9]", "[^note]"]),
        ("It is so (Smith et al., 2020) or not (Lee 1999a, p. 3).", ["(Smith et al., 2020)", "(Lee 1999a, p. 3)"]),
        ("See Fig. 3, Table 2b and doi:10.1000/xyz123.", ["Fig. 3", "Table 2b", "doi:10.1000/xyz123"]),
        (r"By \cite{lee2020} and arXiv:2401.01234v2", [r"\cite{lee2020}", "arXiv:2401.01234v2"]),
        ("A [link](https://example.com) is none.", []),
        ('{"a": [1, 2], "b": [3]}', []),
    ],
)
def test_citations(text: str, expected: list[str]) -> None:
    assert found(text, "citations") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\n```py\nx = 1\n\ny\n```\nb", ["```py\nx = 1\n\ny\n```"]),
        ("a\n~~~\n```\n~~~\nb", ["~~~\n```\n~~~"]),
        ("a\n```\nnever closed", ["```\nnever closed"]),
        ("use `x = 1` and ``a ` b``", ["`x = 1`", "``a ` b``"]),
        ("Text.\n\n    def f():\n        return 1\n\nMore.", ["def f():\n        return 1"]),
        ("Text.\n\n    only set in a little further\n", []),
        ("- one\n\n    - two (2)\n", []),
        ("a <pre>b\n c</pre> d <pre>open", ["<pre>b\n c</pre>"]),
    ],
)
def test_code(text: str, expected: list[str]) -> None:
    assert found(text, "code") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ('Result: {"a": [1, {"b": null}]} end', ['{"a": [1, {"b": null}]}']),
        ('[{"a": 1}, {"a": 2}]', ['[{"a": 1}, {"a": 2}]']),
        ("{'a': 1} and {x} and [1]", []),
        ('{"a": 1', []),
        ('["x", "y"]', ['["x", "y"]']),
    ],
)
def test_json(text: str, expected: list[str]) -> None:
    assert found(text, "json") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("You are a careful clerk. The sky is blue.", ["You are a careful clerk."]),
        ("The sky is blue.\n- Do not guess.\nOk", ["- Do not guess."]),
        ("Answer in French! Then stop.", ["Answer in French!"]),
        ("<rules>\nOne. Two.\n</rules> x", ["<rules>\nOne. Two.\n</rules>"]),
        (
            "Antworte auf Deutsch.\nОтвечай по-русски.\n请用中文回答。",
            ["Antworte auf Deutsch.", "Отвечай по-русски.", "请用中文回答。"],
        ),
        ("Whales never sleep for long.", []),
    ],
)
def test_instructions(text: str, expected: list[str]) -> None:
    assert found(text, "instructions") == expected


def test_what_is_named_itself() -> None:
    text = "Order AB-12 and order AB-34."
    spans = protected_spans(text, ["Order", re.compile(r"AB-\d+"), (20, 900), (5, 5)])
    assert [text[start:end] for start, end in spans] == ["Order", "AB-12", "r AB-34."]
    assert named_spans(text, ["numbers", "Order"]) == [(0, 5)]


@pytest.mark.parametrize("wrong", [[""], [3], [(1, 2, 3)], [("a", "b")], [None], ["url"], ["numbers", "number"]])
def test_what_cannot_be_protected_is_refused(wrong: list[object]) -> None:
    with pytest.raises(ConfigError, match="protect: "):
        protected_spans("text", wrong)  # type: ignore[arg-type]


@given(documents)
def test_spans_are_in_order_apart_and_within_the_text(text: str) -> None:
    spans = protected_spans(text)
    assert all(0 <= start < end <= len(text) for start, end in spans)
    assert all(first[1] <= second[0] for first, second in pairwise(spans))
    assert spans == merge(spans)
    for kind in DEFAULT_KINDS:
        assert all(touches(span, spans) for span in protected_spans(text, [kind]))


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20)), max_size=8), st.integers(0, 20), st.integers(0, 20))
def test_touching_is_having_a_character_in_common(spans: list[tuple[int, int]], start: int, end: int) -> None:
    merged = merge(spans)
    expected = any(first < end and start < last for first, last in merged) if start < end else None
    assert expected in (None, touches((start, end), merged))


@pytest.mark.parametrize(
    "part",
    [
        "a-",
        "[",
        '{"a":',
        "```\n",
        "<pre>",
        "(199 ",
        "a.b@",
        "`` ` ",
        " \n ",
        "<task>",
        '{"\\"',
        "1,",
        "Ann: y\n",
        "| a | b |\n",
    ],
)
def test_no_text_takes_more_than_linear_time(part: str) -> None:
    """Quadratic searches would take minutes for these."""
    from costopt.compression.segment import units

    text = part * (100_000 // len(part))
    started = time.process_time()
    protected_spans(text)
    units(text)
    assert time.process_time() - started < 5
