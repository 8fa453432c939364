"""What goes wrong between us and the provider: whatever it is, each row is answered once and paid once."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from costopt.batch import Backoff, BatchRunner, Limits
from costopt.errors import BatchError, BatchNotFoundError, BatchUnavailableError, ConfigError, StoreError
from tests.batch_answers import Fate
from tests.batch_server import Batch, BatchServer, Fault, batch_server
from tests.costopt.batch.support import FAST, Setup, close_clients, looks, makes, provider, reads, right
from tests.faults.words import Process

# The disk is full from the moment when results are read; later there is room.
FULL_DISK = """
import os, resource, signal, sys
from pathlib import Path
from costopt import StoreError
from costopt.batch import BatchRunner
from tests.costopt.batch.support import FAST, provider, request, right
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
runner = BatchRunner(provider("openai", sys.argv[1]), journal=sys.argv[2], backoff=FAST)
requests = [request("gpt-4o-mini", f"question {number}") for number in range(60)]
job = runner.submit(requests)
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (Path(sys.argv[2]).stat().st_size // 2, limits[1]))
try:
    runner.collect(job.id)
except StoreError as error:
    print(type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
right(runner.collect(job.id), requests)
print(runner.status(job.id).done, "answered")
"""
TWO = Limits(rows=2, bytes=10**6, one_model=False)


def uploads(method: str, path: str) -> bool:
    return method == "POST" and path.endswith("/files")


def anything(method: str, path: str) -> bool:
    return True


@pytest.mark.parametrize("meant", [makes, uploads, looks, reads], ids=lambda meant: str(meant.__name__))
@pytest.mark.parametrize(
    "fault",
    [
        Fault(status=429, headers={"retry-after": "0.01"}),
        Fault(status=500),
        Fault(cut="before"),
        Fault(cut="after"),
        Fault(cut="amid"),
        Fault(cut="amid", quiet=True),
    ],
    ids=lambda fault: f"{fault.status or fault.cut}{'-quiet' if fault.quiet else ''}",
)
def test_a_fault_anywhere_costs_nothing_but_time(setup: Setup, meant: Callable[[str, str], bool], fault: Fault) -> None:
    if setup.name == "anthropic" and meant is uploads:
        return  # it takes no files
    setup.faults((meant, fault), times=2)
    requests = setup.asks(12)
    right(setup.runner(limits=Limits(rows=6, bytes=10**6, one_model=False)).run(requests), requests)
    setup.billed_once(12)


def test_who_is_told_to_come_later_comes_later(setup: Setup) -> None:
    asked: list[float] = []

    def fault(method: str, path: str, number: int) -> Fault | None:
        if not makes(method, path):
            return None
        asked.append(time.monotonic())
        return Fault(status=429, headers={"retry-after": "0.4"}) if len(asked) == 1 else None

    setup.server.fault = fault
    right(setup.runner().run(setup.asks(2)), setup.asks(2))
    assert len(asked) == 2
    assert asked[1] - asked[0] >= 0.4
    assert len(setup.server.files) == (setup.name == "openai"), "what was uploaded in vain is deleted"


def test_a_clock_that_goes_back_does_not_keep_a_lot_in_doubt(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.faults((makes, Fault(cut="before")))
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 3000)  # until the lot is in doubt
    job = setup.runner().submit(setup.asks(2))
    monkeypatch.setattr(time, "time", clock)
    right(setup.runner().collect(job.id), setup.asks(2))
    setup.billed_once(2)


def test_a_batch_made_though_the_connection_was_cut_is_found_again(setup: Setup) -> None:
    setup.faults((makes, Fault(cut="after")))
    requests = setup.asks(3)
    right(setup.runner().run(requests), requests)
    assert len(setup.server.batches) == 1


def test_a_batch_that_was_not_made_is_made_after_a_while(setup: Setup) -> None:
    setup.faults((makes, Fault(cut="before")))
    requests = setup.asks(3)
    right(setup.runner().run(requests), requests)
    assert len(setup.server.batches) == 1


def test_anothers_batch_of_the_same_size_is_not_taken_for_ours(setup: Setup) -> None:
    other = BatchRunner(setup.provider, journal=str(setup.journal) + "-other", backoff=FAST)
    other.submit([setup.ask(f"other {n}") for n in range(3)])
    setup.faults((makes, Fault(cut="before")))
    requests = setup.asks(3)
    right(setup.runner().run(requests), requests)
    assert len(setup.server.batches) == 2
    assert set(setup.server.billed.values()) == {1}


def test_expired_and_missing_rows_alone_are_sent_again(setup: Setup) -> None:
    def fate(body: Mapping[str, Any], before: int) -> Fate:
        number = int(body["messages"][0]["content"].split()[1])
        return "ok" if before or number % 4 == 0 else ("expired", "missing", "overloaded")[number % 4 - 1]  # type: ignore[return-value]

    setup.server.fate = fate
    requests = setup.asks(16)
    right(setup.runner().run(requests), requests)
    setup.billed_once(16)
    assert [len(batch.rows) for batch in setup.server.batches.values()] == [16, 12]


def test_a_row_that_never_gets_through_fails_after_some_tries(setup: Setup) -> None:
    setup.server.fate = lambda body, before: "expired"
    result = setup.runner(tries=2).run(setup.asks(2))
    assert [item.error.code for item in result.errors if item.error] in (["expired"] * 2, ["batch_expired"] * 2)
    assert len(setup.server.batches) == 2
    setup.server.fate = lambda body, before: "ok"
    right(setup.runner().run(setup.asks(2)), setup.asks(2))  # handed in again, it is tried again


def test_a_batch_refused_for_some_lines_goes_without_them(server: BatchServer, tmp_path: Path) -> None:
    def refuse(batch: Batch) -> list[dict[str, Any]]:
        lines = [n for n, (_, body) in enumerate(batch.rows, start=1) if "1" in body["messages"][0]["content"]]
        return [{"code": "invalid_request", "line": line, "message": "line refused", "param": None} for line in lines]

    server.refuse = refuse
    setup = Setup("openai", server, provider("openai", server.url), tmp_path / "journal.db")
    result = setup.runner().run(setup.asks(12))
    assert [item.index for item in result.errors] == [1, 10, 11]
    assert {str(item.error) for item in result.errors} == {"invalid_request: line refused"}
    setup.billed_once(9)


def test_a_full_queue_is_waited_for_and_then_served_batch_by_batch(server: BatchServer, tmp_path: Path) -> None:
    server.polls = 2

    def refuse(batch: Batch) -> list[dict[str, Any]]:
        busy = any(each.status == "running" for each in server.batches.values() if each is not batch)
        return [{"code": "token_limit_exceeded", "message": "too many in the queue", "line": None}] if busy else []

    server.refuse = refuse
    setup = Setup("openai", server, provider("openai", server.url), tmp_path / "journal.db")
    requests = setup.asks(6)
    right(setup.runner(limits=TWO, tries=1).run(requests), requests)
    setup.billed_once(6)


def test_a_batch_that_fails_as_a_whole_is_tried_again_and_then_told(server: BatchServer, tmp_path: Path) -> None:
    server.refuse = lambda batch: [{"code": "model_not_found", "message": "no such model", "line": None}]
    setup = Setup("openai", server, provider("openai", server.url), tmp_path / "journal.db")
    result = setup.runner(tries=2).run(setup.asks(2))
    assert [str(item.error) for item in result.errors] == ["model_not_found: no such model"] * 2
    assert len(server.batches) == 2


@pytest.mark.parametrize(("status", "says"), [(401, "give a key"), (403, "give a key"), (404, "404"), (400, "400")])
def test_what_will_never_do_is_raised_at_once_and_nothing_is_lost(setup: Setup, status: int, says: str) -> None:
    setup.faults((makes, Fault(status=status)))
    with pytest.raises(BatchError, match=says) as raised:
        setup.runner().submit(setup.asks(3))
    assert not isinstance(raised.value, BatchUnavailableError)
    right(setup.runner().run(setup.asks(3)), setup.asks(3))
    setup.billed_once(3)


def test_a_batch_that_this_key_cannot_see_is_not_sent_again_unless_it_is_given_up(setup: Setup) -> None:
    setup.server.polls = 10**9
    runner = setup.runner()
    job = runner.submit(setup.asks(3))
    gone = setup.server.batches.popitem()
    with pytest.raises(BatchNotFoundError, match="use the key it was made with"):
        runner.collect(job.id)
    assert runner.cancel(job.id).cancelled == 3
    setup.server.polls = 1
    right(runner.run(setup.asks(3)), setup.asks(3))
    assert gone[1].status == "running"


def test_what_stands_in_the_way_is_told(setup: Setup, caplog: pytest.LogCaptureFixture) -> None:
    setup.faults((anything, Fault(status=503)), times=10**9)
    job = setup.runner().submit(setup.asks(2))
    assert "written down" in caplog.text
    assert "503" in str(setup.runner().status(job.id))


def test_patience_ends_and_the_job_goes_on_later(setup: Setup) -> None:
    setup.faults((looks, Fault(status=503)), times=10**9)
    requests = setup.asks(3)
    with pytest.raises(BatchUnavailableError, match="503"):
        setup.runner(backoff=Backoff(first=0.001, most=0.002, patience=0.02)).run(requests)
    setup.faults()
    right(setup.runner().run(requests), requests)
    setup.billed_once(3)


def test_results_that_stay_short_are_believed_in_the_end(setup: Setup) -> None:
    setup.faults((reads, Fault(cut="amid", quiet=True)), times=5)
    requests = setup.asks(10)
    right(
        setup.runner().run(requests), requests
    )  # what was missing is asked again, and paid again: there is no other way
    assert sum(setup.server.billed.values()) <= 20


def test_two_runners_on_one_journal_send_each_row_once(setup: Setup) -> None:
    setup.server.polls = 3
    requests = setup.asks(10)
    results: list[Any] = []
    runners = [setup.runner(limits=TWO), BatchRunner(setup.provider, journal=str(setup.journal), backoff=FAST)]
    threads = [threading.Thread(target=lambda run=each.run: results.append(run(requests))) for each in runners]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 2
    for result in results:
        right(result, requests)
    setup.billed_once(10)


@pytest.mark.parametrize("shared", [False, True], ids=["all", "some"])
def test_what_is_cancelled_while_it_is_sent_goes_no_further(setup: Setup, shared: bool) -> None:
    """Another process cancels the job when its first lot is on its way; of the second, another job may want a row."""
    runner, requests = setup.runner(limits=TWO), setup.asks(4)
    others = runner._write(requests[3:], "") if shared else None
    job = runner._write(requests, "")

    def cancel(method: str, path: str, number: int) -> None:
        if makes(method, path) and len(setup.server.batches) == 0:
            runner.journal.cancel(job.id)

    setup.server.fault = cancel
    runner.status(job.id)
    assert [len(batch.rows) for batch in setup.server.batches.values()] == ([2, 1] if shared else [2])
    setup.server.polls = 10**9
    assert runner.cancel(job.id).cancelled == (2 if shared else 3)  # of the lot that was sent, half is done
    setup.server.polls = 1
    found = runner.collect(job.id)
    assert [each.error is None or each.error.code for each in found][2] == "cancelled"
    if others is not None:
        right(runner.collect(others.id), requests[3:])
    assert set(setup.server.billed.values()) == {1}


def test_a_journal_in_a_folder_that_cannot_be_made_names_the_mend(setup: Setup, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    runner = BatchRunner(setup.provider, journal=tmp_path / "file" / "j.db")
    with pytest.raises(StoreError, match="give a path in a folder of your own"):
        runner.submit(setup.asks(1))
    assert setup.server.requests == []


def test_a_disk_that_is_full_loses_no_answer_and_pays_none_twice(tmp_path: Path) -> None:
    with batch_server() as server, Process(FULL_DISK, server.url, tmp_path / "j.db") as process:
        assert process.rest() == ["StoreError", "60 answered"]
        assert list(server.billed.values()) == [1] * 60
        assert len(server.batches) == 1


def test_a_journal_that_is_none_or_of_a_newer_version_is_named(setup: Setup) -> None:
    setup.journal.write_bytes(b"no database, but long enough to look like something" * 100)
    with pytest.raises(StoreError, match="is no journal"):
        setup.runner().submit(setup.asks(1))
    setup.journal.unlink()
    with sqlite3.connect(setup.journal) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(ConfigError, match="upgrade costopt"):
        setup.runner().submit(setup.asks(1))
    assert setup.server.requests == []


def test_the_journal_is_for_its_owner_only(setup: Setup) -> None:
    setup.runner().run(setup.asks(1))
    assert setup.journal.stat().st_mode & 0o077 == 0


CUTS = st.sampled_from(["before", "after", "amid"])
FAULTS = st.one_of(st.builds(Fault, status=st.sampled_from([408, 409, 429, 500, 502, 529])), st.builds(Fault, cut=CUTS))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data(), name=st.sampled_from(["openai", "anthropic"]))
def test_whatever_goes_wrong_each_row_is_answered_once_and_paid_once(
    data: Any, name: str, tmp_path_factory: Any
) -> None:
    """Faults at any request, fates of any row, any size of lots."""
    texts = data.draw(st.lists(st.integers(0, 8), min_size=1, max_size=14), "texts")
    faults = data.draw(st.dictionaries(st.integers(1, 25), FAULTS, max_size=6), "faults")
    fates = data.draw(
        st.lists(st.sampled_from(["ok", "expired", "overloaded", "missing"]), min_size=9, max_size=9), "fates"
    )
    with batch_server() as server:
        server.polls = data.draw(st.integers(1, 3), "polls")
        server.fault = lambda method, path, number: faults.get(number)
        server.fate = lambda body, before: "ok" if before else fates[int(body["messages"][0]["content"].split()[1])]
        folder = tmp_path_factory.mktemp("journal")
        setup = Setup(name, server, provider(name, server.url), folder / "journal.db")
        limits = Limits(rows=data.draw(st.integers(1, 5), "rows"), bytes=10**6, one_model=False)
        requests = [setup.ask(f"question {number}") for number in texts]
        right(setup.runner(limits=limits, tries=9, settle=0.0).run(requests), requests)
        setup.billed_once(len(set(texts)))
        close_clients()
