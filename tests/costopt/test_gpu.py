"""What the GPUs did: the machines that run these tests need have none, and then a driver is played."""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.errors import ConfigError
from costopt.gpu import GpuSampler, has_gpu, read_gpu_samples


def driver(**changes: Any) -> SimpleNamespace:
    """Two GPUs as NVIDIA's library shows them."""
    energy = iter([1_000.0, 2_000.0, 5_000.0, 9_000.0])  # mJ, each GPU at the beginning and at the end
    calls: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetName": lambda handle: f"GPU {handle}".encode(),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=50 + 50 * handle),
        "nvmlDeviceGetPowerUsage": lambda handle: 100_000,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=2**30, total=2**32),
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: next(energy),
    }
    return SimpleNamespace(**{**calls, **changes})


def fails(*_: Any) -> Any:
    raise RuntimeError("Not Supported")


def test_what_the_gpus_did() -> None:
    with GpuSampler(nvml=driver()) as sampler:
        assert (sampler.gpus, sampler.latest) == (2, 0.75)
    use = sampler.use
    assert use is not None
    assert (use.names, use.utilisation, use.memory_bytes) == (("GPU 0", "GPU 1"), 0.75, 2**31)
    assert use.joules == 11.0
    assert use.watts == pytest.approx(11.0 / use.seconds)
    assert use.samples >= 2
    assert use.as_dict()["watts"] == use.watts


def test_every_look_is_appended_and_read_back(tmp_path: Path) -> None:
    path = tmp_path / "gpu.jsonl"
    for _ in range(2):
        with GpuSampler(path, every_s=0.01, nvml=driver(nvmlDeviceGetPowerUsage=fails)) as sampler:
            time.sleep(0.02)
        assert sampler.use is not None
    samples = read_gpu_samples(path)
    assert len(samples) >= 8
    assert {(each.gpu, each.utilisation, each.memory, each.memory_bytes) for each in samples} == {
        (0, 0.5, 0.25, 2**30),
        (1, 1.0, 0.25, 2**30),
    }
    assert {each.watts for each in samples} == {None}
    assert [each.time for each in samples] == sorted(each.time for each in samples)


@given(st.lists(st.floats(0, 1_000), min_size=2, max_size=6), st.floats(0.5, 60))
def test_energy_that_is_not_counted_is_summed_from_power(watts: list[float], apart: float) -> None:
    """Against the area under the line through what was drawn, on a clock of our own."""
    drawn, clock = iter(watts * 2), _Clock(apart)
    one = driver(
        nvmlDeviceGetCount=lambda: 1,
        nvmlDeviceGetTotalEnergyConsumption=fails,
        nvmlDeviceGetPowerUsage=lambda _: next(drawn) * 1_000,
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("costopt.gpu.time", clock)
        with GpuSampler(nvml=one, every_s=1_000) as sampler:
            for _ in watts[2:]:
                sampler._look()
    assert sampler.use is not None
    area = sum((a + b) / 2 * apart for a, b in itertools.pairwise(watts))
    assert sampler.use.joules == pytest.approx(area)


class _Clock:
    """Goes on by so much at every look at a GPU."""

    def __init__(self, apart: float) -> None:
        self._apart, self._now = apart, 0.0

    def time(self) -> float:
        self._now += self._apart
        return self._now

    def monotonic(self) -> float:
        return self._now


@pytest.mark.parametrize(
    "changes",
    [
        {"nvmlInit": fails},
        {"nvmlDeviceGetHandleByIndex": fails},
        {"nvmlDeviceGetUtilizationRates": fails},
        {"nvmlDeviceGetCount": lambda: 0},
        {"nvmlDeviceGetCount": fails},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_without_a_gpu_it_says_so_and_the_work_goes_on(changes: dict[str, Any], tmp_path: Path) -> None:
    with GpuSampler(tmp_path / "gpu.jsonl", nvml=driver(**changes)) as sampler:
        worked = True
    assert worked
    assert sampler.use is None
    assert sampler.reason.startswith("not available: ")
    assert not (tmp_path / "gpu.jsonl").exists() or not read_gpu_samples(tmp_path / "gpu.jsonl")
    assert has_gpu(driver(**changes)) == (sampler.gpus > 0 or "nvmlDeviceGetHandleByIndex" in changes)


def test_a_gpu_that_fell_off_leaves_the_others() -> None:
    looks: Iterator[int] = iter(range(100))

    def rates(handle: int) -> Any:
        return SimpleNamespace(gpu=40) if handle == 0 or next(looks) < 1 else fails()

    with GpuSampler(nvml=driver(nvmlDeviceGetUtilizationRates=rates), every_s=0.01) as sampler:
        time.sleep(0.02)
    assert sampler.use is not None
    assert sampler.use.utilisation == pytest.approx(0.4)


def test_neither_energy_nor_power() -> None:
    silent = driver(nvmlDeviceGetPowerUsage=fails, nvmlDeviceGetTotalEnergyConsumption=fails)
    with GpuSampler(nvml=silent) as sampler:
        pass
    assert sampler.use is not None
    assert (sampler.use.joules, sampler.use.watts) == (None, None)


def test_a_folder_that_cannot_be_written_harms_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "costopt")
    with GpuSampler(tmp_path / "none" / "gpu.jsonl", every_s=0.01, nvml=driver()) as sampler:
        time.sleep(0.02)
    assert sampler.use is not None
    assert len(caplog.records) == 1


def test_what_is_no_sample_is_told_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "gpu.jsonl").write_text('{"time": 1, "gpu": 0, "utilisation": 0.5, "memory": 0.1}\n{"time": 2}\n')
    with pytest.raises(ConfigError, match="line 2: a sample is"):
        read_gpu_samples(tmp_path / "gpu.jsonl")


@pytest.mark.parametrize("every_s", [0, -1, float("nan")])
def test_an_interval_must_be_above_zero(every_s: float) -> None:
    with pytest.raises(ConfigError, match="seconds above 0"):
        GpuSampler("x", every_s=every_s)
