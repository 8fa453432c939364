"""Each call is told of once, to LlamaIndex's event handlers and to its callbacks."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from llama_index.core.callbacks import CallbackManager, CBEventType, EventPayload
from llama_index.core.callbacks.base_handler import BaseCallbackHandler
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.llms import LLM
from pydantic import PrivateAttr

from tests.llamaindex.contract.setting import KEY, MODELS, Setting, Way, each, fine, text_of
from tests.openai_server import Behaviour, OpenAIServer

__all__ = ["Callbacks", "Events", "heard"]


class _Ears(BaseEventHandler):
    _events: list[Any] = PrivateAttr(default_factory=list)

    def handle(self, event: Any, **kwargs: Any) -> None:
        if event.class_name().startswith("LLM"):
            self._events.append(event)


@contextmanager
def heard() -> Iterator[list[Any]]:
    """The events about model calls in the block."""
    root, ears = get_dispatcher(), _Ears()
    root.add_event_handler(ears)
    try:
        yield ears._events
    finally:
        root.event_handlers = [handler for handler in root.event_handlers if handler is not ears]


class Callbacks(BaseCallbackHandler):
    """Keeps how calls began and how they ended, by their id."""

    def __init__(self) -> None:
        super().__init__([], [])
        self.began: dict[str, dict[str, Any]] = {}
        self.ended: dict[str, dict[str, Any]] = {}

    def on_event_start(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **kwargs: Any
    ) -> str:
        if event_type == CBEventType.LLM:
            assert event_id not in self.began
            self.began[event_id] = payload or {}
        return event_id

    def on_event_end(
        self, event_type: CBEventType, payload: dict[str, Any] | None = None, event_id: str = "", **kwargs: Any
    ) -> None:
        if event_type == CBEventType.LLM:
            assert event_id not in self.ended
            self.ended[event_id] = payload or {}

    def start_trace(self, trace_id: str | None = None) -> None:
        """Not looked at."""

    def end_trace(self, trace_id: str | None = None, trace_map: Any = None) -> None:
        """Not looked at."""


class Events(Setting):
    """Instrumentation and callbacks."""

    @pytest.fixture
    def callbacks(self, llm: LLM) -> Callbacks:
        made = Callbacks()
        llm.callback_manager = CallbackManager([made])
        return made

    @each("way")
    def test_events_fire_once_per_call(self, llm: LLM, server: OpenAIServer, way: Way) -> None:
        self.tell(server, fine())
        for _ in range(2):
            with heard() as events:
                pieces = way(llm, "Count to three.")
            kinds = Counter(event.class_name() for event in events)
            kind = "LLMCompletion" if hasattr(pieces[-1], "text") else "LLMChat"
            assert kinds.pop(f"{kind}StartEvent") == kinds.pop(f"{kind}EndEvent") == 1
            told, streamed = kinds.pop(f"{kind}InProgressEvent", 0), pieces[-1].delta is not None
            # A wrapper may end a stream with a piece of its own, which no model sent.
            assert told in ((len(pieces), len(pieces) - 1) if streamed else (0,))
            assert not kinds
            assert len({event.span_id for event in events}) == 1
            assert text_of(events[-1].response) == "one two three"
            assert any(model in events[0].model_dict["model_name"] for model in MODELS)
            assert KEY not in json.dumps(events[0].model_dict, default=str)

    @each("way")
    def test_callbacks_fire_once_per_call(self, llm: LLM, server: OpenAIServer, callbacks: Callbacks, way: Way) -> None:
        self.tell(server, fine())
        for count in (1, 2):
            way(llm, "Count to three.")
            assert len(callbacks.began) == count
            assert callbacks.ended.keys() == callbacks.began.keys()
        for payload in callbacks.ended.values():
            said = payload.get(EventPayload.RESPONSE) or payload[EventPayload.COMPLETION]
            assert text_of(said) == "one two three"

    @each("way")
    def test_each_call_that_fails_is_told_of_once(
        self, llm: LLM, server: OpenAIServer, callbacks: Callbacks, way: Way
    ) -> None:
        self.tell(server, Behaviour(status=422))
        with heard() as events, pytest.raises(Exception, match="told to fail"):
            way(llm, "Count to three.")
        names = [event.class_name() for event in events]
        assert sum(name.endswith("StartEvent") for name in names) == len(server.requests)
        assert not any(name.endswith("EndEvent") for name in names)
        assert len(callbacks.ended) == len(server.requests)
        assert callbacks.ended.keys() == callbacks.began.keys()
        for payload in callbacks.ended.values():
            assert "told to fail" in str(payload[EventPayload.EXCEPTION])
