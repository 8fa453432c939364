"""What the GPUs did, and a run's progress in words; the machines that run these tests have no GPU."""

from __future__ import annotations

import time
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from costopt.local.batch_report import BatchProgress
from costopt.local.gpu import GpuMeter


def driver(**changes: Any) -> SimpleNamespace:
    """Two GPUs as NVIDIA's library shows them: there is none on the machines that run these tests."""
    energy = iter([1_000.0, 2_000.0, 5_000.0, 9_000.0])  # mJ, each GPU at the beginning and at the end
    calls: dict[str, Any] = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 2,
        "nvmlDeviceGetHandleByIndex": lambda number: number,
        "nvmlDeviceGetName": lambda handle: f"GPU {handle}".encode(),
        "nvmlDeviceGetUtilizationRates": lambda handle: SimpleNamespace(gpu=50 + 50 * handle),
        "nvmlDeviceGetPowerUsage": lambda handle: 100_000,
        "nvmlDeviceGetMemoryInfo": lambda handle: SimpleNamespace(used=2**30),
        "nvmlDeviceGetTotalEnergyConsumption": lambda handle: next(energy),
    }
    return SimpleNamespace(**{**calls, **changes})


def fails(*_: Any) -> Any:
    raise RuntimeError("Not Supported")


def test_what_the_gpus_did() -> None:
    with GpuMeter(nvml=driver()) as meter:
        assert meter.latest == 0.75
    assert meter.use is not None
    assert (meter.use.names, meter.use.utilisation, meter.use.memory_bytes) == (("GPU 0", "GPU 1"), 0.75, 2**31)
    assert meter.use.joules == 11.0
    assert meter.use.watts == pytest.approx(11.0 / meter.use.seconds)
    assert meter.use.samples >= 2


def test_energy_that_is_not_counted_is_summed_from_power() -> None:
    with GpuMeter(nvml=driver(nvmlDeviceGetTotalEnergyConsumption=fails), interval=0.01) as meter:
        time.sleep(0.05)
    assert meter.use is not None
    assert meter.use.joules == pytest.approx(200 * meter.use.seconds, rel=0.2)


@pytest.mark.parametrize(
    "changes",
    [
        {"nvmlInit": fails},
        {"nvmlDeviceGetHandleByIndex": fails},
        {"nvmlDeviceGetUtilizationRates": fails},
        {"nvmlDeviceGetCount": lambda: 0},
    ],
)
def test_without_a_gpu_it_says_so_and_the_work_goes_on(changes: dict[str, Any]) -> None:
    with GpuMeter(nvml=driver(**changes)) as meter:
        worked = True
    assert worked
    assert meter.use is None
    assert meter.reason.startswith("not available: ")


def test_progress_in_words() -> None:
    progress = BatchProgress(1_000, 200, 1, 99, 5_000, 3_000, 10.0, Decimal("0.0123"), 0.87)
    assert str(progress) == "300 of 1,000 rows, 300 tokens/s, 1 failed, $0.0123, GPU 87%"
