"""A budget of a day or month: never overspent together, told of in time, kept up where the file cannot be had."""

from __future__ import annotations

import contextlib
import gc
import sqlite3
import threading
import time
import weakref
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costopt import BudgetExceededError, ConfigError, Price, Router, RouteRequest, Tier, Usage
from costopt.audit import Attempt, Ledger, SpendingAlert, SpendingLimit
from costopt.audit.recorder import Answered, Call, Recorder
from costopt.routing import Reply, drive, serve
from costopt.tokens import count_tokens
from tests.faults.words import Process, wait_for
from tests.timed import timed

NOON = datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp()
DAY = 86_400.0


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with Ledger(tmp_path / "ledger.db") as ledger:
        yield ledger


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


def limit(ledger: Ledger, dollars: Any = "1", **options: Any) -> SpendingLimit:
    return SpendingLimit(ledger, dollars, **{"clock": Clock(), **options})


def paid(cost: str, at: float = NOON, **more: Any) -> Attempt:
    return Attempt("m", started=at, cost=Decimal(cost), cost_source="given", **more)


# -- what counts ---------------------------------------------------------------------------------------------


def test_rows_of_the_period_count_and_others_do_not(ledger: Ledger) -> None:
    month, day = limit(ledger, 10), limit(ledger, 10, period="day")
    ledger.record_all([paid("1"), paid("2", NOON - 5 * DAY), paid("4", NOON - 31 * DAY), paid("8", NOON + DAY)])
    assert (month.spent, day.spent) == (3, 1)
    assert (month.seconds, day.seconds) == (30 * DAY, DAY)
    assert month.frees_in == day.frees_in == DAY / 2


def test_what_was_recorded_a_moment_ago_counts(ledger: Ledger) -> None:
    one = limit(ledger)
    for number in range(50):
        ledger.record(paid("0.01"))
        assert one.spent >= Decimal("0.01") * (number + 1)
    ledger.flush()
    assert one.spent == Decimal("0.5")


@pytest.mark.parametrize("reported", [True, False])
def test_calls_faster_than_the_ledger_writes_stop_in_time(ledger: Ledger, reported: bool) -> None:
    one = SpendingLimit(ledger, "0.0003")
    recorder, asked = Recorder(ledger, limit=one), [{"role": "user", "content": "why? " * 250}]
    usage, done = Usage(1_000, 0) if reported else None, 0
    count_tokens("why?", "gpt-4o-mini")  # a tokenizer that is not loaded yet would be waited for a while only
    with contextlib.suppress(BudgetExceededError):
        for done in range(100):
            recorder.begin()
            recorder.answered(Call(str(done), "gpt-4o-mini", messages=lambda: asked), Answered(usage=usage))
    # $0.15 for a million tokens: two calls, of each of which an estimate of ours may be too low by half.
    assert done == 2 or (not reported and done <= 4)


def test_a_model_without_a_price_counts_nothing_and_is_told_of_once(
    ledger: Ledger, caplog: pytest.LogCaptureFixture
) -> None:
    one, acme = limit(ledger), limit(ledger, tenant="acme")
    used, mute = {"usage": Usage(900, 100)}, Attempt("m", usage=Usage())
    free = [Attempt("m", **used, cost=Decimal(0), cost_source="given"), Attempt("m", **used, route="m"), mute]
    ledger.record_all([*free, *(Attempt("a", **used) for _ in range(3)), Attempt("b", **used, tenant="acme")])
    ledger.record_all([Attempt("a", **used)])
    assert one.left == acme.left == 1
    told = [record.getMessage() for record in caplog.records if record.name == "costopt.audit"]
    assert sorted(each.split(",")[0][-1] for each in told) == ["a", "b"]
    assert all("counts nothing against the limit: give its price, prices={" in each for each in told)


def test_a_routers_rows_count_once_by_what_it_settled(ledger: Ledger) -> None:
    one = limit(ledger)
    held = one.reserve(Decimal("0.4"))
    assert held is not None
    assert (one.reserved, one.left) == (Decimal("0.4"), Decimal("0.6"))
    held.settle(Decimal("0.3"))
    held.settle(Decimal("9"))
    ledger.record(paid("0.3", route="cheap"))
    ledger.flush()
    assert (one.spent, one.reserved, one.left) == (Decimal("0.3"), 0, Decimal("0.7"))


def test_a_tenants_limit_counts_that_tenant(ledger: Ledger) -> None:
    one = limit(ledger, tenant="acme")
    ledger.record_all([paid("0.1", tenant="acme"), paid("0.2", tenant="other"), paid("0.4")])
    assert one.spent == Decimal("0.1")
    assert one.account == "month of acme"


def test_the_next_period_begins_anew(ledger: Ledger) -> None:
    one = limit(ledger, period="day")
    ledger.record_all([paid("1")])
    with pytest.raises(BudgetExceededError, match=r"2026-11-30 .* the next day begins in 43200 s"):
        one.check()
    one._clock.now += DAY / 2  # type: ignore[attr-defined]
    one.check()
    assert one.left == 1


def test_rows_that_had_to_go_are_still_spent(tmp_path: Path) -> None:
    with Ledger(tmp_path / "small.db", max_rows=10) as ledger:
        ledger.record_all(paid("0.01") for _ in range(100))
        assert limit(ledger).spent == 1


# -- the hard stop -------------------------------------------------------------------------------------------


def test_a_soft_limit_forbids_nothing(ledger: Ledger) -> None:
    soft = limit(ledger, hard=False)
    ledger.record_all([paid("5")])
    soft.check()
    assert soft.reserve(Decimal(3)) is not None
    assert soft.left == -7


def test_threads_cannot_overspend_together(ledger: Ledger) -> None:
    one, won = limit(ledger), []

    def ask() -> None:
        for _ in range(10):
            held = one.reserve(Decimal("0.03"))
            if held is not None:
                won.append(held)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(won) == 33
    for held in won:
        held.settle(Decimal("0.01"))
    assert (one.spent, one.reserved) == (Decimal("0.33"), 0)


def test_processes_cannot_overspend_together(ledger: Ledger) -> None:
    code = """
import sys
from decimal import Decimal
from costopt.audit import Ledger, SpendingLimit
limit = SpendingLimit(Ledger(sys.argv[1]), "1", clock=lambda: float(sys.argv[2]))
print("ready", flush=True); sys.stdin.readline()
won = 0
for _ in range(60):
    held = limit.reserve(Decimal("0.02"))
    if held is not None and held.stored:
        held.settle(Decimal("0.02")); won += 1
print(won, flush=True)
"""
    with contextlib.ExitStack() as stack:
        workers = [stack.enter_context(Process(code, ledger.path, NOON)) for _ in range(3)]
        for worker in workers:
            worker.line()
        for worker in workers:
            worker.send()
        assert sum(int(worker.line()) for worker in workers) == 50
    assert limit(ledger).spent == 1


def test_what_a_dead_process_had_kept_is_free_again(ledger: Ledger) -> None:
    clock = Clock()
    dead, alive = limit(ledger, clock=clock), limit(ledger, clock=clock)
    assert dead.reserve(Decimal(1)) is not None
    assert alive.reserve(Decimal(1)) is None
    clock.now += 1_000
    assert alive.reserve(Decimal(1)) is not None


def test_a_router_stops_at_the_month_and_goes_on_in_the_next(ledger: Ledger) -> None:
    one = limit(ledger, "0.002")
    tier = Tier("m", price=Price(1, 1), context_window=1_000, max_output_tokens=500)
    router, request = Router([tier], budget=one), RouteRequest("What is the capital of France?")

    def answered() -> None:
        drive(serve(router, request, router.decide(request)), lambda _: Reply("Paris", Usage(20, 480)))

    answered()
    answered()
    answered()
    with pytest.raises(BudgetExceededError, match=r"of \$0.002 in 2592000 s is left"):
        answered()
    assert one.spent == Decimal("0.0015")
    one._clock.now += DAY  # type: ignore[attr-defined]
    answered()


# -- alerts --------------------------------------------------------------------------------------------------


def test_each_share_is_told_once_whoever_spends(ledger: Ledger) -> None:
    heard: list[SpendingAlert] = []
    first, second = (limit(ledger, alerts=(0.5, 0.9, 1.0), on_alert=heard.append) for _ in range(2))
    for cost in ("0.3", "0.3", "0.1"):
        ledger.record(paid(cost))
        ledger.flush()
    wait_for(lambda: heard, "the first share is told")
    held = second.reserve(Decimal("0.25"))
    assert held is not None
    held.settle(Decimal("0.25"))
    first._alert()
    wait_for(lambda: len(heard) == 2, "the second share is told")
    assert [alert.share for alert in heard] == [0.5, 0.9]
    assert str(heard[1]) == "month: $0.95 of $1 for 2026-11 is spent, over 90%"


def test_limits_that_are_made_for_each_request_do_not_pile_up(ledger: Ledger) -> None:
    heard: list[SpendingAlert] = []
    made = [weakref.ref(limit(ledger, on_alert=callback)) for callback in (None, heard.append) for _ in range(5)]
    gc.collect()
    assert [held() is not None for held in made] == [False] * 9 + [True]
    ledger.record_all([paid("0.6")])
    wait_for(lambda: heard, "an alarm that nobody else keeps is told")


def test_an_alert_that_fails_is_its_own_matter(ledger: Ledger) -> None:
    called = threading.Event()

    def fail(alert: SpendingAlert) -> None:
        called.set()
        raise RuntimeError("the mail server is away")

    limit(ledger, on_alert=fail)
    ledger.record_all([paid("0.6")])
    assert called.wait(20)


# -- faults --------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def locked(ledger: Ledger) -> Iterator[None]:
    """The file in the hands of somebody else."""
    with contextlib.closing(sqlite3.connect(ledger.path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_while_the_file_is_locked_a_process_counts_by_itself(ledger: Ledger) -> None:
    one = limit(ledger)
    ledger.record_all([paid("0.5")])
    assert one.spent == Decimal("0.5")
    with locked(ledger):
        first = one.reserve(Decimal("0.3"))
        assert first is not None
        assert not first.stored
        assert one.reserve(Decimal("0.3")) is None
        first.settle(Decimal("0.2"))
        second = one.reserve(Decimal("0.3"))
        assert second is not None
    second.settle(Decimal("0.1"))
    assert (one.spent, one.reserved) == (Decimal("0.8"), 0)
    wait_for(lambda: one.left and limit(ledger).spent == Decimal("0.8"), "the file knows of it, too")


def test_what_was_settled_before_the_file_was_locked_is_not_forgotten(ledger: Ledger) -> None:
    one = limit(ledger)
    before, under_way = one.reserve(Decimal("0.6")), one.reserve(Decimal("0.3"))
    assert before is not None
    assert under_way is not None
    before.settle(Decimal("0.6"))
    with locked(ledger):
        assert one.reserve(Decimal("0.2")) is None
        under_way.settle(Decimal("0.25"))
        assert one.reserve(Decimal("0.2")) is None
        later = one.reserve(Decimal("0.1"))
        assert later is not None
        later.settle(Decimal("0.1"))
    assert (one.spent, one.reserved) == (Decimal("0.95"), 0)
    wait_for(lambda: one.left and limit(ledger).left == Decimal("0.05"), "nothing is kept, and all is written")


@timed
def test_nobody_waits_for_a_locked_file_again_and_again(ledger: Ledger) -> None:
    one = limit(ledger, "1000")
    ledger.record_all([paid("0.5")])
    assert one.spent == Decimal("0.5")
    with locked(ledger):
        started = time.perf_counter()
        for _ in range(200):
            held = one.reserve(Decimal("0.01"))
            assert held is not None
            held.settle(Decimal("0.01"))
        assert time.perf_counter() - started < 1.0  # by itself each would wait for a tenth of a second, twice
    assert one.spent == Decimal("2.5")


def test_a_clock_that_goes_back_does_not_free_what_is_spent(ledger: Ledger) -> None:
    clock = Clock()
    one = limit(ledger, clock=clock)
    held = one.reserve(Decimal("0.9"))
    assert held is not None
    clock.now += DAY  # December
    assert one.left == 1
    clock.now -= 2 * DAY
    held.settle(Decimal("0.9"))
    assert (one.spent, one.reserved) == (Decimal("0.9"), 0)
    assert one.reserve(Decimal("0.2")) is None


def test_a_file_that_cannot_be_used_breaks_no_call(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(b"this is no database" * 1_000)
    one = limit(Ledger(tmp_path / "ledger.db"))
    one.check()
    held = one.reserve(Decimal("0.9"))
    assert held is not None
    assert one.reserve(Decimal("0.2")) is None
    held.settle(Decimal("0.9"))
    assert one.spent == Decimal("0.9")


@pytest.mark.parametrize("wrong", [{"dollars": 0}, {"dollars": "a lot"}, {"dollars": 1, "period": "week"}])
def test_a_budget_that_is_none_is_refused(ledger: Ledger, wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        SpendingLimit(ledger, **wrong)
