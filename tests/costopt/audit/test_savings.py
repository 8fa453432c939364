"""What each lever saved: exact, each dollar once, what is not known in no sum; and old ledgers tell it, too."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt import ConfigError, Price
from costopt.audit import Attempt, Ledger, LeftOut, LogReader, Saving, SavingsReport
from costopt.audit.batches import attempts_of
from costopt.audit.levers import LEVERS, savings_of
from costopt.audit.recorder import Answered, Call, Recorder
from costopt.audit.savings import savings
from costopt.audit.savings_text import plain, table
from costopt.batch.result import BatchItem, BatchResult
from costopt.pricing import Usage
from tests.costopt.audit.test_ledger import ATTEMPTS

DAY = 86_400.0
EVENING = 1_795_132_800.0 + 20 * 3_600  # of 2026-11-20
OLD = Path(__file__).parent / "samples" / "ledger_1.sql"

USAGE = Usage(900, 100)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as made:
        yield made


def attempt(**more: Any) -> Attempt:
    return Attempt("gpt-4o-mini", **{"started": EVENING, "usage": USAGE, "cost": Decimal("0.002"), **more})


def saved(*attempts: Attempt) -> dict[str, Saving]:
    found: dict[str, Saving] = {}
    for each in attempts:
        for lever, saving in savings_of(each):
            found[lever] = found.get(lever, Saving()) + saving
    return found


# -- one attempt --------------------------------------------------------------------------------------------


def test_a_hit_saved_what_its_answer_cost() -> None:
    hit = attempt(usage=Usage(), cost=Decimal(0), cache="semantic", avoided_usage=USAGE, avoided_cost=Decimal("0.002"))
    assert saved(hit) == {"cache": Saving(1, 1000, Decimal("0.002"))}
    assert saved(replace(hit, avoided_cost=None)) == {"cache": Saving(1, 1000, unknown=1)}


def test_a_router_saved_the_difference_and_pays_for_attempts_whose_answer_would_not_do() -> None:
    cheap = attempt(route="mini", baseline_cost=Decimal("0.03"))
    assert saved(cheap) == {"routing": Saving(1, 1000, Decimal("0.028"))}
    rejected = attempt(route="mini", baseline_cost=Decimal(0), request_id="r")
    strong = attempt(route="strong", cost=Decimal("0.03"), baseline_cost=Decimal("0.03"), request_id="r")
    assert saved(rejected, strong) == {"routing": Saving(dollars=Decimal("-0.002"))}
    assert saved(replace(cheap, cost=None)) == saved(replace(cheap, baseline_cost=None))
    assert saved(replace(cheap, cost=None))["routing"].unknown == 1


def test_no_dollar_is_saved_twice() -> None:
    """A request that was routed, shortened and sent in a batch: what remains and what was saved add up."""
    everything = attempt(
        route="mini",
        baseline_cost=Decimal("0.03"),
        batch="b1",
        list_cost=Decimal("0.004"),
        trimmed_tokens=500,
        trimmed_cost=Decimal("0.001"),
    )
    found = saved(everything)
    assert {lever: saving.dollars for lever, saving in found.items()} == {
        "routing": Decimal("0.026"),
        "batch": Decimal("0.002"),
        "compression": Decimal("0.001"),
    }
    whole = sum((saving.dollars for saving in found.values()), everything.cost or Decimal(0))
    assert whole == Decimal("0.03") + Decimal("0.001")


def test_what_was_refused_saved_nothing() -> None:
    refused = attempt(status="error", usage=None, cost=Decimal(0), trimmed_tokens=500)
    assert saved(refused) == {}


# -- what the recorder makes of a call ------------------------------------------------------------------------


def recorded(ledger: Ledger, usage: Usage, *, model: str = "gpt-4o", batch: str | None = None, **more: Any) -> Attempt:
    recorder = Recorder(ledger)
    call = Call(f"call {time.monotonic_ns()}", model, messages=list, batch=batch, **more)
    recorder.answered(call, Answered(usage=usage))
    return list(ledger.attempts())[-1]


def test_tokens_left_out_are_priced_as_the_call_was(ledger: Ledger) -> None:
    assert recorded(ledger, Usage(1_000, 10), trimmed_tokens=1_000_000).trimmed_cost == Decimal("2.5")
    cached = recorded(ledger, Usage(1_000, 10, 200), trimmed_tokens=1_000_000)
    assert cached.trimmed_cost == Decimal("1.25"), "the provider's prompt cache would have had them"
    in_batch = recorded(ledger, Usage(1_000, 10), trimmed_tokens=1_000_000, batch="b")
    assert (in_batch.trimmed_cost, in_batch.list_cost) == (Decimal("1.25"), 2 * (in_batch.cost or 0))
    assert recorded(ledger, Usage(1_000, 10), model="mine", trimmed_tokens=7).trimmed_cost is None
    report = savings(ledger)
    assert report.levers["compression"] == Saving(4, 3_000_007, Decimal("5"), 1)
    assert report.levers["batch"].dollars == in_batch.cost
    assert "Not known: what compression saved on 1 of 4 requests." in str(report)


def test_rows_of_a_batch_know_what_they_would_have_cost_alone(ledger: Ledger) -> None:
    body = {"model": "gpt-4o-mini"}
    paid = BatchItem(0, None, "k", body, None, USAGE, Decimal("0.01"), Decimal("0.02"), "batch", "b1")
    again = BatchItem(1, None, "k", body, None, USAGE, Decimal(0), Decimal("0.02"), "duplicate", "b1")
    for _ in range(2):  # collected twice, counted once
        ledger.record_all(attempts_of(BatchResult("j", (paid, again)), "openai"))
    report = savings(ledger)
    assert (report.levers["batch"].dollars, report.levers["cache"].dollars) == (Decimal("0.01"), Decimal("0.02"))
    assert report.without == Decimal("0.04")


# -- documents ------------------------------------------------------------------------------------------------


def test_what_a_compressor_of_documents_left_out_is_in_the_books(ledger: Ledger) -> None:
    LeftOut(ledger, "gpt-4o")(2_000_000, 1_000_000)
    LeftOut(ledger, "mine", price=Price(1, 1))(3_000_000, 1_000_000)
    LeftOut(ledger, "not listed")(300, 200)
    LeftOut(ledger, "gpt-4o")(5, 5)
    report = savings(ledger)
    assert report.levers["compression"] == Saving(3, 3_000_100, Decimal("4.5"), 1)
    assert (report.attempts, report.requests) == (0, 0)
    assert report.since is not None


def test_a_broken_ledger_reaches_no_compressor_and_has_it_all_once_it_is_mended(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    path.write_bytes(os.urandom(5_000))
    with Ledger(path) as broken:
        LeftOut(broken, "gpt-4o")(20, 10)
        assert not broken.flush(0.3)
        path.unlink()
        assert broken.flush(20)
        assert savings(broken).levers["compression"].tokens == 10


# -- reports --------------------------------------------------------------------------------------------------


@settings(max_examples=30)
@given(attempts=st.lists(ATTEMPTS, max_size=6))
def test_a_report_is_the_sum_of_its_attempts(tmp_path_factory: pytest.TempPathFactory, attempts: list[Attempt]) -> None:
    with Ledger(tmp_path_factory.mktemp("ledger") / "l.db") as ledger:
        for each in attempts:  # one by one, as an application writes them
            ledger.record_all([each])
        report = savings(ledger)
    assert {lever: saving for lever, saving in report.levers.items() if saving != Saving()} == {
        lever: saving for lever, saving in saved(*attempts).items() if saving != Saving()
    }
    assert report.spent + sum(saving.dollars for saving in report.levers.values()) == report.without
    assert report.attempts == len(attempts)


@pytest.mark.parametrize("at_once", [True, False])
def test_attempts_at_one_request_are_one_request(ledger: Ledger, at_once: bool) -> None:
    rows = [attempt(request_id=name) for name in ("a", "b", "a", "a")] + [attempt(), attempt(id="c", request_id="c")]
    for each in [rows] if at_once else [[row] for row in rows]:
        ledger.record_all(each)
    report = savings(ledger)
    assert (report.requests, report.attempts) == (4, 6)


def test_days_before_are_left_out(ledger: Ledger) -> None:
    hit = {"cache": "exact", "cost": Decimal(0), "avoided_cost": Decimal(1)}
    ledger.record_all([attempt(started=EVENING + day * DAY, **hit) for day in range(4)])
    assert savings(ledger).saved == 4
    late = savings(ledger, EVENING + 2 * DAY + 60)
    assert (late.saved, late.since, late.requests) == (2, "2026-11-22", 2)
    assert savings(ledger, EVENING + 9 * DAY).since is None


def test_it_says_what_it_does_not_know_and_what_it_lost(ledger: Ledger) -> None:
    assert "No model call is in" in str(savings(ledger))
    ledger.record_all([attempt(cost=None, usage_estimated=True), attempt(route="a", status="error")])
    report = savings(ledger)
    text = str(report)
    assert "The levers cost $0.002000 more than they saved since 2026-11-20." in text
    assert "Not known: what 1 attempts cost, for their model has no price." in text
    assert "Estimated: the tokens of 1 attempts" in text
    assert report.share == 0


def test_the_terminal_and_the_pipe_are_told_the_same() -> None:
    from rich.console import Console

    levers = {lever: Saving(2, 1_000, Decimal("0.5"), number) for number, lever in enumerate(LEVERS)}
    report = SavingsReport(Path("l.db"), "2026-11-22", 9, 10, Decimal(2), levers=levers)  # type: ignore[arg-type]
    console = Console(width=100, file=open(os.devnull, "w"), record=True)  # noqa: SIM115
    with closing(console.file):
        console.print(table(report))
    told = [line.split() for line in console.export_text().splitlines()]
    assert told == [line.split() for line in plain(report).splitlines()]
    assert ["cache", "2", "1,000", "$0.5000"] in told
    assert ["compression", "2", "1,000", "not", "known"] in told


# -- files of before, and of others -------------------------------------------------------------------------


def old_file(path: Path) -> Path:
    """A ledger as the first version wrote it: a call, a hit, a request that was tried twice, and a routed one."""
    with closing(sqlite3.connect(path)) as db:
        db.executescript(OLD.read_text())
    return path


def test_an_old_ledger_goes_on_and_tells_what_it_has_saved(tmp_path: Path) -> None:
    path = old_file(tmp_path / "ledger.db")
    with Ledger(path) as ledger:
        before = list(ledger.attempts())
        ledger.record(
            attempt(trimmed_tokens=10, trimmed_cost=Decimal("0.5"), request_id="r1", started=before[0].started)
        )
        report = savings(ledger)
        assert len(list(ledger.attempts())) == 6
    assert [each.id for each in before] == ["plain", "hit", "r1-0", "r1-1", "r2-0"]
    assert (report.attempts, report.requests, report.spent) == (6, 4, Decimal("0.00565"))
    assert {lever: saving.dollars for lever, saving in report.levers.items()} == {
        "cache": Decimal("0.0002"),
        "routing": Decimal("0.00305"),
        "compression": Decimal("0.5"),
        "batch": Decimal(0),
    }
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("PRAGMA user_version").fetchone() == (2,)


def test_an_old_ledger_is_brought_up_to_date_once_however_many_open_it(tmp_path: Path) -> None:
    path = old_file(tmp_path / "ledger.db")
    found: list[Any] = []
    begin = threading.Barrier(6)

    def look() -> None:
        begin.wait()
        with Ledger(path) as ledger:
            found.append((savings(ledger).saved, ledger.totals().attempts))

    threads = [threading.Thread(target=look) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [(Decimal("0.00325"), 5)] * 6


def test_an_old_ledger_is_read_as_a_log_without_being_changed(tmp_path: Path) -> None:
    path = old_file(tmp_path / "ledger.db")
    as_it_was = path.read_bytes()
    assert [record.hit for record in LogReader(path)] == [False, True, False, False, False]
    assert path.read_bytes() == as_it_was


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mine.db"
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (a)")
    as_it_was = path.read_bytes()
    with Ledger(path) as ledger, pytest.raises(ConfigError, match="of something else: give Ledger another path"):
        ledger.totals()
    assert path.read_bytes() == as_it_was
