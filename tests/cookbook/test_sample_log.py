"""The sample log that `costopt demo` replays is what its README says it is."""

import json
import re
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

DATA = Path(__file__).parents[2] / "cookbook" / "data"
LOG = DATA / "requests.jsonl"

KEYS = [
    "id",
    "at",
    "app",
    "tenant",
    "model",
    "temperature",
    "messages",
    "response_format",
    "kind",
    "answer_id",
    "answer",
]
NEAR_KINDS = {"near_number", "near_negation", "near_name", "near_unit", "near_direction"}
OTHER_KINDS = {"other_system", "other_tenant", "other_model"}
KINDS = {"new", "repeat", "paraphrase", "follow_up", "long_context"} | NEAR_KINDS | OTHER_KINDS

Row = dict[str, Any]


@pytest.fixture(scope="module")
def rows() -> list[Row]:
    return [json.loads(line) for line in LOG.read_text(encoding="utf-8").splitlines()]


@pytest.fixture(scope="module")
def by_id(rows: list[Row]) -> dict[str, Row]:
    return {row["id"]: row for row in rows}


def system(row: Row) -> str:
    return str(row["messages"][0]["content"])


def last(row: Row) -> str:
    return str(row["messages"][-1]["content"])


def scope(row: Row) -> tuple[Any, ...]:
    """What two requests must share before their answers may be exchanged."""
    response_format = json.dumps(row["response_format"])
    return row["app"], row["tenant"], row["model"], row["temperature"], response_format, system(row)


def request(row: Row) -> tuple[Any, ...]:
    return *scope(row), json.dumps(row["messages"])


def words(text: str) -> int:
    return len(text.split())


def test_rows_have_the_documented_shape(rows: list[Row]) -> None:
    assert 260 <= len(rows) <= 320
    assert LOG.stat().st_size < 1_000_000
    assert [row["id"] for row in rows] == [f"r{n:03d}" for n in range(1, len(rows) + 1)]
    for row in rows:
        assert list(row) in (KEYS, [*KEYS, "near"]), row["id"]
        assert row["app"] in {"support", "coding"}
        assert row["model"] in {"gpt-4o-mini", "gpt-4o"}
        assert row["response_format"] in (None, {"type": "json_object"})
        assert row["kind"] in KINDS
        roles = [message["role"] for message in row["messages"]]
        turns = len(roles) // 2
        assert roles == ["system", *["user", "assistant"] * turns][: len(roles)]
        assert roles[-1] == "user", row["id"]
        assert all(message["content"].strip() for message in row["messages"])


def test_time_increases(rows: list[Row]) -> None:
    times = [row["at"] for row in rows]
    assert times[0] >= 0
    assert all(a < b for a, b in pairwise(times))


def test_mix_is_believable(rows: list[Row]) -> None:
    kinds = Counter(row["kind"] for row in rows)
    assert set(kinds) == KINDS
    n = len(rows)
    assert 0.12 <= kinds["repeat"] / n <= 0.18
    assert 0.15 <= kinds["paraphrase"] / n <= 0.20
    assert 0.55 <= (n - kinds["repeat"] - kinds["paraphrase"]) / n <= 0.65
    assert sum(kinds[kind] for kind in NEAR_KINDS) >= 40
    assert all(kinds[kind] >= 5 for kind in KINDS)


def test_popularity_has_a_head_and_a_long_tail(rows: list[Row]) -> None:
    asked = sorted(Counter(row["answer_id"] for row in rows).values(), reverse=True)
    assert asked[0] >= 8
    assert asked[0] > asked[4] > asked[24] >= 2
    assert sum(count == 1 for count in asked) > len(asked) / 2


def test_repeats_are_spread_over_time(rows: list[Row]) -> None:
    assert all(a["answer_id"] != b["answer_id"] for a, b in pairwise(rows))
    place: dict[str, int] = {}
    gaps = []
    for n, row in enumerate(rows):
        if row["answer_id"] in place:
            gaps.append(n - place[row["answer_id"]])
        place[row["answer_id"]] = n
    assert sorted(gaps)[len(gaps) // 2] >= 15


def test_answer_ids_and_answers_go_together(rows: list[Row]) -> None:
    answer: dict[str, str] = {}
    for row in rows:
        assert answer.setdefault(row["answer_id"], row["answer"]) == row["answer"], row["id"]
    assert len(set(answer.values())) == len(answer)


def test_an_answer_stays_in_its_scope(rows: list[Row]) -> None:
    scopes: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        assert scopes.setdefault(row["answer_id"], scope(row)) == scope(row), row["id"]


def test_equal_requests_have_equal_answers(rows: list[Row]) -> None:
    answers: dict[tuple[Any, ...], str] = {}
    for row in rows:
        assert answers.setdefault(request(row), row["answer_id"]) == row["answer_id"], row["id"]


def test_only_repeats_and_paraphrases_have_been_answered_before(rows: list[Row]) -> None:
    answered: set[str] = set()
    requested: set[tuple[Any, ...]] = set()
    for row in rows:
        assert (row["answer_id"] in answered) == (row["kind"] in {"repeat", "paraphrase"}), row["id"]
        assert (request(row) in requested) == (row["kind"] == "repeat"), row["id"]
        answered.add(row["answer_id"])
        requested.add(request(row))


def test_near_rows_name_an_earlier_row_with_another_answer(rows: list[Row], by_id: dict[str, Row]) -> None:
    for row in rows:
        if row["kind"] in NEAR_KINDS | OTHER_KINDS:
            assert "near" in row, row["id"]
        if "near" in row:
            target = by_id[row["near"]]
            assert target["at"] < row["at"]
            assert target["answer_id"] != row["answer_id"], row["id"]
        if row["kind"] in NEAR_KINDS:
            assert scope(target) == scope(row), row["id"]
            assert target["messages"][:-1] == row["messages"][:-1], row["id"]


def test_other_rows_ask_the_same_elsewhere(rows: list[Row], by_id: dict[str, Row]) -> None:
    for row in rows:
        if row["kind"] not in OTHER_KINDS:
            continue
        target = by_id[row["near"]]
        assert last(row) == last(target), row["id"]
        differs = {
            "other_system": system(row) != system(target),
            "other_tenant": row["tenant"] != target["tenant"],
            "other_model": (row["model"], row["temperature"]) != (target["model"], target["temperature"]),
        }
        assert [kind for kind, is_so in differs.items() if is_so] == [row["kind"]], row["id"]


def test_two_tenants_share_the_support_prompts(rows: list[Row]) -> None:
    support = [row for row in rows if row["app"] == "support"]
    prompts = {tenant: {system(row) for row in support if row["tenant"] == tenant} for tenant in ("acme", "globex")}
    assert {row["tenant"] for row in rows} == set(prompts)
    assert len(prompts["acme"] & prompts["globex"]) >= 2


@pytest.mark.parametrize(("app", "long"), [("support", True), ("coding", False)])
def test_each_app_changes_its_system_prompt(rows: list[Row], app: str, long: bool) -> None:
    prompts = {system(row) for row in rows if row["app"] == app}
    assert len(prompts) >= 2
    assert any(words(prompt) > 300 for prompt in prompts) == long
    where = {row["id"]: n for n, row in enumerate(rows)}
    switches = {
        where[row["id"]] / len(rows)
        for row in rows
        if row["app"] == app and row["kind"] == "other_system" and row["response_format"] is None
    }
    assert any(0.4 < switch < 0.8 for switch in switches)


def test_follow_ups_need_their_history(rows: list[Row]) -> None:
    answers: dict[str, set[str]] = {}
    histories: dict[str, set[str]] = {}
    for row in rows:
        if row["kind"] == "follow_up":
            assert len(row["messages"]) > 2, row["id"]
        if len(row["messages"]) > 2:
            answers.setdefault(last(row), set()).add(row["answer_id"])
            histories.setdefault(last(row), set()).add(json.dumps(row["messages"][:-1]))
    ambiguous = [text for text, ids in answers.items() if len(ids) > 1]
    assert len(ambiguous) >= 4
    assert all(len(histories[text]) > 1 for text in ambiguous)


def test_long_contexts_are_long_and_shared(rows: list[Row]) -> None:
    questions: Counter[str] = Counter()
    for row in rows:
        if row["kind"] == "long_context":
            assert words(last(row)) > 300, row["id"]
            questions[last(row).split("Question:")[0]] += 1
    assert len(questions) >= 3
    assert min(questions.values()) >= 2


def test_json_requests_have_json_answers(rows: list[Row]) -> None:
    json_rows = [row for row in rows if row["response_format"]]
    assert len(json_rows) >= 5
    for row in json_rows:
        assert set(json.loads(row["answer"])) == {"topic", "urgency", "order", "summary"}


def test_answers_have_a_realistic_length(rows: list[Row]) -> None:
    bounds = {"support": (30, 120), "coding": (40, 200)}
    for row in rows:
        low, high = bounds[row["app"]]
        if row["response_format"] is None:
            assert low <= words(row["answer"]) <= high, row["id"]


def test_readme_counts_are_those_of_the_file(rows: list[Row]) -> None:
    readme = (DATA / "README.md").read_text(encoding="utf-8")
    stated = {kind: int(n) for kind, n in re.findall(r"^\| `(\w+)` \| (\d+) \|", readme, re.MULTILINE)}
    assert stated == Counter(row["kind"] for row in rows)
    total = re.search(r"^\| \*\*all\*\* \| (\d+) \|", readme, re.MULTILINE)
    assert total is not None
    assert int(total[1]) == len(rows)
    for claim in re.findall(r"\*\*(\d+) of (\d+)\*\*", readme):
        assert claim == (str(sum(row["kind"] in {"repeat", "paraphrase"} for row in rows)), str(len(rows)))
