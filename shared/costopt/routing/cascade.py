"""Ask the cheap tier, look at its answer, and ask the next one if it will not do."""

from __future__ import annotations

import itertools
import logging
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError
from costopt.finish import fault_of
from costopt.pricing import Usage
from costopt.routing.request import RouteRequest

__all__ = ["AnswerScorer", "Cascade", "Reply"]

_log = logging.getLogger("costopt.routing")

_REFUSES = re.compile(
    r"\W*(?:(?:i(?:['’]m| am) )?(?:so |very )?sorry|unfortunately|apologies|i apologi[sz]e)?\W*(?:but |however )?\W*"
    r"(?:as an ai\b|i (?:can(?:['’]t|not)|am (?:unable|not able)|won['’]t|do(?:n['’]t| not) (?:know|have enough))"
    r"|i['’]m (?:unable|not able|not sure))",
    re.IGNORECASE,
)
_SPACES = re.compile(r"[\s.!,;:]+")
_NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?")


class AnswerScorer(Protocol):
    """Says from question and answer how probable it is that the answer will do. NaN: no opinion."""

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
        """Probabilities in [0, 1], shape (len(prompts),)."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What a model answered, as far as the router looks at it.

    Attributes:
        text: The words of the answer.
        usage: Its tokens; None if nobody said.
        finish: Why it stopped, in the provider's word.
        refused: Whether the provider says that it was refused.
        calls: Ids of the tool calls in it.
        broken: Whether a tool call in it cannot be read.
        logprob: Mean log-probability of its tokens; None if nobody said.
        others: The texts of further generations of the same call.
        raw: The framework's own object.
    """

    text: str = ""
    usage: Usage | None = None
    finish: str | None = None
    refused: bool = False
    calls: tuple[str, ...] = ()
    broken: bool = False
    logprob: float | None = None
    others: tuple[str, ...] = ()
    raw: Any = None


class Cascade:
    """Which answers of a tier will do, and which go on to the next one.

    Always looked at: whether the answer is empty, truncated, refused, or has a tool call that cannot be read, and
    whether it follows the schema that was asked for. The rest is opt-in, or needs something that not every
    provider gives.

    Args:
        estimator: Says of the cheapest tier's answers how probable it is that they will do: any object with
            `scores(prompts, answers)`, e.g. `GainEstimator.load(F).for_answers()`.
        threshold: The least such probability.
        min_logprob: The least mean log-probability of the answer's tokens, where the model gives them.
        samples: How many answers to ask of the tier, to see whether they agree; each costs.
        min_agreement: The least share of pairs of these answers (or of the `n` generations of one call) that agree.
        same: Whether two answers agree; by default, if they end in the same number, or have the same words.
        start: Where to begin: with the tier that the router chose, or always with the cheapest.

    Raises:
        ConfigError: If an option is out of range.

    Example:
        >>> Cascade().verdict(RouteRequest("Tell me a story"), [Reply("Once upon a", finish="length")])
        'truncated'
        >>> Cascade(min_logprob=-0.5).verdict(RouteRequest("2 + 2?"), [Reply("4", logprob=-0.01)]) is None
        True
    """

    def __init__(
        self,
        *,
        estimator: AnswerScorer | None = None,
        threshold: float = 0.5,
        min_logprob: float | None = None,
        samples: int = 1,
        min_agreement: float = 0.5,
        same: Callable[[str, str], bool] | None = None,
        start: Literal["chosen", "cheapest"] = "chosen",
    ) -> None:
        if not (0 <= threshold <= 1 and 0 <= min_agreement <= 1):
            raise ConfigError(f"threshold={threshold}, min_agreement={min_agreement}: give values in [0, 1]")
        if samples < 1 or start not in ("chosen", "cheapest"):
            raise ConfigError(f"samples={samples}, start={start!r}: give at least 1, and 'chosen' or 'cheapest'")
        if min_logprob is not None and not min_logprob <= 0:
            raise ConfigError(f"min_logprob={min_logprob}: a log-probability is at most 0, e.g. -0.5")
        self.estimator = estimator
        self.threshold = threshold
        self.min_logprob = min_logprob
        self.samples = samples
        self.min_agreement = min_agreement
        self.start = start
        self.failures = 0
        self._same = same or _same

    def verdict(self, request: RouteRequest, replies: Sequence[Reply], *, cheapest: bool = True) -> str | None:
        """Why the first of these answers will not do; None if it will.

        Args:
            request: What was asked.
            replies: The answers of one tier, the first of which would be given.
            cheapest: Whether it is the cheapest tier, whose answers the estimator knows.
        """
        reply = replies[0]
        found = _fault(reply) or self._invalid(request, reply)
        if found is not None:
            return found
        try:
            return self._unsure(replies) or (self._unlikely(request, reply) if cheapest else None)
        except Exception as error:  # of the estimator, or of `same`
            if not self.failures:
                _log.warning("costopt: answers cannot be judged, and go on to the next tier: %r", error)
            self.failures += 1
            return "no opinion"

    def _invalid(self, request: RouteRequest, reply: Reply) -> str | None:
        if request.valid is None:
            return None
        try:
            return None if request.valid(reply.raw) else "schema"
        except Exception:  # whatever a parser raises for what it cannot parse
            return "schema"

    def _unsure(self, replies: Sequence[Reply]) -> str | None:
        reply = replies[0]
        if self.min_logprob is not None and reply.logprob is not None and reply.logprob < self.min_logprob:
            return "log-probability"
        texts = [text for each in replies for text in (each.text, *each.others)]
        pairs = list(itertools.combinations(texts, 2))
        if pairs and sum(self._same(a, b) for a, b in pairs) / len(pairs) < self.min_agreement:
            return "disagreement"
        return None

    def _unlikely(self, request: RouteRequest, reply: Reply) -> str | None:
        if self.estimator is None or not reply.text:
            return None
        probability = float(np.asarray(self.estimator.scores([request.text], [reply.text])).reshape(-1)[0])
        if math.isnan(probability):
            return "no opinion"
        return "judged" if probability < self.threshold else None


def _fault(reply: Reply) -> str | None:
    fault = fault_of(reply.finish)
    if fault is not None and fault != "filtered":
        return fault
    if fault or reply.refused or _REFUSES.match(reply.text):
        return "refused"
    if reply.broken:
        return "tool call"
    return None if reply.text.strip() or reply.calls else "empty"


def _same(a: str, b: str) -> bool:
    """Of two worked answers what counts is the figure they end in."""
    one, other = (_NUMBER.findall(text) for text in (a, b))
    if one and other:
        return bool(one[-1].replace(",", "") == other[-1].replace(",", ""))
    return _SPACES.sub(" ", a).strip().casefold() == _SPACES.sub(" ", b).strip().casefold()
