"""A model in this process: transformers and bitsandbytes, one copy of the weights, requests run together."""

from __future__ import annotations

import functools
import logging
import os
import threading
import weakref
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, TypedDict, Unpack

from costopt.errors import ConfigError, require
from costopt.local.channel import Channel, StreamHandle
from costopt.local.chat import knows_tools
from costopt.local.engine import EngineStats, GenerationRequest
from costopt.local.glance import Glance, glance
from costopt.local.loading import DTYPES, Loaded, ModelSource, load, resolve
from costopt.local.plan import DEFAULT_CONTEXT, MemoryPlan
from costopt.local.prepare import Limits
from costopt.local.quantise import weight_bytes
from costopt.local.sizes import QUANTIZATIONS
from costopt.local.worker import Arrival, Batch, Ready, Worker

__all__ = ["EngineOptions", "TransformersEngine"]

_log = logging.getLogger("costopt.local")

_BATCHING = ("auto", "continuous", "rows")


class EngineOptions(TypedDict, total=False):
    """The options of `TransformersEngine`, which says what they mean."""

    quantization: str
    dtype: str
    device: str | None
    context: int | None
    concurrency: int | None
    max_rows: int
    max_tokens: int
    batching: Literal["auto", "continuous", "rows"]
    revision: str | None
    keep_quantized: bool
    cache_dir: str | Path | None
    check_memory: bool


@dataclass(frozen=True, slots=True)
class _Settings:
    """Those, with their defaults."""

    quantization: str = "nf4"
    dtype: str = "auto"
    device: str | None = None
    context: int | None = None
    concurrency: int | None = None
    max_rows: int = 32
    max_tokens: int = 512
    batching: str = "auto"
    revision: str | None = None
    keep_quantized: bool = True
    cache_dir: str | Path | None = None
    check_memory: bool = True

    def __post_init__(self) -> None:
        for name, known in (("quantization", QUANTIZATIONS), ("dtype", DTYPES), ("batching", _BATCHING)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)!r}: use one of {', '.join(map(repr, known))}")
        for name in ("context", "concurrency", "max_rows", "max_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"{name}={value}: use 1 or more")


class TransformersEngine:
    """A causal language model of transformers, quantised by bitsandbytes; a `costopt.local.Engine`.

    One thread owns the model, and runs together whatever requests there are: one that arrives while others are under
    way joins them at the next token. Nothing is read or loaded before the first request, or `load()`.

    Args:
        model: A folder that `save_pretrained` wrote, or a hub id; safetensors only, no code of its own.
        options: `quantization`: "nf4" (with double quantisation), "fp4", "int8" or "none". `dtype`: of what is not
            quantised; "auto" is bfloat16, or the model's own where nothing is quantised. `device`: None is the GPU if
            there is one. `context`: most tokens of prompt and answer; None: the model's, at most 4,096. `concurrency`:
            for how many of that length there must be memory; None: as many as fit, up to `max_rows`, the most at once
            of any length. `max_tokens`: of an answer whose request does not say. `batching`: "continuous" is that of
            transformers, "rows" our own; "auto" takes the first on a GPU, where a version that we know is installed.
            `revision`: of a hub id. `keep_quantized`: whether quantised weights are kept on disk, in `cache_dir` or
            the user's cache folder. `check_memory`: whether a model that will not fit is refused before it is loaded.

    Raises:
        ConfigError: If there is no such folder, or an option cannot be meant.

    Example:
        >>> engine = TransformersEngine(facts_model, quantization="none", max_tokens=16)
        >>> handle = engine.submit(GenerationRequest.chat("What is the code of Anna?"))
        >>> handle.result(timeout=120).finish_reason
        'stop'
        >>> engine.close()
    """

    def __init__(self, model: str | Path, **options: Unpack[EngineOptions]) -> None:
        unknown = sorted(set(options) - set(EngineOptions.__annotations__))
        if unknown:
            raise ConfigError(f"TransformersEngine has no option {', '.join(unknown)}: see its documentation")
        self._settings = _Settings(**options)
        self._model = resolve(model)
        self._glance = Glance()
        self._worker = Worker(functools.partial(_start, self._model, self._settings))
        # The thread does not know `self`; it ends with it, or with the interpreter: one killed inside torch aborts.
        self._finalizer = weakref.finalize(self, self._worker.stop)

    @classmethod
    def shared(cls, model: str | Path, **options: Unpack[EngineOptions]) -> TransformersEngine:
        """The engine of this model and these options, which all who ask for it share: one copy of the weights.

        It lives for as long as somebody holds it; once it is closed the next to ask get another one.

        Example:
            >>> engine = TransformersEngine.shared(facts_model, quantization="none")
            >>> TransformersEngine.shared(facts_model, quantization="none") is engine
            True
        """
        key = (resolve(model), _Settings(**options))
        with _lock:
            engine = _engines.get(key)
            if engine is None or engine.closed:
                engine = _engines[key] = cls(model, **options)
            return engine

    @property
    def name(self) -> str:
        """The model, and how its weights are quantised: other weights give other answers."""
        revision = f"@{self._settings.revision}" if self._settings.revision else ""
        return f"{self._model}{revision}:{self._settings.quantization}:{self._settings.dtype}"

    @property
    def closed(self) -> bool:
        """Whether it takes no more requests."""
        return not self._finalizer.alive

    @property
    def context_window(self) -> int | None:
        """Most tokens of prompt and answer. Loads nothing; None for a hub id that was not fetched yet."""
        ready = self._worker.ready
        if ready is not None:
            return ready.limits.context
        if self._settings.context is not None:
            return self._settings.context
        made_for = self._seen().context
        return None if made_for is None else min(made_for, DEFAULT_CONTEXT)

    @property
    def knows_tools(self) -> bool:
        """Whether the chat template tells the model of tools. Loads nothing; True for a hub id not fetched yet."""
        ready = self._worker.ready
        if ready is not None:
            return knows_tools(ready.loaded.tokenizer)
        told = self._seen().knows_tools
        return True if told is None else told

    @property
    def tokenizer(self) -> Any:
        """The model's, which is loaded for it if it is not yet."""
        return self._loaded().tokenizer

    @property
    def kept(self) -> bool:
        """Whether the quantised weights came from disk, so that nothing had to be quantised."""
        return self._loaded().kept

    def load(self, timeout: float | None = None) -> Self:
        """Load the model now, and wait for it.

        Raises:
            ConfigError: If it cannot be loaded; the message says why.
            OutOfMemoryError: If it would not fit; the message has the figures, and settings that would.
            MissingExtraError: Without the extra ``local``.
        """
        future: Future[None] = Future()
        self._worker.submit(future)
        future.result(timeout)
        return self

    def submit(self, request: GenerationRequest) -> StreamHandle:
        """Ask for an answer, and return at once, also while the model is being loaded.

        What goes wrong, from a model that is not there to a context that is too long, is raised where the answer is
        read.
        """
        channel = Channel(functools.partial(_gave_up, self))
        handle = StreamHandle(channel)
        self._worker.submit(Arrival(request, channel))
        return handle

    def stats(self) -> EngineStats:
        """What it has done so far, and is doing."""
        return self._worker.stats()

    def close(self) -> None:
        """End what is under way with `EngineClosedError`, and give the memory back."""
        self._finalizer()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _seen(self) -> Glance:
        if self._glance == Glance():  # a hub id may have been fetched since
            self._glance = glance(self._model, self._settings.revision)
        return self._glance

    def _loaded(self) -> Loaded:
        ready = self._worker.ready or self.load()._worker.ready
        if ready is None:
            raise ConfigError("the engine was closed")
        return ready.loaded


_engines: weakref.WeakValueDictionary[tuple[str, _Settings], TransformersEngine] = weakref.WeakValueDictionary()
_lock = threading.Lock()
# transformers is imported piece by piece, and loads models by way of globals: in two threads at once it failed to
# import, and once left out a layer.
_loading = threading.Lock()


def _new_locks() -> None:
    global _lock, _loading
    _lock, _loading = threading.Lock(), threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_new_locks)


def _gave_up(engine: TransformersEngine) -> None:
    """Holds the engine for as long as somebody waits for it to answer."""
    engine._worker.nudge()


def _start(model: str, settings: _Settings) -> Ready:
    """Load and warm up a model, within the memory there is."""
    require("torch", "local")
    require("transformers", "local")
    with _loading:
        return _started(model, settings)


def _started(model: str, settings: _Settings) -> Ready:
    from costopt.local.memory import default_device

    device = settings.device or default_device()
    planned = MemoryPlan.of(
        model,
        quantization=settings.quantization,
        context=settings.context,
        device=device,
        dtype=_dtype(model, settings),
    )
    plan = _within(planned, settings)
    source = ModelSource(
        model=model,
        quantization=settings.quantization,
        dtype=settings.dtype,
        device=device,
        revision=settings.revision,
        keep=settings.keep_quantized,
        folder=None if settings.cache_dir is None else str(settings.cache_dir),
    )
    loaded = _warm(load(source))
    by = "the model" if plan.context == plan.inventory.context else "this engine (context=)"
    limits = Limits(plan.context, by, settings.max_tokens)
    return Ready(loaded, limits, _batches(loaded, settings, plan.context, plan.concurrency))


def _dtype(model: str, settings: _Settings) -> str:
    """The name of the dtype that the model will be computed in."""
    from costopt.local.inventory import read_config

    if settings.dtype != "auto" or settings.quantization != "none":
        return settings.dtype if settings.dtype != "auto" else "bfloat16"
    saved = str(getattr(read_config(model)[0], "dtype", None)).removeprefix("torch.")
    return saved if saved in DTYPES else "bfloat16"


def _within(plan: Any, settings: _Settings) -> Any:
    """The plan at the concurrency asked for, or the greatest that fits."""
    wanted = settings.concurrency or settings.max_rows
    plan = plan.at(concurrency=wanted)
    while settings.concurrency is None and not plan.fits and plan.concurrency > 1:
        plan = plan.at(concurrency=plan.concurrency // 2)
    return plan.require() if settings.check_memory else plan


def _warm(loaded: Loaded) -> Loaded:
    """One forward pass before anybody else can see the model.

    On some processors bitsandbytes rearranges four-bit weights in place at the first pass, without a lock: two
    threads in it at once leave weights that give wrong answers ever after.
    """
    import torch

    token = next(iter(loaded.ends), 0)
    with torch.no_grad():
        loaded.model(input_ids=torch.tensor([[token]], device=loaded.model.device), use_cache=False)
    return replace(loaded, weight_bytes=weight_bytes(loaded.model))


def _batches(loaded: Loaded, settings: _Settings, context: int, concurrency: int) -> tuple[Batch, ...]:
    from costopt.local.rows import RowBatch

    cache_tokens = context * concurrency
    wanted = settings.batching == "continuous" or (settings.batching == "auto" and loaded.model.device.type == "cuda")
    if not wanted:
        return (RowBatch(loaded.model, settings.max_rows, cache_tokens),)
    from costopt.local.batching_v5 import ContinuousBatch, missing

    reason = missing(loaded.model)
    if reason:
        if settings.batching == "continuous":
            raise ConfigError(f"batching='continuous' is not to be had: {reason}; use batching='auto'")
        _log.info("costopt: transformers' continuous batching is not used: %s", reason)
        return (RowBatch(loaded.model, settings.max_rows, cache_tokens),)
    # It takes no seeds, probabilities or schemas: requests that ask for those run in rows, beside it.
    return (
        ContinuousBatch(loaded.model, settings.max_rows, cache_tokens),
        RowBatch(loaded.model, settings.max_rows, max(cache_tokens // 4, context)),
    )
