"""As much as fits and not a token more: the choice of units, and the second of two stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.compression import Counter, Span, assemble
from costopt.compression.dropper import drop_within
from costopt.compression.word_budget import Draft, choose
from costopt.compression.words import Tokens, units
from tests.costopt.compression.classifiers import LONG, PROSE

COUNT = Counter("gpt-4o")
WORDS = st.sampled_from(
    "the Bridge 3.14 old-fashioned (see) e.g. https://a.org/b?c=d 今天。 цена 😀👍🏽 {x} don't , —".split()
)
DOCUMENTS = st.lists(st.lists(WORDS, max_size=25).map(" ".join), min_size=1, max_size=4)
CLOSE = 0.97


def by_character(text: str) -> Tokens:
    places = [i for i, sign in enumerate(text) if not sign.isspace()]
    return Tokens([7] * len(places), places, [i + 1 for i in places])


def draft(text: str, seed: int = 0, protected: Sequence[Span] = (), required: Sequence[Span] = ()) -> Draft:
    spans = units(text, by_character(text))
    return Draft(text, spans, np.random.default_rng(seed).random(len(spans)), protected, required)


def text_of(drafts: Sequence[Draft], kept: Sequence[Sequence[Span]]) -> list[str]:
    return list(assemble([each.text for each in drafts], kept, COUNT).texts)


@given(DOCUMENTS, st.floats(0.0, 1.0), st.integers(0, 99), st.data())
def test_never_above_the_target_and_protected_parts_whole(
    texts: list[str], ratio: float, seed: int, data: st.DataObject
) -> None:
    spans = st.tuples(st.integers(0, 60), st.integers(1, 9)).map(lambda each: (each[0], each[0] + each[1]))
    blocks = [
        sorted({(a, min(b, len(text))) for a, b in data.draw(st.lists(spans, max_size=2)) if a < len(text)})
        for text in texts
    ]
    drafts = [draft(text, seed + i, _disjoint(blocks[i])) for i, text in enumerate(texts)]
    target = int(ratio * sum(map(COUNT, texts)))
    kept = choose(drafts, target, COUNT)
    assert sum(map(COUNT, text_of(drafts, kept))) <= target
    for text, spans_kept, own in zip(texts, kept, blocks, strict=True):
        whole = {sign for start, end in spans_kept for sign in range(start, end)}
        for start, end in _disjoint(own):
            inside = {i for i in range(start, end) if not text[i].isspace()}
            assert inside <= whole or not inside & whole


def _disjoint(spans: Sequence[Span]) -> list[Span]:
    done: list[Span] = []
    for start, end in spans:
        if not done or start >= done[-1][1]:
            done.append((start, end))
    return done


@pytest.mark.parametrize("ratio", [0.1, 0.2, 0.33, 0.5, 0.8])
def test_nearly_all_of_the_target_is_used(ratio: float) -> None:
    drafts = [draft(LONG), draft(PROSE[0], 1)]
    target = int(ratio * sum(COUNT(each.text) for each in drafts))
    used = sum(map(COUNT, text_of(drafts, choose(drafts, target, COUNT))))
    assert CLOSE * target <= used <= target


def test_the_best_stay_and_the_first_of_equals() -> None:
    text = "one two three four five six"
    spans = units(text, by_character(text))
    values = np.array([0.1, 0.9, 0.5, 0.5, 0.5, 0.8])
    assert text_of([each := Draft(text, spans, values)], choose([each], 3, COUNT)) == ["two three six"]


def test_one_threshold_for_all_documents() -> None:
    good, bad = "alpha beta gamma delta", "epsilon zeta eta theta"
    drafts = [
        Draft(text, units(text, by_character(text)), np.full(4, value)) for text, value in ((bad, 0.1), (good, 0.9))
    ]
    assert text_of(drafts, choose(drafts, COUNT(good), COUNT)) == ["", good]


def test_what_is_protected_comes_first_and_what_is_required_is_above_the_target() -> None:
    text = "It was said that the price is 12.5 million dollars in all"
    at = text.index("12.5")
    drafts = [draft(text, protected=[(at, at + 12)])]
    assert "12.5 million" in text_of(drafts, choose(drafts, 6, COUNT))[0]
    assert text_of(drafts, choose(drafts, 3, COUNT))[0].find("12.5") == -1  # left out whole: it has more than three
    assert COUNT(text_of(drafts, choose(drafts, 3, COUNT))[0]) <= 3
    drafts = [draft(text, required=[(at, at + 12)])]
    assert text_of(drafts, choose(drafts, 2, COUNT)) == ["12.5 million"]


def test_a_protected_part_that_does_not_fit_leaves_room_for_others() -> None:
    text = "short words here and then " + "{" + "x1 " * 50 + "} [4] end"
    code, mark = (text.index("{"), text.index("}") + 1), (text.index("[4]"), text.index("[4]") + 3)
    drafts = [draft(text, protected=[code, mark])]
    left = text_of(drafts, choose(drafts, 10, COUNT))[0]
    assert "[4]" in left
    assert "x1" not in left
    assert len(left.split()) > 2


def test_white_space_within_what_is_protected_stays() -> None:
    text = "first\n    indented  twice\nlast word of it"
    drafts = [draft(text, protected=[(0, 25)])]
    assert text_of(drafts, choose(drafts, 8, COUNT))[0].startswith("first\n    indented  twice")


class EveryOther:
    """A dropper that keeps every other word, and notes what it was given."""

    def keep(self, texts: Sequence[str], **given: Any) -> list[list[Span]]:
        self.texts, self.given = texts, given
        return [units(text, by_character(text))[::2] for text in texts]


@given(DOCUMENTS, st.data())
def test_the_second_stage_keeps_only_what_the_first_has_kept(texts: list[str], data: st.DataObject) -> None:
    kept = [[span for span in units(text, by_character(text)) if data.draw(st.booleans())] for text in texts]
    dropper, nothing = EveryOther(), [[] for _ in texts]
    found = drop_within(dropper, texts, kept, target_tokens=10_000, protected=nothing, required=nothing, count=COUNT)
    assert list(dropper.texts) == list(_joined(texts, kept))
    for text, seen, spans, first in zip(texts, dropper.texts, found, kept, strict=True):
        assert "".join(text[a:b] for a, b in spans) == "".join(
            seen[a:b] for a, b in units(seen, by_character(seen))[::2]
        )
        allowed = {sign for a, b in first for sign in range(a, b)}
        assert {sign for a, b in spans for sign in range(a, b)} <= allowed


def _joined(texts: Sequence[str], kept: Sequence[Sequence[Span]]) -> list[str]:
    from costopt.compression.words import joined

    return [joined(text, spans) for text, spans in zip(texts, kept, strict=True)]


def test_spans_are_translated_there_and_back() -> None:
    text = "Leave this. The price is 3.14 EUR. Leave this, too. Pay it."
    kept = [(12, 34), (52, 59)]
    dropper = EveryOther()
    found = drop_within(
        dropper, [text], [kept], target_tokens=99, protected=[[(6, 10), (25, 33)]], required=[[(52, 55)]], count=COUNT
    )
    assert dropper.texts == ["The price is 3.14 EUR. Pay it."]
    seen = dropper.texts[0]
    assert [seen[a:b] for a, b in dropper.given["protected"][0]] == ["3.14 EUR"]
    assert [seen[a:b] for a, b in dropper.given["required"][0]] == ["Pay"]
    assert [text[a:b] for a, b in found[0]] == ["The", "is", "EUR", "Pay", "."]
