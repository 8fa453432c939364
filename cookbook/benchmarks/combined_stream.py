"""One application's requests, each with the answers that are right, and a server that answers as the data say."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import lru_cache
from typing import Any

import numpy as np

from cookbook.benchmarks.compression_sets import survives
from cookbook.benchmarks.material import Options, embedded, read_rows
from costopt.pricing import Usage, cost
from costopt.routing import Outcomes, read_outcomes
from costopt.tokens import count_tokens

__all__ = ["CHEAP", "PARTS", "SETS", "STRONG", "Question", "Stream", "Teacher", "stream"]

CHEAP, STRONG = "gpt-4o-mini", "gpt-4o"
PARTS = {
    "triage": "messages to a bank, to be sorted by intent",
    "exam": "questions of MMLU and GSM8K",
    "library": "questions over 20 passages each",
}
SETS = (
    "caching/banking77.jsonl.gz",
    "routing/mmlu.jsonl.gz",
    "routing/gsm8k.jsonl.gz",
    "compression/nq_passages.jsonl.gz",
)

_COUNTS, _QUICK = {"triage": 300, "exam": 400, "library": 120}, {"triage": 30, "exam": 40, "library": 12}
_TRAINING, _QUICK_TRAINING = (1_500, 400), (400, 100)  # labelled rows of MMLU, GSM8K
_UNLABELLED = 200
_FROM_GSM8K = 5  # one exam question in so many
_ZIPF = 1.05
_AGAIN = 4  # every so-manyth question to the library is one that was asked before
_WAITS = 3  # one request in so many may wait for the night
_AMONG = 20
_SILENT = "The passages do not say."


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what is known of it.

    Attributes:
        part: One of `PARTS`.
        text: The human turn.
        cluster: The intent, or the text: requests of one cluster are drawn together when intervals are made.
        instruction: The system prompt, before any passages; "" for none.
        passages: What a retriever found.
        said: What each model answers.
        right: The answers that are right.
        needs: Answers one of which must be in the passages as they are sent, or the model says that it does not know.
    """

    part: str
    text: str
    cluster: str
    instruction: str
    said: Mapping[str, str]
    right: frozenset[str]
    passages: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stream:
    """The requests in the order in which they come, those that may wait last.

    Attributes:
        questions: One for each request.
        waits: Whether it may wait.
        training: Outcomes to train a router on; none of their prompts is asked.
        recent: Prompts of the exam's kind without labels, neither trained on nor asked.
    """

    questions: list[Question]
    waits: list[bool]
    training: Outcomes
    recent: list[str]


def stream(options: Options) -> Stream | None:
    """The requests; None where a data set is absent."""
    if options.data is None or any(read_rows(options, name) is None for name in SETS):
        return None
    counts = _QUICK if options.quick else _COUNTS
    chosen = random.Random(29)
    exam, training, recent = _exam(options, counts["exam"], chosen)
    questions = [*_triage(options, counts["triage"], chosen), *exam, *_library(options, counts["library"], chosen)]
    chosen.shuffle(questions)
    waits = [chosen.randrange(_WAITS) == 0 for _ in questions]
    order = sorted(range(len(questions)), key=waits.__getitem__)
    return Stream([questions[i] for i in order], [waits[i] for i in order], training, recent)


def _triage(options: Options, count: int, chosen: random.Random) -> list[Question]:
    """Intents by a Zipf law, then a text of the intent by lot."""
    texts: dict[str, str] = {row["text"]: row["intent"] for row in read_rows(options, SETS[0]) or ()}
    intents = sorted(set(texts.values()))
    instruction = (
        "You sort messages to a bank. Answer with the one of these intents that the message has, and nothing else: "
        + ", ".join(intents)
    )
    members = {intent: [text for text, own in texts.items() if own == intent] for intent in intents}
    ranked = chosen.sample(intents, len(intents))
    drawn = chosen.choices(ranked, [1 / rank**_ZIPF for rank in range(1, len(ranked) + 1)], k=count)
    return [
        Question("triage", chosen.choice(members[intent]), intent, instruction, _same(intent), frozenset({intent}))
        for intent in drawn
    ]


def _same(answer: str) -> dict[str, str]:
    return {CHEAP: answer, STRONG: answer}


def _exam(options: Options, count: int, chosen: random.Random) -> tuple[list[Question], Outcomes, list[str]]:
    """Questions to which it is known what a cheap and a dear model answered."""
    assert options.data is not None
    trained = _QUICK_TRAINING if options.quick else _TRAINING
    few = count // _FROM_GSM8K
    asked: list[Question] = []
    recent: list[str] = []
    prompts: list[str] = []
    scores = []
    for name, wanted, labels in zip(SETS[1:3], (count - few, few), trained, strict=True):
        outcomes = read_outcomes(options.data / name)
        order = chosen.sample(range(len(outcomes)), wanted + labels + (_UNLABELLED * wanted) // count)
        asked += [_examined(outcomes, row) for row in order[:wanted]]
        kept = outcomes.take(order[wanted : wanted + labels])
        prompts += kept.prompts
        scores.append(kept.scores)
        recent += outcomes.take(order[wanted + labels :]).prompts
    return asked, Outcomes(tuple(prompts), (CHEAP, STRONG), np.concatenate(scores)), recent


def _examined(outcomes: Outcomes, row: int) -> Question:
    """The answers as published; of MMLU it is only known whether they were right."""
    prompt, scores = outcomes.prompts[row], outcomes.scores[row]
    said = {}
    for place, model in enumerate((CHEAP, STRONG)):
        texts = outcomes.answers.get(outcomes.tiers[place])
        # With its number, so that the answer to one question never passes for the answer to another.
        bare = f"Question {row}: {'the right' if scores[place] else 'a wrong'} option."
        said[model] = (texts[row] if texts else None) or bare
    right = frozenset(said[model] for place, model in enumerate((CHEAP, STRONG)) if scores[place])
    return Question("exam", prompt, prompt, "", said, right)


def _library(options: Options, count: int, chosen: random.Random) -> list[Question]:
    """Each question with its passage and the nearest other ones; some are asked again."""
    rows = read_rows(options, SETS[3]) or []
    once = count - count // _AGAIN
    pool = chosen.sample(rows, min(len(rows), 2 * once))  # a library in which most passages are found more than once
    texts = [row["passage"] for row in pool]
    near = embedded([row["question"] for row in pool[:once]]) @ embedded(texts).T
    instruction = "Answer the question from these passages only."
    found = []
    for i, row in enumerate(pool[:once]):
        others = [texts[j] for j in np.argsort(-near[i], kind="stable") if texts[j] != texts[i]][: _AMONG - 1]
        passages = chosen.sample([texts[i], *others], 1 + len(others))
        answer, text = row["answers"][0], row["question"] + "?"
        found.append(
            Question(
                "library", text, text, instruction, _same(answer), frozenset({answer}),
                tuple(passages), tuple(row["answers"]),
            )
        )  # fmt: skip
    return found + chosen.choices(found, k=count - once)


class Teacher:
    """Answers bodies of OpenAI's chat protocol as the data say, and counts tokens as these models do."""

    def __init__(self, questions: Sequence[Question]) -> None:
        self._known = {question.text: question for question in questions}

    def answer(self, body: dict[str, Any]) -> dict[str, Any]:
        """A chat completion."""
        text, used = self._said(body), self.usage(body)
        usage = {"prompt_tokens": used.input_tokens, "completion_tokens": used.output_tokens}
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1_700_000_000,
            "model": body["model"],
            "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": text}}],
            "usage": usage | {"total_tokens": sum(usage.values())},
        }

    def usage(self, body: dict[str, Any]) -> Usage:
        """Tokens of a body and its answer."""
        asked = 3 + sum(4 + _tokens(message["content"], body["model"]) for message in body["messages"])
        return Usage(asked, _tokens(self._said(body), body["model"]))

    def bill(self, body: dict[str, Any], *, batch: bool = False) -> Decimal:
        """What a body and its answer cost."""
        return cost(body["model"], self.usage(body), batch=batch) or Decimal(0)

    def _said(self, body: dict[str, Any]) -> str:
        question = self._known[body["messages"][-1]["content"]]
        if question.needs and not survives(body["messages"][0]["content"], question.needs):
            return _SILENT
        return question.said[body["model"]]


@lru_cache(maxsize=8192)
def _tokens(text: str, model: str) -> int:
    return count_tokens(text, model).tokens
