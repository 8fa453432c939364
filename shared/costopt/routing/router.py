"""Which tier a request goes to: eligibility first, then the estimator's word, then the policy."""

from __future__ import annotations

import asyncio
import logging
import math
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.arguments import names
from costopt.embedding import Embedder, default_embedder
from costopt.errors import ConfigError
from costopt.forks import ForkLock
from costopt.prompts import Split
from costopt.routing.books import Books, RouterStats
from costopt.routing.budget import Spendable
from costopt.routing.cascade import Cascade
from costopt.routing.decision import RouteDecision
from costopt.routing.estimator import Estimator, HeuristicEstimator
from costopt.routing.fallback import Rest
from costopt.routing.kinds import check_kinds
from costopt.routing.live import Live, default_thresholds, reachable
from costopt.routing.policies import Policy
from costopt.routing.reading import Reading
from costopt.routing.request import RouteRequest, eligible
from costopt.routing.sticky import Sticky
from costopt.routing.tier import checked_tiers

__all__ = ["Router"]

_log = logging.getLogger("costopt.routing")

Numbers = NDArray[np.float64]
Vectors = NDArray[np.float32]


@dataclass(slots=True)
class _View:
    """A request, where it may go, and where its conversation is."""

    request: RouteRequest
    places: list[int]
    excluded: dict[str, str]
    floor: int | None
    default: int
    open: bool  # whether there is anything to choose


class Router:
    """Sends each request to the cheapest tier that will do, and says why.

    Args:
        tiers: Models, from the cheapest to the strongest; a bare model is a tier with nothing said.
        estimator: Says what going beyond a tier promises; by default `HeuristicEstimator`.
        policy: The target that thresholds come from: `StrongShare`, `DollarsPer1000`, `QualityFloor`.
        thresholds: One for each step, in place of a policy. By default those of the estimator's file, or for a
            heuristic (0.5,) for two tiers and (0.3, 0.7) for three.
        default: The tier, by name, for requests on which there is no opinion, and the baseline of costs; by default
            the last one, the strongest.
        embedder: For estimators that read vectors; by default the one that all levers share.
        regions: Where requests may be answered; None: anywhere.
        tags: What any tier must have.
        budget: Dollars per window, or per day or month; every tier needs a price then.
        sticky: Whether conversations stay on their tier, or how.
        split: How to part a prompt that carries documents into (context, question), as `costopt.SemanticCache` has it:
            the estimator then reads the question only, for with documents in them all prompts look long.
        cascade: Look at answers, and go on to the next tier if they will not do.
        shadow: Decide on paper only; the default tier answers.
        explore: Share of requests that go to a tier by chance, so that labels can be collected on all.
        log: Called with request and decision after each answer, e.g. a `DecisionLog`.
        seed: Of the chance in `explore`.

    Raises:
        ConfigError: If tiers, thresholds or options do not fit together; the message says how to mend it.

    Example:
        >>> tiers = [Tier("gpt-4o-mini"), Tier("gpt-4.1"), Tier("gpt-5.4")]
        >>> router = Router(tiers, thresholds=(0.3, 0.7))
        >>> router.decide(RouteRequest("What is the capital of France?")).chosen
        'gpt-4o-mini'
    """

    def __init__(
        self,
        tiers: Sequence[Any],
        *,
        estimator: Estimator | None = None,
        policy: Policy | None = None,
        thresholds: Sequence[float] | None = None,
        default: str | None = None,
        embedder: Embedder | None = None,
        regions: Iterable[str] | None = None,
        tags: Iterable[str] = (),
        budget: Spendable | None = None,
        sticky: Sticky | bool = True,
        split: Split | None = None,
        cascade: Cascade | None = None,
        shadow: bool = False,
        explore: float = 0.0,
        log: Callable[[RouteRequest, RouteDecision], None] | None = None,
        seed: int | None = None,
    ) -> None:
        self._options = {name: given for name, given in locals().items() if name not in ("self", "tiers")}
        check_kinds(self._options)
        self.tiers = checked_tiers(tiers)
        self.names = tuple(tier.name for tier in self.tiers)
        self.estimator = estimator or HeuristicEstimator()
        self.default = self._place(default)
        self.budget, self.cascade, self.shadow, self.explore, self.log = budget, cascade, shadow, explore, log
        self.sticky = (Sticky() if sticky else None) if isinstance(sticky, bool) else sticky
        self._regions = None if regions is None else frozenset(names("regions", regions))
        self._tags = frozenset(names("tags", tags))
        self._embedder = embedder
        self._reading = Reading(split)
        self._chance = random.Random(seed)  # noqa: S311
        self._check()
        self.live = Live(len(self.tiers) - 1, *self._targets(policy, thresholds))
        self.rests = [Rest() for _ in self.tiers]
        self.books = Books(self.tiers)
        self._lock = ForkLock()
        self._mute = self._log_failed = False

    def __reduce__(self) -> tuple[Any, ...]:
        # Made anew: what it counted and which conversation is where belong to this process.
        return _made, (type(self), self.tiers, self._options)

    def decide(self, request: RouteRequest, vector: Vectors | None = None) -> RouteDecision:
        """Where a request goes. Nothing is called, reserved or remembered.

        Args:
            request: What is asked.
            vector: Its embedding, shape (dimension,), if it is at hand and the estimator reads it.

        Raises:
            ConfigError: If no tier may serve it; the message names each tier and why.
        """
        return self.decide_many([request], None if vector is None else np.asarray(vector)[None])[0]

    def decide_many(self, requests: Sequence[RouteRequest], vectors: Vectors | None = None) -> list[RouteDecision]:
        """Where requests go; they are embedded and scored in one go.

        Args:
            requests: What is asked.
            vectors: Their embeddings, shape (len(requests), dimension), if they are at hand.

        Raises:
            ConfigError: If no tier may serve one of them.
        """
        views = self._views(requests)
        asked = [view for view in views if view.open]
        if not asked or not self.estimator.wants_vectors:
            vectors = None
        elif vectors is not None:
            vectors = vectors[[i for i, view in enumerate(views) if view.open]]
        else:
            vectors = self._guarded(lambda: self.embedder.embed([view.request.text for view in asked]))
        return self._decisions(views, asked, vectors)

    async def adecide(self, request: RouteRequest) -> RouteDecision:
        """`decide`, without blocking the event loop while a text is embedded or counted."""
        return (await self.adecide_many([request]))[0]

    async def adecide_many(self, requests: Sequence[RouteRequest]) -> list[RouteDecision]:
        """`decide_many`, without blocking the event loop while texts are embedded or counted."""
        if self.estimator.wants_vectors or any(map(self._to_be_counted, requests)):
            return await asyncio.to_thread(self.decide_many, requests)
        return self.decide_many(requests)

    def calibrate(self, prompts: Sequence[str]) -> tuple[float, ...]:
        """Set the thresholds by the policy from recent prompts, which need no labels; then they stay.

        Raises:
            ConfigError: If there is no policy, or it cannot be met with these prompts.
        """
        texts = [self._reading.question(prompt) for prompt in prompts]
        vectors = self.embedder.embed(texts) if self.estimator.wants_vectors and texts else None
        scores = np.asarray(self.estimator.scores(texts, vectors), np.float64)
        says = getattr(self.estimator, "expected", None)
        costs = self._costs([RouteRequest(prompt) for prompt in prompts])
        return self.live.calibrate(scores, costs, None if says is None else np.asarray(says(texts, vectors)))

    @property
    def embedder(self) -> Embedder:
        """The embedder in use."""
        if self._embedder is None:
            self._embedder = default_embedder()
        return self._embedder

    def stats(self) -> RouterStats:
        """What this router has done so far; `print(router.stats())` says it in a line."""
        return self.books.stats()

    def logged(self, request: RouteRequest, decision: RouteDecision) -> None:
        """Hand a decision to the log; one that fails is nobody's trouble but the log's."""
        try:
            if self.log is not None:
                self.log(self._reading(request), decision)
        except Exception as error:
            if not self._log_failed:
                _log.warning("costopt: decisions are not logged: %r", error)
                self._log_failed = True

    def _views(self, requests: Sequence[RouteRequest]) -> list[_View]:
        return [self._view(self._reading(request)) for request in requests]

    def _view(self, request: RouteRequest) -> _View:
        places, excluded = eligible(self.tiers, request, self._regions, self._tags)
        floor = self.sticky.tier(request.conversation) if self.sticky else None
        default = self.default if self.default in places else places[-1]
        off = getattr(self.estimator, "mode", "route") == "off"
        above = [place for place in places if floor is None or place >= floor]
        return _View(request, places, excluded, floor, default, len(above) > 1 and not off)

    def _to_be_counted(self, request: RouteRequest) -> bool:
        windows = [tier.window for tier in self.tiers if tier.window is not None]
        return bool(windows) and request.size > min(windows)

    def _decisions(
        self, views: Sequence[_View], asked: Sequence[_View], vectors: Vectors | None
    ) -> list[RouteDecision]:
        scores = self._scores([view.request.text for view in asked], vectors) if asked else None
        if scores is not None and self.live.learns:
            self._learn(asked, scores, vectors)
        rows = iter(scores if scores is not None else ())
        return [self._decision(view, next(rows, None) if view.open else None) for view in views]

    def _scores(self, texts: list[str], vectors: Vectors | None) -> Numbers | None:
        """Shape (texts, steps); None if the estimator failed."""
        if self.estimator.wants_vectors and vectors is None:
            return None
        steps = len(self.tiers) - 1

        def scored() -> Numbers:
            found = np.asarray(self.estimator.scores(texts, vectors), np.float64)
            if found.shape not in ((len(texts), 1), (len(texts), steps)):
                raise ValueError(f"{self.estimator.name} gave scores of shape {found.shape} for {len(texts)} texts")
            return np.broadcast_to(found, (len(texts), steps))

        found: Numbers | None = self._guarded(scored)
        return found

    def _learn(self, asked: Sequence[_View], scores: Numbers, vectors: Vectors | None) -> None:
        says = getattr(self.estimator, "expected", None)
        texts = [view.request.text for view in asked]
        expected = None if says is None else self._guarded(lambda: np.asarray(says(texts, vectors), np.float64))
        self.live.saw(scores, self._costs([view.request for view in asked]), expected)

    def _costs(self, requests: Sequence[RouteRequest]) -> Numbers:
        """Dollars, shape (requests, tiers); NaN where the price is not known."""
        found = [[self.books.estimate(i, request) for i in range(len(self.tiers))] for request in requests]
        rows = [[math.nan if each is None else float(each) for each in row] for row in found]
        return np.array(rows, np.float64).reshape(len(requests), len(self.tiers))

    def _guarded(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except Exception as error:
            self.books.no_opinion()
            if not self._mute:
                _log.warning("costopt: the router has no scores, and the default tier is asked: %r", error)
                self._mute = True
            return None

    def _decision(self, view: _View, row: Numbers | None) -> RouteDecision:
        place, why, score, threshold = self._chosen(view, row)
        place, why, propensity = self._explored(view, place, why)
        if self.cascade and self.cascade.start == "cheapest" and why in ("score", "default"):
            place, why = view.places[0], "cascade"
        place, why, moved = self._stuck(view, place, why)
        paper = None
        if self.shadow or getattr(self.estimator, "mode", "route") == "shadow":
            paper, place, why = self.names[place], view.default, "shadow"
        return RouteDecision(
            chosen=self.names[place],
            why=why,
            estimator=self.estimator.name if row is not None else None,
            score=score,
            threshold=threshold,
            excluded=view.excluded,
            default=self.names[self.default],
            estimated_cost=self.books.estimate(place, view.request),
            estimated_baseline=self.books.estimate(self.default, view.request),
            previous=None if view.floor is None else self.names[view.floor],
            moved=moved,
            paper=paper,
            propensity=propensity,
            candidates=tuple(self.names[i] for i in view.places),
        )

    def _chosen(self, view: _View, row: Numbers | None) -> tuple[int, str, float | None, float | None]:
        """The first eligible tier whose score is below its threshold, else the last."""
        if view.request.tier is not None:
            return view.places[0], "asked for", None, None
        if len(view.places) == 1:
            return view.places[0], "only one", None, None
        if view.floor is not None and not view.open:
            return next((i for i in view.places if i >= view.floor), view.places[-1]), "conversation", None, None
        thresholds = self.live.current
        if row is None or thresholds is None:
            return view.default, "default", None, None
        score = threshold = math.nan
        for place in view.places[:-1]:
            score, threshold = float(row[place]), thresholds[place]
            if math.isnan(score):
                self.books.no_opinion()
                return view.default, "default", None, threshold
            if score < threshold:
                return place, "score", score, threshold
        return view.places[-1], "score", score, threshold

    def _explored(self, view: _View, place: int, why: str) -> tuple[int, str, float | None]:
        """By chance another tier, on the first turn of a conversation only."""
        if not self.explore or view.floor is not None or why not in ("score", "default"):
            return place, why, None
        with self._lock:
            drawn = self._chance.choice(view.places) if self._chance.random() < self.explore else None
        each = self.explore / len(view.places)
        if drawn is None:
            return place, why, 1 - self.explore + each
        return drawn, "explored", each + (1 - self.explore if drawn == place else 0.0)

    def _stuck(self, view: _View, place: int, why: str) -> tuple[int, str, str | None]:
        """(place, why, why the conversation moved): not below the tier of the conversation so far."""
        floor = view.floor
        if floor is None or floor == place:
            return place, why, None
        if view.request.tier is not None:
            return place, why, why
        at_least = [each for each in view.places if each >= floor]
        if place > floor:
            return place, why, view.excluded.get(self.names[floor], why)
        if not at_least:
            return view.places[-1], "conversation", view.excluded[self.names[floor]]
        moved = None if at_least[0] == floor else view.excluded[self.names[floor]]
        return at_least[0], "conversation", moved

    def _place(self, name: str | None) -> int:
        if name is None:
            return len(self.tiers) - 1
        if name not in self.names:
            raise ConfigError(f"default={name!r} is none of the tiers: they are {', '.join(map(repr, self.names))}")
        return self.names.index(name)

    def _targets(
        self, policy: Policy | None, thresholds: Sequence[float] | None
    ) -> tuple[Policy | None, Sequence[float] | None]:
        if policy is not None and thresholds is not None:
            raise ConfigError("give either a policy or thresholds, not both")
        if policy is None and thresholds is None:
            thresholds = getattr(self.estimator, "thresholds", None)
            if thresholds is None and self.estimator.tiers is None:
                thresholds = default_thresholds(len(self.tiers) - 1)
            if thresholds is None and getattr(self.estimator, "mode", "route") != "off":
                raise ConfigError(
                    f"{self.estimator.name} has no thresholds: give policy=, e.g. StrongShare(0.3), or calibrate it "
                    "(`costopt router calibrate`)"
                )
        elif thresholds is not None:
            thresholds = reachable(thresholds, self.estimator)
        return policy, thresholds

    def _check(self) -> None:
        trained = self.estimator.tiers
        if trained is not None and tuple(trained) != self.names:
            raise ConfigError(
                f"{self.estimator.name} was trained for the tiers {', '.join(trained)}, and these are "
                f"{', '.join(self.names)}: train one for them, or give the tiers those names"
            )
        check = getattr(self.estimator, "check", None)
        if self.estimator.wants_vectors and check is not None:
            check(self.embedder)
        if not isinstance(self.explore, float | int) or not 0 <= self.explore < 1:
            raise ConfigError(f"explore={self.explore!r}: give a share of the requests in [0, 1), e.g. 0.02")
        unpriced = [tier.name for tier in self.tiers if tier.price_at(0) is None]
        if unpriced and self.budget:
            raise ConfigError(
                f"a budget needs prices, and {', '.join(unpriced)} has none that is known: give "
                "Tier(model, price=Price(...))"
            )
        if unpriced:
            _log.warning(
                "costopt: no price is known for %s: what it costs is left out; give Tier(model, price=Price(...))",
                ", ".join(unpriced),
            )
        endless = [tier.name for tier in self.tiers if tier.most_output is None and tier.window is None]
        if endless and self.budget:
            raise ConfigError(
                f"a budget needs to know the longest answer of {', '.join(endless)}: give max_output_tokens="
            )


def _made(kind: type[Router], tiers: Sequence[Any], options: dict[str, Any]) -> Router:
    return kind(tiers, **options)
