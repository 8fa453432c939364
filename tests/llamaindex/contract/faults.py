"""A model's error comes through as it is, and a stream that nobody reads to its end leaves nothing open."""

from __future__ import annotations

import asyncio
import gc
import time
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import LLM

from tests.llamaindex.contract.events import Callbacks
from tests.llamaindex.contract.setting import Setting, Way, each, fine, text_of, user
from tests.openai_server import Behaviour, OpenAIServer

__all__ = ["Faults"]

_PATIENCE_S = 30.0
_STREAMING = ("httpx", "openai", "llama_index", "costopt")
# So long that nobody has read it to its end when the stream is left: a connection is then kept for the next request.
_LONG = "word " * 300


class Faults(Setting):
    """Errors, and readers who leave."""

    # Whether a stream that is left is closed there and then. The SDK's are not: `AsyncStream` holds the generator that
    # holds it (openai/_streaming.py, `self._iterator = self.__stream__()`), and LlamaIndex closes none that it wraps.
    closes_at_once = True

    @each("way")
    def test_an_error_comes_through_as_it_is(self, llm: LLM, plain: LLM, server: OpenAIServer, way: Way) -> None:
        self.tell(server, Behaviour(status=422))
        with pytest.raises(Exception, match="told to fail") as raised:
            way(llm, "Count to three.")
        if self.wraps:
            with pytest.raises(Exception, match="told to fail") as right:
                way(plain, "Count to three.")
            assert type(raised.value) is type(right.value)
            assert str(raised.value) == str(right.value)
        self.tell(server, fine())
        assert text_of(way(llm, "Count to three.")[-1]) == "one two three"

    @pytest.mark.parametrize("name", ["stream_chat", "stream_complete"])
    def test_a_stream_that_breaks_off_raises(self, llm: LLM, server: OpenAIServer, name: str) -> None:
        self.tell(server, fine(error_after=2))
        got = []
        with pytest.raises(Exception, match="told to fail"):
            got.extend(text_of(piece) for piece in self._opened(llm, name))
        self.tell(server, fine())
        assert text_of(list(self._opened(llm, name))[-1]) == "one two three"

    @pytest.mark.parametrize("name", ["stream_chat", "stream_complete"])
    def test_an_abandoned_stream_leaves_nothing_open(self, llm: LLM, server: OpenAIServer, name: str) -> None:
        self.tell(server, fine(_LONG))
        before, callbacks = _open(server), Callbacks()
        llm.callback_manager = CallbackManager([callbacks])
        with self._collecting() as collect:
            pieces = self._opened(llm, name)
            next(pieces)
            pieces.close()
            del pieces  # LlamaIndex's streams hold on to the provider's
            assert callbacks.ended.keys() == callbacks.began.keys()
            if not self.closes_at_once:
                callbacks.ended.clear()  # they hold the exception that ended the stream, and so the stream
            end = time.monotonic() + _PATIENCE_S
            while _open(server) > before and time.monotonic() < end:
                collect()
                time.sleep(0.01)
            assert _open(server) <= before, _waiting()
        # What came of it is not taken for an answer.
        assert text_of(list(self._opened(llm, name))[-1]) == _LONG
        assert len(server.requests) == 2

    @pytest.mark.parametrize("name", ["astream_chat", "astream_complete"])
    async def test_an_abandoned_async_stream_leaves_nothing_open(
        self, llm: LLM, server: OpenAIServer, name: str
    ) -> None:
        self.tell(server, fine(_LONG))
        before, callbacks = _open(server), Callbacks()
        llm.callback_manager = CallbackManager([callbacks])
        with self._collecting() as collect:
            pieces = await self._opened(llm, name)
            await anext(pieces)
            await pieces.aclose()
            del pieces
            assert callbacks.ended.keys() == callbacks.began.keys()
            if not self.closes_at_once:
                callbacks.ended.clear()
            end = time.monotonic() + _PATIENCE_S
            while (len(asyncio.all_tasks()) > 1 or _open(server) > before) and time.monotonic() < end:
                collect()
                await asyncio.sleep(0.01)
            assert len(asyncio.all_tasks()) == 1
            assert _open(server) <= before, _waiting()
        assert text_of([piece async for piece in await self._opened(llm, name)][-1]) == _LONG
        assert len(server.requests) == 2

    @contextmanager
    def _collecting(self) -> Iterator[Callable[[], object]]:
        """Collects garbage if a stream is left to that, and else prevents it, to show that it is not needed."""
        gc.freeze()  # a pass over all that the session has imported takes seconds, and two are needed
        gc.disable()
        try:
            yield (lambda: None) if self.closes_at_once else gc.collect
        finally:
            gc.enable()
            gc.unfreeze()

    def _opened(self, llm: LLM, name: str) -> Any:
        question = "Count to three."
        return getattr(llm, name)(question if name.endswith("complete") else user(question))


def _open(server: OpenAIServer) -> int:
    """Connections to the server, of which this side has not let go; other tests' clients may keep idle ones."""
    port = server.server_address[1]
    return sum(bool(each.raddr) and each.raddr.port == port for each in psutil.Process().net_connections("tcp4"))


def _waiting() -> list[Any]:
    """Streams that nobody closed, for whoever reads why the test failed."""
    kinds = types.AsyncGeneratorType, types.GeneratorType
    frames = (
        getattr(each, "ag_frame", None) or getattr(each, "gi_frame", None)
        for each in gc.get_objects()
        if isinstance(each, kinds)
    )
    return [frame for frame in frames if frame and any(name in frame.f_code.co_filename for name in _STREAMING)]
