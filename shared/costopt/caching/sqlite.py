"""The tables of a `LocalStore`'s file."""

from __future__ import annotations

from costopt.sqlite import Schema

__all__ = ["SCHEMA"]

# `seq` only ever grows, so that a process that has seen all up to one number reads on from there.
SCHEMA = Schema(
    version=3,
    owner="LocalStore",
    sql="""
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
""",
)
