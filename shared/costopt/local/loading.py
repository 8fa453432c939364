"""A model from a local folder or the hub into memory: safetensors only, no code but transformers' own."""

from __future__ import annotations

import logging
import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from costopt.errors import ConfigError, require
from costopt.local.checkpoints import Checkpoints, fingerprint
from costopt.local.quantise import quantisation, quieten, weight_bytes

if TYPE_CHECKING:
    import torch

__all__ = ["Loaded", "ModelSource", "load", "resolve"]

_log = logging.getLogger("costopt.local")

_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")
_PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt")
DTYPES = ("auto", "bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Which model, and how it is to lie in memory.

    Attributes:
        model: A local folder, or a hub id.
        quantization: One of `QUANTIZATIONS`.
        dtype: Of what is not quantised and of the arithmetic; "auto": bfloat16 if quantised, else as it was saved.
        device: E.g. "cpu" or "cuda:0".
        revision: Of a hub id.
        keep: Whether quantised weights are kept on disk.
        folder: Where; None: the user's cache folder.
    """

    model: str
    quantization: str
    dtype: str
    device: str
    revision: str | None = None
    keep: bool = True
    folder: str | None = None


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        model: Of transformers.
        tokenizer: Of transformers.
        ends: Tokens that end an answer.
        weight_bytes: What the weights take, quantisation state included.
        unquantised: Layers whose shape could not be quantised.
        kept: Whether the quantised weights came from disk.
        seconds: How long it took.
    """

    model: Any
    tokenizer: Any
    ends: frozenset[int]
    weight_bytes: int
    unquantised: tuple[str, ...]
    kept: bool
    seconds: float


def resolve(model: str | Path) -> str:
    """The folder's full path, or the hub id as it is; touches nothing but the file system's names.

    Raises:
        ConfigError: If it is neither.
    """
    path = Path(model).expanduser()
    if path.is_dir():
        return str(path.resolve())
    if isinstance(model, Path) or not _HUB_ID.fullmatch(str(model)) or str(model).startswith("."):
        raise ConfigError(f"there is no model at {model}: give a folder with a config.json, or a hub id")
    return str(model)


def load(source: ModelSource) -> Loaded:
    """Load a model; takes seconds to minutes.

    Raises:
        ConfigError: If the model is not there, has no safetensors, needs code of its own, or cannot be read.
        MissingExtraError: transformers, bitsandbytes or accelerate is not installed.
    """
    for module in ("transformers", "accelerate"):
        require(module, "local")
    started = time.monotonic()
    quieten()
    folder = _folder(source)
    _check_files(folder, source.model)
    config, tokenizer = _described(folder, source.model)
    if getattr(config, "quantization_config", None) is not None and source.quantization != "none":
        raise ConfigError(f"{source.model} is quantised already: load it with quantization='none'")
    dtype = _dtype(source, config)
    told, unfit = quantisation(config, source.quantization, dtype)
    if unfit:
        _log.info("costopt: %d layers of %s are not quantised because of their shape", len(unfit), source.model)
    model, kept = _weights(folder, source, told, dtype)
    return Loaded(
        model=model.eval(),
        tokenizer=tokenizer,
        ends=_ends(model, tokenizer),
        weight_bytes=weight_bytes(model),
        unquantised=unfit,
        kept=kept,
        seconds=time.monotonic() - started,
    )


def _folder(source: ModelSource) -> Path:
    """The files on this machine; fetched, if they are the hub's and not here yet."""
    if Path(source.model).is_dir():
        return Path(source.model)
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

    patterns = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.model", "*.jinja"]
    try:
        return Path(snapshot_download(source.model, revision=source.revision, allow_patterns=patterns))
    except (RepositoryNotFoundError, LocalEntryNotFoundError, HfHubHTTPError, OSError, ValueError) as error:
        raise ConfigError(
            f"there is no folder {source.model!r} here, and the hub does not give a model of that name: {error}"
        ) from error


def _check_files(folder: Path, name: str) -> None:
    if not (folder / "config.json").is_file():
        raise ConfigError(f"{name} has no config.json: give the folder that `save_pretrained` wrote")
    if any(folder.glob("*.safetensors")):
        return
    if any(next(folder.glob(pattern), None) for pattern in _PICKLES):
        raise ConfigError(
            f"{name} has pickled weights only, which can run any code as they are read: "
            "convert them to safetensors (model.save_pretrained), or take a model that has them"
        )
    raise ConfigError(f"{name} has no weights: model.safetensors is missing; save it again by `save_pretrained`")


def _described(folder: Path, name: str) -> tuple[Any, Any]:
    from transformers import AutoConfig, AutoTokenizer

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        remark = ": it needs code of its own, which costopt never runs" if "trust_remote_code" in str(error) else ""
        raise ConfigError(f"{name} cannot be loaded{remark}: {error}") from error
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(
            f"{name} has no tokenizer that can be read: put tokenizer.json there, as `save_pretrained` of a tokenizer "
            f"writes it ({error})"
        ) from error
    return config, tokenizer


def _dtype(source: ModelSource, config: Any) -> torch.dtype:
    import torch

    if source.dtype != "auto":
        named: torch.dtype = getattr(torch, source.dtype)
        return named
    saved = getattr(config, "dtype", None)
    return saved if source.quantization == "none" and isinstance(saved, torch.dtype) else torch.bfloat16


def _weights(folder: Path, source: ModelSource, told: Any, dtype: torch.dtype) -> tuple[Any, bool]:
    """The model, and whether it came from a kept checkpoint."""
    if told is None or not source.keep:
        return _read(folder, source, told, dtype), False
    checkpoints = Checkpoints(source.folder)
    key = fingerprint(folder, {"dtype": str(dtype), "device": source.device.split(":")[0], **told.to_dict()})
    found = checkpoints.find(key)
    if found is not None:
        try:
            return _read(found, source, None, dtype), True
        except Exception as error:  # cut off by a full disk, or damaged since
            _log.warning("costopt: kept weights in %s cannot be read, quantising again: %s", found, error)
            checkpoints.drop(key)
    model = _read(folder, source, told, dtype)
    # Before the first forward pass, in which bitsandbytes may rearrange the weights for this processor.
    checkpoints.keep(key, model)
    return model, False


def _read(folder: Path, source: ModelSource, told: Any, dtype: torch.dtype) -> Any:
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    options: dict[str, Any] = {} if told is None else {"quantization_config": told}
    try:
        return AutoModelForCausalLM.from_pretrained(
            folder,
            dtype=dtype,
            device_map={"": source.device},
            use_safetensors=True,
            trust_remote_code=False,
            **options,
        )
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise ConfigError(f"{source.model} cannot be loaded: {error}") from error
    except SafetensorError as error:
        raise ConfigError(f"{source.model} cannot be loaded, fetch or save it again: {error}") from error


def _ends(model: Any, tokenizer: Any) -> frozenset[int]:
    told = getattr(model.generation_config, "eos_token_id", None)
    ends = set(told if isinstance(told, list | tuple) else [told])
    return frozenset(int(token) for token in (*ends, tokenizer.eos_token_id) if token is not None)
