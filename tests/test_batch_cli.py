"""`costopt batch …`, as somebody types it."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costopt.audit import Ledger
from costopt.cli import main
from tests.batch_answers import answer_to
from tests.batch_server import BatchServer, batch_server

QUESTIONS = [f"question {number % 4}" for number in range(6)]


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with batch_server() as running:
        yield running


@dataclass
class Said:
    stdout: str
    stderr: str


class Shell:
    """Runs commands with a provider and a journal in the environment."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self._patch = monkeypatch
        self._captured = capsys

    def __call__(self, *arguments: str, status: int = 0, stdin: str = "") -> Said:
        self._patch.setattr(sys, "argv", ["costopt", "batch", *arguments])
        self._patch.setattr(sys, "stdin", io.StringIO(stdin))
        with pytest.raises(SystemExit) as ended:
            main()
        said = Said(*self._captured.readouterr())
        assert ended.value.code == status, said.stderr
        return said

    def rows(self, name: str, rows: list[Any]) -> str:
        path = self.folder / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)


@pytest.fixture
def shell(
    server: BatchServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Shell:
    monkeypatch.setenv("OPENAI_API_KEY", "none")
    monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
    monkeypatch.setenv("ANTHROPIC_API_KEY", "none")
    monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
    monkeypatch.setenv("COSTOPT_BATCH_JOURNAL", str(tmp_path / "journal.db"))
    return Shell(tmp_path, monkeypatch, capsys)


def body(text: str, model: str = "gpt-4o-mini") -> dict[str, Any]:
    return {"model": model, "max_tokens": 20, "messages": [{"role": "user", "content": text}]}


def test_from_a_file_to_answers_in_its_order(shell: Shell, server: BatchServer, tmp_path: Path) -> None:
    lines = [
        {"custom_id": f"r{n}", "method": "POST", "url": "/v1/chat/completions", "body": body(text)}
        for n, text in enumerate(QUESTIONS)
    ]
    handed_in = shell("submit", shell.rows("in.jsonl", lines))
    job = handed_in.stdout.strip()
    assert "6 requests, 4 different" in handed_in.stderr
    assert job in shell("status").stdout
    out = tmp_path / "out.jsonl"
    ledger = tmp_path / "ledger.db"
    fetched = shell("collect", job, "--out", str(out), "--ledger", str(ledger))
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["custom_id"] for row in rows] == [f"r{n}" for n in range(6)]
    said = [row["response"]["choices"][0]["message"]["content"] for row in rows]
    assert said == [answer_to(body(text)) for text in QUESTIONS]
    assert [row["source"] for row in rows] == ["batch"] * 4 + ["duplicate"] * 2
    assert "6 of 6 answered" in fetched.stderr
    assert not list(tmp_path.glob("*.part"))
    assert list(server.billed.values()) == [1] * 4

    again = shell("collect", job, "--ledger", str(ledger))
    assert [json.loads(line) for line in again.stdout.splitlines()] == rows
    books = Ledger(ledger)
    attempts = list(books.attempts())
    books.close()
    assert len(attempts) == 6
    assert sum(attempt.usage.input_tokens for attempt in attempts if attempt.usage) == server.usage[0]
    assert sum(attempt.cost or 0 for attempt in attempts) == sum(Decimal(row["cost"]) for row in rows)


def test_anthropics_lines_and_bodies_by_themselves_are_understood(shell: Shell, server: BatchServer) -> None:
    model = "claude-haiku-4-5"
    lines = [{"custom_id": "a", "params": body("one", model)}, {**body("two", model), "custom_id": "b"}]
    job = shell("submit", "-", stdin="\n".join(map(json.dumps, lines))).stdout.strip()
    rows = [json.loads(line) for line in shell("collect", job).stdout.splitlines()]
    assert [(row["custom_id"], row["response"]["type"]) for row in rows] == [("a", "message"), ("b", "message")]


def test_errors_are_in_their_line_and_in_the_exit_code(shell: Shell, server: BatchServer) -> None:
    server.fate = lambda body, before: "invalid" if "2" in body["messages"][0]["content"] else "ok"
    job = shell(
        "submit", "--provider", "openai", shell.rows("in.jsonl", [body(f"question {n}") for n in range(4)])
    ).stdout.strip()
    fetched = shell("collect", job, status=1)
    rows = [json.loads(line) for line in fetched.stdout.splitlines()]
    assert [row["error"] and row["error"]["status"] for row in rows] == [None, None, 400, None]
    assert "3 of 4 answered" in fetched.stderr


def test_status_and_cancel_for_machines(shell: Shell, server: BatchServer) -> None:
    server.polls = 10**9
    path = shell.rows("in.jsonl", [body("one"), body("two")])
    job = json.loads(shell("submit", "--provider", "openai", path, "--json").stdout)["job"]
    found = json.loads(shell("status", job, "--json").stdout)
    assert (found["sent"], found["finished"]) == (2, False)
    assert shell("collect", job, "--no-wait", status=1).stdout.count('"pending"') == 2
    cancelled = json.loads(shell("cancel", job, "--json").stdout)
    assert cancelled["finished"]
    assert json.loads(shell("status", "--json").stdout)[0]["job"] == job


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (['{"custom_id": "a"}'], "line 1: give"),
        ([json.dumps(body("one")), "[]"], "line 2"),
        ([json.dumps(body("one"))], "--provider"),
        ([json.dumps({"params": {}}), json.dumps({"body": {}})], "anthropic and openai"),
        ([json.dumps({"body": {}, "method": "GET"})], "POST"),
        (["\0\1\2"], "line 1"),
        ([], "in.jsonl is empty"),
    ],
)
def test_a_file_that_will_not_do_is_told_by_its_line(
    lines: list[str], says: str, shell: Shell, server: BatchServer
) -> None:
    (shell.folder / "in.jsonl").write_text("\n".join(lines))
    assert says in " ".join(shell("submit", str(shell.folder / "in.jsonl"), status=2).stderr.split())
    assert server.requests == []


def test_a_job_that_is_not_there_and_a_key_that_is_missing(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no job 'nosuch'" in shell("collect", "nosuch", status=2).stderr
    assert "no jobs in" in shell("status").stderr
    monkeypatch.delenv("OPENAI_API_KEY")
    assert "OPENAI_API_KEY" in shell("submit", "--provider", "openai", shell.rows("i", [body("?")]), status=1).stderr
