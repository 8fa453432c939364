"""How busy the GPUs were while local models ran."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from costopt.audit.gpu import gpu_load
from costopt.audit.report import audit
from costopt.gpu import GpuSample
from tests.costopt.audit.rows import START, asked, write


def nvml(gpus: int) -> Any:
    """What pynvml answers on a machine with so many GPUs."""
    return SimpleNamespace(nvmlInit=lambda: None, nvmlShutdown=lambda: None, nvmlDeviceGetCount=lambda: gpus)


@pytest.mark.parametrize("broken", [SimpleNamespace(), nvml(0), SimpleNamespace(nvmlInit=lambda: 1 / 0)])
def test_without_a_gpu_there_is_none(broken: Any) -> None:
    assert gpu_load(None, [], nvml=broken).status == "no GPU"


def test_a_gpu_that_nobody_sampled_is_not_no_gpu() -> None:
    assert gpu_load(None, [], nvml=nvml(1)).status == "not sampled"
    assert gpu_load([], []).status == "not sampled"


def test_only_what_was_sampled_during_local_calls_counts(tmp_path: Path) -> None:
    local = {"provider": "local", "model": "my-own", "latency_s": 10.0}
    path = write(tmp_path / "log.jsonl", [asked("a", at=START, **local), asked("b", at=START + 5, **local)])
    samples = [GpuSample(START + i, 0, 1.0 if i <= 15 else 0.0, 0.5) for i in range(100)]
    found = audit(path, gpu=samples).questions.gpu
    assert (found["status"], found["samples"], found["utilisation"]) == ("measured", 16, 1.0)
    assert found["local_calls"] == 2
