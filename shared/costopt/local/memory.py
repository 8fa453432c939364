"""How much memory is free for a model: on a GPU, or on the CPU within what this process may have."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from costopt.errors import ConfigError

__all__ = ["default_device", "free_bytes", "repacks_weights"]

_CGROUP = Path("/sys/fs/cgroup")
_UNLIMITED = 2**60  # what version 1 of control groups says when there is no limit


def default_device() -> str:
    """The device that a model goes to if nobody says: the first GPU there is, else the CPU.

    Example:
        >>> default_device() in ("cuda", "mps", "xpu", "cpu")
        True
    """
    import torch

    if torch.accelerator.is_available():
        found = torch.accelerator.current_accelerator()
        return found.type if found is not None else "cpu"
    return "cpu"


def free_bytes(device: str) -> int:
    """Bytes that a model could have on `device` now; on a CPU, pages of files that can be dropped count as free.

    Raises:
        ConfigError: If there is no such device.

    Example:
        >>> free_bytes("cpu") > 0
        True
    """
    import torch

    try:
        place = torch.device(device)
    except RuntimeError:
        raise ConfigError(f'device={device!r}: use "cpu", or a GPU such as "cuda" or "cuda:1"') from None
    if place.type == "cuda":
        if not torch.cuda.is_available() or (place.index or 0) >= torch.cuda.device_count():
            raise ConfigError(f'device={device!r}: torch {torch.__version__} sees no such GPU; use device="cpu"')
        return int(torch.cuda.mem_get_info(place)[0])
    # An integrated GPU such as Apple's shares the memory of the machine.
    return min(_available(), *_limits())


def repacks_weights(device: str) -> bool:
    """Whether bitsandbytes keeps four-bit weights on this device as its kernel for AVX512-BF16 has them."""
    import torch

    if torch.device(device).type != "cpu":
        return False
    told: Any = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return bool(told()) if told is not None else False


def _available() -> int:
    try:
        lines = Path("/proc/meminfo").read_text("ascii").splitlines()
    except OSError:
        import psutil

        return int(psutil.virtual_memory().available)
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))


def _limits() -> Iterator[int]:
    """What the control groups of a container leave; nothing is known of them on other systems than Linux."""
    yield sys.maxsize
    for limit, used, files in (
        ("memory.max", "memory.current", "inactive_file"),
        ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "total_inactive_file"),
    ):
        try:
            most, now = (int((_CGROUP / name).read_text()) for name in (limit, used))
            counts = (_CGROUP / limit).with_name("memory.stat").read_text().splitlines()
        except (OSError, ValueError):  # no such group; or "max"
            continue
        if most < _UNLIMITED:
            cached = next((int(line.split()[1]) for line in counts if line.startswith(f"{files} ")), 0)
            yield max(0, most - now + cached)
