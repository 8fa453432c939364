"""`costopt plan` and `costopt local run`."""

from __future__ import annotations

import json
import sys
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from transformers import LlamaConfig

from costopt import cli
from costopt.audit import audit
from costopt.gpu import read_gpu_samples
from tests.costopt.local.batch_rows import read, row, written
from tests.costopt.test_gpu import driver
from tests.openai_server import OpenAIServer


def ran(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["costopt", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return int(ended.value.code or 0)


def test_a_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    shape = {"hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32, "num_key_value_heads": 8}
    LlamaConfig(**shape, vocab_size=128256, max_position_embeddings=131072).save_pretrained(tmp_path)  # Llama 3.1 8B
    assert ran(monkeypatch, "plan", tmp_path, "--device", "cpu", "--free", "24", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["fits"]
    assert facts["total"] == sum(facts[name] for name in ("weights", "quant_state", "kv_cache", "activations"))
    assert ran(monkeypatch, "plan", tmp_path, "--device", "cpu", "--free", "4") == 1
    assert "no setting of this model fits" in capsys.readouterr().out
    assert ran(monkeypatch, "plan", tmp_path, "--device", "cpu", "--free", "12", "--concurrency", "64") == 1
    assert "would fit:" in capsys.readouterr().out
    assert ran(monkeypatch, "plan", tmp_path, "--quantization", "q4") == 2
    assert ran(monkeypatch, "plan", tmp_path, "--free", "much") == 2
    assert "give a number of GiB" in capsys.readouterr().err


def test_a_batch(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = written(tmp_path / "asked.jsonl", [row(i) for i in range(3)])
    command = ["local", "run", asked, "--model", "m", "--base-url", server.url, "--out", tmp_path / "out.jsonl"]
    assert ran(monkeypatch, *command, "--dollars-per-hour", "0.5", "--json") == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["done"], facts["failed"], facts["completion_tokens"]) == (3, 0, 36)
    assert Decimal(facts["dollars"]) > 0
    assert ran(monkeypatch, *command) == 0
    assert "answered   0 rows, 3 were before, 0 failed" in capsys.readouterr().out
    written(asked, ["{broken"])
    assert ran(monkeypatch, *command) == 1
    assert "the first: line 1 is no row of a batch: not JSON" in capsys.readouterr().err
    assert ran(monkeypatch, *command, "--dollars-per-kwh", "cheap") == 2
    assert "is no amount of dollars" in capsys.readouterr().err


def test_a_key_comes_from_the_environment(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[str] = []
    monkeypatch.setattr("tests.openai_server._Handler.parse_request", _watched(seen))
    monkeypatch.setenv("COSTOPT_API_KEY", "sk-ours")
    asked = written(tmp_path / "asked.jsonl", [row(0)])
    command = ["local", "run", asked, "--model", "m", "--base-url", server.url, "--out", tmp_path / "out.jsonl"]
    assert ran(monkeypatch, *command) == 0
    assert seen == ["Bearer sk-ours"]


def _watched(seen: list[str]) -> Any:
    from http.server import BaseHTTPRequestHandler

    def parse_request(self: Any) -> bool:
        parsed = BaseHTTPRequestHandler.parse_request(self)
        if parsed and "Authorization" in self.headers:
            seen.append(self.headers["Authorization"])
        return parsed

    return parse_request


def test_the_audit_reads_the_answers_with_their_cost(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    asked, out = written(tmp_path / "asked.jsonl", [row(i) for i in range(9)]), tmp_path / "out.jsonl"
    command = ["local", "run", asked, "--model", "m", "--base-url", server.url, "--out", out, "--json"]
    samples = ["--gpu-samples", tmp_path / "gpu.jsonl"]
    assert ran(monkeypatch, *command, *samples, "--dollars-per-hour", "36000") == 0
    dollars = float(json.loads(capsys.readouterr().out)["dollars"])
    shares = [float(answer["cost_usd"]) for answer in read(out)]
    assert 0.5 * dollars < sum(shares) <= dollars  # but for what came after the last answer
    found = audit(out, gpu=read_gpu_samples(tmp_path / "gpu.jsonl")).as_dict()
    assert float(found["spend"]["usd"]) == pytest.approx(sum(shares), abs=1e-6)
    assert found["questions"]["gpu"]["local_calls"] == 9
    assert found["questions"]["waiting"]["already"] == 0, "nothing of it went to a provider's batch API"


def test_what_a_run_says_of_its_gpus(
    server: OpenAIServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", driver())
    asked = written(tmp_path / "asked.jsonl", [row(0)])
    command = ["local", "run", asked, "--model", "m", "--base-url", server.url, "--out", tmp_path / "out.jsonl"]
    assert ran(monkeypatch, *command, "--gpu-samples", tmp_path / "gpu.jsonl", "--dollars-per-kwh", "0.3") == 0
    said = capsys.readouterr().out
    assert "GPU        75% busy, 2.0 GiB\nenergy     11 J, " in said
    assert " W, 0.917 J a token\n" in said
    assert " for a million tokens" in said
    assert len(read_gpu_samples(tmp_path / "gpu.jsonl")) >= 4
    monkeypatch.setitem(sys.modules, "pynvml", driver(nvmlDeviceGetCount=lambda: 0))
    assert ran(monkeypatch, *command) == 0
    assert "GPU        not available: there is no GPU\n" in capsys.readouterr().out
