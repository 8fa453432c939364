"""Our own ledger, without being written to: its SQLite file may be another process's at work."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

from costopt.audit.attempt import Attempt
from costopt.audit.ledger_sql import attempt_of, selected
from costopt.audit.readers.fields import messages_of, parsed
from costopt.audit.record import Record
from costopt.errors import ConfigError

__all__ = ["is_sqlite", "ledger_records", "ledger_rows"]

_MAGIC = b"SQLite format 3\0"
_PAGE = 1_000


def is_sqlite(source: str | Path) -> bool:
    """Whether the file is one of SQLite's."""
    try:
        with open(source, "rb") as file:
            return file.read(len(_MAGIC)) == _MAGIC
    except OSError:
        return False


def ledger_rows(path: str | Path) -> int:
    """How many rows it has; 0 if that cannot be read."""
    try:
        with closing(_opened(path)) as db:
            return int(db.execute("SELECT count(*) FROM attempts").fetchone()[0])
    except sqlite3.Error:
        return 0


def ledger_records(path: str | Path, progress: Callable[[int], object] | None = None) -> Iterator[Record]:
    """The attempts of a ledger's file, the earliest first.

    Args:
        path: The file.
        progress: Told how many more rows were read.

    Raises:
        ConfigError: If it is no ledger, or damaged.
    """
    try:
        with closing(_opened(path)) as db:
            after, select = (float("-inf"), -1), selected(db)
            while True:
                rows = db.execute(
                    f"{select} WHERE (started, seq) > (?, ?) ORDER BY started, seq LIMIT {_PAGE}", after
                ).fetchall()
                if not rows:
                    return
                for row in rows:
                    attempt = attempt_of(row)
                    yield _record(attempt)
                after = (attempt.started, rows[-1][0])
                if progress is not None:
                    progress(len(rows))
    except (sqlite3.Error, ValueError, TypeError) as error:
        raise ConfigError(f"{path} is no ledger of costopt's, or is damaged: {error}") from error


def _opened(path: str | Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{Path(path).absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)


def _record(attempt: Attempt) -> Record:
    record = Record(attempt.started, attempt.model, attempt.provider, attempt.latency_s)
    usage = attempt.avoided_usage if attempt.cache is not None else attempt.usage
    if usage is not None:
        record.input_tokens, record.output_tokens = usage.input_tokens, usage.output_tokens
        record.cached_tokens, record.cache_write_tokens = usage.cached_tokens, usage.cache_write_tokens
        record.tells_cached = not attempt.usage_estimated
    record.estimated = attempt.usage_estimated
    record.cost = None if attempt.cost is None else float(attempt.cost)
    record.ok, record.hit = attempt.status == "ok", attempt.cache is not None
    record.messages = messages_of(attempt.prompt) if attempt.prompt else None
    tools = parsed(attempt.tools)
    record.tools = tools if isinstance(tools, list) else None
    record.answer, record.tags = attempt.answer, attempt.tags
    record.session, record.tenant = attempt.session, attempt.tenant
    record.prompt_hash, record.shape = attempt.prompt_hash, attempt.shape
    record.stream, record.batch = attempt.streamed, attempt.batch is not None
    return record
