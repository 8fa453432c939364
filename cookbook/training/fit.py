"""Fine-tuning the upper layers of MiniLM on pairs."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as functional
from safetensors import safe_open
from torch.nn.functional import binary_cross_entropy_with_logits

from cookbook.training.corpus import Example
from costopt._minilm import LAYERS, WIDTH
from costopt.caching.cross_encoder import Top, base_layers, logits
from costopt.embedding import default_model

__all__ = ["base_tensors", "fine_tuned", "initial"]

_BATCH = 64
_TOKENS = 64  # of a text; longer ones are cut, in training
_BUCKET = 40 * _BATCH
_HIDDEN = 128
_HEADS = 12
_DROPOUT = 0.1
_HEAD_SEED = 0
_MASK = 2**23  # more than twice the largest batch's numbers
_DECAY = 0.01
_WARM_UP = 0.06
_HEAD_RATE = 10.0  # the head starts from nothing, the layers from a good place
_ACROSS = -2.0  # attention between the texts starts at e^-2 of that within: close to the embedder, and trainable
_SCALE = (10.0, -8.0)  # a cosine of 0.8 is even chances


def base_tensors(depth: int) -> dict[str, torch.Tensor]:
    """The embedder's own upper layers in full precision, by the names of `Top`."""
    with safe_open(str(default_model().weights()), "pt") as stored:
        weights = {name.removeprefix("bert."): stored.get_tensor(name) for name in stored.keys()}  # noqa: SIM118
    return base_layers(weights, depth)


def initial(depth: int) -> dict[str, torch.Tensor]:
    """Where every training starts: a judge that says what the embedder's cosine says."""
    torch.manual_seed(_HEAD_SEED)  # so that runs of several seeds differ in what they are shown alone
    hidden = torch.nn.Linear(2 * WIDTH, _HIDDEN)
    return {
        **base_tensors(depth),
        "across": torch.full((LAYERS - depth, _HEADS), _ACROSS),
        "head.0.weight": hidden.weight.detach(),
        "head.0.bias": hidden.bias.detach(),
        "head.1.weight": torch.zeros(1, _HIDDEN),
        "head.1.bias": torch.zeros(1),
        "scale": torch.tensor(_SCALE),
    }


def fine_tuned(
    examples: Sequence[Example], *, depth: int, epochs: float, rate: float, seed: int
) -> dict[str, torch.Tensor]:
    """Train by AdamW on smoothed, weighted cross-entropy; returns the tensors of `Top`.

    Args:
        examples: What to learn.
        depth: How many layers read each text alone, and stay as they are.
        epochs: How often each example is seen.
        rate: Highest learning rate of the layers.
        seed: Of order and dropout.
    """
    chosen = random.Random(seed)
    tensors = {name: torch.nn.Parameter(value.clone()) for name, value in initial(depth).items()}
    torch.manual_seed(seed)
    layers = [value for name, value in tensors.items() if name[0].isdigit()]
    others = [value for name, value in tensors.items() if not name[0].isdigit()]
    groups = [{"params": layers, "lr": rate}, {"params": others, "lr": rate * _HEAD_RATE}]
    optimiser = torch.optim.AdamW(groups, weight_decay=_DECAY, fused=True)
    total = max(1, int(epochs * len(examples) / _BATCH))
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimiser, lambda step: min(1.0, (step + 1) / (_WARM_UP * total)) * max(0.02, 1 - step / total)
    )
    top, drop = Top(tensors, depth), _Dropout(chosen)
    started, mean = time.monotonic(), 0.0
    for step, batch in zip(range(total), _batches(examples, chosen), strict=False):
        loss = _loss(top, batch, depth, drop)
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_([*layers, *others], 1.0)
        optimiser.step()
        schedule.step()
        mean = loss.item() if not step else 0.98 * mean + 0.02 * loss.item()
        if step % 100 == 99:
            print(f"step {step + 1:,} of {total:,}, loss {mean:.4f}, {time.monotonic() - started:.0f} s", flush=True)
    return {name: value.detach() for name, value in tensors.items()}


class _Dropout:
    """Dropout by a random stretch of a mask drawn once: to draw one each time is a sixth of a step."""

    def __init__(self, chosen: random.Random) -> None:
        self._chosen = chosen
        self._mask = (torch.rand(_MASK) >= _DROPOUT).to(torch.bfloat16) / (1 - _DROPOUT)

    def __call__(self, values: torch.Tensor) -> torch.Tensor:
        start = self._chosen.randrange(_MASK - values.numel())
        return values * self._mask[start : start + values.numel()].view_as(values).to(values.dtype)


class _Ops:
    """`torch.nn.functional`, but for attention in float32."""

    linear, gelu, layer_norm = functional.linear, functional.gelu, functional.layer_norm
    normalize = functional.normalize

    @staticmethod
    def scaled_dot_product_attention(query: Any, key: Any, value: Any, mask: Any) -> torch.Tensor:
        with torch.autocast("cpu", enabled=False):
            return functional.scaled_dot_product_attention(query.float(), key.float(), value.float(), mask.float())


def _loss(top: Top, batch: Sequence[Example], depth: int, drop: _Dropout) -> torch.Tensor:
    model = default_model()
    network = model.network()
    with torch.no_grad():
        tokens = [[model.tokens(text)[:_TOKENS] for text in sorted((one.a, one.b), key=len)] for one in batch]
        # The shorter texts on one side, the longer on the other: less padding, and the order means nothing.
        sides = [network.states([both[side] for both in tokens], depth) for side in (0, 1)]
    with torch.autocast("cpu", torch.bfloat16):
        values = logits(top, *sides, drop=drop, ops=_Ops)
    labels = torch.tensor([1 - one.doubt if one.same else one.doubt for one in batch])
    weights = torch.tensor([one.weight for one in batch])
    return binary_cross_entropy_with_logits(values.float(), labels, weights)


def _batches(examples: Sequence[Example], chosen: random.Random) -> Iterator[list[Example]]:
    """Batches of like lengths in random order, for ever."""
    rest: list[Any] = []
    while True:
        order = list(examples)
        chosen.shuffle(order)
        for start in range(0, len(order), _BUCKET):
            bucket = sorted(
                order[start : start + _BUCKET], key=lambda one: sorted((len(one.a), len(one.b)), reverse=True)
            )
            rest += [bucket[i : i + _BATCH] for i in range(0, len(bucket), _BATCH)]
        chosen.shuffle(rest)
        yield from rest
        rest = []
