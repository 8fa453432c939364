"""A framework's own model calls, answered from a batch: each is held back at its HTTP request until all are there.

The framework's model builds its requests and reads its answers as ever, with its own SDK; only what would have gone
over the wire goes into a batch instead. So whatever a model call does (tools, structured output, callbacks, caches,
errors), it does in a batch, too.
"""

from __future__ import annotations

import asyncio
import contextvars
import importlib
import json
import queue
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

from costopt.batch.anthropic import AnthropicBatches
from costopt.batch.openai import OpenAIBatches
from costopt.batch.options import BatchOptions
from costopt.batch.protocol import BatchRequest
from costopt.batch.result import BatchItem
from costopt.batch.runner import BatchRunner
from costopt.errors import ConfigError
from costopt.paid_before import given_again

__all__ = ["Gathering", "blocking", "in_order", "is_urgent", "provider_for", "raised"]

T = TypeVar("T")

_STILL_S = 0.05  # calls of one input that start together arrive within this
_STUCK_S = 1.0  # calls that wait for something else than a batch, e.g. for another call to fill a cache
_NOT_DONE = 504
_calling: contextvars.ContextVar[int] = contextvars.ContextVar("costopt_batch_input")


@dataclass(slots=True, eq=False)
class _Held:
    """A request that waits for its answer: which input made it, who is to carry it out."""

    place: int
    runner: BatchRunner
    request: BatchRequest
    answer: asyncio.Future[tuple[int, Mapping[str, Any]]]


class Gathering:
    """The calls of some inputs, and the batches that answer them.

    Args:
        options: Of the runners that send the requests.
        salt: As in `BatchRunner.submit`.
    """

    def __init__(self, options: BatchOptions, *, salt: str = "") -> None:
        self._options = options
        self._salt = salt
        self._runners: dict[tuple[Any, ...], BatchRunner] = {}
        self._held: list[_Held] = []
        self._waiting: dict[int, int] = {}
        self._unfinished: set[int] = set()
        self._arrivals = 0
        self._changed = asyncio.Event()
        self._failure: BaseException | None = None
        self._batches: set[asyncio.Task[None]] = set()

    def holding(self, asynchronous: Any, synchronous: Any) -> Any:
        """A client like an SDK's asynchronous one, whose requests wait here; the synchronous one sends the batches."""
        provider = provider_for(synchronous)
        account = provider.name, provider.address, getattr(synchronous, "api_key", None)
        runner = self._runners.setdefault(account, BatchRunner(provider, **self._options))
        base = str(asynchronous.base_url.path).rstrip("/")
        return asynchronous.with_options(
            http_client=_http_client(asynchronous, lambda request: self._answer(runner, base, request)), max_retries=0
        )

    async def completed(
        self, calls: Sequence[Callable[[], Awaitable[T]]]
    ) -> AsyncGenerator[tuple[int, T | Exception], None]:
        """Carry out calls together; yields the place of each, and what it returned or raised, as they end.

        Raises:
            BatchError: If the provider will not go on. What was sent goes on when the same calls are made again.
        """
        ended: asyncio.Queue[tuple[int, T | Exception]] = asyncio.Queue()
        self._unfinished = set(range(len(calls)))
        tasks = [asyncio.create_task(self._one(place, call, ended)) for place, call in enumerate(calls)]
        tasks.append(asyncio.create_task(self._dispatch(ended)))
        try:
            for _ in calls:
                place, value = await ended.get()
                if self._failure is not None:
                    raise self._failure
                yield place, value
        finally:
            for task in (*tasks, *self._batches):
                task.cancel()
            await asyncio.gather(*tasks, *self._batches, return_exceptions=True)

    async def _one(self, place: int, call: Callable[[], Awaitable[T]], ended: asyncio.Queue[Any]) -> None:
        _calling.set(place)
        try:
            value: T | Exception = await call()
        except Exception as error:  # handed to whoever asked, in its place
            value = error
        self._unfinished.discard(place)
        self._changed.set()
        ended.put_nowait((place, value))

    async def _answer(self, runner: BatchRunner, base: str, request: Any) -> tuple[int, Mapping[str, Any]]:
        """Called in place of the network."""
        body = json.loads(await request.aread())
        refusal = _refusal(request, body)
        if refusal:
            return 400, {"error": {"message": refusal, "type": "invalid_request_error"}}
        endpoint = "/v1" + request.url.path.removeprefix(base).removeprefix("/v1")
        held = _Held(_calling.get(), runner, BatchRequest(body, endpoint=endpoint), asyncio.Future())
        self._held.append(held)
        self._arrivals += 1
        self._waiting[held.place] = self._waiting.get(held.place, 0) + 1
        self._changed.set()
        try:
            return await held.answer
        finally:
            self._waiting[held.place] -= 1

    # -- batches -----------------------------------------------------------------------------------------

    async def _dispatch(self, ended: asyncio.Queue[Any]) -> None:
        try:
            while True:
                await self._until_still()
                held, self._held = self._held, []
                for runner in dict.fromkeys(each.runner for each in held):
                    mine = [each for each in held if each.runner is runner]
                    task = asyncio.create_task(self._carry(runner, mine, ended))
                    self._batches.add(task)
                    task.add_done_callback(self._batches.discard)
        except Exception as error:
            self._fail(error, ended)

    async def _until_still(self) -> None:
        """Until some calls are held, and no more are to be expected."""
        while True:
            self._changed.clear()
            if not self._held:
                await self._changed.wait()
                continue
            before = self._arrivals
            everybody = all(self._waiting.get(place) for place in self._unfinished)
            await asyncio.sleep(_STILL_S if everybody else _STUCK_S / 10)
            if self._arrivals != before:
                continue
            if everybody or await self._stuck():
                return

    async def _stuck(self) -> bool:
        before = self._arrivals, len(self._unfinished)
        await asyncio.sleep(_STUCK_S)
        return before == (self._arrivals, len(self._unfinished))

    async def _carry(self, runner: BatchRunner, held: list[_Held], ended: asyncio.Queue[Any]) -> None:
        try:
            job = await runner.asubmit([each.request for each in held], salt=self._salt)
            async for items in runner.agroups(job.id):
                untold = set(await asyncio.to_thread(runner.journal.tell, [item.key for item in items]))
                for item in items:
                    answer = held[item.index].answer
                    if not answer.done():
                        answer.set_result(_reply(item, paid=item.key in untold))
                    untold.discard(item.key)
        except Exception as error:
            self._fail(error, ended)

    def _fail(self, error: Exception, ended: asyncio.Queue[Any]) -> None:
        self._failure = error
        ended.put_nowait((-1, error))


def provider_for(client: Any) -> Any:
    """The provider that an SDK's client speaks to.

    Raises:
        ConfigError: If it is none that has batches here.
    """
    names = [f"{kind.__module__.partition('.')[0]}.{kind.__name__}" for kind in type(client).__mro__]
    if "openai.OpenAI" in names:
        return OpenAIBatches(client)
    if "anthropic.Anthropic" in names:
        return AnthropicBatches(client)
    raise ConfigError(f"{names[0]} has no batches here: give a model of OpenAI or Anthropic, or use urgent=True")


def _http_client(client: Any, answer: Callable[[Any], Awaitable[tuple[int, Mapping[str, Any]]]]) -> Any:
    """An HTTP client of the library that the SDK's own is of (httpx or httpx2), without a network."""
    modules = (kind.__module__.partition(".")[0] for kind in type(client._client).__mro__)
    library = importlib.import_module(next(name for name in modules if name in ("httpx", "httpx2")))

    class _Transport(library.AsyncBaseTransport):  # type: ignore[name-defined, misc]
        async def handle_async_request(self, request: Any) -> Any:
            status, body = await answer(request)
            headers = {"x-should-retry": "false"}
            return library.Response(status, json=body, headers=headers, request=request)

    return library.AsyncClient(transport=_Transport())


def _refusal(request: Any, body: Any) -> str:
    if not isinstance(body, dict) or body.get("stream"):
        return "a batch does not stream: make the model without streaming"
    beta = request.headers.get("anthropic-beta")
    return f"the beta features {beta!r} are not to be had in a batch: use urgent=True for these calls" if beta else ""


def _reply(item: BatchItem, *, paid: bool) -> tuple[int, Mapping[str, Any]]:
    """Status and body of the response that the call would have had.

    An answer that was paid and handed out before says that it used no tokens.
    """
    if item.body is not None:
        usage = item.body.get("usage")
        return 200, item.body if paid or not usage else {**item.body, "usage": given_again(usage)}
    error = item.error
    assert error is not None
    told = {"error": {"message": str(error), "type": "api_error", "code": error.code}}
    return error.status if error.status >= 400 else _NOT_DONE, error.body if error.body.get("error") else told


def is_urgent(urgent: bool | int, inputs: Sequence[Any]) -> bool:
    """Whether so few inputs are asked straight away; of True and 1, which are equal, only one means all."""
    return urgent is True or len(inputs) <= urgent


def in_order(found: Mapping[int, Any], return_exceptions: bool) -> list[Any]:
    """What was found, by its place."""
    return [raised(found[place], return_exceptions) for place in sorted(found)]


def raised(value: Any, return_exceptions: bool) -> Any:
    """The value, unless it is an exception that is to be raised."""
    if isinstance(value, Exception) and not return_exceptions:
        raise value
    return value


def blocking(make: Callable[[], AsyncIterator[T]]) -> Iterator[T]:
    """What an asynchronous iterator yields, from a thread with an event loop of its own: one may be running here."""
    items: queue.Queue[tuple[str, Any]] = queue.Queue()
    loop = asyncio.new_event_loop()
    context = contextvars.copy_context()

    async def consume() -> None:
        async for item in make():
            items.put(("item", item))

    def work() -> None:
        try:
            loop.run_until_complete(task)
            items.put(("end", None))
        except BaseException as error:
            items.put(("error", error))
        finally:
            loop.run_until_complete(loop.shutdown_asyncgens())
            loop.run_until_complete(loop.shutdown_default_executor())
            loop.close()

    task = context.run(loop.create_task, consume())
    thread = threading.Thread(target=work, name="costopt-batch", daemon=True)
    thread.start()
    try:
        while (got := items.get())[0] == "item":
            yield got[1]
        if got[0] == "error":
            raise got[1]
    finally:
        if thread.is_alive() and not loop.is_closed():
            with suppress(RuntimeError):  # it has just ended
                loop.call_soon_threadsafe(task.cancel)
        thread.join()
