"""The soak: traffic of many threads and tasks over a Redis that is killed, filled, flushed and frozen on schedule."""

from __future__ import annotations

import gc
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import langchain_costopt as lc
import llamaindex_costopt as li
from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options
from cookbook.benchmarks.soak_faults import FAULTS, Struck, faults, strike_all
from cookbook.benchmarks.soak_questions import TENANTS, Traffic, chosen_topics, topics_by_text
from cookbook.benchmarks.soak_server import Provider
from cookbook.benchmarks.soak_traffic import MEMO, TENANT, Application, Crowd
from cookbook.benchmarks.soak_watch import HEALTHY, Books, Held, held, slope
from costopt import RedisStore, SharedEmbedder
from costopt.audit import Ledger
from costopt.embedding import default_model
from tests.billing import PRICES
from tests.servers import RedisServer

__all__ = ["Plan", "Soaked", "run", "soaked"]

_BUDGET_MS = 250.0
_RECOVERED = 0.8  # of the share that was served before
_RECOVERY_S = 30.0
_WINDOW_S = 5
_MIB = 2**20
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Plan:
    """How long, how many, how often.

    Attributes:
        seconds: For how long.
        slot_s: Seconds from one fault to the next.
        fault_s: Seconds that a fault lasts.
        sample_s: Seconds between two looks at what the process holds.
        threads: Threads that ask.
        tasks: Tasks that ask.
        rate: Requests a second in all.
        topics: Questions, each with its other wording and its trap.
        present: Customers at any one time.
    """

    seconds: int
    slot_s: float = 50.0
    fault_s: float = 10.0
    sample_s: float = 5.0
    threads: int = 32
    tasks: int = 64
    rate: float = 64.0
    topics: int = 24
    present: int = 30


@dataclass(frozen=True, slots=True)
class Soaked:
    """What came of it: the requests, the two counts, the faults, and what the process held."""

    books: Books
    bill: dict[str, Any]
    counted: dict[str, Any]
    struck: list[Struck]
    samples: list[Held]
    stats: Any
    busy: float


def run(options: Options) -> dict[str, Any]:
    """The whole of it; an hour unless told otherwise."""
    plan = Plan(int(options.minutes * 60)) if options.minutes > 10 else Plan(int(options.minutes * 60), 20.0, 5.0, 1.0)
    with tempfile.TemporaryDirectory() as folder:
        found = soaked(plan, Path(folder))
    return {"bars": _bars(plan, found), "tables": _tables(found), "notes": _notes(plan, found)}


def soaked(plan: Plan, folder: Path) -> Soaked:
    """Run it in this process, with a Redis and a provider of its own.

    Args:
        plan: How long, how many, how often.
        folder: For the ledger.
    """
    topics = chosen_topics(plan.topics)
    with ExitStack() as stack:
        redis = stack.enter_context(RedisServer(appendonly="yes", appendfsync="everysec"))
        provider = stack.enter_context(Provider(topics))
        ledger = stack.enter_context(Ledger(folder / "ledger.db"))
        embedder = SharedEmbedder(default_model(), memo_size=MEMO)
        cache = lc.SemanticCache(
            RedisStore(redis.url), embedder=embedder, tenant=TENANT.get, ttl=600.0, split="Question: "
        ).warm()
        stack.callback(cache.close)
        tracker = lc.CostTracker(ledger, prices=PRICES)
        stack.enter_context(li.CostTracker(ledger, prices=PRICES).installed())
        books = Books(plan.seconds, (*FAULTS, HEALTHY))
        crowd = Crowd(
            {tenant: Application(provider.url, tenant, cache, tracker, embedder) for tenant in TENANTS},
            Traffic(topics, plan.present, stay_s=2.0), topics_by_text(topics), books,
            threads=plan.threads, tasks=plan.tasks, rate=plan.rate,
        )  # fmt: skip
        crowd.warm()
        books.restart()
        gc.collect()
        gc.freeze()  # what is loaded stays: looking through it all at each sample would hold everybody up
        began = time.process_time()
        with _sampling(plan, books, crowd) as samples:
            crowd.start()
            try:
                struck = strike_all(
                    faults(redis, provider, folder / "ledger.db", "gpt-4o-mini"),
                    books, seconds=plan.seconds, slot_s=plan.slot_s, fault_s=plan.fault_s, pause=time.sleep,
                )  # fmt: skip
            finally:
                crowd.stop()
        busy = (time.process_time() - began) / books.elapsed
        assert ledger.flush(60)
        return Soaked(books, provider.bill(), _counted(ledger), struck, samples, cache.stats(), busy)


@contextmanager
def _sampling(plan: Plan, books: Books, crowd: Crowd) -> Iterator[list[Held]]:
    """Looks, now and then, at what the process holds."""
    found: list[Held] = []
    over = threading.Event()

    def look() -> None:
        while not over.wait(plan.sample_s):
            found.append(held(books.elapsed, lambda: crowd.loop_tasks))

    thread = threading.Thread(target=look, name="soak-watch")
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _counted(ledger: Ledger) -> dict[str, Any]:
    """What the ledger says, in the provider's terms."""
    totals, stats = ledger.totals(), ledger.stats()
    tokens = {
        name: getattr(totals, name)
        for name in ("input_tokens", "output_tokens", "cached_tokens", "cache_write_tokens", "reasoning_tokens")
    }
    return {
        "answered": totals.attempts - totals.failed - totals.cache_hits,
        "refused": totals.failed,
        "tokens": tokens,
        "dollars": totals.cost,
        "hits": totals.cache_hits,
        "unsure": totals.estimated + totals.unpriced + stats.dropped,
    }


def _bars(plan: Plan, found: Soaked) -> list[dict[str, Any]]:
    books, bill, counted = found.books, found.bill, found.counted
    late = [sample for sample in found.samples if sample.at > books.elapsed / 3]
    memory = slope([sample.at / _HOUR_S for sample in late], [sample.resident / _MIB for sample in late])
    objects = slope([sample.at / _HOUR_S for sample in late], [sample.objects / 1000 for sample in late])
    rows = [counted["answered"] - bill["answered"], counted["refused"] - bill["refused"]]
    tokens = sum(abs(counted["tokens"][name] - bill["tokens"].get(name, 0)) for name in counted["tokens"])
    served, bare = (books.took_ms(0.99, bare=bare, faults=True)[0] for bare in (False, True))
    recoveries = [_recovery(found, each) for each in found.struck]
    slowest = max(plan.slot_s if each is None else each for each in recoveries)
    requests = books.counts["requests"]
    return [
        at_least("requests that were made", requests, 0.8 * plan.rate * plan.seconds),
        at_most("errors that reached a caller", books.counts["errors"], 0),
        at_most("wrong answers", books.counts["wrong"] + bill["unknown"], 0),
        at_most("attempts by which the ledger differs from the provider's count", sum(map(abs, rows)), 0),
        at_most("tokens by which it differs", tokens, 0),
        at_most("dollars by which it differs", float(abs(counted["dollars"] - bill["dollars"])), 0),
        at_most("attempts estimated, without a price or lost", counted["unsure"], 0),
        at_most("growth of memory, lower end of its interval", memory.low, 0, " MiB an hour"),
        at_most("growth of Python's objects, lower end of its interval", objects.low, 0, " thousand an hour"),
        *(_bounded(what, found) for what in ("threads", "files", "tasks")),
        at_most("what the levers add during faults, 99 of 100 calls", served - bare, _BUDGET_MS, " ms"),
        at_most("faults after which the share served did not recover", _lost(found), 0),
        at_most("seconds until the share served had recovered, the slowest", slowest, _RECOVERY_S, " s"),
    ]


def _bounded(what: str, found: Soaked) -> dict[str, Any]:
    """What the process holds at most does not grow: the most in the last third beside the most before."""
    counts = [(sample.at, getattr(sample, what)) for sample in found.samples]
    end = found.books.elapsed * 2 / 3
    first = max(count for at, count in counts if at <= end)
    last = max((count for at, count in counts if at > end), default=0)
    return at_most(f"{what}, the most in the last third beside the most before, {first}", last / first, 1.1, "×")


def _usual_share(found: Soaked) -> float:
    """What was served in the second half of the time after each fault, when all is well again: the median."""
    return statistics.median(found.books.hit_share((each.over + each.until) / 2, each.until) for each in found.struck)


def _recovery(found: Soaked, struck: Struck) -> float | None:
    share = _RECOVERED * _usual_share(found)
    return found.books.recovered_after(struck.over, struck.until, share, _WINDOW_S)


def _lost(found: Soaked) -> int:
    return sum(_recovery(found, each) is None for each in found.struck)


def _tables(found: Soaked) -> list[dict[str, Any]]:
    books = found.books
    rows = []
    for name in FAULTS:
        struck = [each for each in found.struck if each.name == name]
        if not struck:
            continue
        recoveries = [_recovery(found, each) for each in struck]
        slowest = "never" if None in recoveries else f"{max(each for each in recoveries if each is not None):.0f}"
        during = sum(books.hit_share(each.began, each.over + 1) for each in struck) / len(struck)
        times = [f"{books.took_in(name, share, bare=bare):.0f}" for share in (0.5, 0.99) for bare in (True, False)]
        rows.append([name, str(len(struck)), f"{during:.2f}", *times, slowest])
    times = [f"{books.took_in(HEALTHY, share, bare=bare):.0f}" for share in (0.5, 0.99) for bare in (True, False)]
    rows.append(["none", "", f"{_usual_share(found):.2f}", *times, ""])
    columns = [
        "fault", "times", "share served", "median without levers, ms", "with, ms", "99 of 100 without, ms", "with, ms",
        "slowest recovery, s",
    ]  # fmt: skip
    counts = [[name, f"{count:,}"] for name, count in sorted(books.counts.items())]
    return [
        table("Calls while something is broken", columns, rows),
        table("Requests", ["", "requests"], counts),
        table("What the process held", ["", "first third", "second third", "last third"], _held_rows(found)),
    ]


def _held_rows(found: Soaked) -> list[list[str]]:
    third = found.books.elapsed / 3
    parts = [[s for s in found.samples if n * third <= s.at < (n + 1) * third] for n in range(3)]
    made = {
        "memory, MiB, mean": lambda part: sum(s.resident for s in part) / len(part) / _MIB,
        "Python's objects, thousands, mean": lambda part: sum(s.objects for s in part) / len(part) / 1000,
        "threads, most": lambda part: max(s.threads for s in part),
        "open files, most": lambda part: max(s.files for s in part),
        "tasks, most": lambda part: max(s.tasks for s in part),
    }
    return [[name, *(f"{of(part):,.1f}" if part else "–" for part in parts)] for name, of in made.items()]


def _notes(plan: Plan, found: Soaked) -> list[str]:
    late = [sample for sample in found.samples if sample.at > found.books.elapsed / 3]
    hours = [sample.at / _HOUR_S for sample in late]
    memory = slope(hours, [sample.resident / _MIB for sample in late])
    objects = slope(hours, [sample.objects for sample in late])
    failures = ", ".join(f"{name} {count:,}" for name, count in sorted(found.stats.failures.items()))
    notes = [
        (
            f"{plan.seconds / 60:g} minutes, {plan.threads} threads and {plan.tasks} tasks, {plan.rate:g} requests a "
            f"second; a fault of {plan.fault_s:g} s every {plan.slot_s:g} s. Every seventh second a fourth of them ask "
            "one new question at once. Times are without those calls whose documents are compressed. The process kept "
            f"{found.busy:.2f} cores busy."
        ),
        (
            f"Memory grew by {memory.value:+.2f} MiB an hour (95 % interval {memory.low:+.2f} to {memory.high:+.2f}), "
            f"Python's objects by {objects.value:+,.0f} ({objects.low:+,.0f} to {objects.high:+,.0f}), both by least "
            "squares over the last two thirds, after a collection; before that, memos of fixed size fill up."
        ),
        (
            "The right answer names tenant, system prompt and topic, and every answer is checked, hits included. The "
            "topics come from the judge's training material; on their texts the judge, asked alone, makes no mistake: "
            "how often it errs is measured under The judge."
        ),
        f"The cache: {found.stats}. Stepped over: {failures}.",
    ]
    notes += [f"Wrong: {example}" for example in found.books.wrong]
    return notes + [f"Error: {example}" for example in found.books.errors]
