"""Batches on a machine of one's own: files in and out, resuming, errors by the row, what it took."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from costopt.errors import ConfigError, EngineClosedError, EngineError
from costopt.local.batch_files import row_id
from costopt.local.batch_report import BatchProgress, MachinePrice
from costopt.local.batch_runner import LocalBatchRunner
from costopt.local.openai_engine import OpenAICompatibleEngine
from tests.costopt.local.batch_rows import read, row, written
from tests.openai_server import Behaviour, OpenAIServer


@pytest.fixture
def engine(server: OpenAIServer) -> Iterator[OpenAICompatibleEngine]:
    engine = OpenAICompatibleEngine(base_url=server.url, model="m", max_retries=0)
    yield engine
    engine.close()


def test_answers_are_as_the_batch_api_writes_them(engine: OpenAICompatibleEngine, tmp_path: Path) -> None:
    asked = written(tmp_path / "asked.jsonl", [row(i) for i in range(5)])
    told: list[BatchProgress] = []
    report = LocalBatchRunner(engine).run(asked, tmp_path / "out.jsonl", on_progress=told.append)
    answers = {each["custom_id"]: each for each in read(tmp_path / "out.jsonl")}
    assert sorted(answers) == [f"row-{i}" for i in range(5)]
    one = answers["row-3"]
    assert one["id"] == row_id("row-3", row(3)["body"])
    assert (one["error"], one["response"]["status_code"], one["response"]["request_id"]) == (None, 200, one["id"])
    body = one["response"]["body"]
    assert (body["object"], body["model"]) == ("chat.completion", "m")
    assert body["choices"][0]["message"]["content"].startswith("answer")
    assert body["usage"] == {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}
    assert (report.done, report.failed, report.before, report.errors) == (5, 0, 0, None)
    assert (report.prompt_tokens, report.completion_tokens) == (150, 60)
    assert report.tokens_per_second == pytest.approx(60 / report.seconds)
    assert [each.done for each in told] == [1, 2, 3, 4, 5]
    assert told[-1].total == 5
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


def test_the_official_sdk_reads_the_answers(engine: OpenAICompatibleEngine, tmp_path: Path) -> None:
    from openai.types.chat import ChatCompletion

    add = {"type": "function", "function": {"name": "add", "parameters": {"type": "object", "properties": {}}}}
    asked = written(tmp_path / "asked.jsonl", [row(0), row(1, tools=[add], logprobs=True, top_logprobs=1)])
    LocalBatchRunner(engine).run(asked, tmp_path / "out.jsonl")
    for each in read(tmp_path / "out.jsonl"):
        completion = ChatCompletion.model_validate(each["response"]["body"])
        assert completion.choices[0].finish_reason in ("stop", "tool_calls")


def test_what_is_done_is_not_asked_again(engine: OpenAICompatibleEngine, server: OpenAIServer, tmp_path: Path) -> None:
    asked, output = tmp_path / "asked.jsonl", tmp_path / "out.jsonl"
    written(asked, [row(i) for i in range(3)])
    runner = LocalBatchRunner(engine)
    runner.run(asked, output)
    written(asked, [row(0), row(1, temperature=0.5), row(2), row(3), row(3)])
    report = runner.run(asked, output)
    assert (report.done, report.before) == (2, 3)  # one was changed, one is new, one is there twice
    assert len(server.requests) == 5
    assert len(read(output)) == 5
    assert runner.run(asked, output).done == 0


def test_rows_that_fail_go_elsewhere_and_are_asked_again(
    engine: OpenAICompatibleEngine, server: OpenAIServer, tmp_path: Path
) -> None:
    asked, output = tmp_path / "asked.jsonl", tmp_path / "out.jsonl"
    long = Behaviour(400, "maximum context length is 4096 tokens")
    server.behaviours["m"] = lambda number: long if server.requests[number - 1]["seed"] == 2 else Behaviour()
    written(asked, [row(i, seed=i) for i in range(4)])
    runner = LocalBatchRunner(engine)
    report = runner.run(asked, output)
    assert (report.done, report.failed) == (3, 1)
    assert report.errors is not None
    [failed] = read(report.errors)
    assert (failed["custom_id"], failed["response"]) == ("row-2", None)
    assert failed["error"]["code"] == "context_length"
    assert "4096" in failed["error"]["message"]
    assert report.first_error == f"row-2: {failed['error']['message']}"
    server.behaviours.clear()
    report = runner.run(asked, output)
    assert (report.done, report.failed, report.before, report.errors) == (1, 0, 3, None)
    assert not (tmp_path / "out.jsonl.errors.jsonl").exists()


BAD = [
    ("{broken", "line 1 is no row of a batch: not JSON"),
    ("[1]", "a JSON object is expected"),
    ('{"custom_id": "a"}', "it has no body"),
    ('{"custom_id": 1, "body": {}}', "custom_id must be a text"),
    ({**row(0), "url": "/v1/embeddings"}, "only a POST to"),
    ({"custom_id": "a", "body": {}}, "give either messages or a prompt"),
    (row(0, temperature=-1), "temperature=-1"),
    (row(0, n=3), "a local model has no n"),
    (row(0, presence_penalty=0.1), "a local model has no presence_penalty"),
    (row(0, messages="hello"), "messages must be a list"),
    (row(0, messages=["hello"]), "messages must be a list"),
    (row(0, response_format={"type": "yaml"}), "response_format of type 'yaml'"),
]


@pytest.mark.parametrize(("bad", "said"), BAD, ids=range(len(BAD)))
def test_a_bad_row_is_an_error_of_its_own(engine: OpenAICompatibleEngine, tmp_path: Path, bad: Any, said: str) -> None:
    asked = written(tmp_path / "asked.jsonl", [bad, "", row(1)])
    report = LocalBatchRunner(engine).run(asked, tmp_path / "out.jsonl")
    assert (report.done, report.failed) == (1, 1)
    [failed] = read(tmp_path / "out.jsonl.errors.jsonl")
    assert failed["error"]["code"] == "config"
    assert re.search(said, failed["error"]["message"])


def test_a_server_that_is_down_is_not_asked_for_every_row(
    engine: OpenAICompatibleEngine, server: OpenAIServer, tmp_path: Path
) -> None:
    server.behaviours["m"] = Behaviour(503, "down")
    asked = written(tmp_path / "asked.jsonl", [row(i) for i in range(50)])
    with pytest.raises(EngineError, match=r"1\d rows failed one after the other, the last with: .*down"):
        LocalBatchRunner(engine, concurrency=4, give_up_after=10).run(asked, tmp_path / "out.jsonl")
    assert len(server.requests) < 20
    server.behaviours.clear()
    assert LocalBatchRunner(engine).run(asked, tmp_path / "out.jsonl").done == 50


def test_a_closed_engine_ends_the_run(engine: OpenAICompatibleEngine, tmp_path: Path) -> None:
    asked = written(tmp_path / "asked.jsonl", [row(i) for i in range(5)])
    engine.close()
    with pytest.raises(EngineClosedError):
        LocalBatchRunner(engine).run(asked, tmp_path / "out.jsonl")


def test_no_more_are_under_way_than_may_be(
    engine: OpenAICompatibleEngine, server: OpenAIServer, tmp_path: Path
) -> None:
    lock, now, most = threading.Lock(), 0, 0

    def watched(_: int) -> Behaviour:
        nonlocal now, most
        with lock:
            now += 1
            most = max(most, now)
        time.sleep(0.02)
        with lock:
            now -= 1
        return Behaviour()

    server.behaviours["m"] = watched
    asked = written(tmp_path / "asked.jsonl", [row(i) for i in range(20)])
    assert LocalBatchRunner(engine, concurrency=3).run(asked, tmp_path / "out.jsonl").done == 20
    assert 2 <= most <= 3


async def test_in_an_event_loop(engine: OpenAICompatibleEngine, tmp_path: Path) -> None:
    asked = written(tmp_path / "asked.jsonl", [row(i) for i in range(3)])
    runner = LocalBatchRunner(engine)
    assert (await runner.arun(asked, tmp_path / "a.jsonl")).done == 3
    assert runner.run(asked, tmp_path / "b.jsonl").done == 3  # as a notebook would
    task = asyncio.create_task(runner.arun(asked, tmp_path / "c.jsonl"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_gzip_and_standard_input(
    engine: OpenAICompatibleEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = "".join(json.dumps(row(i)) + "\n" for i in range(3)).encode()
    (tmp_path / "asked.jsonl.gz").write_bytes(gzip.compress(rows))
    assert LocalBatchRunner(engine).run(tmp_path / "asked.jsonl.gz", tmp_path / "a.jsonl").done == 3
    (tmp_path / "asked").write_bytes(rows)
    with (tmp_path / "asked").open() as given_rows:
        monkeypatch.setattr(sys, "stdin", given_rows)
        told: list[BatchProgress] = []
        assert LocalBatchRunner(engine).run("-", tmp_path / "b.jsonl", on_progress=told.append).done == 3
    assert told[-1].total is None


KILLED = """
import sys
from costopt.local.batch_runner import LocalBatchRunner
from costopt.local.openai_engine import OpenAICompatibleEngine
engine = OpenAICompatibleEngine(base_url=sys.argv[1], model="m", max_retries=0)
LocalBatchRunner(engine, concurrency=4).run(sys.argv[2], sys.argv[3])
engine.close()
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this system")
def test_a_run_that_was_killed_goes_on(engine: OpenAICompatibleEngine, server: OpenAIServer, tmp_path: Path) -> None:
    """Killed while it was writing, its last line torn: every row is answered, and few were asked twice."""
    asked, output = written(tmp_path / "asked.jsonl", [row(i) for i in range(40)]), tmp_path / "out.jsonl"
    server.behaviours["m"] = Behaviour(seconds=0.02)
    command = [sys.executable, "-c", KILLED, server.url, str(asked), str(output)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE)
    while not output.exists() or output.read_bytes().count(b"\n") < 8:
        assert process.poll() is None, process.stderr and process.stderr.read()
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    output.write_bytes(output.read_bytes().rstrip(b"\n")[:-20])  # as if the last write had been cut off
    before = output.read_bytes().count(b"\n")
    assert before < 40
    report = LocalBatchRunner(engine).run(asked, output)
    assert (report.done, report.before, report.failed) == (40 - before, before, 0)
    assert sorted(each["custom_id"] for each in read(output)) == sorted(f"row-{i}" for i in range(40))
    assert len(server.requests) <= 40 + 4 + 1


def test_files_that_are_not_there(engine: OpenAICompatibleEngine, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        LocalBatchRunner(engine).run(tmp_path / "nowhere.jsonl", tmp_path / "out.jsonl")
    asked = written(tmp_path / "asked.jsonl", [row(0)])
    with pytest.raises(ConfigError, match="give another --out"):
        LocalBatchRunner(engine).run(asked, tmp_path)


def test_a_price_by_the_hour_and_by_the_kilowatt_hour(engine: OpenAICompatibleEngine, tmp_path: Path) -> None:
    price = MachinePrice(per_hour=Decimal("3.60"), per_kwh=Decimal("0.36"), watts=1_000)
    assert price.cost(3_600) == Decimal("3.96")
    assert price.cost(3_600, joules=3_600_000) == Decimal("4.32")
    asked = written(tmp_path / "asked.jsonl", [row(0)])
    report = LocalBatchRunner(engine, price=price).run(asked, tmp_path / "out.jsonl")
    assert report.dollars == price.cost(report.seconds, None if report.gpu is None else report.gpu.joules)
    assert report.dollars_per_million_tokens == report.dollars / 42 * 1_000_000
    assert LocalBatchRunner(engine).run(asked, tmp_path / "b.jsonl").dollars is None
    with pytest.raises(ConfigError, match="per_kwh=-1"):
        MachinePrice(per_kwh=Decimal(-1))


def test_the_real_driver(engine: OpenAICompatibleEngine, tmp_path: Path) -> None:
    asked = written(tmp_path / "asked.jsonl", [row(0)])
    report = LocalBatchRunner(engine).run(asked, tmp_path / "out.jsonl")
    if report.gpu is None:
        assert report.gpu_note.startswith("not available: ")
        assert report.joules_per_token is None
    else:
        assert report.joules_per_token is not None
        assert report.joules_per_token >= 0
