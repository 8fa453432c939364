"""What the GPUs did meanwhile: utilisation, power, memory and energy, as NVIDIA's driver measures them."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import TracebackType
from typing import Any, Self

__all__ = ["GpuMeter", "GpuUse"]


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What the GPUs did while they were watched.

    Attributes:
        names: Of the GPUs.
        seconds: For how long.
        utilisation: Share of the time in which a GPU did anything, in [0, 1]; the mean over GPUs and samples.
        watts: Of all of them together, on average.
        memory_bytes: In use on all of them together, at the most, by whatever program.
        joules: Of energy, all of them together.
        samples: How often was looked.
    """

    names: tuple[str, ...]
    seconds: float
    utilisation: float
    watts: float
    memory_bytes: int
    joules: float
    samples: int

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


class GpuMeter:
    """Watches the GPUs of a machine for the length of a `with` block; without any it says why there is nothing to see.

    Args:
        devices: Which GPUs, by number; None: all.
        interval: Seconds between two looks.
        nvml: The module `pynvml`, or one like it; None imports it.

    Example:
        >>> with GpuMeter() as meter:
        ...     _ = sum(range(1_000))
        >>> meter.use is not None or meter.reason.startswith("not available")
        True
    """

    def __init__(self, devices: Sequence[int] | None = None, *, interval: float = 0.5, nvml: Any = None) -> None:
        self.use: GpuUse | None = None
        self.reason = ""
        self._devices, self._interval, self._nvml = devices, interval, nvml
        self._samples: list[_Sample] = []
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self.use, self.reason, self._samples, self._thread = None, "", [], None
        self._ended.clear()
        try:
            if self._nvml is None:
                import pynvml

                self._nvml = pynvml
            self._nvml.nvmlInit()
        except ImportError:
            self.reason = "not available: nvidia-ml-py is not installed"
            return self
        except Exception as error:  # of the driver, whatever it is: watching must not stop the work
            self.reason = f"not available: {error}"
            return self
        try:
            self._handles = [self._nvml.nvmlDeviceGetHandleByIndex(number) for number in self._numbers()]
            self._names = tuple(_text(self._nvml.nvmlDeviceGetName(handle)) for handle in self._handles)
        except Exception as error:
            self._handles, self.reason = [], f"not available: {error}"
        if self._handles:
            self._began = time.monotonic()
            self._start_energy = self._energy()
            self._look()
            self._thread = threading.Thread(target=self._watch, name="costopt-gpu", daemon=True)
            self._thread.start()
        else:
            self.reason = self.reason or "not available: there is no GPU"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._look()
            self.use = self._summed(time.monotonic() - self._began)
        if not self.reason:
            self._nvml.nvmlShutdown()

    @property
    def latest(self) -> float | None:
        """Utilisation at the last look, in [0, 1]; None without a GPU."""
        return self._samples[-1].utilisation if self._samples else None

    def _numbers(self) -> Sequence[int]:
        return range(self._nvml.nvmlDeviceGetCount()) if self._devices is None else self._devices

    def _watch(self) -> None:
        while not self._ended.wait(self._interval):
            self._look()

    def _look(self) -> None:
        try:
            busy = [self._nvml.nvmlDeviceGetUtilizationRates(handle).gpu / 100 for handle in self._handles]
            power = [self._nvml.nvmlDeviceGetPowerUsage(handle) / 1_000 for handle in self._handles]
            memory = [self._nvml.nvmlDeviceGetMemoryInfo(handle).used for handle in self._handles]
        except Exception as error:  # a GPU that fell off, or a virtual one that does not tell
            self._ended.set()
            self.reason = f"not available: {error}"
            return
        self._samples.append(_Sample(time.monotonic(), sum(busy) / len(busy), sum(power), int(sum(memory))))

    def _energy(self) -> float | None:
        """Joules since the driver was loaded; None of GPUs that do not count them."""
        try:
            return sum(float(self._nvml.nvmlDeviceGetTotalEnergyConsumption(each)) for each in self._handles) / 1_000
        except Exception:
            return None

    def _summed(self, seconds: float) -> GpuUse | None:
        if self.reason:
            return None
        samples, end = self._samples, self._energy()
        counted = None if end is None or self._start_energy is None else end - self._start_energy
        drawn = sum((b.watts + a.watts) / 2 * (b.at - a.at) for a, b in pairwise(samples))
        joules = counted if counted is not None else drawn
        return GpuUse(
            names=self._names,
            seconds=seconds,
            utilisation=sum(sample.utilisation for sample in samples) / len(samples),
            watts=joules / seconds if seconds > 0 else samples[-1].watts,
            memory_bytes=max(sample.memory for sample in samples),
            joules=joules,
            samples=len(samples),
        )


@dataclass(frozen=True, slots=True)
class _Sample:
    at: float
    utilisation: float
    watts: float
    memory: int


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
