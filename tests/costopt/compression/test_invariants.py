"""What holds for every document, however strange: 10,000 of them without a question, and as many with one."""

from __future__ import annotations

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt.compression import CompressionResult, Compressor, Counter, protected_spans
from tests.costopt.compression.random_documents import QUERIES, HashEmbedder, documents, many_documents

EXAMPLES, DOCUMENTS = 500, 20
KINDS = ("code", "urls", "numbers", "citations", "instructions")
COUNT = Counter("gpt-4o")


def check(result: CompressionResult, texts: list[str]) -> None:
    """The result is made of slices of what came in, and is never longer."""
    assert result.restore() == tuple(texts)
    assert len(result.texts) == len(texts)
    at = dict.fromkeys(range(len(texts)), 0)
    built = dict.fromkeys(range(len(texts)), "")
    for piece in result.kept:
        original = texts[piece.document][piece.start : piece.end]
        assert at[piece.document] <= piece.start < piece.end
        at[piece.document] = piece.end
        built[piece.document] += piece.text
        if piece.rewritten:
            assert json.loads(piece.text) == json.loads(original)
            assert len(piece.text) < len(original)
        else:
            assert piece.text == original
    assert tuple(built.values()) == result.texts
    assert result.tokens_before == sum(map(COUNT, texts))
    assert result.tokens_after == sum(map(COUNT, result.texts)) <= result.tokens_before
    for text, original in zip(result.texts, texts, strict=True):
        assert len(text) <= len(original)
        assert COUNT(text) <= COUNT(original)
    check_nothing_is_lost_unsaid(result, texts)


def check_nothing_is_lost_unsaid(result: CompressionResult, texts: list[str]) -> None:
    """Every character that is no white space is in a kept piece or in a dropped one, and never in both."""
    for i, text in enumerate(texts):
        at = 0
        parts = [(part.start, part.end) for part in (*result.kept, *result.dropped) if part.document == i]
        for start, end in sorted(parts):
            assert start >= at
            assert not text[at:start].strip()
            at = end
        assert not text[at:].strip()


def check_protected(result: CompressionResult, texts: list[str]) -> None:
    """What is protected is in one piece, byte for byte, or not there at all."""
    for i, text in enumerate(texts):
        # A blank that stands for what was left out may be one from within it.
        pieces = [piece for piece in result.kept if piece.document == i and piece.text.strip()]
        for start, end in protected_spans(text, KINDS):
            parts = [piece for piece in pieces if piece.start < end and start < piece.end]
            if parts:
                assert text[start:end] in "".join(piece.text for piece in parts)


@settings(max_examples=EXAMPLES)
@given(many_documents(DOCUMENTS))
def test_without_a_question(texts: list[str]) -> None:
    compressor, again = Compressor(), Compressor()
    for text in texts:
        result = compressor.compress(text)
        check(result, [text])
        check_protected(result, [text])
        if text is texts[0]:
            assert again.compress(text) == result
        assert all(each.reason == "repeated" for each in result.dropped)


@settings(max_examples=EXAMPLES)
@given(
    many_documents(DOCUMENTS),
    st.sampled_from(QUERIES),
    st.sampled_from([0.01, 0.2, 0.33, 0.5, 0.9, 1.0]),
    st.integers(1, DOCUMENTS),
)
def test_with_a_question(texts: list[str], query: str, ratio: float, together: int) -> None:
    compressor, again = Compressor(embedder=HashEmbedder()), Compressor(embedder=HashEmbedder())
    for first in range(0, DOCUMENTS, together):
        some = texts[first : first + together]
        result = compressor.compress(some, query, target_ratio=ratio)
        check(result, some)
        check_protected(result, some)
        if first == 0:
            assert again.compress(some, query, target_ratio=ratio) == result
            assert compressor.compress(some, query, target_ratio=ratio) == result, "the memo changes nothing"
        target = math.floor(round(ratio * result.tokens_before, 6))
        if result.tokens_after > target:
            assert result.texts == tuple(some)
            assert f"nothing of it fits in {target} tokens" in result.notes[0]
        if len(result.texts) > 1 and result.texts != tuple(some):
            assert COUNT(result.text) <= target, "joined by blank lines, too"
        if result.tokens_before:
            assert result.tokens_after > 0, "total loss is no saving"


@settings(max_examples=100)
@given(documents, st.sampled_from(QUERIES), st.integers(1, 60), st.data())
def test_what_is_named_is_kept_even_beyond_the_target(text: str, query: str, target: int, data: st.DataObject) -> None:
    if not text.strip():
        return
    start = data.draw(st.integers(0, len(text) - 1))
    end = data.draw(st.integers(start + 1, min(len(text), start + 12)))
    compressor = Compressor(embedder=HashEmbedder())
    result = compressor.compress(text, query, target_tokens=target, protect=[(start, end)])
    check(result, [text])
    assert text[start:end].strip() in result.text
    assert result.tokens_after <= max(target, result.tokens_before)
    if result.tokens_after > target:
        assert result.notes


@pytest.mark.parametrize("kind", KINDS)
def test_the_random_documents_hold_something_of_each_kind(kind: str) -> None:
    """Or the tests above would say nothing of it."""
    from tests.costopt.compression.random_documents import FRAGMENTS

    assert any(protected_spans(text, [kind]) for text in FRAGMENTS)
