"""Reading JSON lines: a file, a gzip'd file, or standard input ("-")."""

from __future__ import annotations

import gzip
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from costopt.errors import ConfigError

__all__ = ["read_jsonl"]


def read_jsonl(source: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    r"""The objects of a file with their line numbers, counted from 1; blank lines are passed over.

    Raises:
        ConfigError: If the file cannot be read, or a line is not a JSON object; names the line.

    Example:
        >>> _ = (tmp / "pairs.jsonl").write_text('{"a": 1}\n\n{"a": 2}\n')
        >>> list(read_jsonl(tmp / "pairs.jsonl"))
        [(1, {'a': 1}), (3, {'a': 2})]
    """
    with _open(source) as lines:
        try:
            for number, line in enumerate(lines, start=1):
                if number == 1:
                    line = line.removeprefix("\ufeff")  # what PowerShell and Excel begin a file with
                if line.strip():
                    yield number, _object(line, source, number)
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise ConfigError(f"{source} cannot be read: {error}") from error


def _object(line: str, source: str | Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source}, line {number}: not JSON ({error})") from None
    if not isinstance(row, dict):
        raise ConfigError(f"{source}, line {number}: a JSON object is expected, not {type(row).__name__}")
    return row


@contextmanager
def _open(source: str | Path) -> Iterator[IO[str]]:
    if str(source) == "-":
        yield sys.stdin
        return
    opener: Any = gzip.open if str(source).endswith(".gz") else open
    try:
        file = opener(source, "rt", encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror or error}") from error
    with file:
        yield file
