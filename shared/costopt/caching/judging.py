"""From candidates to a choice: ask the judge in time, and heed what was learned in the scope."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple

from costopt.caching.batcher import Batcher
from costopt.caching.breaker import CircuitBreaker
from costopt.caching.entry import Entry
from costopt.caching.judge import CrossEncoderJudge, Judge, SimilarityJudge, Verdict, floor_of, for_all
from costopt.caching.online import ScopeThresholds
from costopt.caching.policy import GRID
from costopt.caching.request import CacheRequest
from costopt.caching.steps import Flow, Step
from costopt.errors import CostOptError

__all__ = ["SLOW_S", "Candidates", "Choice", "Judging", "wait"]

Candidates = list[tuple[str, float]]

SLOW_S = 0.05
"""A failure after this long was waited for by somebody, and opens a breaker at once."""
_TOGETHER = 16  # questions in one pass of the model: some 100 ms


class Choice(NamedTuple):
    """The candidate that most probably wants the same answer, and whether it may be served."""

    entry: Entry
    similarity: float
    accepted: bool
    reason: str
    probability: float | None


class Judging:
    """One cache's judge, on a thread of its own, with a breaker, and with what was learned in each scope.

    Args:
        judge: Decides on neighbours.
        floor: Least cosine similarity at which a neighbour is shown to it; None for the judge's own.
        evidence: A flow that reads what is known of a request's scope from the store; None if it fails.
        patience: Seconds that a caller may wait for a model to be loaded, given the time now.
        stepped_over: Told of failures.
    """

    def __init__(
        self,
        judge: Judge,
        floor: float | None,
        evidence: Callable[[CacheRequest], Flow[Sequence[bytes] | None]],
        patience: Callable[[float], float],
        stepped_over: Callable[[str, Exception], None],
    ) -> None:
        self._judge = judge
        self._floor = floor
        self._evidence = evidence
        self._patience = patience
        self._stepped_over = stepped_over
        self._breaker = CircuitBreaker()
        self._desk: Batcher[tuple[str, Candidates], Sequence[Verdict]] = Batcher(
            # A judge that takes questions one by one shall answer them one by one.
            for_all(judge),
            max_batch=_TOGETHER if isinstance(judge, CrossEncoderJudge) else 1,
        )
        self._thresholds: ScopeThresholds | None = None

    @property
    def floor(self) -> float:
        """Least cosine similarity at which a neighbour is shown to the judge."""
        if self._floor is not None:
            return self._floor
        return floor_of(self._judge)  # not before it is needed: the default policy is a file

    def warm(self) -> None:
        """Load the judge's model now, if it has one that can be told to."""
        if isinstance(self._judge, CrossEncoderJudge):
            self._judge.warm()
        else:
            getattr(self._judge, "load", lambda: None)()

    def forget(self, scope: str) -> None:
        """Something was learned in a scope; it is to be read anew."""
        if self._thresholds is not None:
            self._thresholds.forget(scope)

    def choose(
        self, request: CacheRequest, candidates: Sequence[tuple[Entry, float]], deadline: float
    ) -> Flow[Choice | None]:
        """The best of the candidates; None if there is no verdict on them in time."""
        texts = [(entry.text or "", similarity) for entry, similarity in candidates]
        verdicts = yield from self._verdicts(request.text or "", texts, deadline)
        if not verdicts:
            return None
        learned = yield from self._learned(request, verdicts)
        ratings = [(verdict.accepted, _rating(verdict)) for verdict in verdicts]
        best = ratings.index(max(ratings))  # the nearest of the equally probable
        (entry, similarity), verdict = candidates[best], verdicts[best]
        if learned is None or verdict.probability is None:
            return Choice(entry, similarity, verdict.accepted, verdict.reason, verdict.probability)
        accepted = verdict.probability >= learned
        reason = f"probability {verdict.probability:.3f} {'>=' if accepted else '<'} {learned:.3f}"
        return Choice(entry, similarity, accepted, reason, verdict.probability)

    def _verdicts(self, asked: str, texts: Candidates, deadline: float) -> Flow[Sequence[Verdict] | None]:
        if isinstance(self._judge, SimilarityJudge):
            return self._judge.judge(asked, texts)  # takes microseconds; any other may run a model
        if not self._breaker.allows():
            return None
        started, passes = time.monotonic(), self._desk.passes
        future: Future[Sequence[Verdict]] | None = None
        try:
            patience = max(SLOW_S, deadline - started)
            if not getattr(self._judge, "loaded", True):
                patience = max(patience, self._patience(started))
            future = self._desk.submit((asked, texts))
            verdicts = _checked((yield wait(future, patience)), len(texts))
        except Exception as error:
            judged = future is None or (future.done() and not future.cancelled())
            if future is not None:
                future.cancel()  # what nobody waits for need not be judged
            # Who has waited in a long queue that moves has met no fault: the next caller may be served at once.
            if judged or self._desk.passes == passes:
                self._breaker.failed(slow=time.monotonic() - started > SLOW_S)
            self._stepped_over("judge", error)
            return None
        self._breaker.succeeded()
        return verdicts

    def _learned(self, request: CacheRequest, verdicts: Sequence[Verdict]) -> Flow[float | None]:
        """Least probability to serve at in this scope; None if the judge is to go by its own."""
        judge = self._judge
        probable = any(verdict.probability is not None and verdict.probability >= GRID[0] for verdict in verdicts)
        if not probable or not isinstance(judge, CrossEncoderJudge) or judge.policy is None:
            return None
        if self._thresholds is None:
            self._thresholds = ScopeThresholds(judge.policy, judge.max_error)
        known = self._thresholds.of(request.scope)
        if known is None:
            rows = yield from self._evidence(request)
            known = None if rows is None else self._thresholds.learn(request.scope, rows)
        return known


def _checked(verdicts: Sequence[Verdict], count: int) -> list[Verdict]:
    """The verdicts of any judge, which may return anything."""
    if len(verdicts) != count:
        raise CostOptError(f"the judge gave {len(verdicts)} verdicts on {count} candidates")
    sound = []
    for verdict in verdicts:
        probability = getattr(verdict, "probability", None)
        if probability is not None and not 0 <= probability <= 1:
            raise CostOptError(f"the judge says {probability}, which is no probability")
        sound.append(Verdict(bool(verdict.accepted), str(verdict.reason), probability))
    return sound


def _rating(verdict: Verdict) -> float:
    if verdict.probability is not None:
        return verdict.probability
    return 1.0 if verdict.accepted else -1.0


def wait(future: Future[Any], seconds: float) -> Step:
    """Wait for a thread that was told what to do."""
    return Step(lambda: future.result(seconds), lambda: asyncio.wrap_future(future), seconds)
