"""The local file killed, locked, full, damaged, shared: nothing acknowledged is lost, nobody is held up."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from costopt import ConfigError, LocalStore, SemanticCache, StoreError
from tests.faults.words import MOST_ADDED_S, Process, Words, found, human, keep, said, wait_for

SETUP = """
import os, signal, sys, time
from costopt import LocalStore, SemanticCache
from tests.faults.words import Words, found, human, keep, said
cache = SemanticCache(LocalStore(sys.argv[1]), embedder=Words(), guards=False).warm()
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


@pytest.fixture
def open_cache(path: Path) -> Iterator[Callable[..., SemanticCache]]:
    """A function that makes caches on one file, each with a connection of its own."""
    with contextlib.ExitStack() as stack:

        def make(**store: Any) -> SemanticCache:
            cache = SemanticCache(LocalStore(path, **store), embedder=Words(), guards=False)
            stack.callback(cache.close)
            return cache

        yield make


Open = Callable[..., SemanticCache]


def timed_miss(cache: SemanticCache, question: str) -> float:
    """Seconds that a question without an answer takes: a look-up and an update, neither of which raises."""
    started = time.perf_counter()
    assert found(cache, question) is None
    keep(cache, question)
    return time.perf_counter() - started


# -- processes ---------------------------------------------------------------------------------------------


def test_kill_9_amid_10_000_writes_loses_nothing_acknowledged(path: Path, open_cache: Open) -> None:
    writer = SETUP + "for n in range(10_000): keep(cache, f'question {n}'); print(n, flush=True)"
    chance = random.Random(1)
    with Process(writer, path) as process:
        last = 0
        for _ in range(2000 + chance.randrange(3000)):
            last = int(process.line())
        process.kill()
        # What was acknowledged before the kill and not read yet counts, too.
        while line := process.line():
            last = int(line)
    cache = open_cache()
    assert cache.size().entries in (last + 1, last + 2)
    assert [found(cache, f"question {n}") for n in range(last + 1)] == [
        ("exact", f"answer to question {n}") for n in range(last + 1)
    ]
    with contextlib.closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    keep(cache, "and it goes on")
    assert found(cache, "and it goes on") == ("exact", "answer to and it goes on")


def test_the_killed_ones_entries_match_loosely(path: Path, open_cache: Open) -> None:
    with Process(SETUP + "keep(cache, 'how old is the moon'); print(1, flush=True); time.sleep(60)", path) as process:
        process.line()
        process.kill()
    assert found(open_cache().warm(), "the moon is how old?") == ("semantic", "answer to how old is the moon")


def test_many_processes_see_each_others_entries(path: Path, open_cache: Open) -> None:
    worker = (
        SETUP
        + """
me = sys.argv[2]
for n in range(40):
    keep(cache, f"{me} wants to know matter {n}")
print("written", flush=True)
sys.stdin.readline()
cache.warm()  # reads on at once; a search would catch up with so many rows in a thread of its own
for other in "abc":
    for n in range(40):
        right = f"answer to {other} wants to know matter {n}"
        assert found(cache, f"{other} wants to know matter {n}") == ("exact", right)
        assert found(cache, f"to know matter {n} {other} wants?") == ("semantic", right)
failures = dict(cache.stats().failures)
assert not failures, failures
cache.close()
"""
    )
    here = open_cache().warm()
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Process(worker, path, name)) for name in "abc"]
        assert [process.line() for process in workers] == ["written"] * 3
        for process in workers:
            process.send()
        for process in workers:
            process.rest()
    hit = wait_for(lambda: found(here, "to know matter 7 b wants?"), "the index is filled aside")
    assert hit == ("semantic", "answer to b wants to know matter 7")
    assert here.size().entries == 120


def test_fork_after_use(path: Path, open_cache: Open) -> None:
    """As gunicorn --preload does: made and used in the parent, used in the children, closed in any order."""
    code = (
        SETUP
        + """
import asyncio
keep(cache, "from the parent")
request = human(cache, "an awaited one")
asyncio.run(cache.alookup(request))
asyncio.run(cache.aupdate(request, said("awaited")))
readers, children = [], []
for n in range(2):
    reader, writer = os.pipe()
    pid = os.fork()
    if not pid:
        assert found(cache, "from the parent") == ("exact", "answer to from the parent")
        assert found(cache, "the parent from") == ("semantic", "answer to from the parent")
        assert asyncio.run(cache.alookup(request)).tier == "exact"
        keep(cache, f"from child {n}")
        os.write(writer, b"x")
        time.sleep(0.5 + n / 2)  # the parent closes meanwhile
        keep(cache, f"late from child {n}")
        assert found(cache, f"child late from {n}")[0] == "semantic"
        assert not cache.stats().failures, cache.stats().failures
        cache.close()
        os._exit(0)
    os.close(writer)
    readers.append(reader)
    children.append(pid)
for reader in readers:
    assert os.read(reader, 1) == b"x"
assert found(cache, "from child 1")[0] == "exact"
cache.close()
statuses = [os.waitpid(pid, 0)[1] for pid in children]
assert statuses == [0, 0], statuses
"""
    )
    with Process(code, path) as process:
        process.rest()
    cache = open_cache().warm()
    for question in ("from the parent", "from child 0", "from child 1", "late from child 0", "late from child 1"):
        assert found(cache, question) == ("exact", f"answer to {question}")


def test_fork_while_threads_use_the_cache(path: Path) -> None:
    """Whatever lock a thread of the parent held, the child is not left waiting for it."""
    code = (
        SETUP
        + """
import threading
keep(cache, "known")
stop = threading.Event()
def work(n):
    i = 0
    while not stop.is_set():
        keep(cache, f"busy {n} {i}"); found(cache, f"busy {n} {i} or not"); i += 1
threads = [threading.Thread(target=work, args=(n,)) for n in range(3)]
for thread in threads: thread.start()
bad = 0
for n in range(15):
    time.sleep(0.01)
    pid = os.fork()
    if not pid:
        signal.alarm(5)  # a child that waits for ever dies by it
        keep(cache, f"from child {n}")
        ok = found(cache, "known") and found(cache, f"from child {n}")
        cache.warm()
        ok = ok and found(cache, f"child from {n}")
        os._exit(0 if ok else 1)
    bad += os.waitpid(pid, 0)[1] != 0
stop.set()
for thread in threads: thread.join()
cache.close()
print(bad, flush=True)
"""
    )
    with Process(code, path) as process:
        assert process.rest() == ["0"]


# -- the file ----------------------------------------------------------------------------------------------


def test_only_the_owner_may_read(path: Path, open_cache: Open) -> None:
    cache = open_cache().warm()
    keep(cache, "a secret")
    assert found(cache, "secret a")
    cache.close()
    keep(cache, "another")
    files = list(path.parent.iterdir())
    assert len(files) > 3  # the log, its index, the saved neighbours
    assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {0o600}


def test_the_least_recently_used_go_first(open_cache: Open) -> None:
    cache = open_cache(max_bytes=100_000)
    big = "x" * 1000
    for n in range(40):
        keep(cache, f"early {n}", big)
    for n in range(0, 40, 4):
        assert found(cache, f"early {n}")
    for n in range(40):
        keep(cache, f"late {n}", big)
    there = [n for n in range(40) if found(cache, f"early {n}")]
    assert set(range(0, 40, 4)) <= set(there)
    assert len(there) < 30
    assert all(found(cache, f"late {n}") for n in range(40))
    assert cache.size().entries < 80


def test_ttl_counts_from_the_answer_however_often_it_is_read(path: Path) -> None:
    cache = SemanticCache(LocalStore(path), embedder=Words(), guards=False, ttl=1.0)
    keep(cache, "how old is the moon")
    stored, reads = time.monotonic(), 0
    while found(cache, "how old is the moon") and found(cache, "the moon is how old"):
        reads += 1
        time.sleep(0.02)
    assert reads > 3
    assert 0.8 <= time.monotonic() - stored < 2
    assert found(cache, "the moon is how old") is None
    cache.close()


def test_a_write_lock_held_elsewhere_costs_little(path: Path, open_cache: Open) -> None:
    cache = open_cache().warm()
    keep(cache, "known")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        added = [timed_miss(cache, f"locked out {n}") for n in range(5)]
        other.execute("ROLLBACK")
    assert max(added) <= MOST_ADDED_S, added
    assert sorted(added)[1] < 0.02  # the breaker is open
    wait_for(lambda: found(cache, "known"), "the cache is back")
    wait_for(lambda: keep(cache, "new") or found(cache, "new"), "writes are back")


def test_a_full_disk_is_stepped_over_and_got_over(path: Path) -> None:
    code = (
        SETUP
        + """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
keep(cache, "known")
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1] + "-wal") + 30_000, limits[1]))
slowest = 0.0
for n in range(12):
    started = time.perf_counter()
    keep(cache, f"too much {n}", "x" * 9000)
    slowest = max(slowest, time.perf_counter() - started)
stats = cache.stats()
print(slowest, stats.stored, list(stats.failures), sep="|", flush=True)
assert found(cache, "known")[0] == "exact"
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
keep(cache, "there is room again")
assert found(cache, "there is room again")[0] == "exact"
cache.close()
"""
    )
    with Process(code, path) as process:
        slowest, stored, failures = process.rest()[0].split("|")
    assert float(slowest) <= MOST_ADDED_S
    assert 1 <= int(stored) < 13
    assert failures == "['update: StoreError']"


def test_a_full_disk_says_so(path: Path) -> None:
    code = (
        SETUP
        + """
import resource
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (os.path.getsize(sys.argv[1] + "-wal") + 10_000,) * 2)
try:
    cache.store.add_totals({"x" * 20_000: 1})
except Exception as error:
    print(type(error).__name__, error)
os._exit(0)
"""
    )
    with Process(code, path) as process:
        (line,) = process.rest()
    assert line.startswith("StoreError")
    assert "full" in line or "I/O" in line


def test_without_the_right_to_write() -> None:
    """As nobody, where only the owner may write; the rights of root would not do."""
    code = (
        SETUP
        + """
folder = os.path.dirname(sys.argv[1])
keep(cache, "known")
cache.close()
os.chmod(sys.argv[1], 0o444)
os.chmod(folder, 0o555)
if os.geteuid() == 0:
    os.seteuid(65534)
cache = SemanticCache(LocalStore(sys.argv[1]), embedder=Words(), guards=False)
slowest = 0.0
for n in range(5):
    started = time.perf_counter()
    assert found(cache, f"question {n}") is None
    keep(cache, f"question {n}")
    slowest = max(slowest, time.perf_counter() - started)
print(slowest, flush=True)
try:
    cache.warm()
except Exception as error:
    print(type(error).__name__, error)
"""
    )
    with tempfile.TemporaryDirectory() as folder:  # everybody may enter it, unlike pytest's
        with Process(code, Path(folder) / "cache.db") as process:
            slowest, error = process.rest()
        Path(folder).chmod(0o755)
    assert float(slowest) <= MOST_ADDED_S
    assert error.startswith("StoreError")
    assert "cache.db" in error


# -- damage ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("content", [b"not a database, but long enough to look like one" * 100, b"SQLite format 3\0"])
def test_a_file_that_is_no_database(path: Path, open_cache: Open, content: bytes) -> None:
    path.write_bytes(content)
    cache = open_cache()
    assert max(timed_miss(cache, f"question {n}") for n in range(5)) <= MOST_ADDED_S
    with pytest.raises(StoreError, match="remove it"):
        cache.warm()
    assert path.read_bytes() == content
    path.unlink()
    wait_for(lambda: keep(cache, "q") or found(cache, "q"), "the cache is back once the file is removed")


def test_a_file_that_is_damaged_while_it_is_open(path: Path, open_cache: Open) -> None:
    cache = open_cache().warm()
    for n in range(200):
        keep(cache, f"question {n}", "x" * 500)
    cache.close()
    size = path.stat().st_size
    assert found(cache, "question 3")
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(random.Random(1).randbytes(size - 4096))
    for n in range(200):
        assert found(cache, f"question {n}") in (None, ("exact", "x" * 500))
        keep(cache, f"new {n}")
    assert cache.stats().failures
    for file in path.parent.glob("cache.db*"):
        file.unlink()
    wait_for(lambda: keep(cache, "q") or found(cache, "q"), "the cache is back once the file is removed")
    assert path.exists()


def test_a_file_of_a_newer_costopt_is_left_alone(path: Path, open_cache: Open) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE entries (future TEXT)")
        db.execute("PRAGMA user_version = 999")
    before = path.read_bytes()
    cache = open_cache()
    assert max(timed_miss(cache, f"question {n}") for n in range(5)) <= MOST_ADDED_S
    with pytest.raises(ConfigError, match="upgrade costopt"):
        cache.warm()
    assert path.read_bytes() == before


@pytest.mark.parametrize("damage", [b"", b"\xff" * 5000, None])
def test_a_damaged_saved_index_is_built_anew(path: Path, open_cache: Open, damage: bytes | None) -> None:
    cache = open_cache().warm()
    keep(cache, "how old is the moon")
    assert found(cache, "the moon is how old")
    cache.close()
    (saved,) = path.parent.glob("*.index")
    whole = saved.read_bytes()
    saved.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    assert found(open_cache().warm(), "the moon is how old") == ("semantic", "answer to how old is the moon")


@pytest.mark.parametrize("vector", ["nan", "inf", "zero", "short", "empty"])
def test_a_stored_vector_that_is_none_spoils_nothing(path: Path, open_cache: Open, vector: str) -> None:
    blob = {"nan": b"\xff" * 128, "inf": b"\x00\x7c" * 64, "zero": bytes(128), "short": bytes(10), "empty": b""}[vector]
    cache = open_cache().warm()
    for question in ("how old is the moon", "how far is the sun"):
        keep(cache, question)
    cache.close()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("UPDATE entries SET vector = ? WHERE seq = (SELECT min(seq) FROM entries)", (blob,))
    for saved in path.parent.glob("*.index"):
        saved.unlink()
    cache = open_cache().warm()
    assert found(cache, "the moon is how old") is None
    assert found(cache, "the sun is how far") == ("semantic", "answer to how far is the sun")
    assert not cache.stats().failures


@pytest.mark.parametrize("where", ["a folder", "below a file", "/proc/costopt/cache.db"])
def test_a_place_where_no_file_can_be(tmp_path: Path, where: str) -> None:
    (tmp_path / "file").write_text("")
    place = {"a folder": tmp_path, "below a file": tmp_path / "file" / "cache.db"}.get(where, Path(where))
    cache = SemanticCache(LocalStore(place), embedder=Words(), guards=False)
    assert max(timed_miss(cache, f"question {n}") for n in range(5)) <= MOST_ADDED_S
    with pytest.raises(StoreError, match="cannot be"):
        cache.warm()
    assert cache.lookup(human(cache, "question 0")) is None
    cache.update(human(cache, "question 0"), said("late"))
    cache.close()
