"""bitsandbytes: what is quantised how, what is left as it is, and what all of it takes in memory."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from costopt.errors import require
from costopt.local.inventory import SHAPE, kept_layers

if TYPE_CHECKING:
    import torch

__all__ = ["quantisation", "quieten", "weight_bytes"]


def quantisation(config: Any, name: str, dtype: torch.dtype) -> tuple[Any, tuple[str, ...]]:
    """How transformers is told to quantise, and the layers whose shape it cannot.

    Args:
        config: The model's configuration.
        name: One of `QUANTIZATIONS`.
        dtype: In which is computed.

    Returns:
        A `BitsAndBytesConfig`, None for "none"; and names of modules that stay as they are because of their shape.

    Raises:
        MissingExtraError: bitsandbytes is not installed.
    """
    if name == "none":
        return None, ()
    require("bitsandbytes", "local")
    from transformers import BitsAndBytesConfig

    kept = kept_layers(_laid_out(config), name)
    if name == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=sorted(kept)), ()
    told = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=name,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=sorted(kept),  # the name is historical: for four bits, too
    )
    return told, tuple(sorted(path for path, reason in kept.items() if reason == SHAPE))


def weight_bytes(model: Any) -> int:
    """Bytes of all weights as they lie in memory, quantisation state included; what is shared counts once.

    `get_memory_footprint` of transformers leaves the quantisation state out.
    """
    seen: dict[tuple[int, str], int] = {}
    for tensor in _tensors(model):
        storage = tensor.untyped_storage()
        seen[storage.data_ptr(), str(tensor.device)] = storage.nbytes()
    return sum(seen.values())


def _tensors(model: Any) -> Iterator[torch.Tensor]:
    for tensor in (*model.parameters(), *model.buffers()):
        yield tensor
        yield from _state(getattr(tensor, "quant_state", None))
        if getattr(tensor, "SCB", None) is not None:
            yield tensor.SCB
    for module in model.modules():  # int8 moves weights and scales there at the first forward pass
        state = getattr(module, "state", None)
        for name in ("CB", "SCB"):
            if getattr(state, name, None) is not None:
                yield getattr(state, name)


def _state(state: Any) -> Iterator[torch.Tensor]:
    if state is None:
        return
    for name in ("absmax", "code", "offset"):
        tensor: Any = getattr(state, name, None)
        if hasattr(tensor, "untyped_storage"):
            yield tensor
    yield from _state(getattr(state, "state2", None))


class _Quiet(logging.Filter):
    """Drops what bitsandbytes says over and over, or of a kernel that it would fetch from the hub and does without."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not any(part in str(record.msg) for part in ("inputs will be cast from", "kernels-community"))


_quiet = _Quiet()


def quieten() -> None:
    """Keep bitsandbytes from logging a line for every int8 layer at every forward pass."""
    for name in ("autograd._functions", "backends.cpu.ops"):
        logging.getLogger(f"bitsandbytes.{name}").addFilter(_quiet)


def _laid_out(config: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
