"""MiniLM reading two questions together: the network behind the default judge.

The lower layers read each text by itself, exactly as the embedder does; the upper ones, fine-tuned, read both in one
sequence. So the question is read once for all its candidates, and nothing but the upper layers is shipped: their
difference to the embedder's, as int8 with one scale a row. Nothing tells the two texts apart but which of them a
token belongs to, so that the score is the same in both orders.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from costopt._minilm import LAYERS, _fork_aware, attend, groups, layer_of
from costopt.embedding import default_model
from costopt.errors import EmbeddingError

if TYPE_CHECKING:
    import torch

__all__ = ["MAX_TOKENS", "SHIPPED", "CrossEncoder", "Top", "base_layers", "dequantised", "logits", "quantised"]

SHIPPED: Final = Path(__file__).parent / "judge_model"
"""Folder of the weights, the policy and the model card that come with the package."""

MAX_TOKENS: Final = 128
"""Of one text. The judge was trained on no longer ones, and has no opinion on them."""

_LAYER_NAMES = ("qkv", "out", "norm", "up", "down", "last_norm")
_PASS_TOKENS = 6_144
_PASS_WASTE_TOKENS = 1_536
_SHARPNESS = 20.0  # brings the features of two unit vectors of 384 numbers to the order of one
_UNSEEN = -1e4


class Top:
    """The fine-tuned part: upper layers, what they add to attention between the texts, and the head.

    Attributes:
        layers: As `layer_of` makes them, the lowest first.
        across: Added to the attention of one text to the other, shape (len(layers), 12).
        head: (weight, bias) of the hidden and the last layer of the head.
        scale: Shape (2,): what the cosine of both texts is multiplied by, and what is added then.
    """

    def __init__(self, tensors: Mapping[str, torch.Tensor], depth: int) -> None:
        self.layers = [
            [(tensors[f"{i}.{name}.weight"], tensors[f"{i}.{name}.bias"]) for name in _LAYER_NAMES]
            for i in range(depth, LAYERS)
        ]
        self.across = tensors["across"]
        self.head = [(tensors[f"head.{i}.weight"], tensors[f"head.{i}.bias"]) for i in range(2)]
        self.scale = tensors["scale"]


class CrossEncoder:
    """Says how sure it is that two questions want the same answer; the default judge's model.

    Args:
        directory: Folder with weights.safetensors; by default the one that comes with the package.

    Example:
        >>> pairs = [("reset my password", "password reset"), ("reset my password", "reset my phone")]
        >>> same, other = CrossEncoder().predict(pairs)
        >>> same > other
        True
    """

    def __init__(self, directory: Path = SHIPPED) -> None:
        self._directory = directory
        self._top: Top | None = None
        self._depth = LAYERS
        self._after_fork()
        _fork_aware.add(self)

    def _after_fork(self) -> None:
        self._lock = threading.Lock()  # the parent may have been loading

    @property
    def loaded(self) -> bool:
        """Whether the weights are in memory."""
        return self._top is not None

    def load(self) -> None:
        """Read the weights now, and the embedder's, if they are not in memory yet.

        Raises:
            EmbeddingError: A file is missing, cannot be read, or belongs to other weights.
        """
        with self._lock:
            if self._top is None:
                model = default_model()
                network = model.network()
                dtype = network.layers[0][0][0].dtype
                try:
                    with network.computing():  # OpenMP's other threads did not come along through a fork
                        tensors, self._depth = _read(self._directory / "weights.safetensors", model.weights())
                        small = {key: one.to(dtype) if key[0].isdigit() else one for key, one in tensors.items()}
                    self._top = Top(small, self._depth)
                except Exception as error:  # safetensors raises what it likes
                    raise EmbeddingError(f"the judge cannot be read from {self._directory}: {error!r}") from error

    def predict(self, sentences: Sequence[tuple[str, str]]) -> list[float]:
        """A logit for each pair, the higher the surer; -inf where a text is longer than `MAX_TOKENS`."""
        self.load()
        assert self._top is not None
        pairs, model = sentences, default_model()
        network = model.network()
        ids = {text: model.tokens(text) for pair in pairs for text in pair}
        found = [float("-inf")] * len(pairs)
        short = [i for i, pair in enumerate(pairs) if max(len(ids[text]) for text in pair) <= MAX_TOKENS]
        lengths = [sum(len(ids[text]) for text in pairs[i]) for i in short]
        for group in groups(lengths, _PASS_TOKENS, _PASS_WASTE_TOKENS, len(short)):
            chosen = [short[i] for i in group]
            texts = list(dict.fromkeys(text for i in chosen for text in pairs[i]))
            place = {text: i for i, text in enumerate(texts)}
            with network.computing():
                hidden, seen = network.states([ids[text] for text in texts], self._depth)
                sides = []
                # The shorter texts on one side, the longer on the other: less padding, and the order means nothing.
                ordered = [sorted((place[text] for text in pairs[i]), key=lambda p: len(ids[texts[p]])) for i in chosen]
                for side in (0, 1):
                    rows = [both[side] for both in ordered]
                    longest = max(len(ids[texts[row]]) for row in rows)
                    mask = None if seen is None else seen[rows, :longest]
                    sides.append((hidden[rows, :longest], mask))
                values = logits(self._top, *sides).tolist()
            for i, value in zip(chosen, values, strict=True):
                found[i] = value
        return found


def logits(
    top: Top,
    one: tuple[torch.Tensor, torch.Tensor | None],
    other: tuple[torch.Tensor, torch.Tensor | None],
    drop: Any = lambda x: x,
    ops: Any = None,
) -> torch.Tensor:
    """How sure the upper layers are of each pair; also what is trained.

    Args:
        top: The fine-tuned part.
        one: Hidden states of one text of each pair, shape (pairs, length, 384), and which are not padding,
            shape (pairs, length); None if all are.
        other: The same of the other text.
        drop: Dropout, in training.
        ops: In place of `torch.nn.functional`.

    Returns:
        Shape (pairs,).
    """
    import torch

    ops = ops or torch.nn.functional
    (a, seen_a), (b, seen_b) = one, other
    border = a.shape[1]
    hidden = torch.cat([a, b], 1)
    side = torch.arange(hidden.shape[1]) >= border
    across = (side[:, None] != side[None, :]).to(torch.float32)
    seen = None
    if seen_a is not None or seen_b is not None:
        all_seen = (part.new_ones(part.shape[:2], dtype=torch.bool) for part in (a, b))
        seen = torch.cat(
            [own if mask is None else mask for mask, own in zip((seen_a, seen_b), all_seen, strict=True)], 1
        )
    padding = None if seen is None else torch.where(seen, 0.0, _UNSEEN)[:, None, None, :]
    biases = ((across * weight[:, None, None])[None] for weight in top.across)
    masks = (bias if padding is None else bias + padding for bias in biases)
    hidden = attend(ops, hidden, zip(top.layers, masks, strict=True), drop).float()
    if seen is not None:
        hidden = hidden * seen[..., None]
    u, v = (ops.normalize(part.sum(1), dim=1) for part in (hidden[:, :border], hidden[:, border:]))
    features = torch.cat([u * v, (u - v).abs()], 1) * _SHARPNESS
    inner = ops.gelu(ops.linear(drop(features), *top.head[0]))
    value: torch.Tensor = ops.linear(inner, *top.head[1])[:, 0] + top.scale[0] * (u * v).sum(1) + top.scale[1]
    return value


def quantised(tensors: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The large matrices as int8 differences to the base weights with one scale a row, all else as float16."""
    import torch

    found: dict[str, torch.Tensor] = {}
    for name, value in tensors.items():
        if name[0].isdigit() and value.dim() == 2:
            difference = value - base[name]
            scale = (difference.abs().amax(1, keepdim=True) / 127).clamp_min(1e-12)
            found[name] = (difference / scale).round().to(torch.int8)
            found[f"{name}.scale"] = scale.to(torch.float32)
        else:
            found[name] = value.to(torch.float32 if name == "scale" else torch.float16)
    return found


def dequantised(stored: Mapping[str, torch.Tensor], base: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """What `quantised` was given, as float32."""
    found: dict[str, torch.Tensor] = {}
    for name, value in stored.items():
        if f"{name}.scale" in stored:
            found[name] = base[name] + value.float() * stored[f"{name}.scale"]
        elif not name.endswith(".scale"):
            found[name] = value.float()
    return found


def base_layers(weights: Mapping[str, torch.Tensor], depth: int) -> dict[str, torch.Tensor]:
    """The embedder's own upper layers under the names of `Top`."""
    return {
        f"{i}.{name}.{kind}": tensor
        for i in range(depth, LAYERS)
        for name, both in zip(_LAYER_NAMES, layer_of(weights, i), strict=True)
        for kind, tensor in zip(("weight", "bias"), both, strict=True)
    }


def _read(file: Path, base_file: Path) -> tuple[dict[str, torch.Tensor], int]:
    from safetensors import safe_open

    with safe_open(str(file), "pt") as stored:
        about = json.loads((stored.metadata() or {})["about"])
        tensors = {name: stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118  (it is no mapping)
    depth = int(about["depth"])
    upper = tuple(f"encoder.layer.{i}." for i in range(depth, LAYERS))
    with safe_open(str(base_file), "pt") as stored:
        names = [name for name in stored.keys() if name.removeprefix("bert.").startswith(upper)]  # noqa: SIM118
        weights = {name.removeprefix("bert."): stored.get_tensor(name) for name in names}
    return dequantised(tensors, base_layers(weights, depth)), depth
