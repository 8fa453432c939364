"""Turning text into vectors, once per request.

The cache, the router and the compressor all look at the same request. They share one embedder,
`default_embedder()`: all-MiniLM-L6-v2 on the CPU, behind a memo (a text is embedded once) and a
dispatcher (concurrent callers share one forward pass). Any object with the members of `Embedder`
can stand in for the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple, Protocol

import numpy as np

from costopt._minilm import MiniLMEmbedder, Vectors, _fork_aware, groups
from costopt.errors import ConfigError, CostOptError, EmbeddingError

__all__ = ["DEFAULT_SPACE", "Embedder", "MiniLMEmbedder", "SharedEmbedder", "default_embedder", "default_model", "fits"]

_FALLBACK_CHARS = 1_000
# What one pass of the dispatcher takes of a bulk call, so that a lone request never waits long behind it.
_BULK_CHARS = 16_000
_LONG_KEY_CHARS = 512


class Embedder(Protocol):
    """What every lever asks of an embedding model. Must be safe to call from any thread.

    It may also have `fits(text) -> bool` (would its vector tell of all of the text?) and
    `loaded: bool` (is it ready to answer without delay?).
    """

    @property
    def name(self) -> str:
        """Identity of model and variant; vectors of different names are never mixed."""

    @property
    def dimension(self) -> int:
        """Length of every vector."""

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` as float32 rows of unit length, shape (len(texts), dimension)."""


def fits(embedder: Embedder, text: str) -> bool:
    """Say whether the vector would tell of all of `text`, by the embedder's word or else up to 1,000 characters.

    Example:
        >>> fits(MiniLMEmbedder(), "How do I reset my password?")
        True
    """
    own = getattr(embedder, "fits", None)
    return len(text) <= _FALLBACK_CHARS if own is None else bool(own(text))


class SharedEmbedder:
    """An embedder with a memo and one dispatcher thread, for any number of threads and event loops.

    Whatever is queued while the model is busy goes into its next forward pass together, a text that is
    in flight already is not computed again, and the last `memo_size` texts are answered from memory. The
    returned arrays are read-only, because callers share them. After a fork the child starts afresh;
    futures from before the fork belong to the parent.

    Args:
        embedder: The embedder to share; what it returns is checked, and brought to unit length.
        memo_size: Texts to remember; 0 remembers none.
        max_batch: Most texts in one forward pass.

    Example:
        >>> shared = SharedEmbedder(MiniLMEmbedder(), memo_size=100)
        >>> shared.submit("What is a vector?").result(timeout=60).shape
        (384,)
        >>> shared.embed_one("What is a vector?") is shared.embed_one("What is a vector?"), shared.calls
        (True, 1)
    """

    def __init__(self, embedder: Embedder, *, memo_size: int = 4_096, max_batch: int = 64) -> None:
        lacks = [part for part in ("name", "dimension", "embed") if not _has(embedder, part)]
        if lacks:
            raise ConfigError(
                f"embedder is {_named(embedder)}, without {', '.join(lacks)}: give an object with name, dimension and "
                "embed(texts), which for LangChain's calls embed_documents, for LlamaIndex's get_text_embedding_batch"
            )
        if memo_size < 0 or max_batch < 1:
            raise ConfigError(f"memo_size={memo_size}, max_batch={max_batch}: use at least 0 and 1")
        self._embedder = embedder
        self._memo_size = memo_size
        self._max_batch = max_batch
        self._memo: OrderedDict[str | bytes, Vectors] = OrderedDict()
        self._fitting: dict[str, bool] = {}
        self.calls = 0  # forward passes
        self.texts = 0  # texts in them
        self._after_fork()
        _fork_aware.add(self)

    def _after_fork(self) -> None:
        # Any of these may have been held, or half changed, by a thread that the child does not have.
        self._lock = threading.Lock()
        self._waiting: dict[str | bytes, list[Future[Vectors]]] = {}
        self._queue: queue.SimpleQueue[_Item | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None

    @property
    def name(self) -> str:
        """Name of the embedder that is shared."""
        return self._embedder.name

    @property
    def dimension(self) -> int:
        """Length of every vector."""
        return self._embedder.dimension

    @property
    def ready(self) -> bool:
        """Whether the model is in memory (True if the embedder does not say)."""
        return bool(getattr(self._embedder, "loaded", True))

    def fits(self, text: str) -> bool:
        """Whether the vector would tell of all of `text`."""
        if len(text) > _LONG_KEY_CHARS:
            return fits(self._embedder, text)
        with self._lock:
            known = self._fitting.get(text)
        if known is None:
            known = fits(self._embedder, text)
            with self._lock:
                if len(self._fitting) >= self._memo_size:
                    self._fitting.clear()
                self._fitting[text] = known
        return known

    def submit(self, text: str) -> Future[Vectors]:
        """Ask for the vector of `text` and return at once.

        A sync caller waits by `.result(timeout)`, an async one by `asyncio.wrap_future`. Cancel the
        future when giving up: a text that nobody waits for any more is not computed.

        Returns:
            A future of the read-only unit vector, shape (dimension,); already done if it is remembered.
            It fails with `EmbeddingError` if the embedder fails or returns no valid vector.
        """
        if not isinstance(text, str):
            raise TypeError(f"text must be str, not {type(text).__name__}")  # it would fail a whole batch
        key = _key(text)
        future: Future[Vectors] = Future()
        with self._lock:
            row = self._recall(key)
            if row is None:
                self._start()
                waiters = self._waiting.setdefault(key, [])
                waiters.append(future)
                if len(waiters) == 1:
                    self._queue.put(_Item(self, key, text))
        if row is not None:
            future.set_result(row)
        return future

    def embed_one(self, text: str) -> Vectors:
        """Embed one text, shape (dimension,); raises what the future of `submit` would."""
        return self.submit(text).result()

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts` as unit rows in their order, shape (len(texts), dimension).

        Raises:
            EmbeddingError: The embedder failed, or returned no valid vectors.
        """
        rows = np.zeros((len(texts), self.dimension), np.float32)
        # One part in flight at a time lets a lone request of another thread in between.
        sizes = [min(len(text), _FALLBACK_CHARS) for text in texts]
        for part in groups(sizes, _BULK_CHARS, _BULK_CHARS, self._max_batch):
            futures = [self.submit(texts[i]) for i in part]
            try:
                for i, future in zip(part, futures, strict=True):
                    rows[i] = future.result()
            finally:
                for future in futures:  # after an error or Ctrl-C nobody waits for the rest
                    future.cancel()
        rows.setflags(write=False)
        return rows

    def _recall(self, key: str | bytes) -> Vectors | None:
        row = self._memo.get(key)
        if row is not None:
            self._memo.move_to_end(key)
        return row

    def _start(self) -> None:
        if self._thread is None or not self._thread.is_alive():
            # The thread knows `self` only through what is queued, so that a dropped SharedEmbedder can go.
            self._thread = threading.Thread(target=_dispatch, args=(self._queue,), name="costopt-embed", daemon=True)
            self._thread.start()
            weakref.finalize(self, _stop, self._queue, self._thread)

    def _run(self, first: _Item) -> None:
        """Take `first` and whatever else is queued, run one forward pass, answer everyone."""
        wanted = self._take(first)
        if not wanted:
            return
        self.calls += 1
        self.texts += len(wanted)
        rows: list[Vectors] = []
        problem: BaseException | None = None
        try:
            rows = _checked(self._embedder, self._embedder.embed(list(wanted.values())), len(wanted))
        except CostOptError as error:
            problem = error
        except BaseException as error:  # the waiters must hear of it, and the thread live on
            problem = EmbeddingError(f"embedder {self.name!r} failed: {type(error).__name__}: {error}")
            problem.__cause__ = error
        with self._lock:
            self._memo.update(zip(wanted, rows, strict=False))  # no rows if it failed
            while len(self._memo) > self._memo_size:
                self._memo.popitem(last=False)
            answers = [self._waiting.pop(key) for key in wanted]
        for i, futures in enumerate(answers):
            for future in filter(Future.set_running_or_notify_cancel, futures):
                if problem is None:
                    future.set_result(rows[i])
                else:
                    future.set_exception(problem)

    def _take(self, first: _Item) -> dict[str | bytes, str]:
        """Take up to `max_batch` queued texts, by key, but for those that nobody waits for any more."""
        wanted: dict[str | bytes, str] = {}
        item: _Item | None = first
        while item is not None:
            if not self._abandoned(item.key):
                wanted[item.key] = item.text
            if len(wanted) == self._max_batch:
                break
            try:
                item = self._queue.get_nowait()
            except queue.Empty:
                break
        else:
            self._queue.put(None)  # the order to stop, which `_dispatch` has yet to see
        return wanted

    def _abandoned(self, key: str | bytes) -> bool:
        with self._lock:
            if not all(future.cancelled() for future in self._waiting[key]):
                return False
            for future in self._waiting.pop(key):
                future.set_running_or_notify_cancel()
            return True


def _has(embedder: object, part: str) -> bool:
    # By the class where it will do: to ask the object for its dimension may be to load a model.
    return not isinstance(embedder, type) and (hasattr(type(embedder), part) or hasattr(embedder, part))


def _named(embedder: object) -> str:
    # Not its repr, which may hold a key.
    if isinstance(embedder, str | type):
        return repr(embedder)
    return f"of class {type(embedder).__name__}"


class _Item(NamedTuple):
    owner: SharedEmbedder
    key: str | bytes
    text: str


def _key(text: str) -> str | bytes:
    """Key of the memo: a digest of a long text, for 4,096 documents would be a lot to keep."""
    if len(text) <= _LONG_KEY_CHARS:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=32).digest()


def _dispatch(items: queue.SimpleQueue[_Item | None]) -> None:
    while (item := items.get()) is not None:
        item.owner._run(item)
        del item  # or its owner would live until the next


def _stop(items: queue.SimpleQueue[_Item | None], thread: threading.Thread) -> None:
    """Runs when a SharedEmbedder is dropped, and at exit: a thread killed inside torch aborts the process."""
    with contextlib.suppress(queue.Empty):
        while True:
            items.get_nowait()
    items.put(None)
    if thread is not threading.current_thread():
        thread.join(timeout=5.0)  # a pass ends; an embedder that hangs must not keep the interpreter alive


def _checked(embedder: Embedder, rows: Any, count: int) -> list[Vectors]:
    """Return `rows` as read-only unit vectors, or raise EmbeddingError if they are no embeddings."""
    with np.errstate(over="ignore"):
        array = np.asarray(rows, dtype=np.float32)
    expected = (count, embedder.dimension)
    if array.shape != expected:
        raise EmbeddingError(
            f"embedder {embedder.name!r} returned shape {array.shape}, not {expected}: "
            "embed() must return one row per text, each of length `dimension`"
        )
    norms = np.linalg.norm(array.astype(np.float64), axis=1, keepdims=True)
    if not np.isfinite(norms).all() or not norms.all():
        raise EmbeddingError(
            f"embedder {embedder.name!r} returned a vector that is zero or not finite: "
            "embed() must return vectors that have a direction, for the empty text too"
        )
    # A copy: a view would keep the batch alive, or change with the embedder's own buffer.
    array = (array / norms).astype(np.float32) if (abs(norms - 1) > 1e-4).any() else array
    vectors = [row.copy() for row in array]
    for vector in vectors:
        vector.setflags(write=False)
    return vectors


_default: SharedEmbedder | None = None
_model: MiniLMEmbedder | None = None
_default_lock = threading.Lock()


DEFAULT_SPACE = ("all-MiniLM-L6-v2", 384)
"""Name and dimension of the default embedder, for who needs no embedding (and may not have torch)."""


def default_embedder() -> SharedEmbedder:
    """Return the MiniLM embedder that every lever of this process shares; loads nothing yet.

    Raises:
        MissingExtraError: The extra ``minilm`` is not installed.

    Example:
        >>> default_embedder() is default_embedder(), default_embedder().name
        (True, 'all-MiniLM-L6-v2')
    """
    global _default
    model = default_model()
    with _default_lock:
        if _default is None:
            _default = SharedEmbedder(model)
        return _default


def default_model() -> MiniLMEmbedder:
    """The MiniLM behind `default_embedder`, for who reads more out of it than sentence vectors."""
    global _model
    with _default_lock:
        if _model is None:
            _model = MiniLMEmbedder()
        return _model


def _new_lock() -> None:
    global _default_lock
    _default_lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_new_lock)
