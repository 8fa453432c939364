"""SQLite files in WAL mode, and connections to them that threads, processes and forks can live with."""

from __future__ import annotations

import os
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from costopt.errors import ConfigError, StoreError, StoreTimeoutError

__all__ = ["Connection", "Schema", "checked_version", "errors", "make_tables", "transaction"]

_BUSY_MS = 100
# In our own queue somebody is at work: the machine may have paused, and to give up opens the breaker for all.
_QUEUE_S = 0.2
_FORK_S = 1.0


@dataclass(frozen=True, slots=True)
class Schema:
    """The tables of a file.

    Attributes:
        version: Grows with each change of the tables; kept in the file.
        sql: Makes them, in an empty file or in one of an earlier version; no ";" in it but at the ends of statements.
        owner: Whose file it is, for messages, e.g. "LocalStore".
        upgrade: Called before `sql`, in the same transaction, with a file of an earlier version and that version.
    """

    version: int
    sql: str
    owner: str
    upgrade: Callable[[sqlite3.Connection, int], None] | None = None


class Connection:
    """One SQLite connection, opened at first use, used by one thread at a time, never carried over a fork.

    Args:
        path: The file.
        schema: Its tables.
        busy_ms: How long to wait for whoever holds it.
        wal_pages: At how many pages of log whoever writes waits for the disk and moves them into the file.
    """

    def __init__(self, path: Path, schema: Schema, *, busy_ms: int | None = None, wal_pages: int = 1_000) -> None:
        self._path = path
        self._schema = schema
        self._busy_ms = busy_ms
        self._wal_pages = wal_pages
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._held = False
        self.opened = 0

    def __enter__(self) -> sqlite3.Connection:
        if not self._lock.acquire(timeout=_QUEUE_S):
            raise StoreTimeoutError(f"{self._path} is busy in another thread")
        try:
            if self._db is None:
                self._db = _connect(self._path, self._schema, _BUSY_MS if self._busy_ms is None else self._busy_ms)
                self._db.execute(f"PRAGMA wal_autocheckpoint = {self._wal_pages}")
                self.opened += 1
            return self._db
        except BaseException:
            self._lock.release()
            raise

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            # Damaged, perhaps: once the file is removed, another one is to be opened.
            if isinstance(error, sqlite3.Error) and not _is_busy(error):
                self.close()
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close it; the next use opens another."""
        with self._lock:
            if self._db is not None:
                self._db.close()
            self._db = None

    def hold_closed(self) -> None:
        """Close, and keep other threads from opening; whoever uses it now has a second to finish."""
        self._held = self._lock.acquire(timeout=_FORK_S)
        if self._held:
            self.close()

    def let_open(self) -> None:
        """Undo `hold_closed`."""
        if self._held:
            self._lock.release()


def _connect(path: Path, schema: Schema, busy_ms: int) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made by us before SQLite would, so that its own files take over these permissions; and only if it is not there:
    # closing any descriptor of a file drops all locks that this process holds on it, SQLite's among them.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    db = sqlite3.connect(path, timeout=busy_ms / 1000, isolation_level=None, check_same_thread=False)
    try:
        version = checked_version(db, path, schema)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        if version < schema.version:
            make_tables(db, schema)
    except BaseException:
        db.close()
        raise
    return db


def checked_version(db: sqlite3.Connection, path: Path, schema: Schema) -> int:
    """The version of the tables in a file, 0 if it is empty; changes nothing in it.

    Raises:
        ConfigError: If the file is somebody else's, which is not to be written to, or of a newer costopt.
    """
    db.execute("BEGIN")  # both as of one moment: another process may be making the tables
    version = int(db.execute("PRAGMA user_version").fetchone()[0])
    tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    db.execute("COMMIT")
    first = re.search(r"CREATE TABLE (?:IF NOT EXISTS )?(\w+)", schema.sql)
    ours = first is not None and first[1] in tables
    if version > schema.version and (ours or not tables):
        raise ConfigError(
            f"{path} was written by a newer costopt (schema {version}, this one knows {schema.version}): "
            f"upgrade costopt, or give {schema.owner} another path"
        )
    # Our tables come with their version, so tables without one are not ours, whatever they are called.
    if (version and not ours) or (tables and not version):
        raise ConfigError(f"{path} is an SQLite file of something else: give {schema.owner} another path")
    return version


def make_tables(db: sqlite3.Connection, schema: Schema) -> None:
    """Make the tables, or upgrade them, unless another process was quicker."""
    db.execute("BEGIN IMMEDIATE")
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]  # again: another process may have been first
        if version < schema.version:
            if version and schema.upgrade is not None:
                schema.upgrade(db, version)
            for statement in schema.sql.split(";"):
                db.execute(statement)
            db.execute(f"PRAGMA user_version = {schema.version}")
        db.execute("COMMIT")
    except BaseException:
        if db.in_transaction:
            db.execute("ROLLBACK")
        raise


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


@contextmanager
def transaction(path: Path, connection: Connection) -> Iterator[sqlite3.Connection]:
    """A transaction that takes its lock at once: a later upgrade could not wait, only fail."""
    with errors(path), connection as db:
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            # A full disk has rolled back already; a commit that failed may not have.
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise


@contextmanager
def errors(path: Path) -> Iterator[None]:
    """SQLite's and the system's errors as ours."""
    try:
        yield
    except StoreError:  # a timeout of ours is an OSError, too
        raise
    except sqlite3.OperationalError as error:
        if _is_busy(error):
            raise StoreTimeoutError(f"{path} is locked by another process: {error}") from error
        raise StoreError(f"{path} cannot be used: {error}") from error
    except sqlite3.Error as error:
        raise StoreError(
            f"{path} is no database of costopt, or is damaged ({error}): give another path; if it was costopt's, "
            "remove it, and it is made anew"
        ) from error
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
