"""A batch that is killed with SIGKILL, at whatever point: nothing is lost, and nothing paid twice."""

from __future__ import annotations

import json
import os
import queue
import signal
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
    found = killed_batch(name, tmp_path, rows=200, lot=60, kills=4, seed=seed, span=0.2, polls=4)
    assert sum(found.kills) == 4
    assert found.billed == {1: found.rows}
    assert found.usage[0] == found.usage[1]
    assert found.cost == cost(MODELS[name], Usage(*found.usage[1]), batch=True)


def test_two_processes_on_one_journal_send_each_row_once(tmp_path: Path) -> None:
    with batch_server() as server:
        server.polls = 3
        with Process(WORKERS, "openai", server.url, tmp_path / "j.db", 100, 30) as workers:
            workers.send("0 2")
            said = [workers.line() for _ in range(6)]  # of each: pid and status; and the books, when it is done
        assert [line for line in said if line.startswith("status")] == ["status 0"] * 2
        books = [json.loads(line) for line in said if line.startswith("{")]
        assert [each["usage"] for each in books] == [server.usage] * 2
        assert list(server.billed.values()) == [1] * 90


# What an application would write; it knows nothing of a crash before. Imports are what takes time: done once, forked.
_LANGCHAIN = """
import os, sys
from langchain_openai import ChatOpenAI
from costopt.batch import Backoff
from langchain_costopt import BatchRunner

def application():
    llm = ChatOpenAI(model="gpt-4o-mini", api_key="none", base_url=sys.argv[1])
    runner = BatchRunner(llm, journal=sys.argv[2], settle=0.2, backoff=Backoff(first=0.01, most=0.05))
    answers = runner.batch([f"question {number}" for number in range(50)])
    print(sum(answer.usage_metadata["input_tokens"] for answer in answers), len(set(map(str, answers))), flush=True)

for line in sys.stdin:
    pid = os.fork()
    if not pid:
        application()
        os._exit(0)
    print(pid, flush=True)
    print("status", os.waitpid(pid, 0)[1], flush=True)
"""


def test_an_application_that_was_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    with batch_server() as server, Process(_LANGCHAIN, f"{server.url}/v1", tmp_path / "j.db") as applications:
        pid: queue.Queue[int] = queue.Queue()

        def kill_once(method: str, path: str, number: int) -> Fault | None:
            if not path.endswith("/content"):
                return None
            server.fault = lambda method, path, number: None
            os.kill(pid.get(timeout=10), signal.SIGKILL)
            return Fault(cut="amid")

        server.fault = kill_once
        applications.send()
        pid.put(int(applications.line()))
        assert applications.line() == "status 9"
        applications.send()
        said = {applications.line() for _ in range(3)}
        assert said >= {f"{server.usage[0]} 50", "status 0"}
        assert list(server.billed.values()) == [1] * 50
        assert len(server.batches) == 1
