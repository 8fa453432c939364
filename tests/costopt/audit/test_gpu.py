"""GPUs are looked at once a second; without one nothing happens."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from costopt.audit.gpu import GpuSample, GpuSampler, gpu_use, read_gpu_samples
from costopt.audit.report import audit
from costopt.errors import ConfigError
from tests.costopt.audit.rows import START, asked, write


def nvml(gpus: int, busy: int = 40) -> Any:
    """What pynvml answers on a machine with so many GPUs."""
    return SimpleNamespace(
        nvmlInit=lambda: None,
        nvmlShutdown=lambda: None,
        nvmlDeviceGetCount=lambda: gpus,
        nvmlDeviceGetHandleByIndex=lambda number: number,
        nvmlDeviceGetUtilizationRates=lambda number: SimpleNamespace(gpu=busy + number),
        nvmlDeviceGetMemoryInfo=lambda number: SimpleNamespace(used=1, total=4),
    )


def test_every_gpu_is_sampled_while_it_is_open(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    with GpuSampler(path, every_s=0.01, nvml=nvml(2)) as sampler:
        assert sampler.gpus == 2
        for _ in range(500):
            if path.exists() and len(path.read_text().splitlines()) >= 6:
                break
            time.sleep(0.01)
    samples = read_gpu_samples(path)
    assert {sample.gpu for sample in samples} == {0, 1}
    assert {sample.utilisation for sample in samples} == {0.40, 0.41}
    assert {sample.memory for sample in samples} == {0.25}


@pytest.mark.parametrize("broken", [SimpleNamespace(), nvml(0), SimpleNamespace(nvmlInit=lambda: 1 / 0)])
def test_without_a_gpu_nothing_is_written(tmp_path: Path, broken: Any) -> None:
    path = tmp_path / "gpu.jsonl"
    with GpuSampler(path, nvml=broken) as sampler:
        assert sampler.gpus == 0
    assert not path.exists()
    assert gpu_use(None, [], nvml=broken).status == "no GPU"


def test_a_gpu_that_nobody_sampled_is_not_no_gpu() -> None:
    assert gpu_use(None, [], nvml=nvml(1)).status == "not sampled"
    assert gpu_use([], []).status == "not sampled"


def test_a_folder_that_cannot_be_written_harms_nobody(tmp_path: Path) -> None:
    with GpuSampler(tmp_path / "none" / "gpu.jsonl", every_s=0.01, nvml=nvml(1)) as sampler:
        assert sampler.gpus == 1


def test_only_what_was_sampled_during_local_calls_counts(tmp_path: Path) -> None:
    local = {"provider": "local", "model": "my-own", "latency_s": 10.0}
    path = write(tmp_path / "log.jsonl", [asked("a", at=START, **local), asked("b", at=START + 5, **local)])
    samples = [GpuSample(START + i, 0, 1.0 if i <= 15 else 0.0, 0.5) for i in range(100)]
    found = audit(path, gpu=samples).questions.gpu
    assert (found["status"], found["samples"], found["utilisation"]) == ("measured", 16, 1.0)
    assert found["local_calls"] == 2


def test_what_is_no_sample_is_told_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "gpu.jsonl").write_text('{"time": 1, "gpu": 0, "utilisation": 0.5, "memory": 0.1}\n{"time": 2}\n')
    with pytest.raises(ConfigError, match="line 2: a sample is"):
        read_gpu_samples(tmp_path / "gpu.jsonl")


def test_an_interval_must_be_above_zero() -> None:
    with pytest.raises(ConfigError, match="seconds above 0"):
        GpuSampler("x", every_s=0)
