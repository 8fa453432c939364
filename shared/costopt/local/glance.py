"""What a model's files say of it before anything is loaded: a little JSON and a template, and no transformers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costopt.local.chat import tells_of_tools

__all__ = ["Glance", "glance"]

# As configurations of different age name it.
_CONTEXT = ("max_position_embeddings", "n_positions", "max_sequence_length", "max_seq_len", "n_ctx", "seq_length")
_INNER = ("text_config", "llm_config", "language_config")

_Reader = Callable[[str], str | None]


@dataclass(frozen=True, slots=True)
class Glance:
    """What can be seen at a glance; None where the files are not on this machine, or do not say.

    Attributes:
        context: Tokens of the longest sequence that the model was made for.
        knows_tools: Whether its chat template tells the model of tools.
    """

    context: int | None = None
    knows_tools: bool | None = None


def glance(model: str, revision: str | None = None) -> Glance:
    """Look at the files of a model; nothing is fetched, and nothing raised.

    Args:
        model: A local folder, or a hub id.
        revision: Of a hub id.

    Example:
        >>> glance("nobody/has-this-model")
        Glance(context=None, knows_tools=None)
    """
    folder = Path(model)
    read = _read_folder(folder) if folder.is_dir() else _read_cache(model, revision)
    config = _parsed(read("config.json"))
    if not config:
        return Glance()
    inner = next((config[name] for name in _INNER if isinstance(config.get(name), Mapping)), config)
    found = (inner.get(name) for name in _CONTEXT)
    context = next((value for value in found if isinstance(value, int) and value > 0), None)
    return Glance(context, any(map(tells_of_tools, _templates(read, folder))))


def _templates(read: _Reader, folder: Path) -> Iterator[Any]:
    yield read("chat_template.jinja")
    told = _parsed(read("tokenizer_config.json")).get("chat_template")
    if isinstance(told, list):
        told = {one.get("name"): str(one.get("template")) for one in told if isinstance(one, Mapping)}
    yield told
    yield {path.stem: read(str(path)) or "" for path in folder.glob("additional_chat_templates/*.jinja")}


def _read_folder(folder: Path) -> _Reader:
    def read(name: str) -> str | None:
        try:
            return (folder / name).read_text("utf-8")
        except (OSError, UnicodeDecodeError):
            return None

    return read


def _read_cache(model: str, revision: str | None) -> _Reader:
    """Files of the hub that were fetched before."""

    def read(name: str) -> str | None:
        try:
            from huggingface_hub import try_to_load_from_cache

            found = try_to_load_from_cache(model, name, revision=revision)
            return Path(found).read_text("utf-8") if isinstance(found, str) else None
        except (ImportError, OSError, ValueError):
            return None

    return read


def _parsed(text: str | None) -> dict[str, Any]:
    try:
        found = json.loads(text or "{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
