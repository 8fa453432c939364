"""How busy the GPUs were while local models ran."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from costopt.gpu import GpuSample, has_gpu

__all__ = ["GpuLoad", "gpu_load"]


@dataclass(frozen=True, slots=True)
class GpuLoad:
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


def gpu_load(samples: Sequence[GpuSample] | None, busy: Sequence[tuple[float, float]], *, nvml: Any = None) -> GpuLoad:
    """How busy the GPUs were while local models ran.

    Args:
        samples: What was sampled; None: nothing was.
        busy: When local calls ran, as (start, end); all samples count if there are none.
        nvml: As in `costopt.gpu.GpuSampler`; asked whether there is a GPU at all if nothing was sampled.

    Example:
        >>> from costopt.gpu import GpuSample
        >>> gpu_load([GpuSample(5.0, 0, 0.5, 0.2), GpuSample(50.0, 0, 1.0, 0.2)], [(0.0, 10.0)]).utilisation
        0.5
    """
    if samples is None:
        return GpuLoad("not sampled" if has_gpu(nvml) else "no GPU")
    starts, ends = _merged(busy)
    inside = [each for each in samples if not busy or _within(each.time, starts, ends)]
    if not inside:
        return GpuLoad("not sampled")
    count = len(inside)
    return GpuLoad(
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
