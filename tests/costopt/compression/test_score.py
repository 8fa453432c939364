"""What matches a question scores higher: by words in every script, by meaning, and by what stands around."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.compression import Counter
from costopt.compression.lexical import Postings, bm25, grams, terms
from costopt.compression.prepare import Memo, prepare
from costopt.compression.question import asked_about, english_words, is_english
from costopt.compression.score import Mix, score, standardised
from costopt.embedding import DEFAULT_SPACE
from tests.costopt.compression.random_documents import documents

COUNT = Counter("gpt-4o")
WORDS_ONLY = Mix(cosine=0, passage=0)


def best(query: str, text: str) -> str:
    prepared = prepare(text, COUNT, (), False).read(COUNT)
    unit = prepared.units[int(np.argmax(score(query, None, [prepared], WORDS_ONLY)))]
    return text[unit.start : unit.end]


@pytest.mark.parametrize(
    ("query", "text", "expected"),
    [
        ("Who built the tower?", "The sea is cold. Ann Lee built the tower. It rains.", "Ann Lee built the tower."),
        ("wann wurde die Brücke gebaut", "Es regnet. Brücken baute man 1861. Er schlief.", "Brücken baute man 1861."),
        ("Welcher Bahnhof?", "Es regnet oft. Am Hauptbahnhof hielt er. Er schlief.", "Am Hauptbahnhof hielt er."),
        ("Когда открыли завод?", "Идёт снег. Закрытый завод открыт в 1941. Он спал.", "Закрытый завод открыт в 1941."),
        ("长城有多长？", "天气很好。万里长城很长。他睡了。", "万里长城很长。"),
        ("東京の人口は？", "雨です。東京の人口は多い。寝た。", "東京の人口は多い。"),
        ("متى افتتح البرج؟", "الطقس جميل. افتتح البرج قديما. نام.", "افتتح البرج قديما."),
        ("What of 3,5 percent?", "It rose 7 then. It fell 3.5 since. It slept.", "It fell 3.5 since."),
        ("CAFÉ?", "A naive man. The cafe is shut. It rains.", "The cafe is shut."),
    ],
)
def test_words_in_common_in_many_scripts(query: str, text: str, expected: str) -> None:
    assert best(query, text) == expected


def test_the_terms_of_a_text() -> None:
    assert terms("Größere Städte, 1,000.5 naïve") == ["gross", "stadt", "1.000.5", "naive"]
    assert terms("ёлка 中 ab北京c") == ["елка", "中", "ab", "北京", "c"]
    assert grams("ab in 42") == ["_ab_", "_in_", "42"]


def test_bm25_as_the_textbook_has_it() -> None:
    texts = [["a", "b"], ["a", "a", "c"], ["d"]]
    lengths, mean = np.array([2, 3, 1]), 2.0
    rare = np.log(1 + (3 - 2 + 0.5) / (2 + 0.5))
    times = np.array([1, 2, 0])
    expected = rare * times * 2.2 / (times + 1.2 * (0.25 + 0.75 * lengths / mean))
    assert bm25(["a"], [Postings.of(texts)]) == pytest.approx(expected)
    apart = bm25(["a", "a", "z"], [Postings.of(texts[:1]), Postings.of([]), Postings.of(texts[1:])])
    assert apart == pytest.approx(expected), "documents are one collection, and a term counts once"


@given(
    st.lists(st.lists(st.sampled_from("abcdef"), max_size=6), max_size=6), st.lists(st.sampled_from("abz"), max_size=4)
)
def test_bm25_finds_exactly_the_texts_with_a_term(texts: list[list[str]], query: list[str]) -> None:
    found = bm25(query, [Postings.of(texts)])
    assert [value > 0 for value in found] == [bool(set(text) & set(query)) for text in texts]


def test_empty_words_do_not_count() -> None:
    assert asked_about("What is the height of the tower?") == "height tower"
    assert asked_about("Wie hoch ist der Turm?") == "turm"
    assert asked_about("Где находится город?") == "находится город"
    assert asked_about("What is it?") == "What is it?"


@given(documents)
def test_any_question_leaves_something_to_ask(query: str) -> None:
    assert bool(asked_about(query).strip()) == bool(query.strip())


def test_english_is_told_from_what_the_embedder_hardly_reads() -> None:
    assert is_english([english_words("The tower was built in 1931, and it is the tallest of all.")])
    assert not is_english([english_words("Der Turm wurde 1931 gebaut und ist der höchste von allen.")])
    assert not is_english([english_words("Башня построена в 1931 году.")])
    assert not is_english([english_words("塔建于1931年。")])


def test_cosines_count_less_where_the_default_embedder_hardly_reads() -> None:
    german = [prepare("Der Turm wurde 1931 gebaut.", COUNT, (), False).read(COUNT)]
    english = [prepare("The tower was built in 1931.", COUNT, (), False).read(COUNT)]
    mix = Mix()
    assert mix.trusting(DEFAULT_SPACE[0], english) == mix
    assert mix.trusting("multilingual-of-yours", german) == mix
    assert mix.trusting(DEFAULT_SPACE[0], german).cosine < 0.5 * mix.cosine


def test_what_stands_around_a_match_scores_higher_than_what_does_not() -> None:
    filler = " ".join(f"Filler number {i} says nothing." for i in range(30))
    text = f"{filler} The tower opened early. It was admired. {filler}"
    prepared = prepare(text, COUNT, (), False).read(COUNT)
    scores = score("When did the tower open?", None, [prepared], WORDS_ONLY)
    assert int(np.argmax(scores)) == 30
    assert scores[31] > max(scores[:20])
    alone = score("When did the tower open?", None, [prepared], Mix(cosine=0, passage=0, neighbours=0, passage_words=0))
    assert alone[31] < scores[31]


@given(st.lists(st.floats(-1e6, 1e6), max_size=20))
def test_standardised(values: list[float]) -> None:
    found = standardised(np.array(values, np.float64))
    assert np.isfinite(found).all()
    if found.any():
        assert abs(found.mean()) < 1e-6
        assert found.std() == pytest.approx(1)


def test_the_memo_keeps_no_more_than_it_may_and_tells_texts_apart() -> None:
    memo = Memo(5)
    first = memo.get("One. Two.", COUNT, (), False)
    assert memo.get("One. Two.", COUNT, (), False) is first
    assert memo.get("One. Two.", COUNT, (), True) is not first
    memo.get("Aa. Bb. Cc. Dd.", COUNT, (), False)
    assert memo.get("One. Two.", COUNT, (), False) is not first
    assert sum(len(each.units) for each in memo._known.values()) == memo._units <= 5
    assert Memo(0).get("One. Two.", COUNT, (), False).tokens == COUNT("One. Two.")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_child_does_not_wait_for_a_thread_of_its_parent() -> None:
    code = """if True:
        import os
        from costopt.compression.prepare import Memo
        memo = Memo(100)
        with memo._lock:
            child = os.fork()
            if child == 0:
                os._exit(memo.get("One. Two.", len, (), False).tokens)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout == "9\n"
