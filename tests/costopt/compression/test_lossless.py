"""Without a question nothing is lost: JSON means the same, and what goes is white space or was there before."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.compression import Compressor
from costopt.compression.minify import minified

PAGE = "Annual report of Example Ltd, page header."
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


@given(
    st.dictionaries(st.text(max_size=4), values, max_size=4) | st.lists(values, max_size=4),
    st.sampled_from([None, 1, 4]),
)
def test_json_means_the_same_without_its_white_space(value: object, indent: int | None) -> None:
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    assert minified(text, 0, len(text)) == json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def test_numbers_and_escapes_stay_byte_for_byte() -> None:
    text = '{ "a" : 1.0e5 , "b": "\\u00e9 \\" x  y" , "c": 123456789012345678901234567890, "c": -0.0 }'
    assert Compressor().compress(text).text == (
        '{"a":1.0e5,"b":"\\u00e9 \\" x  y","c":123456789012345678901234567890,"c":-0.0}'
    )


def test_json_within_a_text_and_line_by_line() -> None:
    text = 'The result: {"a":  [1,  2]}\n{"id": 1}\n{"id": 2}\n'
    assert Compressor().compress(text).text == 'The result: {"a":[1,2]}\n{"id":1}\n{"id":2}\n'


def test_json_in_code_and_json_that_is_named_stay_as_they_are() -> None:
    text = '```json\n{"a":  1}\n```'
    assert Compressor().compress(text).text == text
    assert Compressor(protect=["json"]).compress('{"a":  1}').text == '{"a":  1}'
    assert Compressor().compress('{"a":  1}', protect=["json"]).text == '{"a":  1}'
    assert Compressor(minify=False).compress('{"a":  1}').text == '{"a":  1}'
    assert Compressor().compress('{"a":  1, "b":  2}', protect=['"a":  1']).text == '{"a":  1,"b":2}'


def test_a_sentence_that_is_there_twice_goes_and_is_named() -> None:
    text = f"{PAGE}\nFirst page.\n\n{PAGE}\nSecond page.\n"
    result = Compressor().compress(text)
    assert result.text == f"{PAGE}\nFirst page.\nSecond page.\n"
    assert [(each.reason, text[each.start : each.end]) for each in result.dropped] == [("repeated", PAGE)]
    assert Compressor().compress([PAGE + " One.", PAGE + " Two."]).texts == (PAGE + " One.", " Two.")
    assert Compressor().compress(text, protect=[PAGE]).text == text


@pytest.mark.parametrize(
    "text",
    [
        "```\nprint('the very same line')\nprint('the very same line')\n```",
        "| a long enough row | with cells |\n| a long enough row | with cells |",
        "2024-01-01 ERROR the disk is full again\n2024-01-01 ERROR the disk is full again",
        "Ann: I said so many times before.\nBob: No.\nAnn: I said so many times before.",
        "Yes. No. Yes. No.",
    ],
)
def test_what_may_be_meant_twice_stays(text: str) -> None:
    result = Compressor().compress(text)
    assert result.text == text
    assert result.saved_tokens == 0


def test_white_space_that_nobody_sees() -> None:
    text = "One. \nTwo.  \nbreak\n\n\n   \n\nThree.   \n\n```\nx  \n\n\n\ny\n```\n"
    assert Compressor().compress(text).text == "One.\nTwo.  \nbreak\n\nThree.\n\n```\nx  \n\n\n\ny\n```\n"


def test_the_target_that_was_not_reached_is_said() -> None:
    text = "Every word of this is said once, and nothing can go."
    result = Compressor(target_ratio=0.3).compress(text)
    assert result.text == text
    assert "the target was 3: give a query or a backend" in result.notes[-1]
    assert Compressor().compress(text).notes == ("without a question only what loses nothing was left out",)
