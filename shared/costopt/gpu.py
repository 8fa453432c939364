"""What the GPUs did meanwhile: utilisation, power, memory and energy, as NVIDIA's driver measures them."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self, TextIO

from costopt.errors import ConfigError
from costopt.jsonl import read_jsonl

__all__ = ["GpuSample", "GpuSampler", "GpuUse", "has_gpu", "read_gpu_samples"]

_log = logging.getLogger("costopt.gpu")
_TOLD = ("time", "gpu", "utilisation", "memory")


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look at one GPU.

    Attributes:
        time: Seconds since 1970.
        gpu: Its number.
        utilisation: Share of the last moment in which it computed, in [0, 1].
        memory: Share of its memory that was in use, in [0, 1], by whatever program.
        memory_bytes: How much that was.
        watts: What it drew; None of one that does not tell.
    """

    time: float
    gpu: int
    utilisation: float
    memory: float
    memory_bytes: int = 0
    watts: float | None = None


@dataclass(frozen=True, slots=True)
class GpuUse:
    """What the GPUs did while they were watched.

    Attributes:
        names: Of the GPUs.
        seconds: For how long.
        utilisation: Share of the time in which a GPU did anything, in [0, 1]; the mean over GPUs and looks.
        memory_bytes: In use on all of them together, at the most.
        joules: Of energy, all of them together; None where the driver tells neither energy nor power.
        samples: How often was looked.
    """

    names: tuple[str, ...]
    seconds: float
    utilisation: float
    memory_bytes: int
    joules: float | None
    samples: int

    @property
    def watts(self) -> float | None:
        """Of all of them together, on average."""
        return None if self.joules is None or self.seconds <= 0 else self.joules / self.seconds

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return {**asdict(self), "watts": self.watts}


class GpuSampler:
    """Looks at the GPUs again and again from a thread of its own, for the length of a `with` block.

    Without a GPU, a driver or the extra `gpu` it does nothing, and says why.

    Args:
        path: A file to which every look is appended as JSON lines, for `costopt audit --gpu`; None: none.
        devices: Which GPUs, by number; None: all.
        every_s: Seconds between two looks.
        nvml: What stands for the module `pynvml` of the package nvidia-ml-py, for tests.

    Attributes:
        use: What the GPUs did; None before the block has ended, and where that is not available.
        reason: Why it is not; empty if it is.
        gpus: How many are looked at.

    Raises:
        ConfigError: If `every_s` is not above 0.

    Example:
        >>> with GpuSampler(tmp / "gpu.jsonl") as sampler:
        ...     _ = sum(range(1_000))  # run a batch on a local model here
        >>> sampler.use is not None or sampler.reason.startswith("not available")
        True
    """

    use: GpuUse | None
    reason: str
    gpus: int
    _driver: Any
    _handles: dict[int, Any]
    _file: TextIO | None
    _thread: threading.Thread | None

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        devices: Sequence[int] | None = None,
        every_s: float = 0.5,
        nvml: Any = None,
    ) -> None:
        if not every_s > 0:
            raise ConfigError(f"every_s={every_s}: give seconds above 0")
        self._path = None if path is None else Path(path)
        self._devices, self._every_s, self._nvml = devices, every_s, nvml
        self._clear()

    def __enter__(self) -> Self:
        self._clear()
        driver, self.reason = _started(self._nvml)
        if driver is None:
            return self
        self._driver = driver
        try:
            numbers = range(driver.nvmlDeviceGetCount()) if self._devices is None else self._devices
            self._handles = {number: driver.nvmlDeviceGetHandleByIndex(number) for number in numbers}
            self._names = tuple(_text(driver.nvmlDeviceGetName(handle)) for handle in self._handles.values())
        except Exception as error:  # of the driver, whatever it is: watching must not stop the work
            self._handles, self.reason = {}, f"not available: {error}"
        if not self._handles:
            self.reason = self.reason or "not available: there is no GPU"
            return self
        self.gpus = len(self._handles)
        self._file = self._opened()
        self._began, self._counted = time.monotonic(), self._energy()
        self._look()
        self._thread = threading.Thread(target=self._watch, name="costopt-gpu", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._driver is None:
            return
        if self._thread is not None:
            self._ended.set()
            self._thread.join()
            self._look()
            self.use = self._summed(time.monotonic() - self._began)
        if self._file is not None:
            self._file.close()
        _ended(self._driver)

    @property
    def latest(self) -> float | None:
        """Utilisation at the last look, in [0, 1]; None without a GPU."""
        return self._totals.latest

    @property
    def joules(self) -> float | None:
        """Energy up to the last look, summed from power; None where that is not told."""
        return self._totals.joules if self._totals.looks else None

    def _clear(self) -> None:
        self.use, self.reason, self.gpus = None, "", 0
        self._driver, self._handles = None, {}
        self._file = self._thread = None
        self._ended = threading.Event()
        self._totals = _Totals()

    def _opened(self) -> TextIO | None:
        try:
            return None if self._path is None else self._path.open("a", encoding="utf-8")
        except OSError as error:
            _log.warning("what the GPUs do is not written: %s", error)
            return None

    def _watch(self) -> None:
        while not self._ended.wait(self._every_s):
            self._look()

    def _look(self) -> None:
        now = time.time()
        samples = []
        for number, handle in self._handles.items():
            try:
                samples.append(_looked_at(self._driver, now, number, handle))
            except Exception as error:  # one that fell off the bus, or a slice of one, which does not tell
                self._totals.failed = str(error)
        if samples:
            self._totals.add(time.monotonic(), samples)
            self._write(samples)

    def _write(self, samples: Sequence[GpuSample]) -> None:
        if self._file is None:
            return
        try:
            self._file.writelines(json.dumps(asdict(sample)) + "\n" for sample in samples)
            self._file.flush()
        except OSError as error:  # the disk is full
            _log.warning("what the GPUs do is not written any more: %s", error)
            self._file = None

    def _energy(self) -> float | None:
        """Joules since the driver was loaded; None of GPUs that do not count them."""
        try:
            counted = [float(self._driver.nvmlDeviceGetTotalEnergyConsumption(each)) for each in self._handles.values()]
        except Exception:
            return None
        return sum(counted) / 1_000

    def _summed(self, seconds: float) -> GpuUse | None:
        totals, end = self._totals, self._energy()
        if not totals.samples:
            self.reason = f"not available: {totals.failed}"
            return None
        counted = None if end is None or self._counted is None else end - self._counted
        return GpuUse(
            names=self._names,
            seconds=seconds,
            utilisation=totals.utilisation / totals.samples,
            memory_bytes=totals.memory_bytes,
            joules=counted if counted is not None else totals.joules,
            samples=totals.looks,
        )


@dataclass(slots=True)
class _Totals:
    """Of all looks: a run of days is not kept look by look."""

    looks: int = 0
    samples: int = 0
    utilisation: float = 0.0
    memory_bytes: int = 0
    joules: float | None = 0.0
    latest: float | None = None
    failed: str = ""
    _before: tuple[float, float] | None = None

    def add(self, now: float, samples: Sequence[GpuSample]) -> None:
        busy = sum(sample.utilisation for sample in samples)
        self.looks += 1
        self.samples += len(samples)
        self.utilisation += busy
        self.latest = busy / len(samples)
        self.memory_bytes = max(self.memory_bytes, sum(sample.memory_bytes for sample in samples))
        told = [sample.watts for sample in samples if sample.watts is not None]
        if self.joules is None or len(told) < len(samples):
            self.joules = None
            return
        watts = sum(told)
        if self._before is not None:
            then, drawn = self._before
            self.joules += (watts + drawn) / 2 * (now - then)
        self._before = now, watts


def has_gpu(nvml: Any = None) -> bool:
    """Whether there is a GPU that can be looked at.

    Example:
        >>> has_gpu() in (True, False)
        True
    """
    driver, _ = _started(nvml)
    if driver is None:
        return False
    try:
        return bool(driver.nvmlDeviceGetCount())
    except Exception:
        return False
    finally:
        _ended(driver)


def read_gpu_samples(path: str | Path) -> list[GpuSample]:
    """What a `GpuSampler` wrote.

    Raises:
        ConfigError: If the file cannot be read, or a line is no sample.

    Example:
        >>> _ = (tmp / "gpu.jsonl").write_text('{"time": 1, "gpu": 0, "utilisation": 0.5, "memory": 0.1}')
        >>> read_gpu_samples(tmp / "gpu.jsonl")[0].utilisation
        0.5
    """
    found = []
    for number, row in read_jsonl(path):
        try:
            at, gpu, utilisation, memory = (float(row[name]) for name in _TOLD)
            watts = row.get("watts")
            more = int(row.get("memory_bytes") or 0), None if watts is None else float(watts)
        except (KeyError, OverflowError, TypeError, ValueError):
            told = ", ".join(f'"{name}"' for name in _TOLD)
            raise ConfigError(
                f"{path}, line {number}: a sample is {{{told}}}, as GpuSampler writes; take the line out"
            ) from None
        found.append(GpuSample(at, int(gpu), utilisation, memory, *more))
    return found


def _started(nvml: Any) -> tuple[Any, str]:
    """The driver's library, ready to be asked; else None and why."""
    try:
        driver = nvml if nvml is not None else import_module("pynvml")
        driver.nvmlInit()
    except ImportError:
        return None, "not available: nvidia-ml-py is not installed (pip install costopt[gpu])"
    except Exception as error:
        return None, f"not available: {error}"
    return driver, ""


def _ended(driver: Any) -> None:
    try:
        driver.nvmlShutdown()
    except Exception as error:
        _log.debug("the driver's library could not be ended: %s", error)


def _looked_at(driver: Any, now: float, number: int, handle: Any) -> GpuSample:
    busy = driver.nvmlDeviceGetUtilizationRates(handle).gpu / 100
    memory = driver.nvmlDeviceGetMemoryInfo(handle)
    try:
        watts = driver.nvmlDeviceGetPowerUsage(handle) / 1_000
    except Exception:  # virtual ones do not tell
        watts = None
    return GpuSample(now, number, busy, memory.used / max(1, memory.total), int(memory.used), watts)


def _text(name: str | bytes) -> str:
    return name.decode() if isinstance(name, bytes) else name
