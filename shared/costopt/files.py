"""Files that are there whole or not at all."""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path

__all__ = ["write_whole"]


def write_whole(path: Path, data: bytes, *, mode: int = 0o600) -> None:
    """Write aside, then rename; what fails leaves the file as it was, and nothing beside it.

    Raises:
        OSError: If it cannot be written.

    Example:
        >>> write_whole(tmp / "notes", b"whole")
        >>> [file.name for file in tmp.iterdir()]
        ['notes']
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        os.chmod(name, mode)
        os.replace(name, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(name)
        raise
