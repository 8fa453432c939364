"""The findings as Markdown, and where and when they were made."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from cookbook.benchmarks.savings import savings

__all__ = ["machine", "markdown", "measured"]

_PACKAGES = (
    "redis", "redisvl", "langchain-redis", "langchain-core", "llama-index-core", "usearch", "torch", "transformers",
    "bitsandbytes", "sentence-transformers", "llmlingua", "numpy",
)  # fmt: skip


Record = Mapping[str, Any]
"""One measured section: name, title, command, commit, date, load, seconds, machine, found."""


def machine(data: Path | None) -> dict[str, str]:
    """What the figures depend on, but for the code."""
    return {
        "processor": f"{_processor()}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB",
        "system": f"{platform.platform()}, Python {platform.python_version()}",
        "versions": ", ".join([*(f"{name} {version(name)}" for name in _PACKAGES), _server()]),
        "data": "absent" if data is None else "COSTOPT_DATA",
    }


def measured(name: str, title: str, command: str, facts: Mapping[str, str], run: Callable[[], Any]) -> dict[str, Any]:
    """Run one section, and keep where and when that was beside what it found."""
    before, started = os.getloadavg(), time.monotonic()
    commit, date = _commit(), time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    found = run()
    return {
        "name": name,
        "title": title,
        "command": command,
        "commit": commit,
        "date": date,
        "load": f"{before[0]:.2f} before, {os.getloadavg()[0]:.2f} after",
        "seconds": round(time.monotonic() - started),
        "machine": dict(facts),
        "found": found,
    }


def markdown(records: Sequence[Record], note: str = "", pictures: Sequence[tuple[str, str]] = ()) -> str:
    """The whole report: the table of savings first, then the demands, then the sections.

    Args:
        records: The sections.
        note: Said in the first lines.
        pictures: Title and file of each plot.
    """
    usual = max(records, key=lambda record: str(record["date"]))["machine"]
    bars = [bar for record in records for bar in record["found"]["bars"]]
    lines = ["# Benchmarks", ""]
    lines.append(
        "Written by `python -m cookbook.benchmarks`, plots and all; `make bench` measures everything, `--only` one "
        "section, `--draw` nothing. Every figure of a section is from one run of it, by the command and at the commit "
        f"that it names. {note}"
    )
    lines += ["", *(f"- {name}: {value}" for name, value in usual.items())]
    lines += _promised({record["name"]: record for record in records}, pictures)
    lines += ["", f"## Demands: {sum(bar['holds'] for bar in bars)} of {len(bars)} hold", ""]
    lines += _grid(("demand", "figure", "bar", ""), (_bar(bar) for bar in bars))
    for record in records:
        lines += ["", f"## {record['title']}", "", _provenance(record, usual), ""]
        for table in record["found"]["tables"]:
            lines += [f"**{table['title']}**", "", *_grid(table["columns"], table["rows"]), ""]
        lines += [f"- {remark}" for remark in record["found"]["notes"]]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _promised(records: Mapping[str, Record], pictures: Sequence[tuple[str, str]]) -> list[str]:
    found = savings(records)
    if found is None:
        return []
    lines = ["", "## What each lever saves, and what becomes of the answers", ""]
    lines += [*_grid(found["columns"], found["rows"]), "", *(f"- {note}" for note in found["notes"])]
    for title, file in pictures:
        lines += ["", f"![{title}]({file})"]
    return lines


def _provenance(record: Record, usual: Mapping[str, str]) -> str:
    apart = {name: _other(value, usual.get(name, "")) for name, value in record["machine"].items()}
    other = "; ".join(f"{name} {value}" for name, value in apart.items() if value)
    said = (
        f"`{record['command']}` at {record['commit']}, {record['date']}, {record['seconds']} s, load {record['load']}"
    )
    return f"{said}; {other}" if other else said


def _other(value: str, usual: str) -> str:
    """What of a list is not as usual; the order in which a server names its modules says nothing."""
    known = set(_listed(usual))
    return ", ".join(each for each in _listed(value) if each not in known)


def _listed(value: str) -> list[str]:
    return [part for each in value.split(", ") for part in each.split(" with ")]


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
    # What earlier sections of the same run have written changes no figure.
    status = ["git", "status", "--porcelain", "--", ":/", *(f":(exclude){name}" for name in ("RESULTS.md", "results"))]
    changed = subprocess.run(status, cwd=folder, capture_output=True, text=True).stdout
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
    names = ", ".join(sorted(f"{m['name']} {m['ver']}" for m in loaded))
    return f"redis-server {info['redis_version']} with {names}"
