"""A fork while a thread holds the locks of a router, as behind gunicorn --preload: the child is not left waiting."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.faults.words import Process

CODE = """
import os, signal, sys, threading, warnings
from costopt import Budget, Price, Router, RouteRequest, Tier, Usage
from costopt.compression.books import Books
from costopt.routing import DecisionLog, Reply, StrongShare, drive, serve
from tests.costopt.routing.models import Scored

warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12: fork with threads
tiers = [Tier("gpt-4o-mini", max_output_tokens=50), Tier("gpt-4o", max_output_tokens=50)]
log, books = DecisionLog(sys.argv[1]), Books("a compressor")
router = Router(
    tiers, estimator=Scored(), policy=StrongShare(0.5), explore=0.5, budget=Budget(9, 60), sticky=True, log=log
)

def serves(asked=("0.1", "0.9", "0.1", "0.9")):
    def ask(step):
        if step.tier.name == "gpt-4o-mini":
            raise TimeoutError
        return Reply("Paris", Usage(10, 5))
    for text in asked:
        request = RouteRequest(text, conversation=text)
        log.label(drive(serve(router, request, router.decide(request)), ask).decision.id, 1.0)
    books.done(2, 1)

serves()
holders = [router, router.books, router.live, router.sticky, router.budget, log, books, *router.rests]
locks = [holder._lock for holder in holders] + [tier._held._lock for tier in router.tiers]
held, over = threading.Event(), threading.Event()
def hold():
    for lock in locks:
        lock.__enter__()
    held.set(); over.wait(60)
    for lock in locks:
        lock.__exit__(None, None, None)
thread = threading.Thread(target=hold)
thread.start(); held.wait()
pid = os.fork()
if not pid:
    signal.alarm(20)  # a child that waits for ever dies by it
    serves()
    os._exit(0 if router.stats().answered and books.stats().calls == 2 else 1)
bad = os.waitpid(pid, 0)[1]
over.set(); thread.join()
serves()
print(bad)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_fork_while_a_thread_holds_every_lock(tmp_path: Path) -> None:
    with Process(CODE, tmp_path / "decisions.jsonl") as process:
        assert process.rest() == ["0"]
