"""The table of savings, its intervals and its plots: what is made of measurements, without measuring."""

from __future__ import annotations

import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cookbook.benchmarks.claims import CLAIMS, Claim, verdict
from cookbook.benchmarks.combined_stream import CHEAP, STRONG, Question, Teacher
from cookbook.benchmarks.findings import percent, table
from cookbook.benchmarks.plots import PLOTS, draw, drawn
from cookbook.benchmarks.recorded import cells, exactly, number, share_of
from cookbook.benchmarks.report import markdown
from cookbook.benchmarks.resample import Measured, Sampler
from cookbook.benchmarks.savings import lines, savings

HOME = Path(__file__).parents[2] / "cookbook" / "benchmarks"
RECORDS = {file.stem: json.loads(file.read_text("utf-8")) for file in sorted((HOME / "results").glob("*.json"))}
CLAIM = Claim("30-50 % at 5 %", 0.3, 0.5, 0.05)

shares = st.floats(0, 1)


def record(**found: Any) -> dict[str, Any]:
    about = {"name": "a", "title": "A", "command": "make bench", "commit": "1234567", "date": "2026-11-23", "load": "0"}
    machine = {"versions": "one 1, server 3 with b 2, a 1"}
    return about | {"seconds": 1, "machine": machine, "found": {"bars": [], "tables": [], "notes": []} | found}


@pytest.mark.parametrize(
    ("saved", "change", "words"),
    [
        (Measured(0.4, 0.35, 0.45), exactly(0.0), "holds: saves as much, no quality lost"),
        (Measured(0.7, 0.6, 0.8), Measured(-0.01, -0.02, 0.0), "holds: saves more, quality as claimed"),
        (Measured(0.2, 0.1, 0.29), exactly(0.0), "**does not hold**: saves less, no quality lost"),
        (Measured(0.4, 0.3, 0.5), Measured(-0.1, -0.2, -0.06), "**does not hold**: saves as much, costs more quality"),
        (Measured(0.4, 0.2, 0.5), exactly(0.0), "cannot be told: the saving may be less, no quality lost"),
        (
            Measured(0.4, 0.3, 0.5),
            Measured(-0.04, -0.2, 0.0),
            "cannot be told: saves as much, it may cost more quality",
        ),
    ],
)
def test_a_claim_is_held_against_the_whole_interval(saved: Measured, change: Measured, words: str) -> None:
    assert verdict(CLAIM, saved, change) == words


def test_a_promise_of_no_loss_is_not_broken_by_what_chance_explains() -> None:
    free = Claim("20-40 % at 0 %", 0.2, 0.4, 0.0)
    assert verdict(free, exactly(0.3), Measured(-0.01, -0.02, 0.01)).endswith("no loss that chance does not explain")
    assert verdict(free, exactly(0.3), Measured(-0.01, -0.02, -0.001)).startswith("**does not hold**")


@given(shares, shares, shares)
def test_a_wider_interval_never_makes_a_claim_more_certain(value: float, below: float, above: float) -> None:
    wide = Measured(value, value - below, value + above)
    if verdict(CLAIM, wide, exactly(0.0)).startswith("holds"):
        assert verdict(CLAIM, exactly(value), exactly(0.0)).startswith("holds")


def test_what_two_sides_share_cancels_out_in_a_paired_interval() -> None:
    cost = np.array([1.0, 5.0, 2.0, 8.0])
    right = np.array([1.0, 0.0, 1.0, 1.0])
    sampler = Sampler(["a", "b", "c", "d"], ["x", "x", "y", "y"], resamples=200)
    found = sampler.change(cost / 2, right, cost, right, np.ones(4, bool))
    assert found.saved == Measured(0.5, 0.5, 0.5)
    worse = sampler.change(cost / 2, right * 0.5, cost, right, np.ones(4, bool))
    assert worse.change == Measured(-0.5, -0.5, -0.5)
    assert found.quality.low < found.quality.value < found.quality.high


def test_no_loss_among_few_is_no_proof_of_none() -> None:
    ones, whole = np.ones(100), np.ones(100, bool)
    many, few = (Sampler([i % of for i in range(100)], ["x"] * 100) for of in (100, 10))
    lows = [each.change(ones, ones, ones, ones, whole).change.low for each in (many, few)]
    assert -0.3 < lows[1] < lows[0] < -0.03


def test_requests_of_one_cluster_are_no_more_evidence_than_one() -> None:
    hits = (np.arange(200) % 2).astype(np.float64)
    whole = np.ones(200, bool)
    many = Sampler(range(200), ["x"] * 200).change(hits, hits, np.ones(200), np.ones(200), whole)
    few = Sampler([i % 4 for i in range(200)], ["x"] * 200).change(hits, hits, np.ones(200), np.ones(200), whole)
    assert few.saved.value == many.saved.value
    assert few.saved.high - few.saved.low > 3 * (many.saved.high - many.saved.low)


def test_the_same_draws_serve_every_side() -> None:
    ones, some = np.ones(50), np.linspace(0, 1, 50).astype(np.float64)
    sampler = Sampler(range(50), ["x"] * 50)
    again = [sampler.change(some, ones, ones, ones, ones > 0) for _ in range(2)]
    assert again[0] == again[1] == Sampler(range(50), ["x"] * 50).change(some, ones, ones, ones, ones > 0)


@pytest.mark.parametrize(
    ("cell", "value"), [("90.2% (95.7%)", 0.902), ("21,501", 21501), ("$2.69", 2.69), ("0.5 %", 0.005), ("-3 s", -3)]
)
def test_numbers_are_read_out_of_cells(cell: str, value: float) -> None:
    assert number(cell) == pytest.approx(value)


def test_a_cell_without_a_number_is_no_nought() -> None:
    with pytest.raises(ValueError, match="no number"):
        number("–")


def test_a_row_is_found_by_its_whole_name_and_a_column_by_its_first_place() -> None:
    one = record(tables=[table("Hits, all", ["", "of all", "of all"], [["a (b)", "1", "2"], ["a", "3", "4"]])])
    assert cells(one, "Hits", "a")["of all"] == "3"
    assert cells(one, "Hits", "b") == cells(one, "Misses", "a") == {}


def test_small_shares_are_shown_finer_and_nothing_is_minus_nought() -> None:
    assert percent(Measured(-0.0021, -0.0028, -0.0016), sign=True) == "-0.21 % (-0.28 to -0.16)"
    assert percent(Measured(-0.00001, -0.4, 0.4), sign=True) == "0.0 % (-40.0 to +40.0)"
    assert percent(exactly(0.5)) == "50.0 %"


def test_every_lever_that_was_measured_stands_in_the_table_beside_its_claim() -> None:
    found = lines(RECORDS)
    assert {line.lever for line in found} == {*CLAIMS, "together"}
    assert {line.section for line in found} <= set(RECORDS)
    for line in found:
        assert line.saved.low <= line.saved.value <= line.saved.high
        assert line.change.low <= line.change.value <= line.change.high
    shown = savings(RECORDS)
    assert shown is not None
    for row in shown["rows"]:
        assert row[2] == (CLAIMS[row[0]].words if row[0] in CLAIMS else "the most")


def test_sections_that_were_not_measured_leave_no_row() -> None:
    assert savings({}) is None
    bare = {name: {**each, "found": {"bars": [], "tables": [], "notes": []}} for name, each in RECORDS.items()}
    assert savings({name: each for name, each in bare.items() if name != "local_throughput"}) is None


def test_the_results_begin_with_the_table_and_show_plots_that_are_there() -> None:
    text = (HOME / "RESULTS.md").read_text("utf-8")
    headings = re.findall(r"^## (.*)$", text, re.MULTILINE)
    assert headings[0] == "What each lever saves, and what becomes of the answers"
    shown = re.findall(r"!\[[^]]*\]\((.*)\)", text)
    assert len(shown) == len(PLOTS)
    for name in shown:
        assert (HOME / name).read_text("utf-8").startswith("<?xml")


def test_the_kept_results_are_what_the_records_say() -> None:
    from cookbook.benchmarks.__main__ import SECTIONS

    places = [*SECTIONS]
    pictures = drawn(RECORDS, HOME / "plots")
    told = markdown(sorted(RECORDS.values(), key=lambda each: places.index(each["name"])), pictures=pictures)
    assert told == (HOME / "RESULTS.md").read_text("utf-8")


def test_plots_are_the_same_each_time_and_hold_no_date(tmp_path: Path) -> None:
    for folder in ("one", "other"):
        draw(RECORDS, tmp_path / folder)
    assert {file.stem for file in (tmp_path / "one").iterdir()} == set(PLOTS)
    for file in (tmp_path / "one").iterdir():
        text = file.read_text("utf-8")
        assert text == (tmp_path / "other" / file.name).read_text("utf-8")
        assert "<dc:date>" not in text


def test_versions_are_told_apart_by_what_is_in_them_not_by_their_order() -> None:
    usual = record() | {"date": "2026-11-24"}
    other = record() | {"machine": {"versions": "one 2, server 3 with a 1, b 2"}}
    told = markdown([usual, other])
    assert "versions one 2" in told
    assert told.count("server 3") == 1


def test_the_server_answers_as_the_data_say() -> None:
    exam = Question("exam", "2 + 2?", "2 + 2?", "", {CHEAP: "5", STRONG: "4"}, frozenset("4"))
    library = Question(
        "library", "Who?", "Who?", "Read.", {CHEAP: "Ann", STRONG: "Ann"}, frozenset({"Ann"}), (), ("Ann",)
    )
    teacher = Teacher([exam, library])

    def answer(model: str, *texts: str) -> str:
        body = {"model": model, "messages": [{"role": "user", "content": text} for text in texts]}
        said: str = teacher.answer(body)["choices"][0]["message"]["content"]
        assert teacher.bill(body) == 2 * teacher.bill(body, batch=True) > Decimal(0)
        return said

    assert [answer(CHEAP, "2 + 2?"), answer(STRONG, "2 + 2?")] == ["5", "4"]
    assert answer(STRONG, "It was Ann, they say.", "Who?") == "Ann"
    assert answer(STRONG, "It was somebody.", "Who?") not in library.right


@pytest.mark.parametrize("side", ["compression", "batch"])
def test_a_side_of_the_stream_is_billed_and_booked_to_the_cent(side: str, tmp_path: Path) -> None:
    from cookbook.benchmarks.bench_combined import serve
    from cookbook.benchmarks.combined_sides import Kit, application
    from cookbook.benchmarks.combined_stream import Stream
    from costopt.routing import HeuristicEstimator, Outcomes
    from tests.batch_server import batch_server

    told = dict.fromkeys((CHEAP, STRONG), "lost_card")
    triage = [Question("triage", f"Card {n} is lost", "card", "Sort.", told, frozenset({"lost_card"})) for n in (1, 2)]
    pages = (
        "The sky is blue today. Cats purr when they are content. Rain is wet.",
        "Dogs bark at night. Snow is cold.",
    )
    purrs = dict.fromkeys((CHEAP, STRONG), "content")
    library = Question(
        "library", "Why do cats purr?", "cats", "Read.", purrs, frozenset({"content"}), pages, ("content",)
    )
    found = Stream([*triage, library], [False, True, True], Outcomes((), (), np.zeros((0, 2))), [])
    teacher = Teacher(found.questions)
    with batch_server() as server:
        server.answer = teacher.answer
        kit = Kit(f"{server.url}/v1", tmp_path, HeuristicEstimator(), [])
        with application(kit, side, 0.5) as app:
            served = serve(app, found, server, teacher)
        assert (served.calls, served.batched) == ((1, 2) if side == "batch" else (3, 0))
    assert served.apart == 0
    assert served.right.tolist() == served.dear.tolist() == [1.0, 1.0, 1.0]
    # Nothing was said twice, so the report tells the whole saving.
    whole = sum(served.cost)
    assert served.told == pytest.approx(1 - whole / _without(teacher, found.questions), abs=1e-9)


def _without(teacher: Teacher, questions: list[Question]) -> float:
    """What these questions cost one by one, whole."""
    whole = Decimal(0)
    for question in questions:
        texts = ["\n\n".join([question.instruction, *question.passages]), question.text]
        whole += teacher.bill({"model": STRONG, "messages": [{"content": text} for text in texts]})
    return float(whole)


def test_a_share_of_nothing_is_unknown() -> None:
    assert share_of(0, 100).low == 0 < share_of(0, 100).high < 0.05
