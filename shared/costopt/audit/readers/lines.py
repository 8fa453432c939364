"""JSON objects out of a file of any size: lines, gzip'd lines, or one array; what cannot be read is told by number."""

from __future__ import annotations

import gzip
import io
import json
import os
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import IO, Any

from costopt.errors import ConfigError

__all__ = ["Skipped", "objects"]

Progress = Callable[[int], object]

MAX_LINE = 64 << 20
"""Bytes of one line; a longer one is passed over. The largest context windows fill a tenth of it."""

_MAX_ARRAY = 256 << 20
_CHUNK = 1 << 20
_KEPT = 20
_BOM = b"\xef\xbb\xbf"
_MOST_OF_PAGE = 8  # fields; a row that is a call has more, or is none
_WRAPPERS = ("data", "runs", "observations", "results")
# Of the file's first bytes: gzip without its ending, zip (and so xlsx), PNG, PDF, parquet, ELF, SQLite.
_MAGIC = {
    b"\x1f\x8b": "gzip'd: give it the ending .gz",
    b"PK\x03\x04": "a zip archive: unpack it",
    b"PAR1": "Parquet: export it as JSON lines",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
}


@dataclass(slots=True)
class Skipped:
    """What could not be read.

    Attributes:
        count: How many lines.
        first: The first twenty, as (line number, what is wrong).
    """

    count: int = 0
    first: list[tuple[int, str]] = field(default_factory=list)

    def add(self, number: int, reason: str) -> None:
        """One more."""
        self.count += 1
        if len(self.first) < _KEPT:
            self.first.append((number, reason))


def objects(
    source: str | Path, skipped: Skipped, progress: Progress | None = None, max_line: int = MAX_LINE
) -> Iterator[tuple[int, dict[str, Any]]]:
    """The objects of a log with their line numbers, counted from 1; those of an array with their places.

    Args:
        source: A file, gzip'd if its name ends in ".gz", or "-" for standard input.
        skipped: Where bad lines are noted.
        progress: Told how many bytes of the file were read since it was last told.
        max_line: Bytes; longer lines are noted and passed over, and never held in memory.

    Raises:
        ConfigError: If the file cannot be read at all, or is no text.
    """
    with _opened(source) as (file, position):
        try:
            start = file.peek(_CHUNK)[:_CHUNK]
            _check(start, source)
            if start.removeprefix(_BOM).lstrip()[:1] == b"[":
                yield from _array(file, source)
                return
            yield from _lines(file, position, skipped, progress, max_line)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigError(f"{source} cannot be read to its end: {error}; copy or export it anew") from error


def _lines(
    file: io.BufferedReader[Any],
    position: Callable[[], int],
    skipped: Skipped,
    progress: Progress | None,
    max_line: int,
) -> Iterator[tuple[int, dict[str, Any]]]:
    load, told = _loader(), 0
    number = 0
    while line := file.readline(max_line):
        number += 1
        if len(line) == max_line and line[-1:] != b"\n":
            _pass_over(file)
            skipped.add(number, f"longer than {max_line >> 20} MiB")
            continue
        if number == 1:
            line = line.removeprefix(_BOM)
        if line.isspace():
            continue
        try:
            row = load(line)
        except (ValueError, RecursionError) as error:
            skipped.add(number, f"not JSON ({_short(error)})")
            continue
        if isinstance(row, dict):
            inner = _wrapped(row)
            if inner is None:
                yield number, row
            else:
                yield from ((number, each) for each in inner)
        else:
            skipped.add(number, f"a JSON object is expected, not {type(row).__name__}")
        if progress is not None and not number & 0x3FF:
            now = position()
            progress(now - told)
            told = now


def _loader() -> Callable[[bytes], Any]:
    """Orjson if it is there: three times as fast. What it refuses (NaN, half a character) json may still take."""
    if find_spec("orjson") is None:
        return _patient
    fast = import_module("orjson").loads

    def load(line: bytes) -> Any:
        try:
            return fast(line)
        except ValueError:
            return _patient(line)

    return load


def _patient(line: bytes) -> Any:
    return json.loads(line.decode("utf-8"))


def _pass_over(file: io.BufferedReader[Any]) -> None:
    while (part := file.readline(_CHUNK)) and part[-1:] != b"\n":
        pass


def _array(file: io.BufferedReader[Any], source: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    data = file.read(_MAX_ARRAY + 1)
    if len(data) > _MAX_ARRAY:
        raise ConfigError(
            f"{source} is one JSON array of over {_MAX_ARRAY >> 20} MiB: export it as JSON lines, or run it through "
            "`jq -c '.[]'`"
        )
    try:
        rows = json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ConfigError(f"{source} begins like a JSON array and is none: {_short(error)}") from None
    yield from ((place, row) for place, row in enumerate(rows, start=1) if isinstance(row, dict))


def _wrapped(row: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The rows inside a page of an API's answer; None for any other row."""
    if len(row) > _MOST_OF_PAGE or "messages" in row:
        return None
    for name in _WRAPPERS:
        inner = row.get(name)
        if isinstance(inner, list) and inner and isinstance(inner[0], dict):
            return [each for each in inner if isinstance(each, dict)]
    return None


def _check(start: bytes, source: str | Path) -> None:
    if not start:
        raise ConfigError(f"{source} is empty: give a log with a JSON object on each line")
    for magic, what in _MAGIC.items():
        if start.startswith(magic):
            raise ConfigError(f"{source} is {what}")
    if b"\0" in start:
        raise ConfigError(f"{source} is no text: give a log with a JSON object on each line, in UTF-8")


def _short(error: Exception) -> str:
    text = str(error).split("\n", 1)[0]
    return text if len(text) <= 120 else text[:117] + "..."


@contextmanager
def _opened(source: str | Path) -> Iterator[tuple[io.BufferedReader[Any], Callable[[], int]]]:
    """The bytes of the file, and where in it on the disk the reading is."""
    if str(source) == "-":
        # A reader of our own: standard input may have been replaced by what cannot peek.
        piped: io.BufferedReader[Any] = io.BufferedReader(_Raw(sys.stdin.buffer), _CHUNK)
        with piped:
            yield piped, lambda: 0
        return
    try:
        raw: IO[bytes] = open(source, "rb", buffering=0)  # noqa: SIM115
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror or error}; give a file that can be") from error
    with raw:
        if os.path.isdir(raw.fileno()):
            raise ConfigError(f"{source} is a folder: give a file")
        whole: Any = gzip.GzipFile(fileobj=raw, mode="rb") if str(source).endswith(".gz") else raw
        file: io.BufferedReader[Any] = io.BufferedReader(whole, _CHUNK)
        with file:
            yield file, raw.tell


class _Raw(io.RawIOBase):
    """A stream as the raw layer of a buffered reader; closing it leaves the stream open."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._stream.read1(len(buffer)) if hasattr(self._stream, "read1") else b""
        buffer[: len(data)] = data
        return len(data)
