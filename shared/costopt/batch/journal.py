"""What was asked, sent and answered, in one SQLite file: a crash at any point loses none of it.

A request is one row, whichever jobs want it, by the digest of what is asked. Its state goes

    pending -> sent -> done | failed
       ^________|                      the batch came to nothing, or not as far as this row

and `cancelled` is where a row ends that nobody wants any more. A lot is one batch at the provider: `open` from before
it is sent until its id is known, then `sent`, then `ended`; or `lost`, if the provider never made it.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from costopt.batch.journal_file import JournalFile, default_journal
from costopt.batch.split import Row

__all__ = ["Answered", "Journal", "OpenLot", "Want", "default_journal"]

_MANY = 500  # rows in one transaction: another process that reads may wait for it

_OF_JOB = "key IN (SELECT key FROM wanted WHERE job = ?)"
_WANTED_BY_OTHERS = """
    EXISTS (SELECT 1 FROM wanted JOIN jobs ON jobs.id = wanted.job
            WHERE wanted.key = requests.key AND jobs.cancelled = 0 AND jobs.id <> ?)
"""


@dataclass(frozen=True, slots=True)
class Want:
    """A request as it is handed in: key, endpoint, model, body as JSON, and the caller's name for it."""

    key: str
    endpoint: str
    model: str
    body: str
    name: str | None


@dataclass(frozen=True, slots=True)
class OpenLot:
    """A lot that has not ended: `batch` is None while its id is not known, `doubted` when that was first noticed."""

    id: str
    endpoint: str
    size: int
    batch: str | None
    started: float
    doubted: float | None
    cancelled: int


@dataclass(frozen=True, slots=True)
class Answered:
    """What is written down of a row that came back; `state` is "done" or "failed"."""

    key: str
    state: str
    status: int
    answer: str
    code: str = ""
    message: str = ""
    usage: str | None = None
    cost: str | None = None
    list_cost: str | None = None
    source: str = "batch"
    batch: str | None = None


class Journal(JournalFile):
    """The file. Each method opens it, does one thing and closes it: safe in threads, over forks, and when killed.

    It holds prompts and answers in clear, readable by its owner only.

    Args:
        path: The file; made at first use. None: `default_journal()`.

    Raises:
        StoreError: From every method, if the file cannot be used.

    Example:
        >>> Journal(tmp / "batch.db").path.name
        'batch.db'
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        super().__init__(path)

    # -- what is wanted --------------------------------------------------------------------------------

    def add(self, job: str, provider: str, wants: Sequence[Want], keep: float) -> int:
        """Write a job down, whole or not at all; returns how many of its different requests have an answer already.

        Args:
            job: Its id. If it is known, it goes on, and what failed or was cancelled is asked again.
            provider: Who is asked.
            wants: Its requests, in order.
            keep: Answers older than so many seconds are forgotten.
        """
        now = time.time()
        with self.transaction() as db:
            self._forget(db, now - keep)
            db.execute(
                "INSERT INTO jobs (id, provider, size, created) VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET cancelled = 0, created = excluded.created",
                (job, provider, len(wants), now),
            )
            # Whoever asks first pays: a row's cost is in the books of one job.
            db.executemany(
                "INSERT INTO requests (key, provider, endpoint, model, body, payer) VALUES (?, ?, ?, ?, ?, ?) "
                "ON CONFLICT DO NOTHING",
                ((want.key, provider, want.endpoint, want.model, want.body, job) for want in wants),
            )
            db.executemany(
                "INSERT INTO wanted (job, position, key, name) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
                ((job, position, want.key, want.name) for position, want in enumerate(wants)),
            )
            db.execute(
                f"UPDATE requests SET state = 'pending', lot = NULL, tries = 0, finished = NULL, payer = ? "
                f"WHERE {_OF_JOB} AND state IN ('failed', 'cancelled')",
                (job, job),
            )
            found = db.execute(f"SELECT COUNT(*) FROM requests WHERE {_OF_JOB} AND state = 'done'", (job,))
            return int(found.fetchone()[0])

    def _forget(self, db: sqlite3.Connection, before: float) -> None:
        db.execute(
            "DELETE FROM jobs WHERE created < ? AND NOT EXISTS (SELECT 1 FROM wanted JOIN requests USING (key) "
            "WHERE wanted.job = jobs.id AND requests.state IN ('pending', 'sent'))",
            (before,),
        )
        db.execute(
            "DELETE FROM requests WHERE finished < ? "
            "AND NOT EXISTS (SELECT 1 FROM wanted WHERE wanted.key = requests.key)",
            (before,),
        )
        db.execute("DELETE FROM lots WHERE state IN ('ended', 'lost') AND started < ?", (before,))

    def job(self, job: str) -> tuple[str, int, bool] | None:
        """Its provider, its size and whether it was cancelled; None if there is no such job."""
        with self.opened() as db:
            row = db.execute("SELECT provider, size, cancelled FROM jobs WHERE id = ?", (job,)).fetchone()
        return None if row is None else (row[0], row[1], bool(row[2]))

    def jobs(self) -> list[tuple[str, str, int, float]]:
        """All jobs, the newest first: id, provider, size, Unix time."""
        with self.opened() as db:
            return db.execute("SELECT id, provider, size, created FROM jobs ORDER BY created DESC, id").fetchall()

    def counts(self, job: str) -> dict[str, int]:
        """Its different requests by state."""
        with self.opened() as db:
            return dict(db.execute(f"SELECT state, COUNT(*) FROM requests WHERE {_OF_JOB} GROUP BY state", (job,)))

    def pending(self, job: str) -> list[Row]:
        """Its requests that wait to be sent, in order."""
        with self.opened() as db:
            rows = db.execute(
                "SELECT key, endpoint, model, LENGTH(body) FROM requests JOIN "
                "(SELECT key, MIN(position) AS place FROM wanted WHERE job = ? GROUP BY key) USING (key) "
                "WHERE state = 'pending' ORDER BY place",
                (job,),
            )
            return [Row(*row) for row in rows]

    def bodies(self, keys: Sequence[str]) -> dict[str, str]:
        """The bodies of requests, as JSON."""
        return self._of_each("body", keys)

    def models(self, keys: Sequence[str]) -> dict[str, str]:
        """The models that requests name."""
        return self._of_each("model", keys)

    def _of_each(self, column: str, keys: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        with self.opened() as db:
            for some in _some(keys):
                marks = ",".join("?" * len(some))
                found.update(db.execute(f"SELECT key, {column} FROM requests WHERE key IN ({marks})", some))
        return found

    # -- lots --------------------------------------------------------------------------------------------

    def begin(self, lot: str, provider: str, endpoint: str, keys: Sequence[str]) -> float:
        """Write down that a lot is about to be sent, with those of `keys` that still wait; returns the Unix time."""
        now = time.time()
        # Durable: whatever else a power cut takes, the provider has, and is asked for if a lot is known.
        with self.transaction(durable=True) as db:
            taken = db.executemany(
                "UPDATE requests SET state = 'sent', lot = ?, tries = tries + 1 WHERE key = ? AND state = 'pending'",
                ((lot, key) for key in keys),
            )
            if taken.rowcount > 0:
                db.execute(
                    "INSERT INTO lots (id, provider, endpoint, size, started) VALUES (?, ?, ?, ?, ?)",
                    (lot, provider, endpoint, taken.rowcount, now),
                )
        return now

    def sent(self, lot: str, batch: str) -> None:
        """Write down the provider's id of a lot."""
        with self.transaction() as db:
            db.execute("UPDATE lots SET state = 'sent', batch = ? WHERE id = ?", (batch, lot))

    def doubt(self, lot: str) -> float:
        """Note that nobody knows whether the lot was made; returns the Unix time when that was first noted."""
        with self.transaction() as db:
            # A clock that was ahead and went back must not make the doubt last until that time comes again.
            db.execute("UPDATE lots SET doubted = MIN(COALESCE(doubted, ?1), ?1) WHERE id = ?2", (time.time(), lot))
            return float(db.execute("SELECT doubted FROM lots WHERE id = ?", (lot,)).fetchone()[0])

    def lots(self, job: str) -> list[OpenLot]:
        """The lots that hold a request of the job and have not ended, in the order they were sent."""
        with self.opened() as db:
            rows = db.execute(
                "SELECT id, endpoint, size, batch, started, doubted, cancelled FROM lots "
                "WHERE state IN ('open', 'sent') AND id IN "
                f"(SELECT lot FROM requests WHERE {_OF_JOB} AND state = 'sent') ORDER BY started, id",
                (job,),
            )
            return [OpenLot(*about) for about in rows]

    def batches(self, provider: str) -> frozenset[str]:
        """The provider's ids of all lots whose id is known."""
        with self.opened() as db:
            rows = db.execute("SELECT batch FROM lots WHERE provider = ? AND batch IS NOT NULL", (provider,))
            return frozenset(batch for (batch,) in rows)

    def keys(self, lot: str) -> list[str]:
        """The requests of a lot that it has not answered, in the order they were sent."""
        with self.opened() as db:
            rows = db.execute("SELECT key FROM requests WHERE lot = ? AND state = 'sent' ORDER BY rowid", (lot,))
            return [key for (key,) in rows]

    def record(self, lot: str, answers: Sequence[Answered]) -> list[str]:
        """Write answers down; a row that has one keeps it. Returns the keys for which this was the first."""
        with self.transaction() as db:
            return self._record(db, lot, answers)

    def _record(self, db: sqlite3.Connection, lot: str, answers: Sequence[Answered]) -> list[str]:
        now, first = time.time(), []
        for each in answers:
            cursor = db.execute(
                "UPDATE requests SET state = ?, status = ?, answer = ?, code = ?, message = ?, usage = ?, cost = ?, "
                "list_cost = ?, source = ?, batch = ?, finished = ?, told = 0 "
                "WHERE key = ? AND state = 'sent' AND lot = ?",
                (
                    *(each.state, each.status, each.answer, each.code, each.message, each.usage, each.cost),
                    *(each.list_cost, each.source, each.batch, now, each.key, lot),
                ),
            )
            if cursor.rowcount:
                first.append(each.key)
        return first

    def end(self, lot: str, state: str, *, count: bool, answers: Sequence[Answered] = ()) -> None:
        """The lot is over, with these last answers; what it has not answered waits again.

        Args:
            lot: The lot.
            state: "ended" or "lost".
            count: Whether that was one of the tries that a row has.
            answers: Written down in the same moment.
        """
        with self.transaction() as db:
            self._record(db, lot, answers)
            db.execute(
                "UPDATE requests SET state = 'pending', lot = NULL, tries = tries - ? WHERE lot = ? AND state = 'sent'",
                (0 if count else 1, lot),
            )
            db.execute("UPDATE lots SET state = ? WHERE id = ?", (state, lot))

    def give_up(self, job: str, most: int, code: str, message: str) -> int:
        """Fail the waiting requests of a job that have been tried so often; returns how many."""
        with self.transaction() as db:
            cursor = db.execute(
                f"UPDATE requests SET state = 'failed', status = 0, answer = '{{}}', code = COALESCE(code, ?), "
                f"message = COALESCE(message, ?), finished = ? WHERE {_OF_JOB} AND state = 'pending' AND tries >= ?",
                (code, message, time.time(), job, most),
            )
            return cursor.rowcount

    def note(self, lot: str, notes: Iterable[tuple[str, str, str]]) -> None:
        """Why rows of a lot were not answered, as (key, code, message): said if no further try helps."""
        with self.transaction() as db:
            db.executemany(
                "UPDATE requests SET code = ?, message = ? WHERE key = ? AND state = 'sent' AND lot = ?",
                ((code, message, key, lot) for key, code, message in notes),
            )

    def refuse(self, key: str, code: str, message: str) -> None:
        """A waiting request that cannot be sent at all."""
        with self.transaction() as db:
            db.execute(
                "UPDATE requests SET state = 'failed', status = 0, answer = '{}', code = ?, message = ?, finished = ? "
                "WHERE key = ? AND state = 'pending'",
                (code, message, time.time(), key),
            )

    def answer(self, answers: Sequence[Answered]) -> None:
        """Waiting requests that somebody else has answered."""
        now = time.time()
        with self.transaction() as db:
            db.executemany(
                "UPDATE requests SET state = 'done', status = ?, answer = ?, usage = ?, cost = ?, list_cost = ?, "
                "source = ?, finished = ? WHERE key = ? AND state = 'pending'",
                (
                    (each.status, each.answer, each.usage, each.cost, each.list_cost, each.source, now, each.key)
                    for each in answers
                ),
            )

    # -- the end of a job ----------------------------------------------------------------------------------

    def cancel(self, job: str) -> None:
        """Nothing more is sent for a job; what it alone waits for is cancelled."""
        with self.transaction() as db:
            db.execute("UPDATE jobs SET cancelled = 1 WHERE id = ?", (job,))
            self._drop(db, job)

    def drop_waiting(self, job: str) -> None:
        """Cancel what a cancelled job alone waits for."""
        with self.transaction() as db:
            self._drop(db, job)

    def _drop(self, db: sqlite3.Connection, job: str) -> None:
        db.execute(
            f"UPDATE requests SET state = 'cancelled', finished = ? "
            f"WHERE {_OF_JOB} AND state = 'pending' AND NOT {_WANTED_BY_OTHERS}",
            (time.time(), job, job),
        )

    def unwanted(self, lot: str, job: str) -> bool:
        """Whether no other job waits for anything in the lot."""
        with self.opened() as db:
            row = db.execute(
                f"SELECT 1 FROM requests WHERE lot = ? AND state = 'sent' AND {_WANTED_BY_OTHERS} LIMIT 1", (lot, job)
            ).fetchone()
        return row is None

    def cancelled_lot(self, lot: str) -> None:
        """The provider was told to stop."""
        with self.transaction() as db:
            db.execute("UPDATE lots SET cancelled = 1 WHERE id = ?", (lot,))

    def rows(self, job: str, positions: Sequence[int] | None = None) -> Iterator[sqlite3.Row]:
        """What is known of each request of a job, in order; of `positions` only, if given."""
        sql = (
            "SELECT position, name, payer, key, state, status, answer, code, message, usage, cost, list_cost, source, "
            "batch FROM wanted JOIN requests USING (key) WHERE job = ?"
        )
        with self.opened() as db:
            db.row_factory = sqlite3.Row
            if positions is None:
                yield from db.execute(sql + " ORDER BY position", (job,))
                return
            for some in _some(positions):
                marks = ",".join("?" * len(some))
                yield from db.execute(f"{sql} AND position IN ({marks}) ORDER BY position", (job, *some))

    def firsts(self, job: str) -> dict[str, int]:
        """The first place of each request of a job that stands in more than one."""
        with self.opened() as db:
            rows = db.execute(
                "SELECT key, MIN(position) FROM wanted WHERE job = ? GROUP BY key HAVING COUNT(*) > 1", (job,)
            )
            return dict(rows)

    def finished(self, job: str) -> list[tuple[int, str]]:
        """Places and keys of the requests of a job that need no more waiting for."""
        with self.opened() as db:
            return db.execute(
                "SELECT position, key FROM wanted JOIN requests USING (key) "
                "WHERE job = ? AND state NOT IN ('pending', 'sent') ORDER BY position",
                (job,),
            ).fetchall()

    def tell(self, keys: Sequence[str]) -> frozenset[str]:
        """Mark answers as handed out; returns those that had not been before."""
        fresh: set[str] = set()
        with self.transaction() as db:
            for some in _some(keys):
                marks = ",".join("?" * len(some))
                fresh.update(
                    k for (k,) in db.execute(f"SELECT key FROM requests WHERE told = 0 AND key IN ({marks})", some)
                )
                db.execute(f"UPDATE requests SET told = 1 WHERE key IN ({marks})", some)
        return frozenset(fresh)


def _some(values: Sequence[object]) -> Iterator[list[object]]:
    for start in range(0, len(values), _MANY):
        yield list(values[start : start + _MANY])
