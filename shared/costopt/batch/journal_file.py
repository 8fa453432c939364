"""The SQLite file of a journal: its tables, and how it is opened."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from costopt.errors import StoreError, StoreTimeoutError
from costopt.sqlite import Schema, checked_version, make_tables

__all__ = ["JournalFile", "default_journal"]

_BUSY_S = 60.0
_ALONE_S = 600.0  # another process may be sending hundreds of megabytes

_SCHEMA = Schema(
    version=1,
    owner="the journal of batches",
    sql="""
CREATE TABLE requests (
    key TEXT PRIMARY KEY, provider TEXT NOT NULL, endpoint TEXT NOT NULL, model TEXT NOT NULL, body TEXT NOT NULL,
    state TEXT NOT NULL DEFAULT 'pending', lot TEXT, tries INTEGER NOT NULL DEFAULT 0, told INTEGER NOT NULL DEFAULT 0,
    status INTEGER, answer TEXT, code TEXT, message TEXT, usage TEXT, cost TEXT, list_cost TEXT, source TEXT,
    batch TEXT, finished REAL, payer TEXT NOT NULL) STRICT;
CREATE INDEX requests_lot ON requests (lot) WHERE state = 'sent';
CREATE INDEX requests_finished ON requests (finished) WHERE finished IS NOT NULL;
CREATE TABLE lots (
    id TEXT PRIMARY KEY, provider TEXT NOT NULL, endpoint TEXT NOT NULL, size INTEGER NOT NULL, batch TEXT,
    state TEXT NOT NULL DEFAULT 'open', started REAL NOT NULL, doubted REAL,
    cancelled INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE jobs (
    id TEXT PRIMARY KEY, provider TEXT NOT NULL, size INTEGER NOT NULL, created REAL NOT NULL,
    cancelled INTEGER NOT NULL DEFAULT 0) STRICT;
CREATE TABLE wanted (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, position INTEGER NOT NULL,
    key TEXT NOT NULL REFERENCES requests (key), name TEXT, PRIMARY KEY (job, position)
    ) STRICT, WITHOUT ROWID;
CREATE INDEX wanted_key ON wanted (key);
""",
)


def default_journal() -> Path:
    """Where the journal lies if nothing is said: COSTOPT_BATCH_JOURNAL, else a file in the user's data folder."""
    from platformdirs import user_data_path

    given = os.environ.get("COSTOPT_BATCH_JOURNAL")
    return Path(given) if given else user_data_path("costopt") / "batch.db"


class JournalFile:
    """The file, opened and closed around each use: so it is safe in threads, over forks, and when killed."""

    def __init__(self, path: str | os.PathLike[str] | None) -> None:
        self.path = Path(path) if path is not None else default_journal()

    @contextmanager
    def alone(self) -> Iterator[None]:
        """Keep every other thread and process from sending and collecting; a killed process lets go by itself.

        Without it a second process could take a batch that the first is about to make for one that was never made.
        """
        guard = self.path.with_name(self.path.name + ".lock")
        with self._errors():
            self._make_folder()
            db = sqlite3.connect(guard, timeout=_ALONE_S, isolation_level=None, check_same_thread=False)
            try:
                db.execute("BEGIN EXCLUSIVE")
            except BaseException:
                db.close()
                raise
        try:
            # Whoever closes the last connection moves the whole log into the file, which takes longer than all else.
            with self.opened() as held:
                held.execute("SELECT 1 FROM jobs LIMIT 1").fetchone()
                yield
        finally:
            db.close()

    @contextmanager
    def transaction(self, *, durable: bool = False) -> Iterator[sqlite3.Connection]:
        """All of it is written, or nothing; if it is to be durable, it is there after a power cut, too."""
        with self.opened() as db:
            db.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")

    @contextmanager
    def opened(self) -> Iterator[sqlite3.Connection]:
        """A connection for one use."""
        with self._errors():
            db = self._connect()
            try:
                yield db
            finally:
                db.close()  # rolls back what was not committed

    def _connect(self) -> sqlite3.Connection:
        with self._openable():
            there = self.path.exists()
        if not there:
            self._make_folder()
            with self._openable(), suppress(FileExistsError):
                os.close(os.open(self.path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        db = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            db.execute("PRAGMA foreign_keys = ON")
            if checked_version(db, self.path, _SCHEMA) < _SCHEMA.version:
                db.execute("PRAGMA journal_mode = WAL")
                make_tables(db, _SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _make_folder(self) -> None:
        with self._openable():
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextmanager
    def _openable(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise StoreError(f"{self.path} cannot be made ({error}): give a path in a folder of your own") from error

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.OperationalError as error:
            if "locked" in str(error):
                raise StoreTimeoutError(f"{self.path} is in use by another process: {error}") from error
            raise StoreError(f"{self.path} cannot be used: {error}") from error
        except sqlite3.Error as error:
            raise StoreError(f"{self.path} is no journal of batches ({error}): give another path") from error
