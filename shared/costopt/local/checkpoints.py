"""Quantised weights kept on disk: the first load of a model quantises it, the next ones read the result.

A kept checkpoint is a folder that `save_pretrained` wrote: safetensors and JSON. It is put in place by one rename, so
that a process that is killed leaves nothing that looks whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["Checkpoints", "default_checkpoints", "fingerprint"]

_log = logging.getLogger("costopt.local")

_WRITERS = ("transformers", "bitsandbytes")  # whose versions may differ in what they write


def default_checkpoints() -> Path:
    """Where quantised weights are kept if nobody says: in `COSTOPT_CACHE_DIR`, else the user's cache folder."""
    folder = os.environ.get("COSTOPT_CACHE_DIR")
    if folder:
        return Path(folder) / "quantised"
    from platformdirs import user_cache_path

    return user_cache_path("costopt") / "quantised"


def fingerprint(folder: Path, settings: Mapping[str, Any]) -> str:
    """What tells one kept checkpoint from another: the files it was made from, the settings, who wrote it.

    Files count by name, size and time of change, and not by gigabytes of content.
    """
    files = sorted(
        (path.name, stat.st_size, stat.st_mtime_ns)
        for path in folder.iterdir()
        if path.suffix in (".safetensors", ".json")
        for stat in [path.stat()]
    )
    told = {"folder": str(folder.resolve()), "files": files, "settings": dict(settings), "by": _versions()}
    return hashlib.blake2b(json.dumps(told, sort_keys=True, default=str).encode(), digest_size=16).hexdigest()


class Checkpoints:
    """A folder of quantised checkpoints, one subfolder each; may be deleted at any time.

    Args:
        folder: Where; None: `default_checkpoints()`.
    """

    def __init__(self, folder: str | Path | None = None) -> None:
        self._folder = None if folder is None else Path(folder)

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self._folder or default_checkpoints()

    def find(self, key: str) -> Path | None:
        """The checkpoint of that key, if it was kept."""
        path = self.folder / key
        return path if (path / "config.json").is_file() else None

    def keep(self, key: str, model: Any) -> None:
        """Keep a quantised model; what goes wrong is logged, since the model at hand is as good without."""
        temporary = None
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            temporary = Path(tempfile.mkdtemp(prefix=f".{key}-", dir=self.folder))
            model.save_pretrained(temporary)
            with contextlib.suppress(FileExistsError, OSError):  # another process was first: its copy is the same
                temporary.rename(self.folder / key)
        except Exception as error:  # a full disk, a read-only folder, or a kind of weight that cannot be written
            _log.warning("costopt: quantised weights were not kept, so the next load quantises again: %s", error)
        finally:
            if temporary is not None:
                shutil.rmtree(temporary, ignore_errors=True)

    def drop(self, key: str) -> None:
        """Forget one, e.g. because it cannot be read."""
        shutil.rmtree(self.folder / key, ignore_errors=True)


def _versions() -> dict[str, str]:
    found = {}
    for name in _WRITERS:
        with contextlib.suppress(PackageNotFoundError):
            found[name] = version(name)
    return found
