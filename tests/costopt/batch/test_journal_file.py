"""The journal's file: whose it is."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from costopt import ConfigError, LocalStore
from costopt.audit import Ledger
from costopt.batch import Journal


def foreign(path: Path, sql: str = "CREATE TABLE mine (a)") -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript(sql)


def ledger(path: Path) -> None:
    with Ledger(path) as made:
        made.totals()


def cache(path: Path) -> None:
    with closing(LocalStore(path)) as store:
        store.size()


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (foreign, "SQLite file of something else: give the journal of batches another path"),
        (lambda path: foreign(path, "CREATE TABLE requests (key)"), "of something else"),
        (lambda path: foreign(path, "CREATE TABLE mine (a); PRAGMA user_version = 1"), "of something else"),
        (ledger, "of something else"),
        (cache, "of something else"),
        (lambda path: foreign(path, "CREATE TABLE requests (key); PRAGMA user_version = 99"), "by a newer costopt"),
    ],
    ids=["foreign", "its namesake", "its version", "ledger", "cache", "newer"],
)
def test_a_file_of_something_else_is_named_and_left_alone(
    make: Callable[[Path], None], says: str, tmp_path: Path
) -> None:
    path = tmp_path / "file.db"
    make(path)
    as_it_was = path.read_bytes()
    journal = Journal(path)
    for use in (journal.jobs, lambda: journal.add("job", "openai", [], 1.0)):
        with pytest.raises(ConfigError, match=says):
            use()
    assert path.read_bytes() == as_it_was
    assert [each.name for each in tmp_path.iterdir()] == ["file.db"]
