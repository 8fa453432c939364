"""With the real embedder: the sentences that answer stay, to the token, and what cannot be meant is refused."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from costopt import ConfigError, EmbeddingError
from costopt.compression import Compressor, Counter
from costopt.compression.score import Mix
from tests.costopt.compression.random_documents import HashEmbedder

COUNT = Counter("gpt-4o")
MUSEUM = (
    "The museum opened in 1931. It is built of red brick from the valley. Two wings were added after the war. "
    "A ticket costs 12 EUR, and children pay half. Dogs must stay outside. The director is Ann Lee, a historian. "
    "On Mondays the doors stay closed. The café serves soup and cake until five. "
    "Its largest painting shows a storm at sea. Parking is free behind the station."
)
DOCUMENTS = [
    "Cats purr when they are content. They sleep for most of the day. A group of cats is called a clowder.",
    "The tower is 300 m tall. It was finished in 1889 by the firm of Gustave Eiffel. It is painted every seven years.",
    "Dogs were the first animals that lived with humans. They bark at strangers.",
]


@pytest.mark.parametrize(
    ("query", "answer"),
    [
        ("How much do I have to pay to get in?", "12 EUR"),
        ("Who runs the museum?", "Ann Lee"),
        ("Can I bring my puppy?", "Dogs must stay outside."),
        ("Where can I leave my car?", "Parking is free"),
        ("What can I eat there?", "soup and cake"),
    ],
)
def test_the_sentence_that_answers_stays(query: str, answer: str) -> None:
    result = Compressor(target_ratio=0.35).compress(MUSEUM, query)
    assert answer in result.text
    assert result.tokens_after <= 0.35 * result.tokens_before


def test_sentences_stay_whole_and_in_their_order() -> None:
    result = Compressor().compress(MUSEUM, "When did it open, and who is the director?", target_ratio=0.5)
    places = [MUSEUM.index(sentence) for sentence in result.text.split(". ")]
    assert places == sorted(places)
    assert result.text.endswith(".")


@pytest.mark.parametrize("ratio", [0.2, 0.33, 0.5, 0.8])
def test_the_budget_is_kept_and_used(ratio: float) -> None:
    text = "\n\n".join(f"{MUSEUM} This was seen by visitor {i} from town {i * 7}." for i in range(8))
    result = Compressor(near_duplicates=None).compress(text, "What did visitor 5 see?", target_ratio=ratio)
    target = math.floor(ratio * result.tokens_before)
    # What is there eight times over is kept once, and that alone is less than half.
    assert result.tokens_after <= target
    if ratio < 0.3:
        assert result.tokens_after >= 0.97 * target


def test_documents_share_one_budget() -> None:
    result = Compressor().compress(DOCUMENTS, "How tall is the tower?", target_tokens=20)
    assert "The tower is 300 m tall." in result.texts[1]
    assert result.tokens_after == sum(map(COUNT, result.texts)) <= 20
    assert COUNT(result.text) <= 20
    assert result.restore() == tuple(DOCUMENTS)


def test_each_document_has_a_budget_of_its_own() -> None:
    result = Compressor().compress(DOCUMENTS, "How tall is the tower?", per_document=12)
    assert all(0 < COUNT(text) <= 12 for text in result.texts)
    result = Compressor().compress(DOCUMENTS, "How tall is the tower?", per_document=[30, 9, 1], target_tokens=30)
    assert [COUNT(text) <= most for text, most in zip(result.texts, [30, 9, 1], strict=True)] == [True] * 3
    assert result.tokens_after <= 30


def test_a_document_with_no_room_for_a_sentence_gives_a_part_of_one() -> None:
    result = Compressor().compress(DOCUMENTS, "How tall is the tower?", per_document=4)
    assert all(COUNT(text) <= 4 for text in result.texts)
    assert "tower" in result.text


def test_without_a_target_half_is_kept() -> None:
    result = Compressor().compress(MUSEUM, "Who runs it?")
    assert result.tokens_after <= 0.5 * result.tokens_before


def test_the_call_has_the_last_word_on_the_target() -> None:
    compressor = Compressor(target_ratio=0.2)
    assert compressor.compress(MUSEUM, "Who?", target_tokens=60).tokens_after > 0.2 * COUNT(MUSEUM)
    assert compressor.compress(MUSEUM, "Who?", target_ratio=1.0).text == MUSEUM


@pytest.mark.parametrize("blank", [None, "", "  \n"])
def test_a_blank_question_is_none(blank: str | None) -> None:
    assert Compressor(target_ratio=0.2).compress(MUSEUM, blank).text == MUSEUM


def test_a_question_in_another_language_finds_names_and_numbers() -> None:
    result = Compressor(target_ratio=0.3).compress(MUSEUM, "Кто такая Ann Lee?")
    assert "Ann Lee" in result.text


def test_code_is_kept_whole_or_not_at_all_and_json_is_rewritten() -> None:
    code = "```python\ndef price(age):\n    # half for children\n\n    return 6 if age < 15 else 12\n```"
    data = '{"ticket":  {"adult":  12,\n  "child":  6}}'
    text = f"{MUSEUM}\n\n{code}\n\n{data}\n\n{MUSEUM.replace('museum', 'gallery')}"
    result = Compressor().compress(
        text, "How does the function price(age) compute what children pay?", target_ratio=0.4
    )
    assert code in result.text
    result = Compressor().compress(text, "What is the adult ticket in the JSON data?", target_ratio=0.4)
    assert data not in result.text
    assert '{"ticket":{"adult":12,"child":6}}' in result.text
    for ratio in (0.1, 0.2, 0.3):
        kept = Compressor().compress(text, "Are dogs allowed?", target_ratio=ratio).text
        assert code in kept or "return 6" not in kept


def test_what_is_named_stays_and_the_rest_of_the_budget_goes_to_the_question() -> None:
    result = Compressor(protect=["Parking is free"]).compress(MUSEUM, "Who is the director?", target_ratio=0.35)
    assert "Parking is free behind the station." in result.text
    assert "Ann Lee" in result.text
    few = Compressor().compress(MUSEUM, "Who?", target_tokens=5, protect=["Two wings were added", "Dogs must"])
    assert few.text == "Two wings were added after the war. Dogs must stay outside."
    assert "more than the 5 tokens of the target" in few.notes[0]


def test_near_duplicates_do_not_take_the_place_of_other_things() -> None:
    first = "The tower is 300 m tall and was finished in 1889 by the company of Gustave Eiffel for a world fair."
    second = first.replace("tall and", "tall, and")
    other = "It is painted every seven years, and twenty thousand lamps light it at night for all who walk by."
    result = Compressor().compress([first, second, other], "How tall is the tower?", target_ratio=0.7)
    assert [bool(text) for text in result.texts] == [True, False, True]
    assert [each.reason for each in result.dropped] == ["near duplicate"]
    assert Compressor(near_duplicates=None).compress([first, second, other], "How tall?", target_ratio=0.7).texts[1]


def test_a_target_below_any_sentence_keeps_a_part_of_one() -> None:
    result = Compressor().compress(
        "The very long-winded director of the museum is Ann Lee. " * 2, "Ann Lee?", target_tokens=4
    )
    assert "Ann" in result.text
    assert result.tokens_after <= 4
    assert "a part of one was kept" in result.notes[0]


def test_nothing_is_lost_where_nothing_fits() -> None:
    result = Compressor().compress("😀😀😀", "😀?", target_tokens=1)
    assert result.text == "😀😀😀"
    assert result.notes == ("nothing of it fits in 1 tokens: it was left as it is",)


@pytest.mark.parametrize("text", ["", [""], [], ["", ""], " \n "])
def test_nothing_comes_back_as_nothing(text: Any) -> None:
    for query in (None, "Who?"):
        result = Compressor(target_ratio=0.5).compress(text, query)
        assert result.texts == ((text,) if isinstance(text, str) else tuple(text))
        assert result.saved_tokens == 0


@pytest.mark.parametrize(
    "text", ["[SEP]", "<|endoftext|>", "a < b <c", "<llmlingua, rate=0.5>x</llmlingua>", "\x00", "\ud800 x"]
)
@pytest.mark.parametrize("query", [None, "What is <|endoftext|> or [SEP]?", "\ud800"])
def test_marks_of_models_are_text_like_any_other(text: str, query: str | None) -> None:
    document = f"One sentence is here. {text} And another one stands here."
    result = Compressor(target_ratio=0.6).compress(document, query)
    assert "".join(piece.text for piece in result.kept) == result.text
    assert result.tokens_after > 0


def test_megabytes() -> None:
    more = "and what else there is to say of it stands in the appendix, which nobody but its author has read to the end"
    text = "".join(f"Row {i} holds a value, {more}. " for i in range(38_500))
    assert len(text) > 5_000_000
    assert Compressor(model=lambda text: len(text) // 4).compress(text).text == text.rstrip(" ")
    many = "".join(f"Row {i} holds a value. " for i in range(6_500))
    chosen = Compressor(embedder=HashEmbedder(), target_tokens=500).compress(many, "The value of row 5777?")
    assert "Row 5777 holds" in chosen.text
    assert chosen.tokens_after <= 500
    assert "judged by their words alone" in chosen.notes[0]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"target_ratio": 0}, "above 0"),
        ({"target_ratio": 1.5}, "at most 1"),
        ({"target_ratio": math.nan}, "target_ratio=nan"),
        ({"target_ratio": True}, "target_ratio=True"),
        ({"target_ratio": "0.5"}, "target_ratio='0.5'"),
        ({"target_tokens": 0}, "at least 1"),
        ({"target_tokens": 1.5}, "whole number"),
        ({"target_ratio": 0.5, "target_tokens": 5}, "not both"),
        ({"protect": [7]}, "protect: 7"),
    ],
)
def test_targets_that_cannot_be_meant(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Compressor(**arguments)
    with pytest.raises(ConfigError, match=named):
        Compressor().compress(MUSEUM, "Who?", **arguments)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"near_duplicates": 0}, "similarity"), ({"memo_units": -1}, "memo_units"), ({"model": 3}, "name of a model")],
)
def test_settings_that_cannot_be_meant(arguments: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Compressor(**arguments)


@pytest.mark.parametrize(
    ("text", "more", "named"),
    [
        (b"bytes", {}, "of type bytes"),
        (7, {}, "of type int"),
        (["a", None], {}, "document 1 is of type NoneType"),
        ("a", {"query": 5}, "query is of type int"),
        (["a b", "c"], {"query": "q", "per_document": [1]}, "1 limits for 2 documents"),
        (["a b", "c"], {"query": "q", "per_document": 0}, "at least 1"),
        (["a b", "c"], {"protect": [(0, 1)]}, "a span is of one document"),
    ],
)
def test_what_is_no_text_or_question(text: Any, more: dict[str, Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        Compressor().compress(text, **more)


async def test_async_is_the_same_and_does_not_block() -> None:
    compressor = Compressor(target_ratio=0.4)
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0)
            ticks += 1

    ticking = asyncio.create_task(tick())
    found = await asyncio.gather(
        *(compressor.acompress(MUSEUM, query) for query in ("Who runs it?", "Are dogs allowed?"))
    )
    ticking.cancel()
    assert list(found) == [compressor.compress(MUSEUM, query) for query in ("Who runs it?", "Are dogs allowed?")]
    assert ticks > 0


def test_many_threads_get_what_one_gets() -> None:
    compressor, results = Compressor(target_ratio=0.4), []
    threads = [
        threading.Thread(target=lambda: results.append(compressor.compress(DOCUMENTS, "How tall is it?")))
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == [Compressor(target_ratio=0.4).compress(DOCUMENTS, "How tall is it?")] * 8


class CountingEmbedder(HashEmbedder):
    """Remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.asked.extend(texts)
        return super().embed(texts)


def test_a_sentence_is_embedded_once_for_all_questions() -> None:
    embedder = CountingEmbedder()
    compressor = Compressor(embedder=embedder, target_ratio=0.4)
    compressor.compress(MUSEUM, "Who runs it?")
    before = len(embedder.asked)
    compressor.compress(MUSEUM, "Are dogs allowed?")
    assert embedder.asked[before:] == ["Are dogs allowed?"]
    forgetful = Compressor(embedder=embedder, target_ratio=0.4, memo_units=0)
    forgetful.compress(MUSEUM, "Who runs it?")
    forgetful.compress(MUSEUM, "Who runs it?")
    assert embedder.asked.count("The museum opened in 1931.") == 3


def test_words_alone_need_no_embedder() -> None:
    embedder = CountingEmbedder()
    compressor = Compressor(embedder=embedder, mix=Mix(cosine=0, passage=0), target_ratio=0.3)
    assert "Dogs" in compressor.compress(MUSEUM, "Are dogs allowed?").text
    assert embedder.asked == []


class BrokenEmbedder(HashEmbedder):
    def embed(self, texts: Sequence[str]) -> np.ndarray:
        raise EmbeddingError("out of order")


def test_an_embedder_that_fails_is_heard_of() -> None:
    """The adapters step aside; here, somebody can mend it."""
    with pytest.raises(EmbeddingError, match="out of order"):
        Compressor(embedder=BrokenEmbedder()).compress(MUSEUM, "Who?")


class FirstWords:
    """A backend that keeps the first word of every text, and what must stay."""

    def keep(self, texts: Sequence[str], **given: Any) -> list[list[tuple[int, int]]]:
        self.given = given | {"texts": list(texts)}
        return [
            [(0, len(text.split(" ", 1)[0])), *required] if text else []
            for text, required in zip(texts, given["required"], strict=True)
        ]


def test_a_backend_drops_words_without_a_question() -> None:
    backend = FirstWords()
    result = Compressor(backend=backend, target_ratio=0.2).compress(MUSEUM, protect=["Ann Lee"])
    assert result.text == "The Ann Lee"
    assert backend.given["target_tokens"] == math.floor(0.2 * COUNT(MUSEUM))


def test_a_backend_sees_what_the_question_left() -> None:
    backend = FirstWords()
    result = Compressor(backend=backend, target_ratio=0.3).compress(MUSEUM, "Who is the director?")
    (seen,) = [text for text in backend.given["texts"] if text]
    assert "Ann Lee" in seen
    assert 0.3 * COUNT(MUSEUM) < COUNT(seen) < 0.5 * COUNT(MUSEUM)
    assert result.tokens_after <= 0.2 * COUNT(MUSEUM)


class Nothing:
    def keep(self, texts: Sequence[str], **given: Any) -> list[list[tuple[int, int]]]:
        return [[] for _ in texts]


@pytest.mark.parametrize("query", [None, "Who runs the museum?"])
def test_a_backend_that_keeps_nothing_saves_nothing(query: str | None) -> None:
    result = Compressor(backend=Nothing(), target_ratio=0.2).compress(MUSEUM, query)
    assert result.text == MUSEUM
    assert result.notes
