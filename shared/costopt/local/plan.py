"""What a model will need before it is loaded: weights, quantisation state, keys and values, activations.

plan = MemoryPlan.of("my-model", context=8_192, concurrency=4)
plan.fits, plan.explain(), plan.nearest
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from costopt.errors import ConfigError, OutOfMemoryError
from costopt.local.inventory import Inventory
from costopt.local.memory import default_device, free_bytes, repacks_weights
from costopt.local.sizes import QUANTIZATIONS, Stored, bytes_of_dtype, shown, stored

__all__ = ["DEFAULT_CONTEXT", "MemoryPlan"]

DEFAULT_CONTEXT = 4_096
_STEP = 256  # suggested contexts are multiples of it
_SUGGESTIONS = 3
_LEFT_FREE = 0.05  # allocators round up, and other programs go on
# What to fall back on, one step each. FP4 takes as many bytes as NF4, and is worse: nobody is sent there.
_STEPS = {"none": 0, "int8": 1, "nf4": 2, "fp4": 2}


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What a model needs at a setting, and what there is. All sizes are bytes.

    Attributes:
        inventory: What the model consists of.
        quantization: "nf4", "fp4", "int8" or "none".
        context: Tokens of the longest sequence, prompt and answer together.
        concurrency: Sequences of that length at the same time.
        device: Where it is to run.
        free: What is free there.
        batch_tokens: Most tokens in one forward pass.
        double_quant: Whether the scales of four-bit weights are quantised, too.
        repacked: Whether four-bit weights lie as the CPU kernel for AVX512-BF16 has them.
    """

    inventory: Inventory = field(repr=False)
    quantization: str
    context: int
    concurrency: int
    device: str
    free: int
    batch_tokens: int = 512
    double_quant: bool = True
    repacked: bool = False

    def __post_init__(self) -> None:
        if self.quantization not in QUANTIZATIONS:
            known = ", ".join(map(repr, QUANTIZATIONS))
            raise ConfigError(f"quantization={self.quantization!r}: use one of {known}")
        for name in ("context", "concurrency", "batch_tokens"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: use 1 or more")
        most = self.inventory.context
        if most is not None and self.context > most:
            raise ConfigError(
                f"context={self.context}: {self.inventory.name} was made for at most {most} tokens, use no more"
            )

    @classmethod
    def of(
        cls,
        model: str | Path | Any,
        *,
        quantization: str = "nf4",
        context: int | None = None,
        concurrency: int = 1,
        device: str | None = None,
        dtype: str = "bfloat16",
        batch_tokens: int = 512,
        double_quant: bool = True,
        free: int | None = None,
    ) -> MemoryPlan:
        """Plan from a model's configuration alone: no weights are read or fetched.

        Args:
            model: A local folder or configuration file, a hub id, or a transformers configuration.
            quantization: "nf4", "fp4", "int8" or "none"; of no consequence for a model that was saved quantised: it is
                counted as it was saved, and if another tool than bitsandbytes did it, as if nobody had.
            context: Tokens of the longest sequence; None: 4,096, or what the model was made for if that is less.
            concurrency: Sequences of that length at the same time.
            device: Where it is to run, e.g. "cuda:1"; None: the GPU if there is one, else the CPU.
            dtype: Of what is not quantised, and of keys and values.
            batch_tokens: Most tokens in one forward pass.
            double_quant: Whether the scales of four-bit weights are quantised, too.
            free: Bytes to plan for; None: what is free on the device now.

        Raises:
            ConfigError: If a setting cannot be meant, or there is no such model.
            MissingExtraError: Without the extra ``local``.

        Example:
            >>> from transformers import LlamaConfig
            >>> plan = MemoryPlan.of(LlamaConfig(), context=2_048, device="cpu", free=16 * 2**30)
            >>> plan.fits, round(plan.weights / 2**30, 2), round(plan.kv_cache / 2**30, 2)
            (True, 3.5, 1.0)
        """
        if quantization not in QUANTIZATIONS:
            raise ConfigError(f"quantization={quantization!r}: use one of {', '.join(map(repr, QUANTIZATIONS))}")
        inventory = Inventory.of(model, dtype=dtype)
        place = device or default_device()
        return cls(
            inventory=inventory,
            quantization=inventory.quantised or quantization,
            context=context if context is not None else min(DEFAULT_CONTEXT, inventory.context or DEFAULT_CONTEXT),
            concurrency=concurrency,
            device=place,
            free=free_bytes(place) if free is None else free,
            batch_tokens=batch_tokens,
            double_quant=double_quant,
            repacked=repacks_weights(place),
        )

    @property
    def weights(self) -> int:
        """Of the weights, whether quantised or not."""
        return self.inventory.other_bytes + sum(part.weights for part in self._parts)

    @property
    def quant_state(self) -> int:
        """Of scales and codes, without which quantised weights cannot be read."""
        return sum(part.state for part in self._parts)

    @property
    def unquantised(self) -> int:
        """Of the weights that are not quantised: embeddings, output layer, norms, and shapes that cannot be."""
        if self.quantization == "none":
            return self.weights
        return self.inventory.other_bytes + sum(part.weights for part in self._parts if not part.state)

    @property
    def kv_cache(self) -> int:
        """Of keys and values, with `concurrency` sequences of `context` tokens."""
        return self.concurrency * sum(layer.bytes_for(self.context) for layer in self.inventory.cache)

    @property
    def activations(self) -> int:
        """Of what a forward pass needs at its fullest moment, beside all that."""
        widths, element = self.inventory.widths, bytes_of_dtype(self.inventory.dtype)
        batch = max(self.batch_tokens, self.concurrency)
        read = self.context * self.concurrency + batch
        # Keys and values are read out of the cache layer by layer, and repeated for every query head.
        gathered = read * (2 * widths.query + widths.keys) * element
        attention = gathered + batch * read * element + batch * (2 * widths.hidden + widths.query) * element
        feed_forward = batch * (2 * widths.hidden + 3 * widths.inner) * element
        logits = self.concurrency * (widths.hidden * element + 2 * widths.vocabulary * 4)
        return max(attention, feed_forward, logits) + self._unpacked

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.quant_state + self.kv_cache + self.activations

    @property
    def fits(self) -> bool:
        """Whether the total, and a twentieth of what is free to spare, is free."""
        return self.total <= self.free * (1 - _LEFT_FREE)

    @property
    def nearest(self) -> tuple[MemoryPlan, ...]:
        """Up to three settings that would fit, from the nearest; this one alone if it fits; none if nothing does.

        Halving the context is held for as far away as halving the concurrency, or as the next smaller quantisation.
        """
        if self.fits:
            return (self,)
        found = [plan for plan in self._smaller() if plan.fits]
        best = [plan for plan in found if not any(other._covers(plan) for other in found)]
        return tuple(sorted(best, key=self._distance)[:_SUGGESTIONS])

    def at(self, **changes: Any) -> MemoryPlan:
        """The same model at another quantization, context, concurrency, free, ...

        Example:
            >>> from transformers import LlamaConfig
            >>> plan = MemoryPlan.of(LlamaConfig(), device="cpu", free=16 * 2**30)
            >>> plan.at(concurrency=2).kv_cache == 2 * plan.kv_cache
            True
        """
        return replace(self, **changes)

    def require(self) -> MemoryPlan:
        """This plan, if it fits.

        Raises:
            OutOfMemoryError: If it does not; with the figures, and settings that would.
        """
        if not self.fits:
            raise OutOfMemoryError(self.explain())
        return self

    def explain(self) -> str:
        """The figures, line by line, and what would fit if this does not.

        Example:
            >>> from transformers import LlamaConfig
            >>> print(MemoryPlan.of(LlamaConfig(), context=2_048, device="cpu", free=2**32).explain())
            llama: nf4, context 2,048, concurrency 1, on cpu
            ...
        """
        lines = [f"{self.inventory.name}: {self._setting()}, on {self.device}"]
        lines += [f"  {label:<19}{shown(size):>12}{remark}" for label, size, remark in self._rows()]
        if not self.fits:
            lines.append(self._advice())
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """The figures as plain data."""
        return {
            "model": self.inventory.name,
            **self._settings(),
            "device": self.device,
            "dtype": self.inventory.dtype,
            "parameters": self.inventory.parameters,
            "weights": self.weights,
            "unquantised": self.unquantised,
            "quant_state": self.quant_state,
            "kv_cache": self.kv_cache,
            "activations": self.activations,
            "total": self.total,
            "free": self.free,
            "fits": self.fits,
            "nearest": [{**plan._settings(), "total": plan.total} for plan in self.nearest],
        }

    @property
    def _parts(self) -> list[Stored]:
        element = bytes_of_dtype(self.inventory.dtype)
        options: dict[str, Any] = {
            "element_bytes": element,
            "double_quant": self.double_quant,
            "repacked": self.repacked,
        }
        return [stored(matrix, self.quantization, **options) for matrix in self.inventory.matrices]

    @property
    def _unpacked(self) -> int:
        """What multiplying takes: by int8 the sums in 32 bits, by four bits the largest matrix written out.

        The CPU kernel for AVX512-BF16 needs neither.
        """
        if self.quantization == "none" or (self.repacked and self.quantization != "int8"):
            return 0
        if self.quantization == "int8":
            return max(self.batch_tokens, self.concurrency) * self.inventory.widths.inner * 4
        largest = max((m.rows * m.columns for m in self.inventory.matrices if not m.kept), default=0)
        return largest * bytes_of_dtype(self.inventory.dtype)

    def _smaller(self) -> Iterator[MemoryPlan]:
        """For each quantisation and concurrency, no more than these, the longest context up to this that could fit."""
        level = _STEPS[self.quantization]
        smaller = [name for name in ("int8", "nf4") if _STEPS[name] > level and not self.inventory.quantised]
        for quantization in (self.quantization, *smaller):
            concurrency = self.concurrency
            while concurrency:
                yield self.at(quantization=quantization, concurrency=concurrency)._shortened()
                concurrency //= 2

    def _shortened(self) -> MemoryPlan:
        """With the longest context that fits; with the shortest there is if none does."""
        if self.fits:
            return self
        step = min(_STEP, self.context)
        low, high = 1, self.context // step
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.at(context=middle * step).fits else (low, middle - 1)
        return self.at(context=low * step)

    def _covers(self, other: MemoryPlan) -> bool:
        """Whether it is at least as good in everything, and better in something."""
        mine, theirs = self._goodness(), other._goodness()
        return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))

    def _goodness(self) -> tuple[int, int, int]:
        return (-_STEPS[self.quantization], self.context, self.concurrency)

    def _distance(self, other: MemoryPlan) -> float:
        apart = _STEPS[other.quantization] - _STEPS[self.quantization]
        return apart + math.log2(self.context / other.context) + math.log2(self.concurrency / other.concurrency)

    def _settings(self) -> dict[str, Any]:
        return {"quantization": self.quantization, "context": self.context, "concurrency": self.concurrency}

    def _setting(self) -> str:
        return f"{self.quantization}, context {self.context:,}, concurrency {self.concurrency:,}"

    def _rows(self) -> Iterator[tuple[str, int, str]]:
        bits = 8 * (self.weights + self.quant_state) / max(1, self.inventory.parameters)
        per_token = sum(layer.token_bytes * layer.count for layer in self.inventory.cache)
        kept = f", {shown(self.unquantised)} not quantised" if self.quantization != "none" else ""
        yield "weights", self.weights, f"  {self.inventory.parameters:,} parameters{kept}"
        yield "quantisation state", self.quant_state, f"  {bits:.2f} bits a parameter in all"
        yield "keys and values", self.kv_cache, f"  {shown(per_token)} a token"
        yield "activations", self.activations, f"  {self.batch_tokens:,} tokens a pass"
        yield "total", self.total, ""
        yield "free", self.free, "  fits" if self.fits else f"  too little: {1 - _LEFT_FREE:.0%} of it may be used"

    def _advice(self) -> str:
        plans = self.nearest
        if not plans:
            smallest = self.inventory.quantised or "nf4"
            least = self.at(quantization=smallest, context=min(_STEP, self.context), concurrency=1)
            return f"no setting of this model fits: at the least ({least._setting()}) it needs {shown(least.total)}"
        return "\n".join(["would fit:", *(f"  {plan._setting()}: {shown(plan.total)}" for plan in plans)])
