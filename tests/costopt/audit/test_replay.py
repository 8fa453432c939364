"""What the audit says of a log whose repeats, over-routing and waste were planted; and of each lever by itself."""

from __future__ import annotations

import io
import json
import re
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from cookbook.benchmarks.planted_log import Planted, planted_log, planted_router, router_outcomes
from costopt import CrossEncoderJudge
from costopt.audit.batchable import batchable
from costopt.audit.bill import bill_of
from costopt.audit.columns import Flag
from costopt.audit.repeats import exact_hits
from costopt.audit.report import CostReport, audit
from costopt.audit.report_html import html_report
from costopt.audit.report_text import print_report
from costopt.embedding import default_model
from costopt.errors import ConfigError
from costopt.pricing import Price, Usage, cost
from costopt.routing import train_router
from tests.costopt.audit.rows import DAY_S, START, asked, log_of, record, write

WITHIN = 0.02


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Planted, CostReport]:
    path = tmp_path_factory.mktemp("planted") / "log.jsonl"
    truth = planted_log(path, 1_050)
    return truth, audit(path, router=planted_router(), embedder=default_model(), judge=CrossEncoderJudge())


def test_every_share_is_within_two_points_of_what_was_planted(planted: tuple[Planted, CostReport]) -> None:
    truth, report = planted
    found = report.questions
    avoidable = {name: part["share"] for name, part in found.context["avoidable"].items()}
    pairs = {
        "exact": (truth.exact, found.repeats["exact_share"]),
        "worded": (truth.worded, found.repeats["semantic_share"]),
        "hits": (truth.hits, found.repeats["cache_hit_rate"]),
        "over-routed": (truth.over_routed, found.routing["share"]),
        "marked": (truth.marked, found.waiting["marked_share"]),
        "bursts": (truth.bursts, found.waiting["bursts_share"]),
        "system": (truth.system, avoidable["repeated system prompts"]),
        "history": (truth.history, avoidable["history"]),
        "tools": (truth.unused, avoidable["unused tools"]),
        "blanks": (truth.blanks, avoidable["pretty-printed JSON"]),
        "twice": (truth.twice, avoidable["near-duplicate passages"]),
    }
    assert {name: (round(a, 3), round(b, 3)) for name, (a, b) in pairs.items() if abs(a - b) > WITHIN} == {}
    assert min(a for a, _ in pairs.values()) > 0, "each of them was planted"


def test_every_saving_is_within_two_points_of_what_was_planted(planted: tuple[Planted, CostReport]) -> None:
    truth, report = planted
    before = float(report.together["before"])
    found = {lever.name: float(lever.likely) / before for lever in report.levers}
    assert {name: round(found[name] - share, 4) for name, share in truth.savings.items()
            if abs(found[name] - share) > WITHIN} == {}  # fmt: skip
    assert set(truth.savings) == set(found) - {"prompt cache"}
    assert found["prompt cache"] == 0, "no prompt is long enough for one"


def test_every_range_holds_its_likely_case_and_the_steps_add_up(planted: tuple[Planted, CostReport]) -> None:
    _, report = planted
    for lever in report.levers:
        assert lever.high is not None
        assert lever.low <= lever.likely <= lever.high
        assert lever.quality
    together = report.together
    assert together["saves_low"] <= together["saves"] <= together["saves_high"]
    assert together["before"] - sum(step["saves"] for step in together["steps"]) == pytest.approx(
        together["after"], abs=Decimal("0.00001")
    )
    assert sum(lever.likely for lever in report.levers) > together["saves"], "two levers cannot save the same dollar"


def test_a_router_without_thresholds_is_held_to_a_quality_floor(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    truth = planted_log(path, 200)
    router = train_router(router_outcomes(), default_model()).router
    routing = audit(path, router=router, embedder=default_model()).questions.routing
    assert routing["share"] == pytest.approx(truth.over_routed, abs=0.05)
    assert "a quality floor of 95%" in routing["note"]


def test_without_a_router_over_routing_is_unknown_and_bounded(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", [asked("Why?"), asked("Prove it. " * 400) | {"model": "gpt-4o-mini"}])
    found = audit(path, cheaper=["gpt-4o-mini"])
    routing = found.questions.routing
    assert (routing["known"], routing["share"], routing["over_routed_low"]) == (False, None, 0)
    assert (routing["expensive_calls"], routing["share_high"]) == (1, 0.0), "1,100 tokens are not short"
    lever = next(each for each in found.levers if each.name == "routing")
    assert (lever.known, lever.likely) == (False, 0)
    small = {"usage": {"prompt_tokens": 100, "completion_tokens": 10}}
    short = audit(write(path, [asked("Why?") | small]), cheaper=["gpt-4o-mini"])
    assert short.questions.routing["share_high"] == 1.0
    lever = next(each for each in short.levers if each.name == "routing")
    assert lever.high is not None
    assert lever.high > 0


def test_without_the_pass_over_the_questions_nothing_is_said_of_the_semantic_cache(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", [asked("Why?"), asked("Why?"), asked("How come?")])
    report = audit(path)
    lever = next(each for each in report.levers if each.name == "semantic cache")
    assert (lever.known, lever.low, lever.likely, lever.high) == (False, 0, 0, None)
    out = Console(file=io.StringIO(), width=100)
    print_report(report, out)
    shown = next(line for line in out.file.getvalue().splitlines() if "semantic cache" in line)  # type: ignore[attr-defined]
    row = re.search(r"<tr>(?:(?!</tr>).)*semantic cache.*?</tr>", html_report(report), re.DOTALL)
    assert row is not None
    assert row.group().count("unknown") == shown.count("unknown") == 4
    assert row.group().count("$0.00") == shown.count("$0.00") == 1, "at least: nothing is sure"


def test_a_router_needs_an_embedder(tmp_path: Path) -> None:
    router = train_router(router_outcomes(60), default_model()).router
    with pytest.raises(ConfigError, match="give embedder="):
        audit(write(tmp_path / "log.jsonl", [asked("Why?")]), router=router)


def simulated(rows: list[tuple[float, str, bool]], ttl_s: float) -> list[bool]:
    """A cache, as plainly as it can be written."""
    until: dict[str, float] = {}
    found = []
    for at, text, ok in rows:
        hit = at <= until.get(text, -1.0)
        if not hit and ok:
            until[text] = at + ttl_s
        found.append(hit)
    return found


@given(
    rows=st.lists(st.tuples(st.integers(0, 400), st.sampled_from("abc"), st.booleans()), min_size=1, max_size=40),
    ttl_s=st.integers(1, 200),
)
def test_the_exact_tier_is_played_as_a_cache_would(rows: list[tuple[float, str, bool]], ttl_s: float) -> None:
    rows.sort(key=lambda row: row[0])
    log = log_of(record(text, at=START + at, ok=ok) for at, text, ok in rows)
    assert exact_hits(log, ttl_s).tolist() == simulated(rows, ttl_s)


@settings(max_examples=20)
@given(
    calls=st.lists(
        st.tuples(
            st.sampled_from(["gpt-4o", "claude-haiku-4-5", "gemini-2.5-pro", "my-own", "deepseek-chat"]),
            st.integers(0, 400_000), st.integers(0, 5_000), st.floats(0, 1), st.just(False), st.integers(0, 3 * 86_400),
        ),
        min_size=1, max_size=6,
    )
)  # fmt: skip
def test_the_bill_is_the_sum_of_what_each_call_costs_at_its_moment(
    calls: list[tuple[str, int, int, float, bool, int]],
) -> None:
    prices = {"my-own": Price("0.3", "1.1", "0.1")}
    records, charged = [], []
    for model, read, written, part, batch, at in calls:
        usage = Usage(read, written, int(read * part), int(read * (1 - part) / 2))
        records.append(
            record(at=START + at, model=model, batch=batch, input_tokens=read, output_tokens=written,
                   cached_tokens=usage.cached_tokens, cache_write_tokens=usage.cache_write_tokens)
        )  # fmt: skip
        when = datetime.fromtimestamp(START + at, UTC)
        charged.append(cost(model, usage, price=prices.get(model), batch=batch, when=when))
    bill = bill_of(log_of(records), prices)
    known = [cost for cost in charged if cost is not None]
    billed = bill.billed[bill.known]
    assert len(billed) == len(known)
    assert int(billed.sum()) == pytest.approx(int(sum(known) * 10**12), abs=len(known))


def test_what_the_log_says_goes_before_the_list_and_hits_cost_nothing(tmp_path: Path) -> None:
    rows = [asked("a", cost=0.5), asked("b"), asked("c", cache_hit=True, cost=0.4), asked("d", error="no", usage=None)]
    rows[3].pop("answer")
    spend = audit(write(tmp_path / "log.jsonl", rows)).spend
    assert spend["usd"] == Decimal("0.503500"), "1,000 tokens in and 100 out of gpt-4o are 0.0035"
    assert (spend["failed"], spend["failed_usd"], spend["priced_by_log"]) == (1, 0, 2)


def test_models_without_a_price_are_listed_and_never_zero(tmp_path: Path) -> None:
    rows = [asked("a"), asked("b", model="my-own"), asked("c", model="my-own")]
    path = write(tmp_path / "log.jsonl", rows)
    spend = audit(path).spend
    assert (spend["unpriced"], spend["unpriced_models"]) == (2, {"my-own": 2})
    assert audit(path, prices={"my-own": Price(1, 1)}).spend["unpriced"] == 0


def test_a_cheaper_bill_in_the_log_makes_savings_smaller_in_proportion(tmp_path: Path) -> None:
    rows = [asked("a", at=START + i) for i in range(10)]
    full = audit(write(tmp_path / "a.jsonl", rows)).levers[0].likely
    half = audit(write(tmp_path / "b.jsonl", [row | {"cost": 0.00175} for row in rows])).levers[0].likely
    assert float(half) == pytest.approx(float(full) / 2, rel=0.01)


def test_a_lever_that_costs_more_than_it_saves_says_so(tmp_path: Path) -> None:
    small = {"usage": {"prompt_tokens": 10, "completion_tokens": 1}, "model": "gpt-4o-mini"}
    rows = [asked(f"question {i // 2 if i < 4 else i}") | small for i in range(100)]
    lever = audit(write(tmp_path / "log.jsonl", rows), cpu_hour=50.0).levers[0]
    assert lever.likely < 0 < lever.own_cost


def test_a_prompt_cache_saves_only_what_was_not_cached_already(tmp_path: Path) -> None:
    system = {"role": "system", "content": "You are kind. " * 1_000}

    def rows(cached: int) -> list[dict[str, object]]:
        usage = {"prompt_tokens": 4_100, "completion_tokens": 9, "prompt_tokens_details": {"cached_tokens": cached}}
        turns = [[system, {"role": "user", "content": f"What is {i}?"}] for i in range(20)]
        return [asked("", at=START + i, messages=turn, usage=usage) for i, turn in enumerate(turns)]

    def saved(cached: int) -> Decimal:
        found = audit(write(tmp_path / "log.jsonl", rows(cached)))
        return next(lever.likely for lever in found.levers if lever.name == "prompt cache")

    assert saved(0) > 2 * saved(2_048) > 0
    assert saved(4_010) == 0


def test_jobs_are_told_from_what_people_ask() -> None:
    night = [record(f"sort {i}", at=START + i, name="job") for i in range(80)]
    day = [record(f"ask {i}", at=START + i * 300, name="chat") for i in range(900)]
    streamed = [record(f"say {i}", at=START + i, name="voice", stream=True) for i in range(80)]
    marked = [record(f"weigh {i}", at=START + i * 900, name="eval", tags=("eval",)) for i in range(30)]
    log = log_of([*night, *day, *streamed, *marked])
    found = batchable(log)
    names = np.array([log.templates[place].name for place in log["template"]])
    assert set(names[found.bursts]) == {"job"}
    assert found.bursts.sum() == 80
    assert set(names[found.marked]) == {"eval"}


def test_a_day_is_too_short_to_tell_jobs_and_says_so() -> None:
    found = batchable(log_of(record(f"sort {i}", at=START + i, name="job") for i in range(80)))
    assert (found.judged_bursts, int(found.bursts.sum())) == (False, 0)


def test_a_batch_is_half_the_price_and_what_went_by_batch_saves_nothing_more(tmp_path: Path) -> None:
    rows = [asked(f"w {i}", at=START + i, tags=["offline"]) for i in range(10)]
    saved = next(lever for lever in audit(write(tmp_path / "a.jsonl", rows)).levers if lever.name == "batch")
    assert saved.likely == Decimal("0.017500")
    done = audit(write(tmp_path / "b.jsonl", [row | {"batch": True} for row in rows]))
    assert next(lever.likely for lever in done.levers if lever.name == "batch") == 0
    assert done.spend["usd"] == Decimal("0.017500")


def test_repeats_a_day_later_are_paid_for_again() -> None:
    log = log_of(record(at=START + at) for at in (0.0, DAY_S, DAY_S + 1, 2 * DAY_S + 2))
    assert exact_hits(log).tolist() == [False, True, False, False]


def test_a_log_without_moments_is_one_day(tmp_path: Path) -> None:
    rows = [{key: value for key, value in asked("a").items() if key != "timestamp"} for _ in range(4)]
    report = audit(write(tmp_path / "log.jsonl", rows))
    assert report.questions.repeats["exact"] == 3
    assert report.source["from"] is None
    assert any("does not tell when" in note for note in report.notes)


def test_the_sample_log_is_replayed_as_the_real_cache_answers_it() -> None:
    """`costopt demo` serves 53 of its 316 requests from the exact tier, and 62 from both."""
    from langchain_costopt.demo import sample_log

    report = audit(sample_log(), embedder=default_model(), judge=CrossEncoderJudge())
    assert report.questions.repeats["exact"] == 53
    both = report.questions.repeats["exact_share"] + report.questions.repeats["semantic_share"]
    assert both == pytest.approx(62 / 316, abs=WITHIN)


def test_flags_of_hits_are_in_no_lever(tmp_path: Path) -> None:
    rows = [asked("a", cache_hit=True, tags=["batch"]) for _ in range(5)]
    report = audit(write(tmp_path / "log.jsonl", rows))
    assert report.together["before"] == 0
    assert all(lever.likely == 0 for lever in report.levers)
    assert Flag.HIT
    assert json.dumps(report.as_dict(), default=str)
