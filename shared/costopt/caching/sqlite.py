"""The file of a `LocalStore`: its tables, and connections that threads, processes and forks can live with."""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from costopt.errors import ConfigError, StoreError, StoreTimeoutError

__all__ = ["Connection", "errors"]

_SCHEMA_VERSION = 3
_BUSY_MS = 100
# In our own queue somebody is at work: the machine may have paused, and to give up opens the breaker for all.
_QUEUE_S = 0.2
_FORK_S = 1.0

# `seq` only ever grows, so that a process that has seen all up to one number reads on from there.
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entries (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, scope TEXT NOT NULL, tenant TEXT NOT NULL,
    model TEXT NOT NULL, embedder TEXT NOT NULL, vector BLOB, data BLOB NOT NULL, size INTEGER NOT NULL,
    expires REAL, used REAL NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS entries_used ON entries (used);
CREATE INDEX IF NOT EXISTS entries_expires ON entries (expires) WHERE expires IS NOT NULL;
CREATE TABLE IF NOT EXISTS tags (
    seq INTEGER NOT NULL REFERENCES entries (seq) ON DELETE CASCADE, tag TEXT NOT NULL, PRIMARY KEY (tag, seq)
    ) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS tags_seq ON tags (seq);
CREATE TABLE IF NOT EXISTS rejected (key TEXT NOT NULL, other TEXT NOT NULL, PRIMARY KEY (key, other))
    STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS leases (key TEXT PRIMARY KEY, owner TEXT NOT NULL, expires REAL NOT NULL)
    STRICT, WITHOUT ROWID;
DROP TABLE IF EXISTS evidence; -- schema 2 did not say whose it was
CREATE TABLE evidence (
    seq INTEGER PRIMARY KEY, tenant TEXT NOT NULL, scope TEXT NOT NULL, data BLOB NOT NULL) STRICT;
CREATE INDEX IF NOT EXISTS evidence_tenant ON evidence (tenant);
CREATE INDEX IF NOT EXISTS evidence_scope ON evidence (scope, seq);
CREATE TABLE IF NOT EXISTS sums (name TEXT PRIMARY KEY, value INTEGER NOT NULL) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO sums VALUES ('removals', 0), ('bytes', 0), ('identity', random());
PRAGMA user_version = {_SCHEMA_VERSION};
"""


class Connection:
    """One SQLite connection, opened at first use, used by one thread at a time, never carried over a fork."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.RLock()
        self._db: sqlite3.Connection | None = None
        self._held = False
        self.opened = 0

    def __enter__(self) -> sqlite3.Connection:
        if not self._lock.acquire(timeout=_QUEUE_S):
            raise StoreTimeoutError(f"{self._path} is busy in another thread")
        try:
            if self._db is None:
                self._db = _connect(self._path)
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


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Made by us before SQLite would, so that its own files take over these permissions; and only if it is not there:
    # closing any descriptor of a file drops all locks that this process holds on it, SQLite's among them.
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
    db = sqlite3.connect(path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False)
    try:
        version = db.execute("PRAGMA user_version").fetchone()[0]
        if version > _SCHEMA_VERSION:
            raise ConfigError(
                f"{path} was written by a newer costopt (schema {version}, this one knows {_SCHEMA_VERSION}): "
                "upgrade costopt, or give LocalStore another path"
            )
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
        db.execute("PRAGMA foreign_keys = ON")
        if version < _SCHEMA_VERSION:
            db.executescript(f"BEGIN IMMEDIATE;{_SCHEMA}COMMIT;")
    except BaseException:
        db.close()
        raise
    return db


def _is_busy(error: sqlite3.Error) -> bool:
    return "locked" in str(error) or "busy" in str(error)


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
        raise StoreError(f"{path} is damaged ({error}): remove it, it will be made anew") from error
    except OSError as error:
        raise StoreError(f"{path} cannot be opened: {error}") from error
