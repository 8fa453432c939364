"""Questions over texts, with the answers that must survive; and what counts as surviving."""

from __future__ import annotations

import re
import string
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from cookbook.benchmarks.material import Options, embedded, read_rows

__all__ = ["Case", "articles", "meetings", "passages", "recalled", "survives"]

_ARTICLES = re.compile(r"\b(?:a|an|the)\b")
_PUNCTUATION = str.maketrans("", "", string.punctuation)


@dataclass(frozen=True)
class Case:
    """A question over some documents.

    Attributes:
        documents: What is to be compressed.
        query: The question.
        answers: Any of them will do.
        gold: For a meeting: the turns that the answer is from.
    """

    documents: tuple[str, ...]
    query: str
    answers: tuple[str, ...] = ()
    gold: tuple[str, ...] = ()


def passages(options: Options, among: int, most: int) -> list[Case] | None:
    """Each question with its passage and the nearest other ones, in an order drawn at random."""
    rows = read_rows(options, "compression/nq_passages.jsonl.gz")
    if rows is None:
        return None
    texts = [row["passage"] for row in rows]
    vectors, questions = embedded(texts), embedded([row["question"] for row in rows])
    chosen = np.random.default_rng(0)
    cases = []
    for i in sorted(chosen.permutation(len(rows))[:most].tolist()):
        order = np.argsort(-(vectors @ questions[i]), kind="stable")
        others = [texts[j] for j in order if texts[j] != texts[i]][: among - 1]
        mixed = [texts[i], *others]
        documents = tuple(mixed[j] for j in chosen.permutation(among))
        cases.append(Case(documents, rows[i]["question"], tuple(rows[i]["answers"])))
    return cases


def articles(options: Options, name: str, most: int) -> list[Case] | None:
    """Questions over one long text each, in the shape of COVID-QA."""
    rows = read_rows(options, f"compression/{name}.jsonl.gz")
    if rows is None:
        return None
    cases = [
        Case((row["context"],), each["question"], tuple(each["answers"]))
        for row in rows
        for each in row["qas"]
        if each["answers"]
    ]
    step = max(1, -(-len(cases) // most))
    return cases[step - 1 :: step]


def meetings(options: Options, most: int) -> list[Case] | None:
    """Questions over the turns of a meeting."""
    rows = read_rows(options, "compression/qmsum.jsonl.gz")
    if rows is None:
        return None
    return [
        Case(("\n".join(row["turns"]),), row["query"], gold=tuple(row["turns"][i] for i in row["gold_turns"]))
        for row in rows[:: max(1, -(-len(rows) // most))]
    ]


def survives(kept: str, answers: Sequence[str]) -> bool:
    """Whether an answer is a part of what was kept, but for case, punctuation and articles."""
    plain = _plain(kept)
    return any(answer and answer in plain for answer in map(_plain, answers))


def recalled(kept: str, answers: Sequence[str]) -> float:
    """Share of the words of an answer that were kept, of the answer for which it is greatest."""
    there = set(_words(kept))
    shares = [sum(word in there for word in own) / len(own) for own in map(list, map(_words, answers)) if own]
    return max(shares, default=0.0)


def _words(text: str) -> Iterator[str]:
    for word in _plain(text).split():
        yield from word if any("\u3040" <= letter <= "\u9fff" for letter in word) else [word]


def _plain(text: str) -> str:
    return " ".join(_ARTICLES.sub(" ", text.lower().translate(_PUNCTUATION)).split())
