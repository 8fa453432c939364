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

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import SOURCES, Options
from cookbook.benchmarks.report import machine, markdown, measured

RESULTS = Path(__file__).with_name("RESULTS.md")
MEASURED = Path(__file__).with_name("results")
# Whole processes first, while this one is small.
SECTIONS = {
    "imports": "Imports",
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
}


def main() -> int:
    """Measure what is asked for; each section is written when it is done, so that none is lost with a later one."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the public data sets (default: COSTOPT_DATA)")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="measure this section, keep the others")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try things out; printed, not written")
    given = parser.parse_args()
    options = Options(_data(given.data), given.quick)
    facts, command = machine(options.data), "make bench" if len(sys.argv) == 1 else _command()
    tried = []
    for name in given.only or SECTIONS:
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
    """Put a section's record into its file, and write RESULTS.md from all of them."""
    MEASURED.mkdir(exist_ok=True)
    (MEASURED / f"{record['name']}.json").write_text(json.dumps(record, indent=1, ensure_ascii=False) + "\n", "utf-8")
    files = [MEASURED / f"{name}.json" for name in SECTIONS]
    RESULTS.write_text(markdown([json.loads(file.read_text("utf-8")) for file in files if file.exists()]), "utf-8")


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
    return _embedding(run()) if name == "embedding" else run(options)  # type: ignore[call-arg]


def _embedding(found: dict[str, Any]) -> dict[str, Any]:
    """`bench_embedding` hands back its own figures."""
    sides = list(found["variants"][0]["single"])
    rows = [
        [variant["dtype"], str(variant["threads"])]
        + [f"{variant['single'][side]['ms']:.2f} ({variant['single'][side]['ratio']:.2f})" for side in sides]
        + [f"{variant['batch_per_text'][side]['ms']:.2f}" for side in sides]
        + [f"{variant['cosine_min']:.5f}"]
        for variant in found["variants"]
    ]
    columns = [
        "dtype",
        "threads",
        *(f"{s}: one text, ms (ratio)" for s in sides),
        *(f"{s}: ms a text of 64" for s in sides),
    ]
    first = ", ".join(f"{name} {seconds} s" for name, seconds in found["first_vector_s"].items())
    return {
        "bars": [
            at_most("one short text, MiniLMEmbedder to SentenceTransformer.encode", found["ratio"], found["bar"], "×"),
            at_least("least cosine to what sentence-transformers gives", found["cosine_min"], 0.999),
        ],
        "tables": [table("all-MiniLM-L6-v2, one process, in turn", [*columns, "least cosine"], rows)],
        "notes": [f"Used on this machine: {found['auto_dtype']}. From import to the first vector: {first}."],
    }


def _command() -> str:
    return " ".join(["python -m cookbook.benchmarks", *sys.argv[1:]])


if __name__ == "__main__":
    sys.exit(main())
