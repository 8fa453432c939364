"""The tables of a ledger's file, and what goes in and comes out of them."""

from __future__ import annotations

import itertools
import json
import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from decimal import Decimal
from typing import Any

from costopt.audit.attempt import Attempt, PromptShape
from costopt.audit.levers import Note, Saving, SavingSums
from costopt.audit.totals import SUMMED, Sums
from costopt.pricing import Usage
from costopt.sqlite import Schema

__all__ = ["SCHEMA", "SELECT", "attempt_of", "insert", "make_room", "saved", "selected"]

_USAGE = tuple(field.name for field in fields(Usage))
_SHAPE = tuple(field.name for field in fields(PromptShape))
_PLAIN = tuple(
    "id request_id model provider started latency_s first_token_s status error cache route route_why batch "
    "service_tier session tenant prompt_hash question_hash prompt tools answer cost_source trimmed_tokens".split()
)
_MONEY = ("cost", "avoided_cost", "baseline_cost", "trimmed_cost", "list_cost")
_SINCE_2 = ("trimmed_tokens", "trimmed_cost", "list_cost")
_FLAGS = ("usage_estimated", "streamed")
_PARTS = {
    "plain": _PLAIN,
    "money": _MONEY,
    "flags": (*_FLAGS, "tags"),
    "usage": _USAGE,
    "avoided": tuple(f"avoided_{name}" for name in _USAGE),
    "shape": tuple(f"shape_{name}" for name in _SHAPE),
}
_COLUMNS = tuple(itertools.chain(*_PARTS.values()))
_ENDS = tuple(itertools.accumulate(map(len, _PARTS.values()), initial=1))
_AT = {name: slice(*ends) for name, ends in zip(_PARTS, itertools.pairwise(_ENDS), strict=True)}  # in a row of `SELECT`
_NOT_TEXT = {
    **dict.fromkeys(("started",), "REAL NOT NULL"),
    **dict.fromkeys(("latency_s", "first_token_s"), "REAL"),
    **dict.fromkeys(_FLAGS, "INTEGER NOT NULL"),
    **dict.fromkeys([name for name in _COLUMNS if "_tokens" in name or name.startswith("shape_")], "INTEGER"),
    "shape_system_hash": "TEXT",
}
# What a row takes beside its texts: numbers, indexes, page overhead.
_ROW_BYTES = 500
_PRUNE_TO = 0.9
_PRUNE_AT_ONCE = 5_000
_DAYS_KEPT = 800
_PAGE = 1_000
_SAVING = tuple(field.name for field in fields(Saving))


def _upgrade(db: sqlite3.Connection, version: int) -> None:
    """From version 1, which had no savings: those of caches and routers follow from its rows."""
    for name in _SINCE_2:
        db.execute(f"ALTER TABLE attempts ADD COLUMN {name} {_NOT_TEXT.get(name, 'TEXT')}")
    for statement in _SAVINGS.split(";"):
        db.execute(statement)
    sums, last, seen = SavingSums(), -1, set()
    telling = "(cache IS NOT NULL OR route IS NOT NULL OR request_id <> id)"
    while rows := db.execute(f"{SELECT} WHERE seq > ? AND {telling} ORDER BY seq LIMIT {_PAGE}", (last,)).fetchall():
        last = rows[-1][0]
        for attempt in map(attempt_of, rows):
            sums.add(attempt, again=attempt.request_id in seen)
            seen.add(attempt.request_id)
    _add_savings(db, sums)


# Sums of days, as `days` is, of what levers saved; and the index by which a further attempt at a request is known.
_SAVINGS = f"""
CREATE TABLE IF NOT EXISTS savings (
    day INTEGER NOT NULL, tenant TEXT NOT NULL, lever TEXT NOT NULL,
    {", ".join(f"{name} {'TEXT' if name == 'dollars' else 'INTEGER'} NOT NULL" for name in _SAVING)},
    PRIMARY KEY (day, tenant, lever)) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS attempts_request ON attempts (request_id) WHERE request_id <> id"""

# `days` outlives the rows that it sums, so that a month's spending is known though its rows had to go.
SCHEMA = Schema(
    version=2,
    owner="Ledger",
    upgrade=_upgrade,
    sql=f"""
CREATE TABLE IF NOT EXISTS attempts (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, size INTEGER NOT NULL,
    {", ".join(f"{name} {_NOT_TEXT.get(name, 'TEXT')}" for name in _COLUMNS)}) STRICT;
CREATE UNIQUE INDEX IF NOT EXISTS attempts_id ON attempts (id);
CREATE INDEX IF NOT EXISTS attempts_started ON attempts (started, seq);
CREATE TABLE IF NOT EXISTS days (
    day INTEGER NOT NULL, tenant TEXT NOT NULL, provider TEXT NOT NULL, model TEXT NOT NULL, routed INTEGER NOT NULL,
    {", ".join(f"{name} TEXT NOT NULL" if name.endswith("cost") else f"{name} INTEGER NOT NULL" for name in SUMMED)},
    PRIMARY KEY (day, tenant, provider, model, routed)) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value REAL NOT NULL) STRICT, WITHOUT ROWID;
INSERT OR IGNORE INTO facts VALUES ('rows', 0), ('bytes', 0), ('pruned', 0), ('pruned_until', 0);
CREATE TABLE IF NOT EXISTS held (
    id TEXT PRIMARY KEY, account TEXT NOT NULL, period TEXT NOT NULL, amount TEXT NOT NULL, until REAL NOT NULL
    ) STRICT, WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS held_account ON held (account, period);
CREATE TABLE IF NOT EXISTS settled (
    account TEXT NOT NULL, period TEXT NOT NULL, amount TEXT NOT NULL, PRIMARY KEY (account, period)
    ) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS alerts (
    account TEXT NOT NULL, period TEXT NOT NULL, share REAL NOT NULL, PRIMARY KEY (account, period, share)
    ) STRICT, WITHOUT ROWID;
{_SAVINGS}""",
)

SELECT = f"SELECT seq, {', '.join(_COLUMNS)} FROM attempts"
_AGAIN = "SELECT 1 FROM attempts WHERE request_id = ? AND request_id <> id LIMIT 1"
_INSERT = f"INSERT OR IGNORE INTO attempts (size, {', '.join(_COLUMNS)}) VALUES (?{', ?' * len(_COLUMNS)})"

Row = tuple[Any, ...]


def _row_of(attempt: Attempt) -> Row:
    """The values of an attempt in the order of the columns, its size first."""
    money = (getattr(attempt, name) for name in _MONEY)
    values: list[Any] = [getattr(attempt, name) for name in _PLAIN]
    values += [None if amount is None else str(amount) for amount in money]
    values += [int(attempt.usage_estimated), int(attempt.streamed)]
    values.append(json.dumps(attempt.tags, ensure_ascii=False) if attempt.tags else None)
    for part, names in ((attempt.usage, _USAGE), (attempt.avoided_usage, _USAGE), (attempt.shape, _SHAPE)):
        values += [None] * len(names) if part is None else [getattr(part, name) for name in names]
    size = _ROW_BYTES + sum(len(value) for value in values if isinstance(value, str))
    return (size, *values)


def attempt_of(row: Sequence[Any]) -> Attempt:
    """The attempt in a row of `SELECT`."""
    known: dict[str, Any] = dict(zip(_PLAIN, row[_AT["plain"]], strict=True))
    for name, amount in zip(_MONEY, row[_AT["money"]], strict=True):
        known[name] = None if amount is None else Decimal(amount)
    estimated, streamed, tags = row[_AT["flags"]]
    usage, avoided, shape = row[_AT["usage"]], row[_AT["avoided"]], row[_AT["shape"]]
    return Attempt(
        **known,
        usage_estimated=bool(estimated),
        streamed=bool(streamed),
        tags=tuple(json.loads(tags)) if tags else (),
        usage=None if usage[0] is None else Usage(*usage),
        avoided_usage=None if avoided[0] is None else Usage(*avoided),
        shape=None if shape[0] is None else PromptShape(*shape),
    )


def selected(db: sqlite3.Connection) -> str:
    """`SELECT` for a file that may be of an earlier version, and is only read."""
    there = {row[1] for row in db.execute("PRAGMA table_info(attempts)")}
    return f"SELECT seq, {', '.join(name if name in there else 'NULL' for name in _COLUMNS)} FROM attempts"


def insert(db: sqlite3.Connection, attempts: Iterable[Attempt], notes: Iterable[Note] = ()) -> list[Attempt]:
    """Add rows and what they sum up to, within a transaction; what is returned could not be kept as it is.

    One whose id is there already is passed over.
    """
    sums, saved, count, size, refused = Sums(), SavingSums(), 0, 0, []
    for attempt in attempts:
        try:
            row = _row_of(attempt)
            again = attempt.request_id != attempt.id and bool(db.execute(_AGAIN, (attempt.request_id,)).fetchone())
            new = db.execute(_INSERT, row).rowcount == 1
        except (ValueError, OverflowError, TypeError, AttributeError, sqlite3.IntegrityError, sqlite3.InterfaceError,
                sqlite3.ProgrammingError, sqlite3.DataError):  # fmt: skip
            refused.append(attempt)  # one with a number beyond 64 bits, or half a character, must not hold up others
            continue
        if new:
            sums.add(attempt)
            saved.add(attempt, again=again)
            count, size = count + 1, size + row[0]
    for note in notes:
        saved.note(note)
    for key, made in sums.items():
        _add_to_day(db, key, made)
    _add_savings(db, saved)
    db.execute("UPDATE facts SET value = value + ? WHERE name = 'rows'", (count,))
    db.execute("UPDATE facts SET value = value + ? WHERE name = 'bytes'", (size,))
    return refused


def make_room(db: sqlite3.Connection, max_rows: int, max_bytes: int) -> bool:
    """Remove the oldest rows if there are too many; whether there is more to remove."""
    facts: dict[str, float] = dict(db.execute("SELECT name, value FROM facts"))
    if facts["rows"] <= max_rows and facts["bytes"] <= max_bytes:
        return False
    rows = facts["rows"] - max_rows * _PRUNE_TO
    weight = facts["bytes"] - max_bytes * _PRUNE_TO
    last, count, size, until = 0, 0, 0, facts["pruned_until"]
    oldest = db.execute("SELECT seq, size, started FROM attempts ORDER BY seq LIMIT ?", (_PRUNE_AT_ONCE,))
    for seq, own, started in oldest:
        if count >= rows and size >= weight:
            break
        last, count, size, until = seq, count + 1, size + own, max(until, started)
    db.execute("DELETE FROM attempts WHERE seq <= ?", (last,))
    # The latest so many, not those since so long ago: a clock that was wrong once must not make all others old.
    latest = "SELECT DISTINCT day FROM days ORDER BY day DESC LIMIT 1 OFFSET ?"
    for table in ("savings", "days"):  # in this order: the days say which are the latest
        db.execute(f"DELETE FROM {table} WHERE day < ({latest})", (_DAYS_KEPT - 1,))
    changes = {"rows": -count, "bytes": -size, "pruned": count}
    db.executemany("UPDATE facts SET value = value + ? WHERE name = ?", [(by, name) for name, by in changes.items()])
    db.execute("UPDATE facts SET value = ? WHERE name = 'pruned_until'", (until,))
    return count < rows or size < weight


def _add_to_day(db: sqlite3.Connection, key: Row, made: dict[str, Any]) -> None:
    where = "day = ? AND tenant = ? AND provider = ? AND model = ? AND routed = ?"
    held = db.execute(f"SELECT {', '.join(SUMMED)} FROM days WHERE {where}", key).fetchone()
    # Dollars are added here: SQLite would make binary fractions of them.
    before = held or [0] * len(SUMMED)
    after = [
        str(Decimal(old) + made[name]) if name.endswith("cost") else old + made[name]
        for name, old in zip(SUMMED, before, strict=True)
    ]
    marks = ", ".join("?" * (len(key) + len(SUMMED)))
    db.execute(f"INSERT OR REPLACE INTO days VALUES ({marks})", (*key, *after))


def _add_savings(db: sqlite3.Connection, sums: SavingSums) -> None:
    for key, saving in sums.items():
        where = f"SELECT {', '.join(_SAVING)} FROM savings WHERE day = ? AND tenant = ? AND lever = ?"
        held = db.execute(where, key).fetchone()
        whole = saving + _saving_of(held) if held else saving
        marks = ", ".join("?" * (len(key) + len(_SAVING)))
        db.execute(f"INSERT OR REPLACE INTO savings VALUES ({marks})", (*key, *_values(whole)))


def saved(rows: Iterable[Row]) -> dict[str, Saving]:
    """Sums by lever of rows of `savings`: the lever, then a `Saving`."""
    found: dict[str, Saving] = {}
    for lever, *values in rows:
        found[lever] = found.get(lever, Saving()) + _saving_of(values)
    return found


def _saving_of(values: Sequence[Any]) -> Saving:
    known: Mapping[str, Any] = dict(zip(_SAVING, values, strict=True))
    return Saving(**{**known, "dollars": Decimal(known["dollars"])})


def _values(saving: Saving) -> list[Any]:
    return [str(saving.dollars) if name == "dollars" else getattr(saving, name) for name in _SAVING]
