"""Batches from requests to results: hand in, wait, collect, cancel, and go on after a crash."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import os
import time
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from decimal import Decimal
from typing import Any

from costopt.batch.journal import Journal, Want
from costopt.batch.pace import Backoff, Pace
from costopt.batch.prices import BatchPrices
from costopt.batch.protocol import AnswerCache, BatchProvider, BatchRequest, body_of, key_of
from costopt.batch.result import BatchItem, BatchJob, BatchResult, BatchStatus, ItemError, Source
from costopt.batch.rounds import Rounds
from costopt.errors import ConfigError
from costopt.pricing import Price, Usage

__all__ = ["BatchRunner"]

_DAY_S = 86_400.0
_log = logging.getLogger(__name__)


class BatchRunner:
    """Sends requests through a provider's batch API, at half the price, and gives back their answers in order.

    Everything is written to a journal first. If the process dies, at whatever point, the same list of requests
    handed in again goes on where it was: nothing is sent twice, and what was answered is there. Equal requests are
    sent once, in one list or in many.

    Args:
        provider: `OpenAIBatches()` or `AnthropicBatches()`, or anything like them.
        journal: The journal or its path; by default a file in the user's data folder. It holds prompts and answers.
        backoff: How long to wait between looks.
        tries: How often a row is sent if its batch expires or fails, before the row fails.
        settle: Seconds for which a batch is looked for that may have been made when the connection was cut.
        keep: Seconds for which answers are kept, and given to equal requests.
        prices: Prices of single calls of your own, by model; in a batch, half of that.
        cache: Where answers may lie already; what it has is not sent.

    Raises:
        ConfigError: If a number makes no sense.

    Example:
        >>> runner = BatchRunner(OpenAIBatches(client), journal=tmp / "batch.db", backoff=Backoff(first=0.01))
        >>> ask = lambda text: BatchRequest({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": text}]})
        >>> result = runner.run([ask("What is a llama?"), ask("What is an alpaca?"), ask("What is a llama?")])
        >>> [item.source for item in result]
        ['batch', 'batch', 'duplicate']
        >>> result.baseline > 2 * result.cost  # half the price, and one of three not sent
        True
    """

    def __init__(
        self,
        provider: BatchProvider,
        *,
        journal: Journal | str | os.PathLike[str] | None = None,
        backoff: Backoff | None = None,
        tries: int = 3,
        settle: float = 60.0,
        keep: float = 30 * _DAY_S,
        prices: Mapping[str, Price] | None = None,
        cache: AnswerCache | None = None,
    ) -> None:
        if tries < 1 or not settle >= 0 or not keep > 0:
            raise ConfigError(f"tries={tries}, settle={settle}, keep={keep}: give tries >= 1, settle >= 0 and keep > 0")
        self.provider = provider
        self.journal = journal if isinstance(journal, Journal) else Journal(journal)
        self.backoff = backoff or Backoff()
        self._keep = keep
        self._rounds = Rounds(
            provider, self.journal, prices=BatchPrices(prices), tries=tries, settle=settle, cache=cache
        )  # fmt: skip

    # -- handing in --------------------------------------------------------------------------------------

    def submit(self, requests: Iterable[BatchRequest], *, salt: str = "") -> BatchJob:
        """Write a list of requests down and send what has no answer.

        Args:
            requests: The rows.
            salt: Another text makes another job, with answers of its own: for a second opinion.

        Raises:
            ConfigError: If a request is not JSON.
            BatchError: If the provider refuses. The job is written down all the same.
        """
        job = self._write(requests, salt)
        step = self._rounds.once(job.id)
        if step.trouble is not None:
            _log.warning("costopt: %s; job %s is written down, and sent when it is collected", step.trouble, job.id)
        return job

    def _write(self, requests: Iterable[BatchRequest], salt: str) -> BatchJob:
        wants = [self._want(request, salt) for request in requests]
        parts = json.dumps([self._name, [want.key for want in wants]])
        job = hashlib.blake2b(parts.encode("ascii"), digest_size=8).hexdigest()
        answered = self.journal.add(job, self._name, wants, self._keep)
        return BatchJob(job, len(wants), len({want.key for want in wants}), answered)

    def _want(self, request: BatchRequest, salt: str) -> Want:
        body = body_of(request)  # first: it says what is wrong with one
        key, endpoint = key_of(self.provider, request, salt), request.endpoint or self.provider.endpoint
        return Want(key, endpoint, str(request.body.get("model") or ""), body, request.id)

    @property
    def _name(self) -> str:
        return f"{self.provider.name} {self.provider.address}"

    # -- waiting and collecting ------------------------------------------------------------------------------

    def run(self, requests: Iterable[BatchRequest], *, salt: str = "") -> BatchResult:
        """`submit` and `collect`."""
        return self.collect(self._write(requests, salt).id)

    def collect(self, job: str, *, wait: bool = True) -> BatchResult:
        """The results of a job, in the order asked; each row has an answer or an error.

        Args:
            job: Its id.
            wait: Wait until it is finished; else take what is there, and rows that are not have the error "pending".

        Raises:
            ConfigError: If there is no such job.
            BatchError: If the provider will not go on, or is out of reach for longer than `backoff.patience`.
        """
        for _ in self._steps(job, wait):
            pass
        return self.results(job)

    def completed(self, job: str) -> Iterator[BatchItem]:
        """The rows of a job as they are finished, whatever their order."""
        given: set[int] = set()
        for _ in self._steps(job, True):
            yield from self._fresh(job, given)

    def progress(self, job: str, *, wait: bool = True) -> Iterator[BatchStatus]:
        """How far a job is, after each look, until it is finished; or once, if it is not to be waited for."""
        for _ in self._steps(job, wait):
            yield self.status(job, ask=False)

    def results(self, job: str) -> BatchResult:
        """What the journal has of a job; asks nobody."""
        self._check(job)
        return BatchResult(job, tuple(self._items(job)))

    def status(self, job: str, *, ask: bool = True) -> BatchStatus:
        """How far a job is.

        Args:
            job: Its id.
            ask: Look after it first: ask the provider, collect what has ended, send what waits.

        Raises:
            ConfigError: If there is no such job.
            BatchError: If the provider will not go on with it.
        """
        _, size, _ = self._check(job)
        trouble = self._rounds.once(job).trouble if ask else None
        counts = self.journal.counts(job)
        states = {name: counts.get(name, 0) for name in ("pending", "sent", "done", "failed", "cancelled")}
        batches = tuple(lot.batch for lot in self.journal.lots(job) if lot.batch)
        return BatchStatus(job, size, **states, batches=batches, trouble="" if trouble is None else str(trouble))

    def cancel(self, job: str) -> BatchStatus:
        """Send no more of a job, and stop what is at the provider, unless another job wants it.

        Rows that are done stay done, and are paid; `collect` has them. Handing the job in again takes it up again.

        Raises:
            ConfigError: If there is no such job.
            BatchError: If the provider refuses.
        """
        self._check(job)
        self.journal.cancel(job)
        return self.status(job)

    def _steps(self, job: str, wait: bool) -> Iterator[None]:
        self._check(job)
        pace = Pace(self.backoff)
        while True:
            step = self._rounds.once(job)
            yield
            if step.finished or not wait:
                return
            time.sleep(pace.after(step))

    # -- the same, awaiting ------------------------------------------------------------------------------------

    async def asubmit(self, requests: Iterable[BatchRequest], *, salt: str = "") -> BatchJob:
        """`submit`, without blocking the event loop."""
        return await asyncio.to_thread(self.submit, requests, salt=salt)

    async def arun(self, requests: Iterable[BatchRequest], *, salt: str = "") -> BatchResult:
        """`run`, without blocking the event loop."""
        job = await asyncio.to_thread(self._write, requests, salt)
        return await self.acollect(job.id)

    async def acollect(self, job: str, *, wait: bool = True) -> BatchResult:
        """`collect`, without blocking the event loop."""
        async for _ in self._asteps(job, wait):
            pass
        return await asyncio.to_thread(self.results, job)

    async def acompleted(self, job: str) -> AsyncIterator[BatchItem]:
        """`completed`, without blocking the event loop."""
        async for items in self.agroups(job):
            for item in items:
                yield item

    async def agroups(self, job: str) -> AsyncIterator[list[BatchItem]]:
        """`acompleted`, with what is there at one time together."""
        given: set[int] = set()
        async for _ in self._asteps(job, True):
            yield await asyncio.to_thread(lambda: list(self._fresh(job, given)))

    async def astatus(self, job: str, *, ask: bool = True) -> BatchStatus:
        """`status`, without blocking the event loop."""
        return await asyncio.to_thread(self.status, job, ask=ask)

    async def acancel(self, job: str) -> BatchStatus:
        """`cancel`, without blocking the event loop."""
        return await asyncio.to_thread(self.cancel, job)

    async def _asteps(self, job: str, wait: bool) -> AsyncIterator[None]:
        await asyncio.to_thread(self._check, job)
        pace = Pace(self.backoff)
        while True:
            step = await asyncio.to_thread(self._rounds.once, job)
            yield
            if step.finished or not wait:
                return
            await asyncio.sleep(pace.after(step))

    # -- what the journal says -----------------------------------------------------------------------------------

    def _check(self, job: str) -> tuple[str, int, bool]:
        known = self.journal.job(job)
        if known is None:
            raise ConfigError(f"{self.journal.path} has no job {job!r}: hand it in first, or give the journal it is in")
        if known[0] != self._name:
            raise ConfigError(f"job {job!r} was handed in to {known[0]}, not to {self._name}: use that provider")
        return known

    def _fresh(self, job: str, given: set[int]) -> Iterator[BatchItem]:
        places = [place for place, _ in self.journal.finished(job) if place not in given]
        given.update(places)
        yield from self._items(job, places)

    def _items(self, job: str, positions: list[int] | None = None) -> Iterator[BatchItem]:
        first = self.journal.firsts(job)
        for row in self.journal.rows(job, positions):
            duplicate = first.get(row["key"], row["position"]) != row["position"]
            yield _item(row, "duplicate" if duplicate else "journal" if row["payer"] != job else None)


def _item(row: Any, paid_elsewhere: Source | None) -> BatchItem:
    done = row["state"] == "done"
    source: Source = paid_elsewhere or row["source"] or "batch"
    cost = _money(row["cost"])
    return BatchItem(
        index=row["position"],
        id=row["name"],
        key=row["key"],
        body=json.loads(row["answer"]) if done else None,
        error=None if done else _error(row),
        usage=Usage(*json.loads(row["usage"])) if row["usage"] else None,
        cost=cost if source == "batch" or not done else Decimal(0),
        list_cost=_money(row["list_cost"]),
        source=source,
        batch=row["batch"],
    )


def _error(row: Any) -> ItemError:
    if row["state"] in ("pending", "sent"):
        return ItemError(0, "pending", "not answered yet: collect the job again")
    if row["state"] == "cancelled":
        return ItemError(0, "cancelled", "cancelled before it was answered")
    return ItemError(
        row["status"] or 0, row["code"] or "failed", row["message"] or "", json.loads(row["answer"] or "{}")
    )


def _money(text: str | None) -> Decimal | None:
    return None if text is None else Decimal(text)
