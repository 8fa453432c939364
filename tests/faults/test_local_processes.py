"""One local file and many processes, killed and forked: nothing acknowledged is lost, all see all."""

from __future__ import annotations

import contextlib
import random
import sqlite3
from collections.abc import Callable
from pathlib import Path

from costopt import SemanticCache
from tests.faults.words import ON_A_FILE, Process, found, keep, wait_for

Open = Callable[..., SemanticCache]


def test_kill_9_amid_10_000_writes_loses_nothing_acknowledged(path: Path, open_cache: Open) -> None:
    writer = ON_A_FILE + "for n in range(10_000): keep(cache, f'question {n}'); print(n, flush=True)"
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
    with Process(
        ON_A_FILE + "keep(cache, 'how old is the moon'); print(1, flush=True); time.sleep(60)", path
    ) as process:
        process.line()
        process.kill()
    assert found(open_cache().warm(), "the moon is how old?") == ("semantic", "answer to how old is the moon")


def test_many_processes_see_each_others_entries(path: Path, open_cache: Open) -> None:
    worker = (
        ON_A_FILE
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
        ON_A_FILE
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
        ON_A_FILE
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
