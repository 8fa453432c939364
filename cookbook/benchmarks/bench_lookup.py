"""What a lookup takes: exact and semantic, beside bare Redis, langchain-redis and a linear scan."""

from __future__ import annotations

from typing import Any

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options, model
from cookbook.benchmarks.peers import LinearScan, langchain_redis_cache
from cookbook.benchmarks.stage import KINDS, LLM, Probe, Stage, stage
from cookbook.benchmarks.timing import Timings, interleave
from costopt.caching.flows import _NEIGHBOURS

__all__ = ["run"]

_EXACT_CALLS, _FRESH_CALLS, _KNOWN_CALLS, _PEER_CALLS = 200, 20, 60, 10


def run(options: Options) -> dict[str, Any]:
    """Exact hits, semantic hits, and the peers."""
    board = stage(options)
    exact, exact_bars = _exact(board)
    semantic, semantic_bars = _semantic(board)
    return {
        "bars": exact_bars + semantic_bars,
        "tables": [exact, *semantic, _peers(board)],
        "notes": [
            f"Entries: {board.source}, answers of 120 words, TTL a day; put in by the stores' own `put`. One "
            "scope. Redis is on this machine and shares its cores.",
            "Figures: median over the rounds in ms (middle half of the rounds); a ratio is the median of the "
            "rounds' ratios. Every lookup timed is a hit. Semantic lookups ask another wording of a stored question, "
            'a new one each time; "text known" repeats wordings whose embedding the memo holds.',
            "Raw FT.SEARCH is the very command that RedisStore sends, sent by a plain `redis.Redis`, reply unparsed "
            "by us. A semantic lookup makes the exact tier's round trip before it.",
            "langchain-redis is given the bare question (a plain LLM's prompt, its best case: from a chat model it "
            "embeds the JSON of all messages), the same embedder, and its own index, loaded in bulk in its own layout.",
            "Filling took: " + "; ".join(f"{name} {seconds:.0f} s" for name, seconds in board.filled_s.items()) + ".",
        ],
    }


def _exact(board: Stage) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    rows, bars = [], []
    for size in board.options.sizes:
        redis, local = board.cache("redis", "one", size), board.cache("local", "one", size)
        picked = range(0, size, max(1, size // (_EXACT_CALLS + 1)))[: _EXACT_CALLS + 1]
        requests = {row: board.request(board.texts[row], None, redis) for row in picked}
        prompts = {row: board.prompt(board.texts[row], None) for row in picked}
        for row in picked:
            board.raw.set(f"raw:{row}", redis.core.store.get(requests[row]))
        timed = interleave(
            {
                "raw GET": lambda row: board.raw.get(f"raw:{row}"),
                "Redis, core": lambda row: _hit(redis.core.lookup(requests[row])),
                "Redis, LangChain": lambda row: _hit(redis.lookup(prompts[row], LLM)),
                "local, core": lambda row: _hit(local.core.lookup(requests[row])),
                "local, LangChain": lambda row: _hit(local.lookup(prompts[row], LLM)),
            },
            lambda _: picked,
            board.options.rounds,
        )
        rows.append([f"{size:,}", *(timed.show(side) for side in timed.seconds)])
        rows[-1] += [
            f"{timed.ratio('Redis, core', 'raw GET'):.2f}",
            f"{timed.ratio('Redis, LangChain', 'raw GET'):.2f}",
        ]
        bars.append(
            at_most(
                f"exact hit in Redis, core, to a raw GET; {size:,} entries",
                timed.ratio("Redis, core", "raw GET"),
                1.5,
                "×",
            )
        )
        bars.append(
            at_most(f"exact hit, local to Redis; {size:,} entries", timed.ratio("local, core", "Redis, core"), 1.0, "×")
        )
    columns = ["entries", *timed.seconds, "core ÷ GET", "LangChain ÷ GET"]
    return table("An exact hit, ms", columns, rows), bars


def _semantic(board: Stage) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    fresh_rows, known_rows, bars = [], [], []
    for size in board.options.sizes:
        probes = board.probes("one", size, KINDS[0], board.options.rounds * (_FRESH_CALLS + 1), seed=1)
        fresh = _timed_semantic(board, size, probes, _FRESH_CALLS + 1, embed=True)
        # The memos hold these wordings now.
        known = _timed_semantic(
            board, size, probes[: _KNOWN_CALLS + 1] * board.options.rounds, _KNOWN_CALLS + 1, embed=False
        )
        over_fresh, over_known = fresh.ratio("Redis, core", "raw"), known.ratio("Redis, core", "raw")
        fresh_rows.append([f"{size:,}", *(fresh.show(side) for side in fresh.seconds), f"{over_fresh:.2f}"])
        known_rows.append([f"{size:,}", *(known.show(side) for side in known.seconds), f"{over_known:.2f}"])
        bars += [
            at_most(f"semantic hit in Redis to embedding + raw FT.SEARCH; {size:,} entries", over_fresh, 1.15, "×"),
            at_most(f"the same beside the embedding, to raw FT.SEARCH; {size:,} entries", over_known, 1.6, "×"),
            at_most(
                f"semantic hit, local to Redis; {size:,} entries", fresh.ratio("local, core", "Redis, core"), 1.0, "×"
            ),
            at_most(
                f"the same beside the embedding; {size:,} entries", known.ratio("local, core", "Redis, core"), 1.0, "×"
            ),
        ]
    return [
        table(
            "A semantic hit with its embedding, ms",
            ["entries", "embedding + raw FT.SEARCH", *list(fresh.seconds)[1:], "core ÷ raw"],
            fresh_rows,
        ),
        table(
            "A semantic hit, text known, ms",
            ["entries", "raw FT.SEARCH", *list(known.seconds)[1:], "core ÷ raw"],
            known_rows,
        ),
    ], bars


def _timed_semantic(board: Stage, size: int, probes: list[Probe], a_round: int, *, embed: bool) -> Timings:
    redis, local = board.cache("redis", "one", size), board.cache("local", "one", size)
    vectors = model().embed([probe.text for probe in probes])
    commands = {
        probe.text: redis.core.store._search_commands(probe.request, vector, _NEIGHBOURS)[0]  # type: ignore[attr-defined]
        for probe, vector in zip(probes, vectors, strict=True)
    }

    def raw(probe: Probe) -> None:
        if embed:
            model().embed([probe.text])
        board.raw.execute_command(*commands[probe.text])

    # The adapter shares the core's memo, so it can be asked about what is known only.
    adapter = {} if embed else {"Redis, LangChain": lambda probe: _hit(redis.lookup(probe.prompt, LLM))}
    sides = {
        "raw": raw,
        "Redis, core": lambda probe: _hit(redis.core.lookup(probe.request)),
        **adapter,
        "local, core": lambda probe: _hit(local.core.lookup(probe.request)),
    }
    return interleave(sides, lambda number: probes[number * a_round :][:a_round], board.options.rounds)


def _peers(board: Stage) -> dict[str, Any]:
    rows = []
    for database, size in enumerate(board.options.sizes, start=1):
        ours, local = board.cache("redis", "one", size), board.cache("local", "one", size)
        peer = langchain_redis_cache(board.server.url, f"peer{size}", board.texts[:size], board.vectors[:size], LLM)
        scan = LinearScan(board.server.url, database, board.vectors[:size])
        a_round = _PEER_CALLS + 1
        probes = board.probes("one", size, KINDS[0], board.options.rounds * a_round, seed=2)
        timed = interleave(
            {
                "costopt, Redis": lambda probe: _hit(ours.lookup(probe.text, LLM)),
                "costopt, local": lambda probe: _hit(local.lookup(probe.text, LLM)),
                "langchain-redis": lambda probe: _hit(peer.lookup(probe.text, LLM)),
            },
            lambda number: probes[number * a_round :][:a_round],
            board.options.rounds,
        )
        scanned = interleave(
            {"scan": lambda probe: _hit(scan.lookup(probe.text))}, lambda _: probes[:2], 1 if size > 50_000 else 2
        )
        rows.append([f"{size:,}", *(timed.show(side) for side in timed.seconds), scanned.show("scan")])
        rows[-1] += [f"{1 / timed.ratio('costopt, Redis', 'langchain-redis'):.1f}"]
        rows[-1] += [f"{scanned.median('scan') / timed.median('costopt, Redis'):,.0f}"]
        board.raw.execute_command("FT.DROPINDEX", f"peer{size}", "DD")
    columns = ["entries", *timed.seconds, "linear scan", "langchain-redis ÷ costopt", "scan ÷ costopt"]
    return table("The same questions through `BaseCache.lookup`, embedding included, ms", columns, rows)


def _hit(found: object) -> None:
    """A lookup that misses would be timed for something else."""
    if not found:
        raise RuntimeError("a lookup that was timed as a hit missed")
