"""`python -m cookbook.benchmarks`: run everything, write RESULTS.md."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import SOURCES, Options
from cookbook.benchmarks.report import machine, markdown

RESULTS = Path(__file__).with_name("RESULTS.md")
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
    "llmlingua": "The token-level backend",
    "memory": "Memory of local models",
    "quantised": "Quantised local models",
    "local_throughput": "Many requests to a local model",
    "accounting": "Accounting",
    "audit": "The audit",
}


def main() -> int:
    """Run what is asked for; the report goes to RESULTS.md only if it is whole."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.benchmarks", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder of the public data sets (default: COSTOPT_DATA)")
    parser.add_argument("--only", action="append", choices=SECTIONS, help="only this part; printed, not written")
    parser.add_argument("--quick", action="store_true", help="small sizes, to try things out; printed, not written")
    given = parser.parse_args()
    options = Options(_data(given.data), given.quick)
    facts, started = machine(options.data), time.monotonic()
    sections: list[tuple[str, dict[str, Any]]] = []
    try:
        sections.extend((SECTIONS[name], _timed(name, options)) for name in given.only or SECTIONS)
    except BaseException:  # Ctrl-C, too: an hour's figures are worth keeping
        print(markdown(_command(), facts, sections, "**Partial: it was cut off.**"))
        raise
    facts["load average"] += " before, " + " ".join(f"{load:.2f}" for load in os.getloadavg()) + " after"
    facts["took"] = f"{(time.monotonic() - started) / 60:.1f} minutes"
    if given.quick or given.only:
        note = (
            "**Partial"
            + (", with small sizes to try things out: these are not the results" if given.quick else "")
            + ".**"
        )
        print(markdown(_command(), facts, sections, note))
    else:
        RESULTS.write_text(markdown("make bench", facts, sections, ""), "utf-8")
        print(f"wrote {RESULTS}", file=sys.stderr)
    return 0


def _data(given: Path | None) -> Path | None:
    folder = given or Path(os.environ.get("COSTOPT_DATA") or "../shared/data")
    if folder.is_dir():
        return folder
    print(f"{folder} is not there: generated questions stand in, and the quality parts are left out.", file=sys.stderr)
    for name, source in SOURCES.items():
        print(f"  {name}: {source}", file=sys.stderr)
    return None


def _timed(name: str, options: Options) -> dict[str, Any]:
    started = time.monotonic()
    print(f"{name} …", end="", file=sys.stderr, flush=True)
    run: Callable[[Options], dict[str, Any]] = import_module(f"cookbook.benchmarks.bench_{name}").run
    found = _embedding(run()) if name == "embedding" else run(options)  # type: ignore[call-arg]
    print(f" {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
    return found


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
