"""A provider on loopback, so that every recipe runs without a key; it counts what it would bill.

It speaks OpenAI's protocol to the provider's own SDK, one by one and in batches. To a question with a context it quotes
the sentence that has most words in common with it, and a token is a word or a mark: what a recipe prints is then true
of this provider's bill, and says nothing of how good a model's answers are.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from typing import Any

from cookbook import train_router
from costopt import Usage
from costopt.pricing import cost
from tests.answers import running
from tests.batch_server import Batch, BatchServer
from tests.openai_server import Behaviour, chat_completion

__all__ = ["Call", "Known", "StandIn", "known", "stand_in"]

Known = Callable[[str, str], str | None]

_QUESTION = re.compile(r"^\s*(?:Query|Question): *(.*?)\s*$", re.MULTILINE)
_SENTENCE = re.compile(r"(?<=[.!?])\s+|\n")
_COMMON = frozenset("are can does for get have how long many much the this what when where which who you your".split())
_TOKEN = re.compile(r"\w+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Call:
    """What was paid for."""

    model: str
    usage: Usage
    batch: bool


class StandIn(BatchServer):
    """Answers as its text allows.

    Attributes:
        known: Says what a model answers to a prompt, where the text does not tell; given the names of model and prompt.
        bill: Every call that was paid for, in order.
    """

    def __init__(self, known: Known | None = None) -> None:
        super().__init__()
        self.known = known or (lambda model, prompt: None)
        self.bill: list[Call] = []
        self.answer = self._answered
        self._batching = False

    @property
    def url(self) -> str:
        """As OpenAI's SDK wants it."""
        return f"{super().url}/v1"

    def end(self, batch: Batch) -> None:
        """Carry a batch out; the server's lock is held meanwhile, as for all that is asked."""
        self._batching = True
        super().end(batch)
        self._batching = False

    def dollars(self, first: int = 0, last: int | None = None) -> Decimal:
        """What the calls from `first` to before `last` cost at list prices; a model of one's own costs nothing here."""
        sums: defaultdict[tuple[str, bool], Usage] = defaultdict(Usage)
        for call in self.bill[first:last]:
            sums[call.model, call.batch] += call.usage
        return sum(
            (cost(model, usage, batch=batch) or Decimal(0) for (model, batch), usage in sums.items()), Decimal(0)
        )

    def _answered(self, request: dict[str, Any]) -> dict[str, Any]:
        read = "\n".join(_text(message.get("content")) for message in request["messages"])
        text = self._said(request["model"], read)
        usage = Usage(len(_TOKEN.findall(read)), len(_TOKEN.findall(text)))
        self.bill.append(Call(request["model"], usage, self._batching))
        reported = {"prompt_tokens": usage.input_tokens, "completion_tokens": usage.output_tokens}
        told = Behaviour(text=text, usage=reported | {"total_tokens": usage.total_tokens})
        return chat_completion(request, len(self.bill), told)

    def _said(self, model: str, read: str) -> str:
        known = self.known(model, read.rsplit("\n", 1)[-1])
        if known is not None:
            return known
        found = _QUESTION.search(read)
        question = found.group(1) if found else read.rsplit("\n", 1)[-1]
        wanted = _words(question)
        sentences = [each for each in _SENTENCE.split(read) if each and question not in each]
        best = max(sentences, key=lambda each: len(wanted & _words(each)), default="")
        return best if wanted & _words(best) else f"Here is what to know: {question}"


def known(recipe: str) -> Known | None:
    """What models know for a recipe whose answers are in no text."""
    return {"train_router": _sum, "batch_reviews": _verdict}.get(recipe)


def _verdict(model: str, prompt: str) -> str | None:
    return "bad" if "broke" in prompt else "good"


def _sum(model: str, prompt: str) -> str | None:
    """The cheaper model is at a loss where it takes two steps."""
    if "presses" in prompt and model.endswith("-mini"):
        return "I cannot tell."
    return _logged().get(prompt)


@cache
def _logged() -> dict[str, str]:
    return {row["prompt"]: row["answer"] for row in train_router.log()}


def _text(content: Any) -> str:
    if isinstance(content, list):
        return "\n".join(str(block.get("text", "")) for block in content)
    return str(content or "")


def _words(text: str) -> set[str]:
    return {word.rstrip("s") for word in re.findall(r"[a-z]{3,}|\d+", text.lower())} - _COMMON


@contextmanager
def stand_in(known: Known | None = None) -> Iterator[StandIn]:
    """The provider, running."""
    with StandIn(known) as server, running(server):
        yield server
