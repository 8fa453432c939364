"""The findings as Markdown, and where and when they were made."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

__all__ = ["machine", "markdown"]

_PACKAGES = (
    "redis", "redisvl", "langchain-redis", "langchain-core", "usearch", "torch", "sentence-transformers", "numpy",
)  # fmt: skip


def machine(data: Path | None) -> dict[str, str]:
    """What the figures depend on."""
    return {
        "commit": _commit(),
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "versions": ", ".join([*(f"{name} {version(name)}" for name in _PACKAGES), _server()]),
        "data": "absent" if data is None else "COSTOPT_DATA",
        "load average": " ".join(f"{load:.2f}" for load in os.getloadavg()),
    }


def markdown(
    command: str, facts: Mapping[str, str], sections: Sequence[tuple[str, Mapping[str, Any]]], note: str
) -> str:
    """The whole report."""
    bars = [bar for _, found in sections for bar in found["bars"]]
    lines = ["# Benchmarks", "", f"Written by `{command}`; every figure is from this one run. {note}".rstrip(), ""]
    lines += [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", f"## Demands: {sum(bar['holds'] for bar in bars)} of {len(bars)} hold", ""]
    lines += _grid(("demand", "figure", "bar", ""), (_bar(bar) for bar in bars))
    for title, found in sections:
        lines += ["", f"## {title}", ""]
        for table in found["tables"]:
            lines += [f"**{table['title']}**", "", *_grid(table["columns"], table["rows"]), ""]
        lines += [f"- {remark}" for remark in found["notes"]]
    return "\n".join(lines) + "\n"


def _bar(bar: Mapping[str, Any]) -> list[str]:
    figure = bar["figure"]
    shown = f"{figure:,.0f}" if abs(figure) >= 100 or float(figure).is_integer() else f"{figure:.4g}"
    holds = "holds" if bar["holds"] else "**does not hold**"
    return [bar["demand"], f"{shown}{bar['unit']}", bar["bar"], holds]


def _grid(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    cells = [columns, ["---"] * len(columns), *rows]
    return ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in cells]


def _commit() -> str:
    folder = Path(__file__).parent
    name = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=folder, capture_output=True, text=True).stdout
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=folder, capture_output=True, text=True).stdout
    return name.strip() + (" and uncommitted changes" if changed.strip() else "")


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _server() -> str:
    import redis

    from tests.servers import RedisServer

    with RedisServer() as server, redis.Redis.from_url(server.url, protocol=2, decode_responses=True) as client:
        info: Any = client.info("server")
        modules: Any = client.execute_command("MODULE LIST")
    loaded = [dict(zip(m[::2], m[1::2], strict=True)) if isinstance(m, list) else m for m in modules]
    names = ", ".join(f"{m['name']} {m['ver']}" for m in loaded)
    return f"redis-server {info['redis_version']} with {names}"
