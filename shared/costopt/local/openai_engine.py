"""An engine that asks a server: vLLM, SGLang, llama.cpp, Ollama, `transformers serve`, whatever speaks OpenAI's API.

Where one machine is not enough, the engine is exchanged, and nothing else in the application changes.
"""

from __future__ import annotations

import asyncio
import os
import re
import threading
import weakref
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from costopt.errors import (
    ConfigError,
    ContextLengthError,
    CostOptError,
    EngineClosedError,
    EngineError,
    TruncatedOutputError,
    require,
)
from costopt.local.channel import Channel, StreamHandle
from costopt.local.engine import (
    Delta,
    EngineStats,
    GenerationRequest,
    LocalUsage,
    TokenLogprob,
    ToolCall,
)
from costopt.local.openai_format import chat_body, completion_body

__all__ = ["OpenAICompatibleEngine"]

_TOO_LONG = re.compile(r"context[ _](length|window|size)|too long|exceeds? the (maximum|available)", re.IGNORECASE)
_CLOSING = 5.0  # seconds for what is under way to be told


class OpenAICompatibleEngine:
    """Asks a server over OpenAI's API, by the official SDK; safe for any number of threads and event loops.

    One event loop in a thread of its own does all the asking, so that every caller shares its connections. Nothing
    is connected before the first request.

    Args:
        base_url: Of the server, e.g. "http://localhost:8000/v1".
        model: The name that the server has for the model.
        api_key: Sent with every request; None sends a placeholder. The environment is not looked at: a key of
            OpenAI's is nobody else's business.
        max_concurrency: Most requests under way at once; more wait here.
        timeout: Seconds for the server to say the next thing.
        max_retries: How often the SDK asks again when a connection fails or the server is busy.
        extra_body: More fields for every request, e.g. {"top_k": 20} for vLLM.

    Raises:
        ConfigError: If an argument cannot be meant.
        MissingExtraError: Without the extra ``served``.

    Example:
        >>> engine = OpenAICompatibleEngine(base_url="http://localhost:8000/v1", model="my-model")
        >>> engine.name, engine.stats().requests
        ('my-model at http://localhost:8000/v1', 0)
        >>> engine.close()
    """

    def __init__(
        self,
        *,
        base_url: str,
        model: str,
        api_key: str | None = None,
        max_concurrency: int = 64,
        timeout: float = 600.0,
        max_retries: int = 2,
        extra_body: Mapping[str, Any] | None = None,
    ) -> None:
        require("openai", "served")
        if not base_url.startswith(("http://", "https://")):
            raise ConfigError(f'base_url={base_url!r}: give the whole address, e.g. "http://localhost:8000/v1"')
        if not model:
            raise ConfigError("model='': give the name that the server has for the model")
        if max_concurrency < 1 or timeout <= 0 or max_retries < 0:
            settings = f"max_concurrency={max_concurrency}, timeout={timeout}, max_retries={max_retries}"
            raise ConfigError(f"{settings}: use at least 1, more than 0, and at least 0")
        self.base_url, self.model = base_url.rstrip("/"), model
        self._options = {"base_url": self.base_url, "timeout": timeout, "max_retries": max_retries}
        self._options["api_key"] = api_key or "none"
        self._extra = dict(extra_body or {})
        self._most = max_concurrency
        self._closed = False
        self._afresh()

    def _afresh(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()  # by the names of `EngineStats`
        self._asking: _Asking | None = None

    @property
    def name(self) -> str:
        """The model and the address of the server."""
        return f"{self.model} at {self.base_url}"

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests."""
        return self._closed

    def submit(self, request: GenerationRequest) -> StreamHandle:
        """Ask, and return at once; what goes wrong is raised where the answer is read."""
        if self._pid != os.getpid():
            self._afresh()  # a child process has neither the thread nor the connections
        with self._lock:
            if self._closed:
                return _refused(EngineClosedError(f"{self.name} was closed"))
            if self._asking is None:
                self._asking = _Asking(self._options, self._most)
                weakref.finalize(self, self._asking.stop)
            self._counts.update(requests=1, waiting=1)
            return StreamHandle(_Ask(self, self._asking, self._told(request), request).channel)

    def stats(self) -> EngineStats:
        """What was asked of the server so far; what it has in memory only itself knows."""
        with self._lock:
            return EngineStats(**dict[str, Any](self._counts))

    def close(self) -> None:
        """End what is under way with `EngineClosedError`, and the connections."""
        with self._lock:
            self._closed, asking, self._asking = True, self._asking, None
        if asking is not None and self._pid == os.getpid():
            asking.stop()

    def _told(self, request: GenerationRequest) -> dict[str, Any]:
        write = chat_body if request.prompt is None else completion_body
        body = write(request, self.model)
        extra = {**self._extra, **{name: body.pop(name) for name in ("chat_template_kwargs",) if name in body}}
        return {**body, "extra_body": extra} if extra else body

    def _count(self, **changes: int) -> None:
        with self._lock:
            self._counts.update(changes)


def _refused(error: CostOptError) -> StreamHandle:
    channel = Channel()
    channel.fail(error)
    return StreamHandle(channel)


class _Asking:
    """The thread, its event loop, and the SDK's client in it."""

    def __init__(self, options: Mapping[str, Any], most: int) -> None:
        self.loop = asyncio.new_event_loop()
        self.room = asyncio.Semaphore(most)
        self.open: set[_Ask] = set()
        self._options = options
        self._client: Any = None
        self._stopped = threading.Lock()
        self._thread = threading.Thread(target=_carried_on, args=(self.loop,), name="costopt-openai", daemon=True)
        self._thread.start()

    @property
    def client(self) -> Any:
        """The client; made here, because importing the SDK takes a second."""
        if self._client is None:
            from openai import AsyncOpenAI

            self._client = AsyncOpenAI(**self._options)
        return self._client

    def stop(self) -> None:
        """End everything; runs when the engine is closed or dropped, and at exit."""
        if not self._stopped.acquire(blocking=False):
            return
        with suppress(RuntimeError):  # the loop is closed
            asyncio.run_coroutine_threadsafe(self._end(), self.loop)
        if threading.current_thread() is not self._thread:  # in which the last reference may have gone
            self._thread.join(_CLOSING)

    async def _end(self) -> None:
        for ask in list(self.open):
            ask.end("failed", EngineClosedError("the engine was closed before the answer was whole"))
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        try:
            if self._client is not None:
                await self._client.close()
        finally:
            self.loop.stop()


def _carried_on(loop: asyncio.AbstractEventLoop) -> None:
    try:
        loop.run_forever()
    finally:
        loop.close()


class _Ask:
    """One request under way: however it ends, the channel hears of it, and the books are right."""

    def __init__(
        self, engine: OpenAICompatibleEngine, asking: _Asking, body: dict[str, Any], request: GenerationRequest
    ) -> None:
        self.channel = Channel(self._give_up)
        # Who holds nothing but a handle keeps the engine alive by it; once the request is over nothing here does.
        self._engine: OpenAICompatibleEngine | None = engine
        self._asking, self._body, self._request = asking, body, request
        self._task: asyncio.Task[None] | None = None
        self._began = False
        asking.loop.call_soon_threadsafe(self._start)

    def end(self, outcome: str, error: CostOptError | None = None, last: Delta | None = None) -> None:
        """Settle once: first the books, then whoever waits."""
        engine, self._engine = self._engine, None
        if engine is None:
            return
        self._asking.open.discard(self)
        usage = last.usage if last is not None and last.usage is not None else LocalUsage(0, 0)
        engine._count(
            **{"running" if self._began else "waiting": -1, outcome: 1},
            prompt_tokens=usage.prompt_tokens,
            completion_tokens=usage.completion_tokens,
        )
        if last is not None:
            self.channel.put(last)
        if error is not None:
            self.channel.fail(error)
        self.channel.cancel()  # nothing, but if the task was cancelled

    def _start(self) -> None:
        self._asking.open.add(self)
        self._task = self._asking.loop.create_task(self._run())
        self._task.add_done_callback(lambda _: self.end("cancelled"))  # before its first step, perhaps
        if self.channel.closed:
            self._task.cancel()

    def _give_up(self) -> None:
        with suppress(RuntimeError):  # the loop is closed
            self._asking.loop.call_soon_threadsafe(self._cancel)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _begin(self) -> None:
        self._began = True
        if self._engine is not None:
            self._engine._count(waiting=-1, running=1)

    async def _run(self) -> None:
        try:
            async with self._asking.room:
                self._begin()
                last = await _passed_on(self._asking.client, self._body, self._request, self.channel)
            self.end("finished", last=last)
        except CostOptError as error:
            self.end("failed", error)
        except Exception as error:
            self.end("failed", _translated(error, str(self._asking.client.base_url)))


async def _passed_on(client: Any, body: dict[str, Any], request: GenerationRequest, channel: Channel) -> Delta:
    """Pass every piece on but the last, which is returned."""
    chat = "messages" in body
    create = client.chat.completions.create if chat else client.completions.create
    stream = await create(**body, stream=True, stream_options={"include_usage": True})
    calls: dict[int, dict[str, str]] = {}
    said: list[str] = []
    finish, usage = None, None
    async with stream:
        async for chunk in stream:
            if chunk.usage is not None:
                usage = LocalUsage(chunk.usage.prompt_tokens or 0, chunk.usage.completion_tokens or 0)
            for choice in chunk.choices:
                delta = _chat_delta(choice, calls) if chat else _text_delta(choice)
                finish = choice.finish_reason or finish
                said.append(delta.text)
                if delta.text or delta.logprobs:
                    channel.put(delta)
    if finish is None:
        raise EngineError(f"the server ended the answer before it was whole, after {len(''.join(said))} characters")
    if finish == "length" and request.response_schema is not None:
        spent = request.max_tokens or (usage.completion_tokens if usage else 0)
        raise TruncatedOutputError("".join(said), spent)
    whole = tuple(ToolCall(call["name"], call["arguments"] or "{}", call["id"]) for _, call in sorted(calls.items()))
    # Some servers say "stop" after a call of a function.
    return Delta("", whole, (), "tool_calls" if whole and finish == "stop" else finish, usage)


def _chat_delta(choice: Any, calls: dict[int, dict[str, str]]) -> Delta:
    """What a chunk adds to the text; what it adds to tool calls goes to `calls`, since it comes in parts."""
    for place, part in enumerate(choice.delta.tool_calls or ()):
        index = part.index if part.index is not None else place
        call = calls.setdefault(index, {"name": "", "arguments": "", "id": f"call_{index}"})
        call["id"] = part.id or call["id"]
        if part.function is not None:
            call["name"] += part.function.name or ""
            call["arguments"] += part.function.arguments or ""
    rows = (choice.logprobs.content or ()) if choice.logprobs is not None else ()
    logprobs = tuple(
        TokenLogprob(row.token, row.logprob, tuple((top.token, top.logprob) for top in row.top_logprobs or ()))
        for row in rows
    )
    return Delta(choice.delta.content or "", logprobs=logprobs)


def _text_delta(choice: Any) -> Delta:
    found = choice.logprobs
    if found is None or not found.tokens:
        return Delta(choice.text or "")
    tops = found.top_logprobs or [None] * len(found.tokens)
    logprobs = tuple(
        TokenLogprob(token, value or 0.0, tuple(sorted((top or {}).items(), key=lambda pair: -pair[1])))
        for token, value, top in zip(found.tokens, found.token_logprobs or (), tops, strict=False)
    )
    return Delta(choice.text or "", logprobs=logprobs)


def _translated(error: Exception, url: str) -> CostOptError:
    """The SDK's error as one of ours, with the mend; the SDK's is its cause."""
    import openai

    said = getattr(error, "message", None) or str(error)
    ours: CostOptError
    if isinstance(error, openai.AuthenticationError | openai.PermissionDeniedError):
        ours = ConfigError(f"{url} refused the api_key: {said}")
    elif isinstance(error, openai.NotFoundError):
        ours = ConfigError(f"{url} has no such model or address: {said}")
    elif isinstance(error, openai.APITimeoutError):
        ours = EngineError(f"{url} said nothing for too long: raise timeout, or look at the server's load")
    elif isinstance(error, openai.APIConnectionError):
        ours = EngineError(f"{url} cannot be reached ({error.__cause__ or said}): is the server running?")
    elif isinstance(error, openai.BadRequestError) and _too_long(error, said):
        ours = ContextLengthError.told(said)
    else:
        ours = EngineError(f"{url} failed: {said}")
    ours.__cause__ = error
    return ours


def _too_long(error: Any, said: str) -> bool:
    return error.code == "context_length_exceeded" or bool(_TOO_LONG.search(said))
