"""The audit: whether it finds what was planted, how long it takes, and how much memory."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options, questions
from cookbook.benchmarks.planted_log import START, planted_log, planted_router
from costopt import CrossEncoderJudge
from costopt.audit.columns import Columns
from costopt.audit.readers import LogReader
from costopt.audit.report import audit
from costopt.embedding import default_model

__all__ = ["run"]

_SYSTEM = (
    "You are Piper, the assistant of shop {0}. Answer in three sentences at most, and be polite to everybody. " * 4
)
_ANSWER = "Open the settings, choose Account, and press the button. " * 3
# A process of its own, so that its memory is its own.
_MEASURED = """
import re, sys, time
sys.argv = ["costopt", "audit", *sys.argv[1:]]
from costopt.cli import main
started = time.monotonic()
code = 0
try:
    main()
except SystemExit as error:
    code = error.code or 0
status = open("/proc/self/status").read()  # getrusage tells of the process that this one was forked from, too
used = int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) * 1024
print(code, time.monotonic() - started, used, file=sys.stderr)
"""


def run(options: Options) -> dict[str, Any]:
    """All parts."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        parts = [
            _planted(folder, options),
            _speed(folder, options),
            _semantic(folder, options),
            _memory(folder, options),
        ]
        parts.append(_long_line(options))
    return {key: [each for part in parts for each in part.get(key, [])] for key in ("bars", "tables", "notes")}


def _planted(folder: Path, options: Options) -> dict[str, Any]:
    path = folder / "planted.jsonl"
    truth = planted_log(path, 1_200 if options.quick else 8_000)
    report = audit(path, router=planted_router(), embedder=default_model(), judge=CrossEncoderJudge())
    found, before = report.questions, float(report.together["before"])
    avoidable = {name: part["share"] for name, part in found.context["avoidable"].items()}
    rows = [
        ("exact repeats", truth.exact, found.repeats["exact_share"]),
        ("reworded repeats", truth.worded, found.repeats["semantic_share"]),
        ("answered by a cache already", truth.hits, found.repeats["cache_hit_rate"]),
        ("over-routed", truth.over_routed, found.routing["share"]),
        ("marked as not urgent", truth.marked, found.waiting["marked_share"]),
        ("a nightly job", truth.bursts, found.waiting["bursts_share"]),
        ("repeated system prompts (tokens)", truth.system, avoidable["repeated system prompts"]),
        ("history (tokens)", truth.history, avoidable["history"]),
        ("unused tools (tokens)", truth.unused, avoidable["unused tools"]),
        ("blanks in JSON (tokens)", truth.blanks, avoidable["pretty-printed JSON"]),
        ("passages twice (tokens)", truth.twice, avoidable["near-duplicate passages"]),
    ]
    saved = {lever.name: float(lever.likely) / before for lever in report.levers}
    rows += [(f"saved by {lever} (of the bill)", share, saved[lever]) for lever, share in truth.savings.items()]
    worst = max(abs(planted - said) for _, planted, said in rows)
    shown = [[name, f"{planted:.3f}", f"{said:.3f}", f"{100 * (said - planted):+.2f}"] for name, planted, said in rows]
    return {
        "bars": [at_most("audit of a planted log: furthest figure from what was planted", 100 * worst, 2.0, " points")],
        "tables": [table("A planted log, as shares", ["", "planted", "found", "points off"], shown)],
    }


def _speed(folder: Path, options: Options) -> dict[str, Any]:
    rows = 10_000 if options.quick else 100_000
    path = folder / "fast.jsonl"
    _write(path, rows, distinct=rows)
    took = min(_took(lambda: audit(path)) for _ in range(3))
    return {"bars": [at_least(f"audit of {rows:,} rows without the semantic pass", rows / took, 50_000, " rows/s")]}


def _semantic(folder: Path, options: Options) -> dict[str, Any]:
    rows = 4_000 if options.quick else 100_000
    path, embedder = folder / "semantic.jsonl", default_model()
    texts, source = _write(path, rows, distinct=rows * 3 // 10, options=options)
    embedder.load()
    judge = CrossEncoderJudge()
    judge.warm()
    ordered = sorted(set(texts), key=len)
    alone = _took(lambda: [embedder.embed(ordered[i : i + 2_048]) for i in range(0, len(ordered), 2_048)])
    report = None

    def whole() -> None:
        nonlocal report
        report = audit(path, embedder=embedder, judge=judge)

    took = _took(whole)
    assert report is not None
    repeats = report.questions.repeats
    note = (
        f"Semantic pass: {rows:,} rows of {source}, {len(ordered):,} distinct texts: embedding {alone:.1f} s, the "
        f"whole audit {took:.1f} s; {repeats['near_pairs']:,} near pairs, {repeats['judged_pairs']:,} judged."
    )
    demand = f"audit of {rows:,} rows with the semantic pass, to the time of embedding their distinct texts"
    return {"bars": [at_most(demand, took / alone, 1.3, "×")], "notes": [note]}


def _memory(folder: Path, options: Options) -> dict[str, Any]:
    rows = 50_000 if options.quick else 1_000_000
    path = folder / "large.jsonl"
    _write(path, rows, distinct=rows)
    code, took, used, _ = _measured(str(path), "--no-semantic", "--json", "-")
    columns = Columns()
    for record in LogReader(path):
        columns.add(record)
    log = columns.log()
    kept = sum(column.nbytes for column in log.columns.values()) + sum(map(sys.getsizeof, log.texts))
    path.unlink()
    return {
        "bars": [
            at_most(f"memory of an audit of {rows:,} rows", used / 2**30, 2.0, " GiB"),
            at_most("its exit code", code, 0),
        ],
        "notes": [
            (
                f"{rows:,} rows took {took:.0f} s; with every text kept for the semantic pass, columns and texts are "
                f"{kept / 2**20:,.0f} MiB, to which the vectors of at most 150,000 texts come (0.1 GiB)."
            )
        ],
    }


def _long_line(options: Options) -> dict[str, Any]:
    size = 100_000_000 if options.quick else 5_000_000_000
    chunk = b"x" * 1_000_000

    def feed(pipe: Any) -> None:
        pipe.write(b'{"model": "')
        for _ in range(size // len(chunk)):
            pipe.write(chunk)
        pipe.write(b'"}\n')

    code, took, used, said = _measured("-", "--no-semantic", feed=feed)
    clear = "longer than" in said and "Traceback" not in said
    return {
        "bars": [
            at_most(f"a line of {size / 1e9:g} GB: exit code less 2, and traceback", abs(code - 2) + (not clear), 0),
            at_most(f"a line of {size / 1e9:g} GB: memory", used / 2**30, 0.5, " GiB"),
        ],
        "notes": [f"It was read in {took:.0f} s, and said: {said.strip().splitlines()[0][:160]}"],
    }


def _measured(*args: str, feed: Callable[[Any], None] | None = None) -> tuple[int, float, int, str]:
    """(exit code, seconds, most memory in bytes, what it said) of a command of its own."""
    with subprocess.Popen(
        [sys.executable, "-c", _MEASURED, *args],
        stdin=subprocess.PIPE if feed else subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as process:
        if feed:
            feed(process.stdin)
            assert process.stdin is not None
            process.stdin.close()
        assert process.stderr is not None
        *said, last = process.stderr.read().decode().strip().splitlines()
    code, took, used = last.split()
    return int(code), float(took), int(used), "\n".join(said)


def _took(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _write(path: Path, rows: int, distinct: int, options: Options | None = None) -> tuple[list[str], str]:
    """Rows in OpenAI's format, of about 1 KB each."""
    drawn = random.Random(5)
    source = f"{distinct:,} generated questions"
    if options is None:
        texts = [
            f"How do I {drawn.choice(('reset', 'change', 'find'))} order {i} of my account?" for i in range(distinct)
        ]
    else:
        texts, source = questions(options, distinct)
    systems = [_SYSTEM.format(i) for i in range(5)]
    chosen = []
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            text = texts[i] if i < len(texts) else drawn.choice(texts)
            chosen.append(text)
            usage = {"prompt_tokens": 120 + i % 7, "completion_tokens": 40, "total_tokens": 160 + i % 7}
            answer = {"index": 0, "message": {"role": "assistant", "content": _ANSWER}, "finish_reason": "stop"}
            row = {
                "id": f"r{i}", "timestamp": START + i * 2.5, "model": ("gpt-4o", "gpt-4o-mini")[i % 2],
                "messages": [
                    {"role": "system", "content": systems[0 if options else i % 5]}, {"role": "user", "content": text}
                ],
                "temperature": 0.2, "latency_ms": 812.5,
                "response": {"id": f"c{i}", "choices": [answer], "usage": usage},
            }  # fmt: skip
            file.write(json.dumps(row) + "\n")
    return chosen, source
