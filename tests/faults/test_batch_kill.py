"""A batch that is killed with SIGKILL, at whatever point: nothing is lost, and nothing paid twice."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from costopt.pricing import Usage, cost
from tests.batch_server import Fault, batch_server
from tests.costopt.batch.support import MODELS
from tests.faults.batch_kills import WORKERS, killed_batch
from tests.faults.words import Process


@pytest.mark.parametrize(("name", "seed"), [("openai", 1), ("anthropic", 2)])
def test_a_batch_killed_again_and_again_answers_each_row_once_and_pays_once(
    name: str, seed: int, tmp_path: Path
) -> None:
    # `make bench` does this with 10,000 rows and 20 kills. That answers are right is checked where they are made.
    found = killed_batch(name, tmp_path, rows=300, lot=90, kills=5, seed=seed, span=0.3)
    assert sum(found.kills) == 5
    assert found.billed == {1: found.rows}
    assert found.usage[0] == found.usage[1]
    assert found.cost == cost(MODELS[name], Usage(*found.usage[1]), batch=True)


def test_two_processes_on_one_journal_send_each_row_once(tmp_path: Path) -> None:
    with batch_server() as server:
        server.polls = 3
        given = ("openai", server.url, tmp_path / "j.db", 100, 30)
        with Process(WORKERS, *given) as one, Process(WORKERS, *given) as other:
            for process in (one, other):
                process.send("0")
            said = [[process.line() for _ in range(3)] for process in (one, other)]  # pid, books, status
        assert [lines[2] for lines in said] == ["status 0"] * 2
        assert json.loads(said[0][1])["usage"] == server.usage
        assert list(server.billed.values()) == [1] * 90


# What an application would write; it knows nothing of a crash before.
_LANGCHAIN = """
import sys
from langchain_openai import ChatOpenAI
from costopt.batch import Backoff
from langchain_costopt import BatchRunner

llm = ChatOpenAI(model="gpt-4o-mini", api_key="none", base_url=sys.argv[1])
runner = BatchRunner(llm, journal=sys.argv[2], settle=0.2, backoff=Backoff(first=0.01, most=0.05))
print("ready", flush=True)
answers = runner.batch([f"question {number}" for number in range(50)])
print(sum(answer.usage_metadata["input_tokens"] for answer in answers), len(set(map(str, answers))), flush=True)
"""


def test_an_application_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with batch_server() as server:

        def kill_once(method: str, path: str, number: int) -> Fault | None:
            if not path.endswith("/content"):
                return None
            server.fault = lambda method, path, number: None
            first.kill()
            return Fault(cut="amid")

        server.fault = kill_once
        url = f"{server.url}/v1"
        with Process(_LANGCHAIN, url, tmp_path / "j.db") as first:
            assert [first.line(), first.line()] == ["ready", ""]
        with Process(_LANGCHAIN, url, tmp_path / "j.db") as second:
            assert second.rest() == ["ready", f"{server.usage[0]} 50"]
        assert list(server.billed.values()) == [1] * 50
        assert len(server.batches) == 1
