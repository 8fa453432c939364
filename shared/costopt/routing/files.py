"""A router on disk: F.npz (the numbers) and F.json (what they are and where they come from). No pickle."""

from __future__ import annotations

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError
from costopt.files import write_whole

__all__ = ["base_of", "read_router", "write_router"]

Arrays = dict[str, NDArray[Any]]

_FORMAT, _VERSION = "costopt router", 1
_MEND = "`costopt router train OUTCOMES --out F` makes one"


def base_of(path: str | os.PathLike[str]) -> Path:
    """The name that both files share, whichever of them was named.

    Example:
        >>> base_of("my.router.npz") == base_of("my.router.json") == base_of("my.router")
        True
    """
    text = os.fspath(path)
    return Path(text[: -len(Path(text).suffix)] if text.endswith((".npz", ".json")) else text)


def write_router(path: str | os.PathLike[str], arrays: Mapping[str, NDArray[Any]], facts: Mapping[str, Any]) -> None:
    """Write both files; each appears whole or not at all.

    Raises:
        ConfigError: If they cannot be written.
    """
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **dict(arrays))
    data = buffer.getvalue()
    head = {"format": _FORMAT, "version": _VERSION, **facts, "arrays": _digest(data)}
    base = base_of(path)
    try:
        for suffix, content in ((".npz", data), (".json", (json.dumps(head, indent=1) + "\n").encode())):
            write_whole(base.with_name(base.name + suffix), content, mode=0o644)  # as `open` would have made it
    except OSError as error:
        raise ConfigError(f"{base} cannot be written ({error}): give another place") from error


def read_router(path: str | os.PathLike[str]) -> tuple[Arrays, dict[str, Any]]:
    """Read both files: (the arrays, the facts).

    Raises:
        ConfigError: If one is missing or damaged, they do not belong together, or another version wrote them.
    """
    base = base_of(path)
    facts = _facts(base)
    data = _bytes(base.with_name(base.name + ".npz"))
    if facts.get("arrays") != _digest(data):
        raise ConfigError(
            f"{base}.npz is damaged, or not the one that {base}.json was written with: copy both again, or train again"
        )
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}, facts
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as error:
        raise ConfigError(f"{base}.npz holds no arrays ({error}): {_MEND}") from error


def _facts(base: Path) -> dict[str, Any]:
    name = f"{base}.json"
    data = _bytes(Path(name))
    try:
        facts = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{name} is not JSON ({error}): {_MEND}") from None
    if not isinstance(facts, dict) or facts.get("format") != _FORMAT:
        raise ConfigError(f"{name} is not of a router: {_MEND}")
    if facts.get("version") != _VERSION:
        raise ConfigError(
            f"{name} is of version {facts.get('version')}, and this costopt reads {_VERSION}: train again"
        )
    return facts


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"there is no router at {path} ({error.strerror}): {_MEND}") from error


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
