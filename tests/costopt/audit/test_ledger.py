"""One row per attempt: what went in comes out, sums are exact, the file is bounded and holds no words unasked."""

from __future__ import annotations

import os
import random
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt import ConfigError, StoreError, Usage
from costopt.audit import Attempt, Ledger, PromptShape, summed
from costopt.audit.ledger import default_ledger_path
from tests.faults.words import wait_for
from tests.timed import timed

DAY = 86_400.0
NOW = 20_000 * DAY + 1_000

TEXT = st.text(st.characters(codec="utf-8"), max_size=8)
COUNT = st.integers(0, 2**40)
MONEY = st.none() | st.decimals(0, 100, places=9)
SECONDS = st.none() | st.floats(0, 1e6)
USAGES = st.none() | st.builds(Usage, *[COUNT] * 6)
ATTEMPTS = st.builds(
    Attempt,
    model=TEXT,
    provider=st.none() | TEXT,
    started=st.floats(0, 4e9),
    latency_s=SECONDS,
    first_token_s=SECONDS,
    usage=USAGES,
    usage_estimated=st.booleans(),
    cost=MONEY,
    cost_source=TEXT,
    status=st.sampled_from(["ok", "error", "cancelled", "timeout"]),
    error=st.none() | TEXT,
    cache=st.sampled_from([None, "exact", "semantic", "in_flight"]),
    avoided_usage=USAGES,
    avoided_cost=MONEY,
    route=st.none() | TEXT,
    baseline_cost=MONEY,
    batch=st.none() | TEXT,
    streamed=st.booleans(),
    tags=st.lists(TEXT, max_size=3).map(tuple),
    tenant=st.none() | TEXT,
    shape=st.none() | st.builds(PromptShape, COUNT, COUNT, COUNT, COUNT, COUNT, COUNT, st.none() | TEXT),
    prompt=st.none() | TEXT,
    answer=st.none() | TEXT,
)

Open = Callable[..., Ledger]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "ledger.db"


@pytest.fixture
def opened(path: Path) -> Iterator[Open]:
    made: list[Ledger] = []

    def open_ledger(**options: Any) -> Ledger:
        made.append(Ledger(path, **options))
        return made[-1]

    yield open_ledger
    for ledger in made:
        ledger.close()


def attempt(number: int = 0, **more: Any) -> Attempt:
    given = {"started": NOW + number, "usage": Usage(900, 100), "cost": Decimal("0.0002"), "cost_source": "given"}
    return Attempt("gpt-4o-mini", **given | more)


# -- what goes in comes out ----------------------------------------------------------------------------------


@settings(max_examples=40)
@given(st.lists(ATTEMPTS, max_size=6))
def test_what_goes_in_comes_out(tmp_path_factory: pytest.TempPathFactory, attempts: list[Attempt]) -> None:
    with Ledger(tmp_path_factory.mktemp("ledger") / "l.db", keep_text=True) as ledger:
        ledger.record_all(attempts)
        found = list(ledger.attempts())
        assert sorted(found, key=lambda each: each.id) == sorted(attempts, key=lambda each: each.id)
        assert [each.started for each in found] == sorted(each.started for each in attempts)
        assert ledger.totals() == summed(attempts)
        assert sum((each.cost or 0 for each in attempts), Decimal(0)) == ledger.totals().cost


def test_what_is_recorded_is_there_when_it_is_asked_for(opened: Open) -> None:
    ledger = opened()
    for number in range(3_000):
        ledger.record(attempt(number))
    assert [each.started - NOW for each in ledger.attempts()] == list(range(3_000))
    assert ledger.stats().waiting == 0


def test_an_attempt_that_is_told_twice_counts_once(opened: Open) -> None:
    ledger, once = opened(), attempt(id="batch-7/row-1")
    ledger.record_all([once, once])
    ledger.record(replace(once, cost=Decimal(9)))
    assert list(ledger.attempts()) == [once]
    assert ledger.totals() == summed([once])


def test_a_period_begins_with_its_first_moment_and_ends_before_its_last(opened: Open) -> None:
    ledger = opened()
    ledger.record_all(attempt(number) for number in range(5))
    assert [each.started - NOW for each in ledger.attempts(NOW + 1, NOW + 3)] == [1, 2]
    assert list(ledger.attempts(NOW + 3, NOW + 1)) == []


def test_attempts_of_one_moment_are_all_read_once(opened: Open) -> None:
    ledger = opened()
    ledger.record_all(attempt() for _ in range(2_500))  # more than a page
    assert len({each.id for each in ledger.attempts()}) == 2_500


@given(since=st.none() | st.floats(-3, 8), until=st.none() | st.floats(-3, 8), seed=st.integers(0, 3))
def test_totals_of_any_period_are_the_sum_of_its_rows(
    five_days: tuple[Ledger, list[Attempt]], since: float | None, until: float | None, seed: int
) -> None:
    ledger, attempts = five_days
    tenant, routed = (None, "a", "b", "")[seed], (None, True, False, None)[seed]
    start = None if since is None else NOW + since * DAY
    end = None if until is None else NOW + until * DAY
    within = [
        each
        for each in attempts
        if (start is None or each.started >= start)
        and (end is None or each.started < end)
        and (tenant is None or (each.tenant or "") == tenant)
        and (routed is None or (each.route is not None) == routed)
    ]
    assert ledger.totals(start, end, tenant=tenant, routed=routed) == summed(within)


@pytest.fixture(scope="module")
def five_days(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Ledger, list[Attempt]]]:
    chance = random.Random(3)
    attempts = [
        attempt(
            chance.uniform(0, 5 * DAY),
            tenant=chance.choice(["a", "b", None]),
            route=chance.choice([None, "cheap"]),
            cost=chance.choice([None, Decimal(chance.randrange(10**9)) / 10**11]),
        )
        for _ in range(300)
    ]
    with Ledger(tmp_path_factory.mktemp("days") / "l.db") as ledger:
        ledger.record_all(attempts)
        yield ledger, attempts


def test_totals_by_model_and_day(opened: Open) -> None:
    ledger = opened()
    ledger.record_all([attempt(), attempt(DAY), replace(attempt(DAY), model="gpt-4o", provider="openai")])
    assert {name: made.attempts for name, made in ledger.totals_by("model").items()} == {"gpt-4o-mini": 2, "gpt-4o": 1}
    assert {name: made.attempts for name, made in ledger.totals_by("day").items()} == {"2024-10-04": 1, "2024-10-05": 2}
    assert set(ledger.totals_by("provider", since=NOW + DAY)) == {"", "openai"}
    with pytest.raises(ConfigError, match="'model', 'provider'"):
        ledger.totals_by("colour")  # type: ignore[arg-type]


# -- privacy -------------------------------------------------------------------------------------------------


def test_no_words_are_in_the_file_unless_asked_for(path: Path, opened: Open) -> None:
    told = attempt(prompt='["my secret"]', answer="a secret, too", tools="[]")
    ledger = opened()
    ledger.record_all([told])
    ledger.record(replace(told, id="2"), lambda each: replace(each, answer="secret"))
    ledger.close()
    assert all(b"secret" not in file.read_bytes() for file in path.parent.iterdir())
    assert [each.prompt for each in ledger.attempts()] == [None, None]


def test_the_file_is_readable_by_its_owner_only(path: Path, opened: Open) -> None:
    opened().record_all([attempt()])
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()} == {0o600}


# -- bounds --------------------------------------------------------------------------------------------------


def test_the_oldest_rows_go_and_what_each_day_cost_stays(opened: Open) -> None:
    ledger = opened(max_rows=100)
    rows = [attempt(number * 1_000) for number in range(1_000)]
    ledger.record_all(rows)
    ledger.record_all([attempt(1_000_000)])
    stats = ledger.stats()
    assert stats.rows <= 100
    assert stats.rows + stats.removed == 1_001
    assert {each.started for each in ledger.attempts()} <= {NOW + n * 1_000 for n in range(900, 1_001)}
    assert ledger.totals().attempts == 1_001
    assert ledger.totals().cost == Decimal("0.0002") * 1_001
    cut = ledger.totals(NOW, NOW + 2_000)
    assert (cut.attempts, cut.complete) == (0, False)
    assert ledger.totals(NOW + 990_000, NOW + 999_000).complete


def test_the_file_stays_within_its_bytes(path: Path, opened: Open) -> None:
    ledger = opened(keep_text=True, max_bytes=500_000)
    for _ in range(20):
        ledger.record_all(attempt(prompt="x" * 5_000) for _ in range(20))
    assert 50 < ledger.stats().rows < 100
    assert path.stat().st_size < 1_000_000


def test_a_clock_that_was_far_ahead_once_makes_no_day_old(opened: Open) -> None:
    ledger = opened(max_rows=10)
    ledger.record_all([attempt(), attempt(1_500 * DAY)])
    ledger.record_all(attempt(number) for number in range(1, 30))
    assert ledger.stats().removed > 10
    assert ledger.totals().attempts == 31
    assert ledger.totals_by("day", NOW, NOW + 1)["2024-10-04"].attempts == 30


@pytest.mark.parametrize("limits", [{"max_rows": 0}, {"max_bytes": -1}])
def test_a_limit_that_allows_nothing_is_refused(path: Path, limits: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="above 0"):
        Ledger(path, **limits)  # type: ignore[arg-type]


# -- it never gets in the way --------------------------------------------------------------------------------


def test_nothing_is_made_before_it_is_used(path: Path, opened: Open) -> None:
    opened()
    assert not path.parent.exists()


@timed
def test_a_record_takes_less_than_a_millisecond(opened: Open) -> None:
    ledger, took = opened(), []
    for number in range(2_000):
        started = time.perf_counter()
        ledger.record(attempt(number))
        took.append(time.perf_counter() - started)
    assert sorted(took)[int(0.99 * len(took))] < 0.001


def test_a_row_that_no_file_can_hold_does_not_hold_up_others(opened: Open) -> None:
    ledger = opened()
    ledger.record(attempt(usage=Usage(10**30)))
    ledger.record(attempt(session="\ud83d"))
    ledger.record("no attempt")  # type: ignore[arg-type]
    ledger.record(attempt(latency_s="long"))
    good = attempt()
    ledger.record(good)
    assert list(ledger.attempts()) == [good]
    assert ledger.stats().dropped == 4


@pytest.mark.parametrize(
    "wrong", [{"cost": Decimal("NaN")}, {"avoided_cost": Decimal("Infinity")}, {"cost": 0.5}, {"started": float("inf")}]
)
def test_a_number_that_would_spoil_every_sum_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="give a finite time"):
        attempt(**wrong)


def test_what_cannot_be_completed_is_kept_as_it_is(opened: Open) -> None:
    ledger, told = opened(), attempt()
    ledger.record(told, lambda each: each.nonsense)  # type: ignore[attr-defined, no-any-return]
    assert list(ledger.attempts()) == [told]
    assert ledger.stats().failures == 1


def test_a_listener_hears_what_was_written_and_its_errors_are_its_own(opened: Open) -> None:
    ledger, heard = opened(), []

    def listen(attempts: Any) -> None:
        heard.extend(attempts)
        raise RuntimeError("the listener's own")

    ledger.on_written(listen)
    ledger.record(attempt(1))
    ledger.record(attempt(2))
    wait_for(lambda: len(heard) == 2, "both are told of")
    assert [each.started - NOW for each in heard] == [1, 2]
    assert ledger.stats().failures == 0


def test_many_threads_record_at_once(opened: Open) -> None:
    ledger = opened()
    threads = [
        threading.Thread(target=lambda: [ledger.record(attempt(cost=Decimal("0.1"))) for _ in range(200)])
        for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ledger.totals().cost == 160


def test_its_thread_ends_when_there_is_nothing_to_write(opened: Open) -> None:
    ledger = opened()
    ledger.record(attempt())
    ledger.flush()
    give_up = time.monotonic() + 20
    while any(thread.name == "costopt-ledger" for thread in threading.enumerate()):
        assert time.monotonic() < give_up
        time.sleep(0.05)
    ledger.record(attempt())
    assert ledger.totals().attempts == 2


def test_a_file_of_a_newer_version_says_so(path: Path, opened: Open) -> None:
    opened().record_all([attempt()])
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(ConfigError, match="upgrade costopt, or give Ledger another path"):
        Ledger(path).totals()


def test_a_file_that_is_none_of_ours_says_so(tmp_path: Path) -> None:
    (tmp_path / "ledger.db").write_bytes(os.urandom(5_000))
    with pytest.raises(StoreError, match="is damaged"):
        Ledger(tmp_path / "ledger.db").totals()


def test_the_environment_names_the_file(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("COSTOPT_LEDGER", str(tmp_path / "named.db"))
    assert Ledger().path == tmp_path / "named.db"
    monkeypatch.delenv("COSTOPT_LEDGER")
    assert default_ledger_path().name == "ledger.db"
