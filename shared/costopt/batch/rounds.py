"""One round of a job: look after what was sent, collect what has ended, send what waits.

Whatever is done is written down: a lot before it is sent, its id after, answers as they are read. So a round that
was killed is gone on with by the next, in this process or another, and no row is sent twice: what may have been sent is
looked for at the provider first.
"""

from __future__ import annotations

import json
import logging
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

from costopt.batch.journal import Answered, Journal, OpenLot
from costopt.batch.prices import BatchPrices
from costopt.batch.protocol import UNDECIDED, AnswerCache, BatchProvider, BatchRequest, Lot, LotState, Outcome
from costopt.batch.split import Row, row_bytes, split
from costopt.errors import BatchError, BatchNotFoundError, BatchTooLargeError, BatchUnavailableError
from costopt.usage import usage_of

__all__ = ["Rounds", "Step"]

_log = logging.getLogger(__name__)
_MANY = 500
_MOST_REREADS = 5
# Words that providers use where not the rows are at fault but how much of them is in work already.
_QUEUE_FULL = ("token_limit", "rate_limit", "too_many", "quota")


@dataclass(frozen=True, slots=True)
class Step:
    """What a round came to.

    Attributes:
        finished: Whether there is nothing to wait for any more.
        moved: Whether anything changed.
        trouble: What stood in the way.
        reached: Whether the provider answered at all.
    """

    finished: bool
    moved: bool
    trouble: BatchUnavailableError | None = None
    reached: bool = False


class Rounds:
    """Carries jobs of one provider on.

    Args:
        provider: Who carries out batches.
        journal: Where everything is written down.
        prices: What rows cost.
        tries: How often a row is sent before it fails.
        settle: Seconds after which a batch that cannot be found was never made.
        cache: Where answers may lie already.
    """

    def __init__(
        self,
        provider: BatchProvider,
        journal: Journal,
        *,
        prices: BatchPrices,
        tries: int,
        settle: float,
        cache: AnswerCache | None,
    ) -> None:
        self._provider = provider
        self._journal = journal
        self._prices = prices
        self._tries = tries
        self._settle = settle
        self._cache = cache
        self._limits = provider.limits
        self._one_by_one = False
        self._short: dict[str, int] = {}
        self._warned: set[str] = set()

    def once(self, job: str) -> Step:
        """One round.

        Raises:
            BatchError: If the provider will not go on with it however often it is asked.
            StoreError: If the journal cannot be used.
        """
        moved, reached, trouble = False, False, None
        with self._journal.alone():
            known = self._journal.job(job)
            cancelled = known is None or known[2]
            for lot in self._journal.lots(job):
                try:
                    moved = self._lot(job, lot, cancelled) or moved
                    reached = True
                except BatchUnavailableError as error:
                    trouble = error
            if cancelled:
                self._journal.drop_waiting(job)
            elif trouble is None:
                try:
                    moved = self._send(job) or moved
                except BatchUnavailableError as error:
                    trouble = error
        counts = self._journal.counts(job)
        return Step(not counts.get("pending") and not counts.get("sent"), moved, trouble, reached)

    # -- what was sent -----------------------------------------------------------------------------------

    def _lot(self, job: str, lot: OpenLot, cancelled: bool) -> bool:
        if lot.batch is None:
            return self._find(lot)
        try:
            return self._known(job, lot, lot.batch, cancelled)
        except BatchNotFoundError:
            if not cancelled:  # sent again it might be paid twice: the key may just be the wrong one
                raise
            self._journal.end(lot.id, "lost", count=True)
            return True

    def _known(self, job: str, lot: OpenLot, batch: str, cancelled: bool) -> bool:
        if cancelled and not lot.cancelled and self._journal.unwanted(lot.id, job):
            self._provider.cancel(batch)
            self._journal.cancelled_lot(lot.id)
            lot = replace(lot, cancelled=1)
        state = self._provider.look(batch)
        if not state.ended:
            return False
        if state.code:
            return self._failed(lot, state)
        return self._collect(lot, batch, state)

    def _find(self, lot: OpenLot) -> bool:
        """Whether a lot whose id was never heard was made."""
        doubted = self._journal.doubt(lot.id)
        known = self._journal.batches(self._name)
        batch = self._provider.find(Lot(lot.id, lot.endpoint, (), lot.started, lot.size), known)
        if batch:
            self._journal.sent(lot.id, batch)
            return True
        if batch == UNDECIDED or time.time() - doubted < self._settle:
            return False
        self._journal.end(lot.id, "lost", count=False)
        return True

    @property
    def _name(self) -> str:
        return f"{self._provider.name} {self._provider.address}"

    def _failed(self, lot: OpenLot, state: LotState) -> bool:
        """The provider refused the whole lot: without the rows that are at fault it may take it."""
        keys = self._journal.keys(lot.id)
        faults = {keys[line]: message for line, message in state.lines if 0 <= line < len(keys)}
        if faults:
            bad = [_refused(key, state.code, message, lot.batch) for key, message in faults.items()]
            # In one transaction: lines are counted among the rows that have no answer yet.
            self._journal.end(lot.id, "ended", count=False, answers=bad)
            return True
        if any(word in state.code for word in _QUEUE_FULL):
            self._journal.end(lot.id, "ended", count=False)
            self._one_by_one = True
            raise BatchUnavailableError(f"{lot.batch}: {state.message}", refused=True)
        self._journal.note(lot.id, ((key, state.code, state.message) for key in keys))
        self._journal.end(lot.id, "ended", count=True)
        return True

    def _collect(self, lot: OpenLot, batch: str, state: LotState) -> bool:
        seen: set[str] = set()
        some: list[tuple[str, Outcome]] = []
        for outcome in self._provider.outcomes(batch):
            ours, _, key = outcome.custom_id.partition("-")
            if ours != lot.id or key in seen:  # not ours, or said twice
                continue
            seen.add(key)
            some.append((key, outcome))
            if len(some) == _MANY:
                self._record(lot, batch, some)
                some = []
        self._record(lot, batch, some)
        self._check_whole(lot.id, batch, len(seen), state.answered)
        # What we stopped waits again, for somebody may want it by now; what was stopped at the provider's was meant.
        left = self._journal.keys(lot.id) if state.cancelled and not lot.cancelled else []
        cancelled = [Answered(key, "cancelled", 0, "{}", "cancelled") for key in left]
        self._journal.end(lot.id, "ended", count=not lot.cancelled, answers=cancelled)
        return True

    def _check_whole(self, lot: str, batch: str, read: int, answered: int) -> None:
        """Results cut short may look whole, where no length was told; to send the rest again would be to pay twice."""
        if read >= answered:
            return
        self._short[lot] = self._short.get(lot, 0) + 1
        if self._short[lot] < _MOST_REREADS:
            raise BatchUnavailableError(f"the results of {batch} hold {read} of {answered} rows")
        self._warn(batch, f"the results of {batch} hold {read} of {answered} rows, however often they are read")

    def _record(self, lot: OpenLot, batch: str, outcomes: Sequence[tuple[str, Outcome]]) -> None:
        self._journal.note(lot.id, ((key, each.code, each.message) for key, each in outcomes if each.again))
        models = self._journal.models([key for key, _ in outcomes])
        final = [(key, each) for key, each in outcomes if not each.again and key in models]
        answers = [self._answered(key, each, models[key], batch) for key, each in final]
        fresh = frozenset(self._journal.record(lot.id, answers))
        if self._cache is not None:
            bodies = self._journal.bodies([each.key for each in answers if each.key in fresh and each.state == "done"])
            for key, outcome in final:
                if key in bodies:
                    self._keep(self._cache, BatchRequest(json.loads(bodies[key]), endpoint=lot.endpoint), outcome)

    def _answered(self, key: str, outcome: Outcome, model: str, batch: str) -> Answered:
        answer = json.dumps(outcome.body, separators=(",", ":"))
        if outcome.code:
            return Answered(key, "failed", outcome.status, answer, outcome.code, outcome.message, batch=batch)
        usage = usage_of(outcome.body.get("usage"))
        if usage is None or not usage.total_tokens:
            return Answered(key, "done", outcome.status, answer, batch=batch)
        answering = str(outcome.body.get("model") or "")
        cost, full = self._prices.of(model, self._provider.name, usage, answering)
        parts = json.dumps([getattr(usage, name) for name in usage.__slots__])
        return Answered(
            key, "done", outcome.status, answer, usage=parts, cost=_text(cost), list_cost=_text(full), batch=batch
        )  # fmt: skip

    # -- what waits ----------------------------------------------------------------------------------------

    def _send(self, job: str) -> bool:
        moved = self._journal.give_up(job, self._tries, "missing", "the batch ended without it") > 0
        rows = self._sendable(self._journal.pending(job))
        for endpoint, keys in split(rows, self._limits):
            if self._one_by_one and self._journal.lots(job):
                break
            self._dispatch(endpoint, keys)
            moved = True
        return moved

    def _sendable(self, rows: list[Row]) -> list[Row]:
        """Without those that are too large by themselves, and those that a cache answers."""
        large = [row for row in rows if row_bytes(row) > self._limits.bytes]
        for row in large:
            self._journal.refuse(row.key, "too_large", f"{row.bytes:,} bytes; {self._limits.bytes:,} are allowed")
        answered = self._cached(rows)
        gone = answered | {row.key for row in large}
        return [row for row in rows if row.key not in gone]

    def _dispatch(self, endpoint: str, keys: list[str]) -> None:
        lot = secrets.token_hex(8)
        started = self._journal.begin(lot, self._name, endpoint, keys)
        ordered = self._journal.keys(lot)  # the order in which errors of single lines are told
        if not ordered:  # cancelled while what came before was sent
            return
        bodies = self._journal.bodies(ordered)
        rows = [(f"{lot}-{key}", bodies[key]) for key in ordered]
        try:
            batch = self._provider.send(Lot(lot, endpoint, rows, started, len(rows)))
        except BatchTooLargeError as error:
            self._journal.end(lot, "lost", count=False)
            self._halve(len(rows), keys, error)
        except BatchUnavailableError as error:
            if error.refused:
                self._journal.end(lot, "lost", count=False)
            else:
                self._journal.doubt(lot)
            raise
        except BatchError:
            self._journal.end(lot, "lost", count=False)
            raise
        else:
            self._journal.sent(lot, batch)

    def _halve(self, size: int, keys: list[str], error: BatchTooLargeError) -> None:
        if size == 1:
            self._journal.refuse(keys[0], "too_large", str(error))
            return
        self._limits = replace(self._limits, rows=max(1, size // 2))

    # -- the cache ---------------------------------------------------------------------------------------------

    def _cached(self, rows: list[Row]) -> set[str]:
        if self._cache is None:
            return set()
        found: list[Answered] = []
        bodies = self._journal.bodies([row.key for row in rows])
        for row in rows:
            request = BatchRequest(json.loads(bodies[row.key]), endpoint=row.endpoint)
            try:
                body = self._cache.get(request)
            except Exception as error:  # a cache that fails is a cache without an answer
                self._warn("cache", f"the cache failed: {error!r}")
                continue
            if body is not None:
                found.append(Answered(row.key, "done", 200, json.dumps(body), cost="0", source="cache"))
        self._journal.answer(found)
        return {each.key for each in found}

    def _keep(self, cache: AnswerCache, request: BatchRequest, outcome: Outcome) -> None:
        try:
            cache.put(request, outcome.body)
        except Exception as error:
            self._warn("cache", f"the cache failed: {error!r}")

    def _warn(self, about: str, message: str) -> None:
        if about not in self._warned:
            self._warned.add(about)
            _log.warning("costopt: %s", message)


def _refused(key: str, code: str, message: str, batch: str | None) -> Answered:
    body = json.dumps({"error": {"message": message, "type": "invalid_request_error", "code": code}})
    return Answered(key, "failed", 400, body, code, message, batch=batch)


def _text(cost: object) -> str | None:
    return None if cost is None else str(cost)
