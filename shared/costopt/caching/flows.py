"""What a lookup and an update do, step by step; `SemanticCache` is the door to it.

Nothing in this module lets an error of the store, the embedder or the judge through to whoever asked: what fails
is stepped over where it is asked (`asking`, `judging`).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from costopt.caching.answer import Answer, why_not_stored
from costopt.caching.asking import SEARCH_SHARE_S, Asking, aside
from costopt.caching.entry import Entry, encode
from costopt.caching.flight import Caller, Flights, Landed
from costopt.caching.judge import Judge
from costopt.caching.judging import SLOW_S, Judging
from costopt.caching.lease import LEASE_S, LeaseKeeper
from costopt.caching.online import encode_evidence
from costopt.caching.request import CacheRequest
from costopt.caching.results import STEPPED_OVER, CacheHit, Missed, Tally, Tier
from costopt.caching.shadow import Shadow
from costopt.caching.steps import Flow, Step
from costopt.caching.store import Neighbour, Record, Store
from costopt.embedding import SharedEmbedder
from costopt.errors import EntryError
from costopt.forks import fork_aware

__all__ = ["CacheFlows"]

_log = logging.getLogger("costopt.caching")

_NEIGHBOURS = 5
_LARGEST_COSINE = 1.01  # one, and what rounding adds to it
_POLL_S = 0.05
_LONGEST_FLIGHT_S = 60.0


class CacheFlows:
    """The logic of one cache.

    Args:
        store: Where entries lie.
        embedder: Turns texts into vectors; None for the exact tier only.
        judge: Decides on neighbours.
        floor: Least cosine similarity at which a neighbour is shown to the judge; None for the judge's own.
        ttl: Seconds until an answer expires; None for ever.
        tags: The labels of an answer that is stored now.
        shadow: Record hits, serve none.
        same_answer: Whether two answers say the same, for shadow mode; None if that cannot be told.
        single_flight: Share the model call of callers who ask the same at once.
        time_budget: Seconds a lookup may take.
    """

    def __init__(
        self,
        store: Store,
        embedder: SharedEmbedder | None,
        judge: Judge,
        *,
        floor: float | None,
        ttl: float | None,
        tags: Callable[[], Sequence[str]],
        shadow: bool,
        same_answer: Callable[[Answer, Answer], bool | None],
        single_flight: bool,
        time_budget: float,
    ) -> None:
        self.shadow = Shadow(same_answer)
        self._store = store
        self._embedder = embedder
        self._judge = judge
        self._floor = floor
        self._ttl = ttl
        self._tags = tags
        self._shadow = shadow
        # Nobody waits for an answer that will not be served.
        self._single_flight = single_flight and not shadow
        self._time_budget = time_budget
        self._start()
        fork_aware(self)

    def _start(self) -> None:
        self._asking = Asking(self._store, self._embedder, self._time_budget)
        patience = self._asking.patience_for_loading
        self.judging = Judging(self._judge, self._floor, self._evidence, patience, self.stepped_over)
        self._flights = Flights(_LONGEST_FLIGHT_S)
        self._leases = LeaseKeeper(self._store)

    def before_fork(self) -> None:
        """Nothing to do."""

    after_fork_in_parent = before_fork

    def after_fork_in_child(self) -> None:
        """Start anew: the parent's calls, leases and unwritten sums are the parent's."""
        self._start()

    # -- lookup ----------------------------------------------------------------------------------------

    def lookup(self, request: CacheRequest, caller: Caller | None) -> Flow[CacheHit | None]:
        """Exact tier, whoever asks the same right now, semantic tier."""
        return (yield from self._asking.guarded("lookup", self._lookup(request, caller)))

    def _lookup(self, request: CacheRequest, caller: Caller | None) -> Flow[CacheHit | None]:
        deadline = time.monotonic() + self._time_budget
        self.tally.count("lookups")
        found: CacheHit | Missed | None = yield from self._exact(request)
        if found is None and caller is not None and self._single_flight:
            found = yield from self._once(request, caller, deadline)
        elif found is None:
            found = yield from self._semantic(request, deadline)
        if self._asking.flush_is_due:
            yield from self._asking.flush()
        return self._served(found)

    def _exact(self, request: CacheRequest) -> Flow[CacheHit | None]:
        step = Step(lambda: self._store.get(request), lambda: self._store.aget(request), self._time_budget)
        data = yield from self._asking.ask_store("lookup", step)
        return self._same_text(data, request)

    def _once(self, request: CacheRequest, caller: Caller, deadline: float) -> Flow[CacheHit | Missed]:
        """The semantic tier for the first who asks; the others wait for what becomes of it."""
        flight = self._flights.join(request.key, caller)
        if flight is not None:
            landed = yield Step(lambda: self._flights.wait(flight), lambda: self._flights.await_(flight))
            return self._in_flight(landed, request)
        found = yield from self._semantic(request, deadline)
        if isinstance(found, Missed):
            found = (yield from self._other_process(request, caller)) or found
        if isinstance(found, CacheHit):
            # As the entry that it is: whoever rejects it must reject that one. Labels are for what is stored.
            entry = replace(self._entry(request, found.answer, ()), key=found.key, text=found.cached)
            self._flights.land(request.key, Landed(encode(entry), found.similarity, found.reason))
        return found

    def _semantic(self, request: CacheRequest, deadline: float) -> Flow[CacheHit | Missed]:
        # Milliseconds for a vector that nobody would search by.
        if self._asking.store_breaker.is_open:
            return STEPPED_OVER
        vector = yield from self._asking.vector(request, deadline)
        if isinstance(vector, Missed):
            return vector
        found = yield from self._asking.ask_store(
            "search",
            Step(
                lambda: self._store.search(request, vector, _NEIGHBOURS),
                lambda: self._store.asearch(request, vector, _NEIGHBOURS),
                max(SEARCH_SHARE_S, deadline - time.monotonic()),
            ),
        )
        if found is None:
            return STEPPED_OVER
        candidates = self._candidates(found, request)
        if not candidates:
            return _why_none(found, request)
        choice = yield from self.judging.choose(request, candidates, deadline)
        if choice is None:
            return STEPPED_OVER
        if self._shadow:
            self.shadow.keep(request, choice)
        if not choice.accepted:
            return Missed(choice.reason if choice.reason.startswith("guard: ") else "judge")
        return _hit(choice.entry, request, "semantic", choice.similarity, choice.reason, choice.probability)

    def _other_process(self, request: CacheRequest, caller: Caller) -> Flow[CacheHit | None]:
        """Take the lease on this question, or wait for the process that holds it."""
        if not self._asking.at_leisure:
            return None
        owner = self._leases.owner
        claim = Step(
            lambda: self._store.claim(request, owner, LEASE_S),
            lambda: self._store.aclaim(request, owner, LEASE_S),
            self._time_budget,
        )
        give_up = time.monotonic() + _LONGEST_FLIGHT_S
        while time.monotonic() < give_up:
            mine = yield from self._asking.ask_store("claim", claim)
            if mine is None:
                return None
            if mine:
                self._leases.hold(request, caller)
                # Whoever held the lease may have answered since we looked.
                hit = yield from self._exact(request)
                if hit is not None and self._leases.drop(request):
                    yield from self._release(request)
                return hit
            yield Step(lambda: time.sleep(_POLL_S), lambda: asyncio.sleep(_POLL_S))
            hit = yield from self._exact(request)
            if hit is not None:
                return hit
        return None

    # -- update ----------------------------------------------------------------------------------------

    def update(self, request: CacheRequest, answer: Answer | Callable[[], Answer]) -> Flow[None]:
        """Hand the answer to whoever waits, then store it."""
        yield from self._asking.guarded("update", self._update(request, answer))

    def _update(self, request: CacheRequest, answer: Answer | Callable[[], Answer]) -> Flow[None]:
        deadline = time.monotonic() + self._time_budget
        leased = self._leases.drop(request)
        made = self._record(request, answer)
        # Before the store is asked: whoever waits is served even if the store is down.
        self._flights.land(request.key, None if made is None else Landed(made[1], 1.0, "asked at the same moment"))
        if made is None:
            if leased:
                yield from self._release(request)
            return
        if self._asking.store_breaker.resting:
            return
        # Who has waited for the vector once does not wait as long again.
        waited = self._asking.gave_up(request)
        vector = yield from self._asking.vector(request, 0.0 if waited else deadline)
        record = Record(made[0], made[1], None if isinstance(vector, Missed) else vector, self._ttl)
        within = max(SLOW_S, deadline - time.monotonic())
        step = Step(lambda: self._store.put(record), lambda: self._store.aput(record), within)
        if (yield from self._asking.ask_store("update", step)):
            self.tally.count("stored")
        if self._shadow:
            yield from self._learn(request, made[0].answer)
        if self._asking.flush_is_due:
            yield from self._asking.flush()

    def _learn(self, request: CacheRequest, answer: Answer) -> Flow[None]:
        """In shadow mode: was the answer that would have been served the one that the model gave?"""
        try:
            compared = yield from self.shadow.compare(request, answer)
        except Exception as error:
            self.stepped_over("compare", error)
            return
        if compared is None:
            return
        evidence, accepted = compared
        if accepted:
            self.tally.count("agreed" if evidence.same else "disagreed")
        row = encode_evidence(evidence)
        add = aside(lambda: self._store.add_evidence(request.tenant, request.scope, row))
        yield from self._asking.ask_store("evidence", add)
        self.judging.forget(request.scope)

    def _evidence(self, request: CacheRequest) -> Flow[Sequence[bytes] | None]:
        if not self._asking.at_leisure:
            return None  # a round trip that can be left out
        read = aside(lambda: self._store.evidence(request.tenant, request.scope))
        rows: Sequence[bytes] | None = yield from self._asking.ask_store("evidence", read)
        return rows

    def _record(self, request: CacheRequest, answer: Answer | Callable[[], Answer]) -> tuple[Entry, bytes] | None:
        """The entry and its encoding; None if it must not be kept."""
        try:
            made = answer() if callable(answer) else answer
            reason = why_not_stored(made)
            if reason is None:
                tags = self._tags()
                # A lone label, and not one for each of its letters: `invalidate` must find it.
                entry = self._entry(request, made, (tags,) if isinstance(tags, str) else tuple(tags))
                return entry, encode(entry)
            self.tally.refuse(reason)
        except EntryError as error:
            self.tally.refuse("unfit")
            _log.debug("costopt: not stored: %s", error)
        except Exception as error:
            self.tally.refuse("unfit")
            self.stepped_over("answer", error)
        return None

    def _release(self, request: CacheRequest) -> Flow[None]:
        yield from self._asking.ask_store("release", aside(lambda: self._store.release(request, self._leases.owner)))

    @property
    def tally(self) -> Tally:
        """What has been counted."""
        return self._asking.tally

    def unserved(self, hit: CacheHit, error: Exception) -> None:
        """A framework cannot make a response of this hit: the model is asked after all, and paid."""
        self.tally.hit(hit, -1)
        self.tally.miss("unfit")
        self.stepped_over("entry", error)

    def stepped_over(self, kind: str, error: Exception) -> None:
        """Count a failure, and log the first of its kind."""
        self._asking.stepped_over(kind, error)

    def flush(self) -> Flow[None]:
        """Add this object's sums to the totals in the store, where `costopt cache stats` reads them."""
        return self._asking.flush()

    # -- parts that wait for nothing -------------------------------------------------------------------

    def _same_text(self, data: bytes | None, request: CacheRequest) -> CacheHit | None:
        """A hit on the very text, compared again: a digest is an address, not a proof."""
        entry = self._asking.decoded(data)
        if entry is None or entry.scope != request.scope or entry.text != request.text:
            return None
        return _hit(entry, request, "exact", 1.0, "same text")

    def _in_flight(self, landed: Landed | None, request: CacheRequest) -> CacheHit | Missed:
        """Somebody else's answer, decoded for this caller alone."""
        entry = None if landed is None else self._asking.decoded(landed.data)
        if landed is None or entry is None or entry.scope != request.scope:
            return Missed("not shared")
        return _hit(entry, request, "in_flight", landed.similarity, landed.reason)

    def _candidates(self, found: Sequence[Neighbour], request: CacheRequest) -> list[tuple[Entry, float]]:
        """What may be judged: near, of this scope, readable; the nearest first."""
        # Most neighbours are too far: they are not worth decoding. NaN is not within, either.
        floor = self.judging.floor
        near = (n for n in found if floor <= n.similarity <= _LARGEST_COSINE)
        pairs = ((self._asking.decoded(neighbour.data), neighbour.similarity) for neighbour in near)
        candidates = [
            (entry, similarity)
            for entry, similarity in pairs
            if entry is not None
            and entry.scope == request.scope
            and entry.tenant == request.tenant
            and entry.text is not None
        ]
        return sorted(candidates, key=lambda pair: -pair[1])

    def _served(self, found: CacheHit | Missed) -> CacheHit | None:
        if isinstance(found, Missed):
            self.tally.miss(found)
            return None
        if self._shadow:
            self.tally.count("shadow")
            self.shadow.hits.append(found)
            return None
        self.tally.hit(found)
        return found

    def _entry(self, request: CacheRequest, answer: Answer, tags: tuple[str, ...]) -> Entry:
        now = time.time()
        return Entry(
            key=request.key,
            scope=request.scope,
            tenant=request.tenant,
            model=request.model,
            text=request.text,
            answer=answer,
            created=now,
            expires=None if self._ttl is None else now + self._ttl,
            tags=tags,
        )


def _why_none(found: Sequence[Neighbour], request: CacheRequest) -> Missed:
    # Entries begin with key and scope: looking there costs nothing, reading one would.
    scope = request.scope.encode()
    return Missed("not near" if any(scope in neighbour.data[:200] for neighbour in found) else "other scope")


def _hit(
    entry: Entry,
    request: CacheRequest,
    tier: Tier,
    similarity: float,
    reason: str,
    probability: float | None = None,
) -> CacheHit:
    return CacheHit(
        answer=entry.answer,
        tier=tier,
        asked=request.text,
        cached=entry.text,
        similarity=similarity,
        reason=reason,
        key=entry.key,
        request_key=request.key,
        tenant=entry.tenant,
        age=max(0.0, time.time() - entry.created),
        scope=entry.scope,
        probability=probability,
    )
