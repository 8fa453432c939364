"""A neighbour is a candidate, not a hit: who decides whether an answer may be served."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Protocol, cast

from costopt.arguments import number
from costopt.caching.cross_encoder import CrossEncoder
from costopt.caching.guards import READ, overlap, veto
from costopt.caching.policy import Policy, load_policy, threshold_unfitted
from costopt.errors import ConfigError, CostOptError, require

__all__ = [
    "DEFAULT_MAX_ERROR",
    "CrossEncoderJudge",
    "Judge",
    "PairModel",
    "SimilarityJudge",
    "Verdict",
    "as_judge",
    "floor_of",
    "for_all",
]

_log = logging.getLogger("costopt.caching")

DEFAULT_MAX_ERROR = 0.05
_FLOOR = 0.6  # for judges that do not say below which similarity it is no use to ask them


@dataclass(frozen=True, slots=True)
class Verdict:
    """A judge's word on one candidate.

    Attributes:
        accepted: Whether its answer may be served.
        reason: Why, in a few words: "similarity 0.97 >= 0.92", "guard: number".
        probability: How likely both texts want the same answer, in [0, 1]; None from a judge that does not
            say, and where it was not asked, because a guard spoke up first.
    """

    accepted: bool
    reason: str
    probability: float | None = None


class Judge(Protocol):
    """Any object with this method is a judge; it is handed all candidates of a lookup at once."""

    def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> Sequence[Verdict]:
        """One verdict for each (cached text, cosine similarity), in order."""
        ...


class PairModel(Protocol):
    """What scores pairs of texts, such as a `sentence_transformers.CrossEncoder`."""

    def predict(self, sentences: list[tuple[str, str]]) -> Sequence[float]:
        """One score for each pair, in order; the higher, the surer that one answer serves both."""
        ...


@dataclass(frozen=True, slots=True)
class SimilarityJudge:
    """Accepts what is similar enough and passes the guards.

    Args:
        min_similarity: Least cosine similarity, in [0, 1].
        guards: Whether a different number, name, negation and the like forbids serving (see `guards.veto`).

    Raises:
        ConfigError: If `min_similarity` is outside [0, 1].

    Example:
        >>> judge = SimilarityJudge(min_similarity=0.9)
        >>> [v.reason for v in judge.judge("Top 5 films?", [("Top 10 films?", 0.97)])]
        ['guard: number']
    """

    min_similarity: float
    guards: bool = True

    def __post_init__(self) -> None:
        number("min_similarity", self.min_similarity, lambda cosine: 0 <= cosine <= 1, "a cosine similarity in [0, 1]")

    def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[Verdict]:
        """One verdict for each (cached text, cosine similarity), in order."""
        return [self._verdict(asked, text, similarity) for text, similarity in candidates]

    def _verdict(self, asked: str, cached: str, similarity: float) -> Verdict:
        if not similarity >= self.min_similarity:
            return Verdict(False, f"similarity {similarity:.3f} < {self.min_similarity}")
        guard = veto(asked, cached) if self.guards else None
        if guard is not None:
            return Verdict(False, f"guard: {guard}")
        return Verdict(True, f"similarity {similarity:.3f} >= {self.min_similarity}")


class CrossEncoderJudge:
    """Reads both texts together, and accepts where the probability that one answer serves both is high enough.

    Args:
        model: What scores pairs: a `sentence_transformers.CrossEncoder`, anything with its `predict`, or a
            function of (asked, cached); by default MiniLM, fine-tuned for this and shipped with the package.
        max_error: Share of the served answers that may be wrong, in [0, 1); 0 accepts nothing. Default: what
            the policy was tuned for, else 0.05.
        policy: What turns scores into probabilities and `max_error` into a threshold: a `Policy`, or the file
            that `costopt cache tune` wrote. Without one, the scores of a model of your own must be
            probabilities, and accepted is what is at least 1 - max_error probable.
        guards: Whether a different number, name, negation and the like forbids serving (see `guards.veto`).

    Raises:
        ConfigError: If an argument is out of range, or `model` scores nothing.
        MissingExtraError: If the shipped model is meant and torch is not installed.

    Example:
        >>> judge = CrossEncoderJudge(max_error=0.05)
        >>> cached = [("how do I reset my password", 0.86), ("reset my phone", 0.64)]
        >>> same, other = judge.judge("reset password", cached)
        >>> same.accepted, other.accepted
        (True, False)
    """

    def __init__(
        self,
        model: PairModel | Callable[[str, str], float] | None = None,
        *,
        max_error: float | None = None,
        policy: Policy | str | os.PathLike[str] | None = None,
        guards: bool = True,
    ) -> None:
        if model is None:
            # What MiniLM needs is known now; the user may have an embedder of another make.
            for module in ("torch", "tokenizers", "safetensors"):
                require(module, "minilm", instead="SemanticCache(judge=SimilarityJudge(0.9)), which does without")
        elif not callable(model) and not hasattr(model, "predict"):
            raise ConfigError(f"{model!r} scores nothing: give what has predict(pairs), or a function of two texts")
        if max_error is not None:
            threshold_unfitted(max_error)  # for its checks
        self._model = model
        self._max_error = max_error
        self._source = policy
        self.guards = guards
        if policy is not None:
            _ = self.policy  # a file that the user names is read at once, for its errors

    @cached_property
    def policy(self) -> Policy | None:
        """The policy in force; None if the scores of a model of your own are taken as probabilities."""
        return None if self._source is None and self._model is not None else load_policy(self._source)

    @property
    def min_similarity(self) -> float | None:
        """Least cosine similarity at which asking the model is of use; None if that is not known."""
        return None if self.policy is None else self.policy.min_similarity

    @cached_property
    def max_error(self) -> float:
        """Share of the served answers that may be wrong."""
        tuned = None if self.policy is None else self.policy.max_error
        return next(error for error in (self._max_error, tuned, DEFAULT_MAX_ERROR) if error is not None)

    @cached_property
    def threshold(self) -> float:
        """Least probability that is accepted; infinite if nothing is, which is logged."""
        if self.policy is None:
            return threshold_unfitted(self.max_error)
        least = self.policy.threshold(self.max_error)
        if least == math.inf and self.max_error > 0:
            _log.warning(
                "costopt: max_error=%s is stricter than the policy was seen to be, so that reworded questions are not "
                "served; fit a policy to your traffic by `costopt cache tune`",
                self.max_error,
            )
        return least

    @cached_property
    def model(self) -> PairModel:
        """What scores the pairs."""
        if self._model is None:
            return _shipped()
        return self._model if hasattr(self._model, "predict") else _PairFunction(self._model)

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory (True if it does not say)."""
        return bool(getattr(self.model, "loaded", True))

    def load(self) -> None:
        """Read the model now, if it is one that can be told to."""
        getattr(self.model, "load", lambda: None)()

    def warm(self) -> None:
        """`load`, and one pass of the shipped model; a model of your own may cost money, and is not asked."""
        self.load()
        if self._model is None:
            self.model.predict([("warm", "warmer")])

    def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[Verdict]:
        """One verdict for each (cached text, cosine similarity), in order.

        Raises:
            CostOptError: If the model returned no scores, or one that is no probability without a policy.
        """
        return self.judge_all([(asked, candidates)])[0]

    def judge_all(self, questions: Sequence[tuple[str, Sequence[tuple[str, float]]]]) -> list[list[Verdict]]:
        """`judge` for several questions, in one pass of the model."""
        found = [
            [Verdict(False, f"guard: {guard}") if guard else None for guard in self._guards(asked, candidates)]
            for asked, candidates in questions
        ]
        open_ = [(i, j) for i, verdicts in enumerate(found) for j, verdict in enumerate(verdicts) if verdict is None]
        pairs = [(questions[i][0], questions[i][1][j][0]) for i, j in open_]
        probabilities = self.probabilities(pairs) if pairs and self.threshold < math.inf else [0.0] * len(pairs)
        for (i, j), probability in zip(open_, probabilities, strict=True):
            found[i][j] = self._verdict(probability)
        return [[verdict for verdict in verdicts if verdict is not None] for verdicts in found]

    def scores(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """What the model says of each pair, and what the policy adds for the words that both texts have."""
        scores = [float(score) for score in self.model.predict(list(pairs))]
        if len(scores) != len(pairs):
            raise CostOptError(f"the judge's model gave {len(scores)} scores for {len(pairs)} pairs: give one a pair")
        weight = 0.0 if self.policy is None else self.policy.overlap
        if weight:
            return [score + weight * overlap(*pair) for score, pair in zip(scores, pairs, strict=True)]
        return scores

    def probabilities(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """How likely each pair wants the same answer, in [0, 1]."""
        scores = self.scores(pairs)
        if self.policy is not None:
            return [self.policy.probability(score) for score in scores]
        wrong = next((score for score in scores if not 0 <= score <= 1), None)
        if wrong is not None:
            raise CostOptError(f"the judge's model scores {wrong}, which is no probability: fit a policy by `tune`")
        return scores

    def _guards(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[str | None]:
        return [veto(asked, text, leave=READ) if self.guards else None for text, _ in candidates]

    def _verdict(self, probability: float) -> Verdict:
        accepted = probability >= self.threshold
        bound = "nothing is served" if self.threshold == math.inf else f"{self.threshold:.3f}"
        return Verdict(accepted, f"probability {probability:.3f} {'>=' if accepted else '<'} {bound}", probability)


@cache
def _shipped() -> CrossEncoder:
    """One copy of the weights for all judges of this process."""
    return CrossEncoder()


class _PairFunction:
    """A function of (asked, cached) as a `PairModel`."""

    def __init__(self, function: Callable[[str, str], float]) -> None:
        self._function = function

    def predict(self, sentences: list[tuple[str, str]]) -> list[float]:
        return [float(self._function(asked, cached)) for asked, cached in sentences]


def floor_of(judge: Judge) -> float:
    """Least cosine similarity at which it is of use to ask this judge."""
    own = getattr(judge, "min_similarity", None)
    return _FLOOR if own is None else float(own)


def for_all(
    judge: Judge,
) -> Callable[[Sequence[tuple[str, Sequence[tuple[str, float]]]]], Sequence[Sequence[Verdict]]]:
    """What judges several questions at once, in one pass if the judge can."""
    if isinstance(judge, CrossEncoderJudge):
        return judge.judge_all
    return lambda questions: [judge.judge(asked, candidates) for asked, candidates in questions]


def as_judge(
    judge: Judge | PairModel | Callable[[str, str], float] | None,
    *,
    max_error: float | None,
    policy: Policy | str | os.PathLike[str] | None,
    guards: bool,
) -> Judge:
    """The judge that a user means: one as it is, one around a model, or the default.

    Raises:
        ConfigError: If a whole judge is given together with what belongs to a model's.
    """
    if judge is None or not hasattr(judge, "judge"):
        return CrossEncoderJudge(judge, max_error=max_error, policy=policy, guards=guards)
    if max_error is not None or policy is not None or not guards:
        raise ConfigError(
            f"{judge!r} decides by itself: max_error, policy and guards are for the default judge, and for a model"
        )
    return cast("Judge", judge)
