"""The local file full, locked, read-only, damaged: nobody is held up, and what mends it is said."""

from __future__ import annotations

import contextlib
import random
import sqlite3
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from costopt import ConfigError, LocalStore, SemanticCache, StoreError
from tests.faults.words import (
    MOST_ADDED_S,
    NEAR,
    ON_A_FILE,
    Process,
    Words,
    found,
    human,
    keep,
    said,
    timed_miss,
    wait_for,
)
from tests.timed import timed

pytestmark = timed

Open = Callable[..., SemanticCache]


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
    cache = SemanticCache(LocalStore(path), embedder=Words(), judge=NEAR, ttl=1.0)
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
        ON_A_FILE
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
        ON_A_FILE
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
        ON_A_FILE
        + """
folder = os.path.dirname(sys.argv[1])
keep(cache, "known")
cache.close()
os.chmod(sys.argv[1], 0o444)
os.chmod(folder, 0o555)
if os.geteuid() == 0:
    os.seteuid(65534)
cache = SemanticCache(LocalStore(sys.argv[1]), embedder=Words(), judge=NEAR)
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
    cache = SemanticCache(LocalStore(place), embedder=Words(), judge=NEAR)
    assert max(timed_miss(cache, f"question {n}") for n in range(5)) <= MOST_ADDED_S
    with pytest.raises(StoreError, match="cannot be"):
        cache.warm()
    assert cache.lookup(human(cache, "question 0")) is None
    cache.update(human(cache, "question 0"), said("late"))
    cache.close()
