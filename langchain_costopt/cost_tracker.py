"""A callback handler that keeps what every model call of a LangChain application took and cost."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar
from uuid import UUID
from weakref import WeakKeyDictionary

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.runnables.config import var_child_runnable_config

from costopt.audit.about_call import about_call
from costopt.audit.ledger import Ledger
from costopt.audit.recorder import Answered, Call, Guard, Recorder
from costopt.audit.totals import Totals
from costopt.errors import BudgetExceededError
from costopt.forks import ForkLock
from costopt.pricing import Price
from langchain_costopt.cost_messages import answered_of, as_dicts, partial_of, trimmed_of

__all__ = ["CostTracker"]

_log = logging.getLogger("costopt.audit")

_MOST_OPEN = 50_000
_FALLBACKS = "RunnableWithFallbacks"
# Runs of whole agents: what is called below them is no attempt at the request above them.
_AGENTS = ("LangGraph", "AgentExecutor")
# The tags that a sequence or a map gives its parts, and a retry does not give what it tries.
_PARTS = ("seq:", "map:")
_OF_LANGCHAIN = ("seq:", "map:", "retry:", "langsmith:", "graph:")

T = TypeVar("T")


class _Chain(NamedTuple):
    """A chain under way."""

    name: str
    group: UUID | None  # the run of which all calls in it are attempts at one request


class CostTracker(BaseCallbackHandler):
    """Keeps one row per attempt at a chat model or LLM in a `costopt.audit.Ledger`: tokens, cost, latency, outcome.

    Give it to a model or a chain as a callback: ``config={"callbacks": [tracker]}``. It works with invoke, stream and
    batch, awaited or not. Retries (`with_retry`) and fallbacks (`with_fallbacks`) are attempts at one request, as are
    those of a `RouterRunnable`. An answer from a cache costs nothing, and what it avoided is kept. Whatever takes time
    is done in a thread of its own. Retries inside a provider's SDK are not seen by LangChain: they are part of one
    attempt. Nor does LangChain tell callbacks of answers that its cache gives to LLMs that are no chat models.

    From the config's metadata it takes `conversation_id`, `thread_id` or `session_id` as session, `costopt_tenant` as
    tenant and, with the config's tags, `costopt_tags`.

    Args:
        ledger: The ledger, or its file; None: the limit's, else the default one.
        prices: Prices of one's own by the model's name, which go before the price list's.
        batch_prices: Likewise in the provider's batch API.
        limit: A `costopt.audit.SpendingLimit`: when it is reached, calls raise `BudgetExceededError`. A model whose
            price is not known counts nothing against it.
        tenant: Whose the calls are, where the metadata does not say.
        tags: Added to those of each call.

    Raises:
        ConfigError: If a price, the limit or the tags are none; the message says what would be right.

    Example:
        >>> tracker = CostTracker(tmp / "ledger.db")
        >>> model = SimulatedChatModel(model_name="gpt-4o-mini", callbacks=[tracker])
        >>> _ = model.invoke("What is the capital of France?")
        >>> tracker.totals().attempts, tracker.totals().unpriced
        (1, 0)
    """

    # Called in the thread and order of what they tell of, for they take microseconds; and when the limit is reached,
    # the call must hear of it.
    run_inline = True
    raise_error = True

    def __init__(
        self,
        ledger: Ledger | str | os.PathLike[str] | None = None,
        *,
        prices: Mapping[str, Price] | None = None,
        batch_prices: Mapping[str, Price] | None = None,
        limit: Guard | None = None,
        tenant: str | None = None,
        tags: Sequence[str] = (),
    ) -> None:
        super().__init__()
        self._recorder = Recorder(
            ledger, prices=prices, batch_prices=batch_prices, limit=limit, tenant=tenant, tags=tags
        )
        self._lock = ForkLock()
        self._open: OrderedDict[UUID, Call] = OrderedDict()
        self._tasks: WeakKeyDictionary[asyncio.Task[Any], set[UUID]] = WeakKeyDictionary()
        self._chains: OrderedDict[UUID, _Chain] = OrderedDict()
        self._failures = 0

    @property
    def ledger(self) -> Ledger:
        """Where the rows go."""
        return self._recorder.ledger

    def totals(self) -> Totals:
        """What the calls that this object saw took together; `print(tracker.totals())` says it in a line."""
        return self._recorder.totals()

    def __deepcopy__(self, memo: Any) -> CostTracker:
        return self  # LangChain copies configs; a copy of a ledger would be another writer

    def __copy__(self) -> CostTracker:
        return self

    # -- what LangChain calls --------------------------------------------------------------------------

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **kwargs: Any
    ) -> None:
        """A chat model is asked."""
        asked = tuple(messages[0]) if messages else ()
        self._begin(run_id, lambda: as_dicts(asked), kwargs, _class_of(serialized), asked)

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **kwargs: Any) -> None:
        """An LLM is asked."""
        prompt = prompts[0] if prompts else ""
        self._begin(run_id, lambda: [{"role": "user", "content": prompt}], kwargs, _class_of(serialized))

    def on_llm_new_token(self, token: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A part of a stream came."""
        call = self._open.get(run_id)
        if call is not None:
            call.token()

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **kwargs: Any) -> None:
        """An answer is there."""
        call = self._taken(run_id)
        if call is not None:
            answer = self._guarded(lambda: answered_of(response)) or Answered()
            self._guarded(lambda: self._recorder.answered(call, answer))

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A call failed, or was broken off."""
        call = self._taken(run_id)
        if call is not None:
            partial = self._guarded(lambda: partial_of(kwargs.get("response")))
            self._guarded(lambda: self._recorder.failed(call, error, partial))

    def on_chain_start(
        self,
        serialized: dict[str, Any] | None,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        **kwargs: Any,
    ) -> None:
        """A chain begins; of interest is whether it tries one request several times."""
        name = str(kwargs.get("name") or "")
        self._guarded(lambda: self._enter(run_id, parent_run_id, name, kwargs.get("tags")))

    def on_chain_end(self, outputs: Any, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain ended."""
        self._chains.pop(run_id, None)

    def on_chain_error(self, error: BaseException, *, run_id: UUID, **kwargs: Any) -> None:
        """A chain failed."""
        self._chains.pop(run_id, None)

    # -- what it makes of it ---------------------------------------------------------------------------

    def _begin(
        self,
        run_id: UUID,
        messages: Callable[[], Any],
        said: dict[str, Any],
        name: str,
        asked: Sequence[BaseMessage] = (),
    ) -> None:
        self._guarded(self._recorder.begin)
        call = self._guarded(lambda: self._call(run_id, messages, said, name))
        if call is None or run_id in self._open:  # given twice, as a callback of the model and of the chain
            return
        call.trimmed_tokens = self._guarded(lambda: trimmed_of(asked)) or 0
        self._keep(self._open, run_id, call)
        self._guarded(lambda: self._watch(run_id))

    def _call(self, run_id: UUID, messages: Callable[[], Any], said: dict[str, Any], name: str) -> Call:
        params = dict(said.get("invocation_params") or {})
        metadata = said.get("metadata") or {}
        about = about_call(metadata)
        about["tags"] += tuple(tag for tag in said.get("tags") or () if not tag.startswith(_OF_LANGCHAIN))
        named = metadata.get("ls_model_name") or params.get("model") or params.get("model_name") or ""
        return Call(
            id=str(run_id),
            model=str(named),
            provider=metadata.get("ls_provider"),
            messages=messages,
            tools=params.get("tools") or params.get("functions") or (),
            params=params,
            request_id=str(self._group(said.get("parent_run_id"), name, said.get("tags")) or run_id),
            streamed=bool(params.get("stream")),
            **about,
        )

    def _enter(self, run_id: UUID, parent: UUID | None, name: str, tags: Sequence[str] | None) -> None:
        group = None if name in _AGENTS else self._group(parent, name, tags)
        if name == _FALLBACKS:
            group = group or run_id
        self._keep(self._chains, run_id, _Chain(name, group))

    def _group(self, parent: UUID | None, name: str, tags: Sequence[str] | None) -> UUID | None:
        """The run of which this one is an attempt, if it is one of several."""
        parent = parent or _parent_in_context()
        chain = self._chains.get(parent) if parent is not None else None
        if chain is None or chain.group is not None:
            return None if chain is None else chain.group
        # A retry goes by the name of what it tries.
        tries = chain.name == name and not any(tag.startswith(_PARTS) for tag in tags or ())
        return parent if tries else None

    def _taken(self, run_id: UUID) -> Call | None:
        with self._lock:
            return self._open.pop(run_id, None)

    def _keep(self, where: OrderedDict[UUID, T], run_id: UUID, value: T) -> None:
        with self._lock:
            where[run_id] = value
            while len(where) > _MOST_OPEN:  # whose ends were never told
                where.popitem(last=False)

    def _watch(self, run_id: UUID) -> None:
        """When a task is cancelled while it waits for an answer, LangChain tells nobody."""
        try:
            task = asyncio.current_task()
        except RuntimeError:
            return
        if task is None:
            return
        waiting = self._tasks.get(task)
        if waiting is None:
            waiting = self._tasks[task] = set()
            task.add_done_callback(self._over)
        waiting -= {over for over in waiting if over not in self._open}
        waiting.add(run_id)

    def _over(self, task: asyncio.Task[Any]) -> None:
        for run_id in self._tasks.pop(task, ()) if task.cancelled() else ():
            self.on_llm_error(asyncio.CancelledError(), run_id=run_id)

    def _guarded(self, do: Callable[[], T]) -> T | None:
        """What we make of a call must never break it."""
        try:
            return do()
        except BudgetExceededError:
            raise
        except Exception as error:
            self._failures += 1
            if self._failures == 1:
                _log.warning("costopt: the cost tracker steps aside: %r", error)
            return None


def _class_of(serialized: Mapping[str, Any] | None) -> str:
    """The name of a model's class, by which a retry of it goes."""
    said = serialized or {}
    return str(said.get("name") or (said.get("id") or [""])[-1])


def _parent_in_context() -> UUID | None:
    """The run around this one: fallbacks hand it on in a context variable only."""
    config = var_child_runnable_config.get()
    found = getattr((config or {}).get("callbacks"), "parent_run_id", None)
    return found if isinstance(found, UUID) else None
