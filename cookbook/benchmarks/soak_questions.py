"""What the soak asks: questions whose right answer is a function of who asks what, other wordings, and traps.

The right answer names the tenant, the system prompt and the topic, so that an answer meant for anybody or anything else
shows at once. Light to import, for the server that answers has a process of its own.
"""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

__all__ = ["TENANTS", "Asked", "Topic", "Traffic", "chosen_topics", "right_answer", "topics_by_text"]

TENANTS = ("acme", "acme-west", "globex")
_PAIRS = Path(__file__).parents[1] / "training" / "pairs"
_FILES = ("life", "knowledge", "shopping", "software", "public", "travel", "support", "engineering")
# How far from the judge's threshold a pair must be: what one batch scores differs from another's in the last digits.
_MARGIN = 0.02
_MARKER = "Question: "
_PARCEL = re.compile(r"parcel (\d+)")
_PARCEL_NUMBERS = 150  # used again, or what remembers texts would grow as long as the soak lasts
_PARCELS = (
    "Where is my parcel {}?",
    "Where is parcel {} of mine right now?",
    "where's my parcel {} at the moment",
)
_PAGES = (
    "The office has a blue door. It opens at nine and closes at five. Visitors ring the bell twice.",
    "Every request is answered on the day it comes. What comes in the evening is answered in the morning.",
    "Prices are kept in a list. The list is printed each spring. Old lists are given back and burnt.",
)


@dataclass(frozen=True, slots=True)
class Topic:
    """One question in several wordings, and questions that look like it and want other answers."""

    name: str
    wordings: tuple[str, ...]
    traps: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Asked:
    """One request.

    Attributes:
        tenant: Whose it is.
        system: The system prompt.
        text: The question.
        kind: "popular", "trap", "parcel", "stranger" (asked by one customer only) or "together".
    """

    tenant: str
    system: str
    text: str
    kind: str

    @property
    def pages(self) -> tuple[str, ...]:
        """Documents to be shortened for it; one of them holds the question's own words, if it is one of a few."""
        return (
            _PAGES
            if self.kind == "parcel"
            else (*_PAGES, f"There is a page about this. {self.text} is asked there. It was written long ago.")
        )


class Traffic:
    """Draws requests. Customers come and go, so that some questions have been asked before and some never.

    Args:
        topics: What customers ask about, one topic each.
        present: Customers at any one time.
        stay_s: Seconds after which one of them is replaced.
    """

    def __init__(self, topics: Sequence[Topic], present: int, stay_s: float) -> None:
        self._topics = topics
        self._present = present
        self._stay_s = stay_s

    def draw(self, chance: random.Random, elapsed: float) -> Asked:
        """A request, so many seconds after the start."""
        first = int(elapsed / self._stay_s)
        customer = first + chance.randrange(self._present)
        kind = chance.choices(("popular", "trap", "parcel", "stranger"), (68, 10, 7, 15))[0]
        if kind == "stranger":
            customer = 10**6 + chance.randrange(10**9)
        tenant, topic = TENANTS[customer % len(TENANTS)], self._topics[customer % len(self._topics)]
        if kind == "trap" and chance.random() < 0.4:
            tenant = chance.choice([other for other in TENANTS if other != tenant])
        if kind == "parcel":
            number = 40_000 + (int(elapsed) // 4 * 5 + chance.randrange(5)) % _PARCEL_NUMBERS
            text = chance.choices(_PARCELS, (6, 2, 2))[0].format(number)
        else:
            text = chance.choice(topic.traps) if kind == "trap" else _worded(chance, topic)
        return Asked(tenant, f"You help customer {customer}.", text, kind)

    def together(self, number: int) -> Asked:
        """What many ask at the same moment, and nobody before."""
        topic = self._topics[number % len(self._topics)]
        return Asked(TENANTS[number % len(TENANTS)], f"You help crowd {number}.", topic.wordings[0], "together")


def right_answer(tenant: str, system: str, text: str, topics: Mapping[str, str]) -> str:
    """What the model must say.

    Args:
        tenant: Whose key the request came with.
        system: The system prompt.
        text: The prompt; of one that carries documents, what stands after the last marker counts.
        topics: Names of topics by text.

    Raises:
        KeyError: If nobody is known to ask this.
    """
    question = text.rsplit(_MARKER, 1)[-1]
    parcel = _PARCEL.search(question)
    topic = f"parcel {parcel.group(1)}" if parcel else topics[question]
    said = hashlib.blake2b(json.dumps([tenant, system, topic]).encode(), digest_size=8).hexdigest()
    return f"The answer to {topic} is {said}."


def with_pages(pages: Sequence[str], text: str) -> str:
    """A prompt with documents before its question."""
    return "\n".join([*pages, _MARKER + text])


def topics_by_text(topics: Sequence[Topic]) -> dict[str, str]:
    """The name of the topic that each text is about; a trap is a topic of its own."""
    known = {text: topic.name for topic in topics for text in topic.wordings}
    return known | {trap: f"{topic.name}, trap {i}" for topic in topics for i, trap in enumerate(topic.traps)}


def chosen_topics(count: int) -> list[Topic]:
    """So many topics of the judge's training material, of texts on which the judge, asked alone, makes no mistake.

    So a wrong answer in the soak is one that the cache mixed up: how often the judge errs is measured elsewhere.
    """
    from costopt.caching.judge import CrossEncoderJudge
    from costopt.embedding import default_embedder

    judge, embedder, found = CrossEncoderJudge(), default_embedder(), list[Topic]()
    for row in _rows():
        texts = [row["question"], *row["same"], *row["different"]]
        if any(len(text) > 120 for text in texts):
            continue
        vectors, same = embedder.embed(texts), 1 + len(row["same"])
        agrees = _agreement(judge, texts, vectors @ vectors.T, same)
        wordings = [i for i in range(1, same) if agrees[0][i]]
        traps = [i for i in range(same, len(texts)) if all(agrees[i][k] for k in (0, *wordings))]
        if not wordings or not traps:
            continue
        # A second wording or trap would have to agree with the first, too.
        kept = tuple(texts[i] for i in (0, wordings[0])), (texts[traps[0]],)
        found.append(Topic(f"topic {len(found)}", *kept))
        if len(found) == count:
            return found
    raise RuntimeError(f"only {len(found)} topics, not {count}")


def _agreement(judge: Any, texts: Sequence[str], cosines: Any, same: int) -> list[list[bool]]:
    """Whether the judge surely says of each two texts, either way round, what is right."""
    clear = [[True] * len(texts) for _ in texts]
    for i, asked in enumerate(texts):
        others = [k for k in range(len(texts)) if k != i]
        verdicts = judge.judge(asked, [(texts[k], float(cosines[i, k])) for k in others])
        for k, verdict in zip(others, verdicts, strict=True):
            sure = verdict.probability is None or abs(verdict.probability - judge.threshold) > _MARGIN
            served = verdict.accepted and cosines[i, k] >= (judge.min_similarity or 0.0)
            right = sure and served == (i < same and k < same)
            clear[i][k] = clear[k][i] = clear[k][i] and right
    return clear


def _rows() -> Iterator[dict[str, Any]]:
    for name in _FILES:
        for line in (_PAIRS / f"{name}.jsonl").read_text("utf-8").splitlines():
            yield json.loads(line)


def _worded(chance: random.Random, topic: Topic) -> str:
    return topic.wordings[0] if chance.random() < 0.85 else chance.choice(topic.wordings[1:])


def as_json(topics: Sequence[Topic]) -> str:
    """One line, for the server's process."""
    return json.dumps([asdict(topic) for topic in topics])


def from_json(line: str) -> list[Topic]:
    """What `as_json` wrote."""
    return [Topic(row["name"], tuple(row["wordings"]), tuple(row["traps"])) for row in json.loads(line)]
