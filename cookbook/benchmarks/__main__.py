"""Measure everything, or sections of it, and write RESULTS.md."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from cookbook.benchmarks import readme
from cookbook.benchmarks.material import SOURCES, Options
from cookbook.benchmarks.plots import draw, drawn
from cookbook.benchmarks.report import machine, markdown, measured

README = Path(__file__).parents[2] / "README.md"
RESULTS = Path(__file__).with_name("RESULTS.md")
MEASURED = Path(__file__).with_name("results")
PICTURES = Path(__file__).with_name("plots")
# Whole processes first, while this one is small.
SECTIONS = {
    "imports": "Imports",
    "release": "Each extra in an environment of its own",
    "embedding": "Embedding",
    "log": "The sample log",
    "quality": "Quality of the semantic tier",
    "judge": "The judge",
    "routing": "Quality of routing",
    "compression": "Compression: do the answers survive",
    "history": "Chats that grow",
    "stream": "A stream of requests",
    "faults": "Faults",
    "batch": "Batches",
    "lookup": "Lookups",
    "scale": "Growth, scopes, recall, memory",
    "concurrency": "Many at once",
    "router_cost": "What deciding costs",
    "llamaindex": "What the levers cost in LlamaIndex",
    "llmlingua": "The token-level backend",
    "memory": "Memory of local models",
    "quantised": "Quantised local models",
    "local_throughput": "Many requests to a local model",
    "accounting": "Accounting",
    "audit": "The audit",
    "combined": "Every lever on one stream",
    "soak": "The soak",
}
# Measured when it is named only: one takes an hour by itself, the other installs two dozen environments.
_APART = ("release", "soak")


def main() -> int:
    """Measure what is asked for; each section is written when it is done, so that none is lost with a later one."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the public data sets (default: COSTOPT_DATA)")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this section, keep the others")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try things out; printed, not written")
    parser.add_argument("--minutes", type=float, default=60.0, help="how long the soak takes (--only soak)")
    parser.add_argument("--draw", action="store_true", help="measure nothing: write RESULTS.md and its plots anew")
    given = parser.parse_args()
    if given.draw:
        _write()
        return 0
    options = Options(_data(given.data), given.quick, given.minutes)
    facts, command = machine(options.data), "make bench" if len(sys.argv) == 1 else _command()
    tried = []
    for name in given.only or [name for name in SECTIONS if name not in _APART]:
        print(f"{name} …", end="", file=sys.stderr, flush=True)
        record = measured(name, SECTIONS[name], command, facts, partial(_run, name, options))
        print(f" {record['seconds']} s", file=sys.stderr, flush=True)
        if given.quick:
            tried.append(record)
        else:
            _keep(record)
    if given.quick:
        print(markdown(tried, "**Small sizes, to try things out: these are not the results.**"))
    return 0


def _keep(record: dict[str, Any]) -> None:
    """Put a section's record into its file, and write RESULTS.md and its plots from all of them."""
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / f"{record['name']}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    _write()


def recorded() -> dict[str, Any]:
    """What was measured so far, by the names of the sections, in their order."""
    files = [MEASURED / f"{name}.json" for name in SECTIONS]
    return {file.stem: json.loads(file.read_text("utf-8")) for file in files if file.exists()}


def _write() -> None:
    records = recorded()
    draw(records, PICTURES)
    RESULTS.write_text(markdown([*records.values()], pictures=drawn(records, PICTURES)), "utf-8")
    README.write_text(readme.with_figures(README.read_text("utf-8"), records), "utf-8")


def _data(given: Path | None) -> Path | None:
    folder = given or Path(os.environ.get("COSTOPT_DATA") or "../shared/data")
    if folder.is_dir():
        return folder
    print(f"{folder} is not there: generated questions stand in, and the quality parts are left out.", file=sys.stderr)
    for name, source in SOURCES.items():
        print(f"  {name}: {source}", file=sys.stderr)
    return None


def _run(name: str, options: Options) -> dict[str, Any]:
    run: Callable[[Options], dict[str, Any]] = import_module(f"cookbook.benchmarks.bench_{name}").run
    return run(options)


def _command() -> str:
    return " ".join(["python -m cookbook.benchmarks", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
