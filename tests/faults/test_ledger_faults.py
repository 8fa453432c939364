"""The ledger's file full, locked, damaged, or in many hands: no call notices, and what was written stays."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import tempfile
import time
from decimal import Decimal
from pathlib import Path

import pytest

from costopt.audit import Attempt, Ledger
from tests.faults.words import Process, wait_for
from tests.timed import timed

# How a process with a ledger on the file that it is given begins.
ON_A_FILE = """
import os, signal, sys, threading, time
from decimal import Decimal
from costopt import Usage
from costopt.audit import Attempt, Ledger
ledger = Ledger(sys.argv[1])
def one(number, **more):
    return Attempt("m", started=1e9 + number, usage=Usage(10, 5), cost=Decimal("0.01"), cost_source="given", **more)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def one(number: int = 0) -> Attempt:
    return Attempt("m", started=1e9 + number, cost=Decimal("0.01"), cost_source="given")


def test_many_processes_write_one_file_and_the_sums_are_exact(path: Path) -> None:
    code = ON_A_FILE + "for n in range(400): ledger.record(one(n)); time.sleep(0.0002)\nassert ledger.flush(60)"
    with contextlib.ExitStack() as stack:
        for process in [stack.enter_context(Process(code, path)) for _ in range(3)]:
            process.rest()
    with Ledger(path) as ledger:
        found = list(ledger.attempts())
        assert len({attempt.id for attempt in found}) == 1200
        assert (ledger.totals().attempts, ledger.totals().cost) == (1200, 12)


def test_what_was_written_survives_kill_9(path: Path) -> None:
    code = (
        ON_A_FILE
        + """
n = 0
while True:
    for _ in range(50):
        ledger.record(one(n)); n += 1
    ledger.flush(); print(n, flush=True)
"""
    )
    with Process(code, path) as process:
        for _ in range(15):
            last = int(process.line())
        process.kill()
        while line := process.line():
            last = int(line)
    with Ledger(path) as ledger:
        found = list(ledger.attempts())
        assert len(found) >= last
        assert len({attempt.id for attempt in found}) == len(found)
        assert ledger.totals().cost == Decimal("0.01") * len(found), "rows and sums are of one transaction"
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_a_process_that_ends_writes_what_waits(path: Path) -> None:
    with Process(ON_A_FILE + "for n in range(500): ledger.record(one(n))", path) as process:
        process.rest()
    with Ledger(path) as ledger:
        assert ledger.totals().attempts == 500


@timed
def test_while_somebody_holds_the_file_nobody_waits_and_nothing_is_lost(path: Path) -> None:
    with Ledger(path) as ledger, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        ledger.record_all([one()])
        other.execute("BEGIN EXCLUSIVE")
        started = time.perf_counter()
        for number in range(1_000):
            ledger.record(one(number))
        assert time.perf_counter() - started < 1.0
        assert not ledger.flush(0.8)
        other.execute("ROLLBACK")
        assert ledger.flush(20)
        assert ledger.totals().attempts == 1_001
        assert ledger.stats().dropped == 0


def test_a_full_disk_is_stepped_over_and_got_over(path: Path) -> None:
    code = (
        ON_A_FILE
        + """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ledger.record_all([one(0)])
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1] + "-wal") + 10_000, limits[1]))
slowest = 0
for n in range(25_000):
    started = time.perf_counter()
    ledger.record(one(n))
    slowest = max(slowest, time.perf_counter() - started)
assert not ledger.flush(0.5)
stats = ledger.stats()
assert stats.dropped > 0 and stats.failures > 0, stats
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
assert ledger.flush(30)
print(ledger.totals().attempts + stats.dropped)
"""
    )
    with Process(code, path) as process:
        assert process.rest() == ["25001"]


def test_a_damaged_file_reaches_no_call(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path.write_bytes(os.urandom(10_000))
    ledger = Ledger(path)
    for number in range(50):
        ledger.record(one(number))
    wait_for(lambda: ledger._queue.failures > 2, "the thread has tried more than once")
    assert [record.message for record in caplog.records if "damaged" in record.message][1:] == [], "it is logged once"
    path.unlink()
    assert ledger.flush(20)
    assert ledger.totals().attempts == 50
    ledger.close()


def test_a_folder_that_cannot_be_made_reaches_no_call(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    ledger = Ledger(tmp_path / "file" / "ledger.db")
    ledger.record(one())
    assert not ledger.flush(0.3)


def test_a_folder_that_may_only_be_read_reaches_no_call() -> None:
    code = (
        ON_A_FILE
        + """
from costopt import StoreError
from costopt.audit import SpendingLimit
from costopt.batch import Journal
if os.getuid() == 0:  # whom no permission stops
    os.setuid(65534)
for each in (ledger, Ledger(sys.argv[2])):
    each.record(one(0))
    assert not each.flush(0.3)
    limit = SpendingLimit(each, 1)
    limit.check()
    limit.reserve(Decimal("0.3")).settle(Decimal("0.2"))
    print(limit.left)
try:
    Journal(sys.argv[1] + "-batches").jobs()
except StoreError as error:
    print(str(error).rpartition(": ")[2])
"""
    )
    with tempfile.TemporaryDirectory() as folder:
        there = Path(folder) / "there.db"
        with Ledger(there) as ledger:
            ledger.record_all([one()])
        there.chmod(0o444)
        os.chmod(folder, 0o555)
        with Process(code, Path(folder) / "new.db", there) as process:
            # One cent waits to be written. What a limit cannot read, it does not know of.
            assert process.rest() == ["0.79", "0.79", "give a path in a folder of your own"]
        os.chmod(folder, 0o755)


def test_a_child_does_not_wait_for_a_lock_that_a_thread_of_its_parent_held(path: Path) -> None:
    code = (
        ON_A_FILE
        + """
from costopt.audit.recorder import Answered, Call, Recorder
recorder, held, over = Recorder(ledger), threading.Event(), threading.Event()
def hold():
    with recorder._lock:
        held.set(); over.wait()
thread = threading.Thread(target=hold)
thread.start(); held.wait()
pid = os.fork()
if not pid:
    signal.alarm(20)
    recorder.answered(Call("1", "m", messages=list), Answered(usage=Usage(1, 1)))
    os._exit(0 if recorder.totals().attempts == 1 and ledger.flush(10) else 1)
over.set(); thread.join()
print(os.waitpid(pid, 0)[1], ledger.totals().attempts)
"""
    )
    with Process(code, path) as process:
        assert process.rest() == ["0 1"]


def test_a_fork_while_threads_record(path: Path) -> None:
    """The child has its own queue, and what waited in the parent is written once."""
    code = (
        ON_A_FILE
        + """
stop, done = threading.Event(), [0] * 3
def work(k):
    while not stop.is_set():
        ledger.record(one(done[k])); done[k] += 1; time.sleep(0.001)
threads = [threading.Thread(target=work, args=(k,)) for k in range(3)]
for thread in threads: thread.start()
bad = 0
for n in range(10):
    time.sleep(0.02)
    pid = os.fork()
    if not pid:
        signal.alarm(20)  # a child that waits for ever dies by it
        ledger.record(one(n, session="child"))
        os._exit(0 if ledger.flush(10) and ledger.stats().dropped == 0 else 1)
    bad += os.waitpid(pid, 0)[1] != 0
stop.set()
for thread in threads: thread.join()
assert ledger.flush(10)
sessions = [each.session for each in ledger.attempts()]
assert sessions.count("child") == 10 and sessions.count(None) == sum(done), (len(sessions), done)
print(bad)
"""
    )
    with Process(code, path) as process:
        assert process.rest() == ["0"]
