"""`costopt init` and `costopt report`, as a user runs them: a process, its two streams and its exit code."""

from __future__ import annotations

import json
import re
import sqlite3
import time
from contextlib import closing
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from costopt import ConfigError, Ledger, Optimizer, optimizer_cli
from costopt.audit import Attempt
from costopt.optimizer_cli import moment_of
from costopt.pricing import Usage
from tests.command import costopt, script

EVENING = 1_795_132_800.0 + 20 * 3_600  # of 2026-11-20


def ledger(path: Path) -> Path:
    """A call, and its answer out of the cache a day later."""
    call = Attempt("gpt-4o-mini", started=EVENING, usage=Usage(900, 100), cost=Decimal("0.02"), cost_source="given")
    hit = Attempt("gpt-4o-mini", started=EVENING + 86_400, cache="exact", cost=Decimal(0), avoided_cost=Decimal("0.02"))
    with Ledger(path) as made:
        made.record_all([call, hit])
    return path


def test_init_writes_a_file_that_an_optimizer_takes_and_never_writes_over_one(tmp_path: Path) -> None:
    file = tmp_path / "costopt.toml"
    done = costopt("init", "--path", file, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "")
    assert f"Optimizer.from_toml('{file}').langchain(" in done.stderr
    assert f"`costopt report --config {file}` tells what it saved." in done.stderr
    assert Optimizer.from_toml(file).cache is not None
    file.write_text("[ledger]\n")
    again = costopt("init", "--path", file, folder=tmp_path)
    assert again.returncode == 2
    assert "is there already: give another --path, or --force" in again.stderr
    assert file.read_text() == "[ledger]\n"
    assert costopt("init", "--path", file, "--force", folder=tmp_path).returncode == 0
    assert "[cache]" in file.read_text()


def test_init_says_where_it_may_not_write(tmp_path: Path) -> None:
    done = costopt("init", "--path", tmp_path / "no such folder" / "costopt.toml", folder=tmp_path)
    assert done.returncode == 2
    assert re.search(r"cannot be written \(No such file or directory\): give\s+another --path", done.stderr)


def test_a_report_is_plain_in_a_pipe_and_json_for_machines(tmp_path: Path) -> None:
    file = ledger(tmp_path / "ledger.db")
    done = costopt("report", "--ledger", file, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[:2] == [
        "Saved $0.0200 of $0.0400 (50.0%) since 2026-11-20.",
        "2 requests, 2 attempts, $0.0200 spent.",
    ]
    (tmp_path / "costopt.toml").write_text('[cache]\nstore = "env:NOT_SET_HERE"\n[ledger]\npath = "ledger.db"\n')
    by_config = costopt(
        "report", "--config", tmp_path / "costopt.toml", "--since", "2026-11-21", "--json", folder=tmp_path
    )
    found = json.loads(by_config.stdout)
    assert (found["saved"], found["requests"], found["since"]) == ("0.02", 1, "2026-11-21")
    assert found["levers"]["cache"]["dollars"] == "0.02"
    by_default = costopt("report", folder=tmp_path, COSTOPT_LEDGER=str(file))
    assert by_default.stdout == done.stdout


def other(path: Path) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.execute("CREATE TABLE mine (a)")


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, "there is no ledger at .*: an application makes it with its first call"),
        (lambda path: path.write_text("[cache]"), "is no ledger of costopt's: give another --ledger"),
        (other, "is an SQLite file of something else, and no ledger: give another --ledger"),
        (lambda path: path.mkdir(), r"cannot be read \(Is a directory\): give another --ledger"),
    ],
)
def test_what_is_no_ledger_is_named_and_left_alone(make: Any, said: str, tmp_path: Path) -> None:
    path = tmp_path / "l.db"
    make(path)
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(ConfigError, match=said):
        optimizer_cli.report(ledger=path)
    assert (path.read_bytes() if path.is_file() else None) == before


def test_an_empty_ledger_says_what_to_do(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Ledger(tmp_path / "l.db") as empty:
        empty.totals()
    optimizer_cli.report(ledger=tmp_path / "l.db")
    assert "No model call is in" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ({"since": "yesterday"}, "--since 'yesterday': give a day, as 2026-11-22, or days ago, as 7d"),
        ({"since": "999999999999d"}, "give a day"),
        ({"watch": True, "as_json": True}, "give one of them"),
        ({"every": 0.0}, "--every 0.0: give seconds above 0"),
        ({"ledger": None, "config": Path("none.toml")}, "there is no none.toml: `costopt init"),
    ],
)
def test_a_wrong_option_is_told_with_its_mend(given: dict[str, Any], mend: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=re.escape(mend)):
        optimizer_cli.report(**{"ledger": ledger(tmp_path / "l.db"), **given})


def test_settings_without_a_ledger_have_nothing_to_report(tmp_path: Path) -> None:
    (tmp_path / "costopt.toml").write_text("[cache]\n")
    with pytest.raises(ConfigError, match=r"has no \[ledger\], so that nothing is written down: add that line"):
        optimizer_cli.report(config=tmp_path / "costopt.toml")


def test_days_are_utc() -> None:
    assert moment_of("2026-11-20") == EVENING - 20 * 3_600
    assert moment_of("2026-11-20T12:00:00+01:00") == EVENING - 9 * 3_600
    assert abs(time.time() - 7 * 86_400 - moment_of("7d")) < 60


@pytest.mark.parametrize("terminal", [True, False])
def test_watching_shows_what_comes(
    terminal: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A file that is not there yet; then one call; then the user has seen enough."""
    path, looks = tmp_path / "l.db", []

    def sleep(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 2:
            raise KeyboardInterrupt
        ledger(path)

    monkeypatch.setattr("costopt.optimizer_cli.time.sleep", sleep)
    console = Console(force_terminal=terminal, record=True, width=100)
    monkeypatch.setattr(optimizer_cli, "out", console)
    optimizer_cli.report(ledger=path, watch=True, every=0.5)
    shown = capsys.readouterr().out
    assert "No model call is in" in shown
    assert "Saved $0.0200 of $0.0400" in shown
    assert looks == [0.5, 0.5]


def test_it_is_found_where_it_stands(tmp_path: Path) -> None:
    """In a folder with costopt.toml nothing needs to be said; an application and the report meet in the ledger."""
    code = """
from costopt import Optimizer
from costopt.optimizer_cli import init, report
from langchain_costopt.demo import SimulatedChatModel
init()
text = open("costopt.toml").read().replace('# path = "ledger.db"', 'path = "ledger.db"')
open("costopt.toml", "w").write(text.replace('# store = "env:COSTOPT_REDIS_URL"', 'store = "cache.db"'))
optimizer = Optimizer.from_toml()
names = ("gpt-4o-mini", "gpt-4o")
app = optimizer.langchain(*(SimulatedChatModel(model_name=name, answer="Paris") for name in names))
app.llm.invoke("What is the capital of France?")
optimizer.close()
report()
"""
    said = script(code, libraries="langchain_core.language_models torch", folder=tmp_path)
    assert re.match(r"Saved \$0.000\d+ of \$0.000\d+ \(94\.\d%\) since", said), said
    assert {path.name for path in tmp_path.iterdir()} >= {"costopt.toml", "ledger.db", "cache.db"}
