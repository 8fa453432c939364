"""What a model consists of, read from its configuration: laid out on torch's meta device, without weights."""

from __future__ import annotations

import copy
import logging
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from costopt.errors import ConfigError, require
from costopt.local.sizes import QUANTIZATIONS, CacheLayer, Matrix, bytes_of_dtype, takes_four_bits

__all__ = ["SHAPE", "Inventory", "Widths", "kept_layers", "read_config"]

_log = logging.getLogger("costopt.local")

OUTPUT, TIED, FULL, SHAPE = "output layer", "tied weights", "kept in fp32", "shape"


@dataclass(frozen=True, slots=True)
class Widths:
    """How wide the passing values are, in numbers for each token; for what a forward pass needs beside the weights.

    Attributes:
        hidden: Between layers.
        inner: Inside the feed-forward part, as wide as it gets.
        query: All query heads together.
        keys: All key heads together, as cached; values are as many.
        vocabulary: At the end.
    """

    hidden: int
    inner: int
    query: int
    keys: int
    vocabulary: int


@dataclass(frozen=True, slots=True)
class Inventory:
    """The parts of a model that take memory, alike ones counted together.

    Attributes:
        name: The model's name or folder.
        dtype: Of what is not quantised, and of the keys and values.
        matrices: Weights of its linear layers.
        other_bytes: Of everything else it holds: embeddings, norms, biases, buffers.
        cache: What its layers keep of each sequence.
        widths: How wide the passing values are.
        context: The longest sequence it was made for; None if the configuration does not say.
        parameters: How many numbers it has learned.
        quantised: How its weights were quantised before they were saved; empty if they were not. "none" if that was by
            another tool than bitsandbytes: they are counted as if they were not, which is more than they take.
    """

    name: str
    dtype: str
    matrices: tuple[Matrix, ...]
    other_bytes: int
    cache: tuple[CacheLayer, ...]
    widths: Widths
    context: int | None
    parameters: int
    quantised: str = ""

    @classmethod
    def of(cls, model: str | Path | Any, *, dtype: str = "bfloat16") -> Inventory:
        """Read a model's configuration and lay its layers out.

        Args:
            model: A local folder or configuration file, a hub id, or a transformers configuration.
            dtype: Of what is not quantised.

        Raises:
            ConfigError: If there is no such model, or it is none that transformers itself can build.
            MissingExtraError: Without the extra ``local``.
        """
        element = bytes_of_dtype(dtype)
        require("transformers", "local")
        config, name = read_config(model)
        built = _built(config, name)
        kept, full = kept_layers(built, "none"), _in_full(built, dtype)
        linear = {f"{path}.weight": module for path, module in _linear(built)}
        matrices: Counter[Matrix] = Counter()
        others, parameters = 0, 0
        for path, weight in built.named_parameters():
            parameters += weight.numel()
            if _matches(path, full):
                others += weight.numel() * 4
            elif path in linear:
                matrices[Matrix(*_shape(linear[path]), kept.get(path.removesuffix(".weight"), ""))] += 1
            else:
                others += weight.numel() * element
        # Buffers have a dtype of their own: tables of rotary embeddings are in fp32 whatever the weights are.
        others += sum(buffer.numel() * buffer.element_size() for buffer in built.buffers())
        text = config.get_text_config(decoder=True)
        return cls(
            name=name,
            dtype=dtype,
            matrices=tuple(replace(matrix, count=count) for matrix, count in matrices.items()),
            other_bytes=others,
            cache=_cache(built, text, element),
            widths=_widths(text, linear.values()),
            context=getattr(text, "max_position_embeddings", None),
            parameters=parameters,
            quantised=_quantised(config),
        )


def read_config(model: str | Path | Any) -> tuple[Any, str]:
    """The configuration of a model, and what to call it. Of a hub id only the configuration is fetched."""
    from transformers import AutoConfig, PretrainedConfig

    if isinstance(model, PretrainedConfig):
        return copy.deepcopy(model), model.name_or_path or model.model_type
    path = Path(model)
    if not path.exists() and (path.is_absolute() or len(path.parts) > 2 or str(model).startswith(".")):
        raise ConfigError(
            f"there is no model at {model}: give a folder with a config.json, or the id of a model on the hub"
        )
    if path.is_dir() and not (path / "config.json").is_file():
        raise ConfigError(f"{model} has no config.json: give the folder that `save_pretrained` wrote")
    try:
        return AutoConfig.from_pretrained(model, trust_remote_code=False), str(model)
    except (OSError, ValueError, KeyError) as error:
        raise ConfigError(_unread(model, path, str(error))) from error


def _unread(model: str | Path, path: Path, said: str) -> str:
    if "trust_remote_code" in said:
        return f"{model} needs code of its own, which costopt never runs: take a model that transformers itself knows"
    if not path.exists():
        return f"there is no folder {model} here, and the hub does not give a model of that name: {said}"
    return f"the configuration of {model} cannot be read, fetch or save it again: {said}"


def kept_layers(model: Any, quantization: str) -> dict[str, str]:
    """Which linear layers of a transformers model are not quantised, and why.

    The output layer, whatever shares its weights with another layer, what transformers keeps in fp32, and, for four
    bits, shapes that bitsandbytes cannot multiply by on a CPU.

    Args:
        model: The model; on the meta device will do.
        quantization: One of `QUANTIZATIONS`.

    Returns:
        Names of modules, as `named_modules` has them, and for each the reason.
    """
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"quantization={quantization!r}: use one of {', '.join(map(repr, QUANTIZATIONS))}")
    output = model.get_output_embeddings()
    tied = _tied(model)
    full = {*(model._keep_in_fp32_modules or ()), *(model._keep_in_fp32_modules_strict or ())}
    kept = {}
    for path, module in _linear(model):
        if module is output:
            kept[path] = OUTPUT
        elif f"{path}.weight" in tied:
            kept[path] = TIED
        elif _matches(path, full):
            kept[path] = FULL
        elif quantization in ("nf4", "fp4") and not takes_four_bits(*_shape(module)):
            kept[path] = SHAPE
    return kept


def _quantised(config: Any) -> str:
    told = getattr(config, "quantization_config", None) or {}
    told = told if isinstance(told, Mapping) else told.to_dict()
    if told.get("quant_method") != "bitsandbytes":
        return "none" if told else ""
    return "int8" if told.get("load_in_8bit") else str(told.get("bnb_4bit_quant_type", "fp4"))


def _built(config: Any, name: str) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    # Without a dtype of its own: transformers would set torch's default one meanwhile, for every thread.
    config.dtype = None
    for part in config.sub_configs:
        if getattr(config, part, None) is not None:
            getattr(config, part).dtype = None
    try:
        with torch.device("meta"):
            return AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    except (ValueError, ImportError, AttributeError, TypeError, KeyError) as error:
        raise ConfigError(f"{name} is no model that transformers can build for text: {error}") from error


def _linear(model: Any) -> Iterator[tuple[str, Any]]:
    from torch.nn import Linear
    from transformers.pytorch_utils import Conv1D

    # Of exactly these types, as transformers replaces them: what inherits from them has its own way of computing.
    return ((path, module) for path, module in model.named_modules() if type(module) in (Linear, Conv1D))


def _shape(module: Any) -> tuple[int, int]:
    """Outputs and inputs; GPT-2's layers have their weights the other way round."""
    rows, columns = module.weight.shape
    return (rows, columns) if hasattr(module, "out_features") else (columns, rows)


def _tied(model: Any) -> set[str]:
    keys: Mapping[str, str] = getattr(model, "all_tied_weights_keys", None) or {}
    return {*keys, *keys.values()}


def _in_full(model: Any, dtype: str) -> set[str]:
    """What stays in fp32 if the rest is of this dtype, as `from_pretrained` has it."""
    strict = set(model._keep_in_fp32_modules_strict or ()) if dtype != "float32" else set()
    return strict | (set(model._keep_in_fp32_modules or ()) if dtype == "float16" else set())


def _matches(path: str, patterns: Iterable[str]) -> bool:
    return any(re.search(rf"(^|\.){re.escape(pattern)}(\.|$)", path) for pattern in patterns)


def _widths(config: Any, linear: Iterable[Any]) -> Widths:
    shapes = [_shape(module) for module in linear]
    vocabulary, hidden = config.vocab_size, config.hidden_size
    inner = max((max(shape) for shape in shapes if vocabulary not in shape), default=hidden)
    heads = [_heads(each) for each in _layer_configs(config)]
    query, keys = (max(each[place] for each in heads) for place in (0, 1))
    return Widths(hidden, inner, query, keys, vocabulary)


def _layer_configs(config: Any) -> list[Any]:
    """The configuration of each layer: some models have heads of several sizes."""
    return list(getattr(config, "per_layer_config", None) or [config] * config.num_hidden_layers)


def _heads(config: Any) -> tuple[int, int]:
    """How wide all query heads are together, and all key heads; nothing in a model without attention."""
    heads = getattr(config, "num_attention_heads", None)
    if not heads:
        return 0, 0
    each = getattr(config, "head_dim", None) or config.hidden_size // heads
    return heads * each, (getattr(config, "num_key_value_heads", None) or heads) * each


def _cache(model: Any, config: Any, element: int) -> tuple[CacheLayer, ...]:
    """What each layer keeps: from the configuration where keys and values are plain, else from a pass on meta."""
    from transformers.cache_utils import DynamicCache

    layers: list[Any] = list(DynamicCache(config=config).layers)
    kinds = [type(layer).__name__ for layer in layers]
    if not set(kinds) <= _PLAIN or getattr(config, "kv_lora_rank", None) or getattr(config, "multi_query", False):
        passed = _passed(model, config)
        if passed is not None:
            return _counted(_measured(layer, element) for layer in passed)
    pairs = zip(kinds, _layer_configs(config), strict=True)
    keys = (0 if kind == "DummyLayer" else _heads(each)[1] for kind, each in pairs)
    windows = (getattr(layer, "sliding_window", None) for layer in layers)
    return _counted(CacheLayer(2 * wide * element, window) for wide, window in zip(keys, windows, strict=True))


# Names of transformers' cache layers, not all of which every version has; a dummy reads those of another layer.
_PLAIN = {"DynamicLayer", "DynamicSlidingWindowLayer", "DummyLayer"}
_SEEN = 2  # tokens of the pass on meta


def _counted(layers: Iterable[CacheLayer]) -> tuple[CacheLayer, ...]:
    return tuple(replace(layer, count=count) for layer, count in Counter(layers).items())


def _passed(model: Any, config: Any) -> list[Any] | None:
    """The cache after a pass; None of a model that cannot run on meta, for which plain keys and values must do."""
    import torch
    from transformers.cache_utils import DynamicCache

    cache = DynamicCache(config=config)
    # The other ways of running experts need bfloat16, or look at what is in a tensor.
    config._experts_implementation = "batched_mm"
    try:
        with torch.device("meta"), torch.inference_mode():
            model(input_ids=torch.zeros((1, _SEEN), dtype=torch.long), past_key_values=cache, use_cache=True)
    except Exception as error:
        _log.info("costopt: what %s keeps of a sequence is estimated: %s", config.model_type, error)
        return None
    return list(cache.layers)


def _measured(layer: Any, element: int) -> CacheLayer:
    """Numbers are counted as `element` bytes each: nothing was cast for the pass."""
    pairs = (getattr(layer, name, None) for name in ("keys", "values"))
    grows = sum(tensor.numel() // _SEEN * element for tensor in pairs if tensor is not None)
    states = [
        state
        for name in ("conv_states", "recurrent_states")
        for state in (getattr(layer, name, None) or {}).values()
        if state is not None
    ]
    fixed = sum(state.numel() * element for state in states)
    return CacheLayer(grows, getattr(layer, "sliding_window", None), fixed)
