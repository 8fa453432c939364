"""An event handler that keeps what every model call of a LlamaIndex application took and cost."""

from __future__ import annotations

import logging
import os
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from llama_index_instrumentation import get_dispatcher
from llama_index_instrumentation.base import BaseEvent
from llama_index_instrumentation.event_handlers import BaseEventHandler
from llama_index_instrumentation.span import BaseSpan
from llama_index_instrumentation.span_handlers import BaseSpanHandler
from pydantic import PrivateAttr

from costopt.audit.about_call import about_call
from costopt.audit.ledger import Ledger
from costopt.audit.recorder import Call, Recorder
from costopt.audit.totals import Totals
from costopt.forks import ForkLock
from costopt.pricing import Price
from llamaindex_costopt.cost_messages import answered_of, as_dicts, params_of, provider_of

__all__ = ["CostTracker"]

_log = logging.getLogger("costopt.audit")

_MOST_OPEN = 50_000


@dataclass(slots=True)
class _Open:
    """A call under way."""

    call: Call
    last: Any = None  # what came of a stream
    outer: bool = False  # whether it asked another model, which is the one that is paid


class CostTracker(BaseEventHandler):
    """Keeps one row per model call in a `costopt.audit.Ledger`: tokens, cost, latency, outcome.

    Chat and completion, streamed or not, awaited or not. Where one LLM asks another, the one that reaches the provider
    is counted; what a `RouterLLM` asks are attempts at one request. Retries inside an LLM are not told to handlers:
    they are part of one attempt. An answer whose ``additional_kwargs["costopt"]`` says that it came out of a cache, as
    that of a `CachedLLM` does, costs nothing.

    From LlamaIndex's `instrument_tags` it takes `conversation_id`, `thread_id` or `session_id` as session,
    `costopt_tenant` as tenant, `costopt_tags` and `costopt_batch`. LlamaIndex passes over what a handler raises: to
    stop at a budget, give the LLM ``rate_limiter=SpendingGate(limit)``.

    Args:
        ledger: The ledger, or its file; None: the default one.
        prices: Prices of one's own by the model's name, which go before the price list's.
        batch_prices: Likewise in the provider's batch API.
        tenant: Whose the calls are, where the tags do not say.
        tags: Added to those of each call.

    Raises:
        ConfigError: If a price or the tags are none; the message says what would be right.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> with CostTracker(tmp / "ledger.db").installed() as tracker:
        ...     _ = MockLLM().complete("What is the capital of France?")
        >>> tracker.totals().attempts, tracker.totals().estimated
        (1, 1)
    """

    _recorder: Recorder = PrivateAttr()
    _spans: _Spans = PrivateAttr()
    _lock: ForkLock = PrivateAttr(default_factory=ForkLock)
    _open: OrderedDict[str, _Open] = PrivateAttr(default_factory=OrderedDict)
    _failures: int = PrivateAttr(default=0)

    def __init__(
        self,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        *,
        prices: Mapping[str, Price] | None = None,
        batch_prices: Mapping[str, Price] | None = None,
        tenant: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._recorder = Recorder(ledger, prices=prices, batch_prices=batch_prices, tenant=tenant, tags=tags)
        self._spans = _Spans(self)

    @classmethod
    def class_name(cls) -> str:
        """By which LlamaIndex knows it."""
        return "CostTracker"

    @property
    def ledger(self) -> Ledger:
        """Where the rows go."""
        return self._recorder.ledger

    def totals(self) -> Totals:
        """What the calls that this object saw took together; `print(tracker.totals())` says it in a line."""
        return self._recorder.totals()

    def install(self) -> Self:
        """Listen to every model call of this process, until `remove`."""
        root = get_dispatcher()
        if not any(handler is self for handler in root.event_handlers):
            root.add_event_handler(self)
            root.add_span_handler(self._spans)
        return self

    def remove(self) -> None:
        """Stop listening."""
        root = get_dispatcher()
        root.event_handlers = [handler for handler in root.event_handlers if handler is not self]
        root.span_handlers = [handler for handler in root.span_handlers if handler is not self._spans]

    @contextmanager
    def installed(self) -> Iterator[Self]:
        """Listen until the end of the block."""
        self.install()
        try:
            yield self
        finally:
            self.remove()

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        """An event of LlamaIndex's; what we make of it must never break the call."""
        try:
            self._handle(event)
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                _log.warning("costopt: the cost tracker steps aside: %r", error)

    def _handle(self, event: Any) -> None:
        name, span = event.class_name(), event.span_id or ""
        if name in ("LLMChatStartEvent", "LLMCompletionStartEvent"):
            self._begin(span, event)
        elif name in ("LLMChatInProgressEvent", "LLMCompletionInProgressEvent"):
            begun = self._open.get(span)
            if begun is not None:
                begun.call.token()
                begun.last = event.response
        elif name in ("LLMChatEndEvent", "LLMCompletionEndEvent"):
            begun = self._taken(span)
            if begun is not None and not begun.outer:
                self._recorder.answered(begun.call, answered_of(event.response))
        elif name == "ExceptionEvent":
            self._failed(span, event.exception)

    def _begin(self, span: str, event: Any) -> None:
        said, tags = event.model_dict, event.tags
        messages = as_dicts(event)
        route = tags.get("costopt_route") or {}
        call = Call(
            id=event.id_,
            model=str(said.get("model") or said.get("model_name") or ""),
            provider=provider_of(str(said.get("class_name") or "")),
            messages=messages,
            tools=event.additional_kwargs.get("tools") or (),
            params=params_of(said, event.additional_kwargs),
            request_id=str(route.get("id") or ""),
            route=route.get("tier"),
            route_why=route.get("why"),
            default_model=route.get("default"),
            **about_call(tags),
        )
        with self._lock:
            if span in self._open:  # one function that is told of twice
                return
            for above in self._spans.above(span):
                if above in self._open:
                    self._open[above].outer = True
            self._open[span] = _Open(call)
            while len(self._open) > _MOST_OPEN:  # whose ends were never told
                self._open.popitem(last=False)

    def _failed(self, span: str, error: BaseException) -> None:
        begun = self._taken(span)
        if begun is not None and not begun.outer:
            partial = None if begun.last is None else answered_of(begun.last)
            self._recorder.failed(begun.call, error, partial)

    def _taken(self, span: str) -> _Open | None:
        with self._lock:
            return self._open.pop(span, None)


class _Spans(BaseSpanHandler[BaseSpan]):
    """Knows which span is in which; tells the tracker of those that failed."""

    _tracker: CostTracker = PrivateAttr()
    _parents: OrderedDict[str, str | None] = PrivateAttr(default_factory=OrderedDict)

    def __init__(self, tracker: CostTracker) -> None:
        super().__init__(open_spans={}, completed_spans=[], dropped_spans=[], current_span_ids={})
        self._tracker = tracker

    def above(self, span: str) -> Iterator[str]:
        """The spans around this one, the nearest first."""
        seen = {span}
        parent = self._parents.get(span)
        while parent is not None and parent not in seen:
            seen.add(parent)
            yield parent
            parent = self._parents.get(parent)

    def span_enter(self, id_: str, *args: Any, parent_id: str | None = None, **kwargs: Any) -> None:
        """A span begins."""
        self._parents[id_] = parent_id
        while len(self._parents) > _MOST_OPEN:
            self._parents.popitem(last=False)

    def span_exit(self, id_: str, *args: Any, **kwargs: Any) -> None:
        """A span ends."""
        self._parents.pop(id_, None)

    def span_drop(self, id_: str, *args: Any, err: BaseException | None = None, **kwargs: Any) -> None:
        """A span fails."""
        self._tracker._failed(id_, err or RuntimeError("dropped"))
        self._parents.pop(id_, None)

    def new_span(self, *args: Any, **kwargs: Any) -> None:
        """None is kept."""

    def prepare_to_exit_span(self, *args: Any, **kwargs: Any) -> None:
        """None is kept."""

    def prepare_to_drop_span(self, *args: Any, **kwargs: Any) -> None:
        """None is kept."""
