"""Batch files as OpenAI has them: rows that ask, rows that answer, and what of them is done already."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Self

from costopt.errors import ConfigError

__all__ = ["AnswerFile", "Row", "read_rows", "row_id"]

_URLS = ("/v1/chat/completions", "/v1/completions")


@dataclass(frozen=True, slots=True)
class Row:
    """A row that asks for something.

    Attributes:
        name: Its id: of what it says, not of where it stands.
        custom_id: As the file has it; None if it has none.
        body: What is asked.
        problem: Why it cannot be asked; empty if it can.
    """

    name: str
    custom_id: str | None
    body: Mapping[str, Any]
    problem: str = ""


def row_id(custom_id: str | None, body: Mapping[str, Any]) -> str:
    """The id of a row: the same for the same `custom_id` and body, whatever the order of its keys.

    Example:
        >>> row_id("a", {"x": 1, "y": 2}) == row_id("a", {"y": 2, "x": 1}) != row_id("b", {"x": 1, "y": 2})
        True
    """
    written = json.dumps([custom_id, body], sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return f"batch_req_{hashlib.sha256(written.encode()).hexdigest()[:32]}"


def read_rows(source: str | Path) -> Iterator[Row]:
    """The rows of a file, a gzip'd file, or standard input ("-"); one that cannot be read is one with a problem.

    Raises:
        ConfigError: If there is no such file.
    """
    with _opened(source) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _row(line, number)


def _row(line: bytes, number: int) -> Row:
    digest = hashlib.sha256(line).hexdigest()[:32]
    broken = Row(f"batch_req_{digest}", None, {}, f"line {number} is no row of a batch: ")
    try:
        read = json.loads(line)
    except (ValueError, RecursionError) as error:
        return _because(broken, f"not JSON ({error})")
    if not isinstance(read, dict):
        return _because(broken, "a JSON object is expected")
    custom_id, body = read.get("custom_id"), read.get("body")
    if custom_id is not None and not isinstance(custom_id, str):
        return _because(broken, "custom_id must be a text")
    if not isinstance(body, dict):
        return _because(Row(broken.name, custom_id, {}, broken.problem), "it has no body")
    row = Row(row_id(custom_id, body), custom_id, body)
    url = read.get("url", _URLS[0])
    if url not in _URLS or read.get("method", "POST") != "POST":
        return _because(Row(row.name, custom_id, body, broken.problem), f"only a POST to {' or '.join(_URLS)} is run")
    return row


def _because(row: Row, reason: str) -> Row:
    return Row(row.name, row.custom_id, row.body, row.problem + reason)


@contextlib.contextmanager
def _opened(source: str | Path) -> Iterator[IO[bytes]]:
    if str(source) == "-":
        yield sys.stdin.buffer
        return
    opener: Any = gzip.open if str(source).endswith(".gz") else open
    try:
        file = opener(source, "rb")
    except OSError as error:
        raise ConfigError(f"{source} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


class AnswerFile:
    """A file of answers that only grows: whatever is in it is done, and a run that was killed goes on behind it.

    Each row is one write of a whole line. A line that was cut off, as by `kill -9` or a full disk, is taken away, and
    its row asked again. While it is open no other process may write it.

    Raises:
        ConfigError: If it cannot be written, is being written, or holds something else.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            binary = getattr(os, "O_BINARY", 0)  # on Windows, or line ends would be changed
            self._fd = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND | binary, 0o644)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written ({error.strerror or error}): give another --out") from error
        try:
            self._lock()
            self.done = self._read()
        except BaseException:
            os.close(self._fd)
            raise

    def append(self, row: Mapping[str, Any]) -> None:
        """Add an answer."""
        line = json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"
        while line:
            line = line[os.write(self._fd, line) :]

    def close(self) -> None:
        """See to it that everything is on the disk."""
        with contextlib.suppress(OSError):  # a pipe, which has no disk behind it
            os.fsync(self._fd)
        os.close(self._fd)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            import fcntl
        except ImportError:  # Windows, which has no such thing
            return
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise ConfigError(
                f"{self.path} is being written by another run: wait for it, or give another --out"
            ) from None

    def _read(self) -> set[str]:
        """Ids of the rows that are answered; cuts off what is after the last whole line."""
        done: set[str] = set()
        whole = 0
        with open(self._fd, "rb", closefd=False) as file:
            for number, line in enumerate(file, start=1):
                if not line.endswith(b"\n"):
                    break
                done.add(_answered(line, self.path, number))
                whole += len(line)
        os.ftruncate(self._fd, whole)
        return done


def _answered(line: bytes, path: Path, number: int) -> str:
    try:
        return str(json.loads(line)["id"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(f"{path}, line {number}: this is no file of answers, give another --out") from None
