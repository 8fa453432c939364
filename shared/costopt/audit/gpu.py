"""How busy the GPUs were while local models ran: sampled once a second, written as JSON lines."""

from __future__ import annotations

import json
import threading
import time
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Self

from costopt.errors import ConfigError
from costopt.jsonl import read_jsonl

__all__ = ["GpuSample", "GpuSampler", "GpuUse", "gpu_use", "read_gpu_samples"]


@dataclass(frozen=True, slots=True)
class GpuSample:
    """One look at one GPU.

    Attributes:
        time: Seconds since 1970.
        gpu: Its number.
        utilisation: Share of the last moment in which it computed, in [0, 1].
        memory: Share of its memory that was in use, in [0, 1].
    """

    time: float
    gpu: int
    utilisation: float
    memory: float


@dataclass(frozen=True, slots=True)
class GpuUse:
    """How busy the GPUs were.

    Attributes:
        status: "measured", "no GPU" or "not sampled".
        samples: How many looks there were at times when a local model ran (all, if the log has no local calls).
        utilisation: Their mean, in [0, 1]; None without samples.
        memory: Likewise.
    """

    status: str
    samples: int = 0
    utilisation: float | None = None
    memory: float | None = None


class GpuSampler:
    """Looks at every GPU once a second from a thread of its own, while it is open; needs the extra `gpu`.

    Without a GPU, or without that package, it does nothing.

    Args:
        path: The file that samples are appended to.
        every_s: Seconds between two looks.
        nvml: What stands for the module `pynvml` (of the package nvidia-ml-py), for tests.

    Example:
        >>> with GpuSampler(tmp / "gpu.jsonl") as sampler:
        ...     pass  # run a batch on a local model here
        >>> sampler.gpus in range(100)
        True
    """

    def __init__(self, path: str | Path, *, every_s: float = 1.0, nvml: Any = None) -> None:
        if every_s <= 0:
            raise ConfigError(f"every_s={every_s}: give seconds above 0")
        self._path = Path(path)
        self._every_s = every_s
        self._nvml = nvml
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self.gpus = 0

    def __enter__(self) -> Self:
        handles = self.look_for()
        if handles:
            self._thread = threading.Thread(target=self._run, args=(handles,), name="costopt-gpu", daemon=True)
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5.0)
        if self.gpus:
            with suppress(Exception):
                self._nvml.nvmlShutdown()

    def look_for(self) -> list[Any]:
        """The handles of all GPUs; none without the package, the driver or a GPU."""
        handles = []
        with suppress(Exception):
            self._nvml = self._nvml or import_module("pynvml")
            self._nvml.nvmlInit()
            handles = [self._nvml.nvmlDeviceGetHandleByIndex(i) for i in range(self._nvml.nvmlDeviceGetCount())]
        self.gpus = len(handles)
        return handles

    def _run(self, handles: Sequence[Any]) -> None:
        with suppress(OSError), self._path.open("a", encoding="utf-8") as file:
            while True:
                for sample in self._look(handles):
                    file.write(json.dumps({name: getattr(sample, name) for name in GpuSample.__slots__}) + "\n")
                file.flush()
                if self._stop.wait(self._every_s):
                    return

    def _look(self, handles: Sequence[Any]) -> Iterator[GpuSample]:
        now = time.time()
        for number, handle in enumerate(handles):
            with suppress(Exception):  # a GPU may fall off the bus
                rates, memory = (
                    self._nvml.nvmlDeviceGetUtilizationRates(handle),
                    self._nvml.nvmlDeviceGetMemoryInfo(handle),
                )
                yield GpuSample(now, number, rates.gpu / 100, memory.used / max(1, memory.total))


def read_gpu_samples(path: str | Path) -> list[GpuSample]:
    """What a `GpuSampler` wrote.

    Raises:
        ConfigError: If the file cannot be read, or a line is no sample.
    """
    found = []
    for number, row in read_jsonl(path):
        try:
            values = [float(row[name]) for name in GpuSample.__slots__]
        except (KeyError, TypeError, ValueError):
            raise ConfigError(
                f'{path}, line {number}: a sample is {{"time", "gpu", "utilisation", "memory"}}, as GpuSampler writes'
            ) from None
        found.append(GpuSample(values[0], int(values[1]), values[2], values[3]))
    return found


def gpu_use(samples: Sequence[GpuSample] | None, busy: Sequence[tuple[float, float]], *, nvml: Any = None) -> GpuUse:
    """How busy the GPUs were while local models ran.

    Args:
        samples: What was sampled; None: nothing was.
        busy: When local calls ran, as (start, end); all samples count if there are none.
        nvml: As in `GpuSampler`; asked whether there is a GPU at all if nothing was sampled.

    Example:
        >>> gpu_use([GpuSample(5.0, 0, 0.5, 0.2), GpuSample(50.0, 0, 1.0, 0.2)], [(0.0, 10.0)]).utilisation
        0.5
    """
    if samples is None:
        return GpuUse("not sampled" if GpuSampler("", nvml=nvml).look_for() else "no GPU")
    starts, ends = _merged(busy)
    inside = [each for each in samples if not busy or _within(each.time, starts, ends)]
    if not inside:
        return GpuUse("not sampled")
    count = len(inside)
    return GpuUse(
        "measured", count, sum(each.utilisation for each in inside) / count, sum(each.memory for each in inside) / count
    )


def _merged(busy: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """The times in which any of them ran, as starts and ends."""
    starts, ends = list[float](), list[float]()
    for start, end in sorted(busy):
        if ends and start <= ends[-1]:
            ends[-1] = max(ends[-1], end)
        else:
            starts.append(start)
            ends.append(end)
    return starts, ends


def _within(moment: float, starts: Sequence[float], ends: Sequence[float]) -> bool:
    place = bisect_right(starts, moment) - 1
    return place >= 0 and moment <= ends[place]
