"""What a lookup takes: exact and semantic, beside bare Redis, langchain-redis and a linear scan."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options, model
from cookbook.benchmarks.peers import LinearScan, langchain_redis_cache
from cookbook.benchmarks.stage import KINDS, LLM, Probe, Stage, stage
from cookbook.benchmarks.timing import Timings, interleave
from costopt import CrossEncoderJudge
from costopt.caching.flows import _NEIGHBOURS

__all__ = ["run"]

Sides = dict[str, Callable[[Any], object]]

_EXACT_CALLS, _FRESH_CALLS, _KNOWN_CALLS, _PEER_CALLS = 200, 20, 60, 10
_MANY = 50_000  # a linear scan of more is measured once
_EXACT_SIDES = ("raw GET", "Redis, core", "Redis, LangChain", "local, core", "local, LangChain")
_FRESH_SIDES = ("raw", "Redis, core", "local, core")
_KNOWN_SIDES = ("raw", "Redis, core", "Redis, LangChain", "local, core")
_JUDGED_SIDES = ("raw", "Redis, core", "local, core")
_NOTES = (
    (
        "Answers of 120 words, TTL a day, one scope, put in by the stores' own `put`. Redis is on this machine and "
        "shares its cores."
    ),
    (
        "Median over the rounds (middle half of the rounds); a ratio is the median of the rounds' ratios. Semantic "
        'lookups ask another wording of a stored question, a new one each time; "text known" repeats wordings whose '
        "embedding the memo holds."
    ),
    (
        "Where no judge is named, `SimilarityJudge(0.9)` decides, which takes microseconds: what is timed is the "
        "cache, and so are its bars. The judge that comes by default has a table of its own, in which raw is the "
        "embedding, FT.SEARCH and one pass of the judge over the candidates that the cache shows it. Its wordings are "
        "such as both judges accept."
    ),
    (
        "Raw FT.SEARCH is the very command that RedisStore sends, sent by a plain `redis.Redis`, reply not looked at. "
        "A semantic lookup asks the exact tier before it."
    ),
    (
        "Beside langchain-redis costopt has the judge that comes by default, unless the cosine is named, by which "
        "langchain-redis decides, too. It is given the bare question, a plain LLM's prompt: its best case: from a chat "
        "model it embeds "
        "the JSON of all messages. Same embedder, its own index, bulk-loaded in its own layout. The linear scan: SCAN, "
        f"HGET and numpy for every key (once at {_MANY:,} entries and more)."
    ),
)


_Rows = list[list[str]]


def run(options: Options) -> dict[str, Any]:
    """Exact hits, semantic hits, and the peers."""
    board, misses = stage(options), Misses()
    exact, fresh, known, judged, peers, bars = [], [], [], [], [], []
    for database, size in enumerate(options.sizes, start=1):
        hit = _exact(board, size, misses)
        with_embedding, beside = _semantic(board, size, misses)
        exact.append([*_row(size, hit, _EXACT_SIDES), f"{hit.ratio('Redis, LangChain', 'raw GET'):.2f}"])
        fresh.append(_row(size, with_embedding, _FRESH_SIDES))
        known.append(_row(size, beside, _KNOWN_SIDES))
        judged.append(_row(size, _judged(board, size, misses), _JUDGED_SIDES))
        peers.append(_peers(board, size, database, misses))
        bars += _bars(f"; {size:,} entries", hit, with_embedding, beside)
    return {
        "bars": bars,
        "tables": _tables(exact, fresh, known, judged, peers),
        "notes": [
            *_NOTES,
            f"Entries: {board.source}.",
            _filled(board),
            f"Of {misses.asked:,} timed lookups {misses.missed:,} missed.",
        ],
    }


def _tables(exact: _Rows, fresh: _Rows, known: _Rows, judged: _Rows, peers: _Rows) -> list[dict[str, Any]]:
    scan, ratio = "linear scan", "core ÷ raw"
    return [
        table("An exact hit, ms", ["entries", *_EXACT_SIDES, ratio, "LangChain ÷ raw"], exact),
        table(
            "A semantic hit with its embedding, ms (raw: embedding + raw FT.SEARCH)",
            ["entries", *_FRESH_SIDES, ratio],
            fresh,
        ),
        table("A semantic hit, text known, ms (raw: FT.SEARCH)", ["entries", *_KNOWN_SIDES, ratio], known),
        table(
            "A semantic hit with its embedding and the default judge, ms (raw: the same three by hand)",
            ["entries", *_JUDGED_SIDES, ratio],
            judged,
        ),
        table(
            "The same new questions to `BaseCache.lookup`, ms",
            [
                "entries",
                "costopt, Redis",
                "costopt, local",
                "costopt, Redis, cosine",
                "langchain-redis",
                scan,
                "langchain-redis ÷ costopt",
                "scan ÷ costopt",
            ],
            peers,
        ),
    ]


def _row(size: int, timed: Timings, sides: Sequence[str]) -> list[str]:
    return [f"{size:,}", *(timed.show(side) for side in sides), f"{timed.ratio('Redis, core', sides[0]):.2f}"]


def _bars(about: str, exact: Timings, fresh: Timings, known: Timings) -> list[dict[str, Any]]:
    core, local = "Redis, core", "local, core"
    return [
        at_most(f"exact hit in Redis, core, to a raw GET{about}", exact.ratio(core, "raw GET"), 1.5, "×"),
        at_most(f"exact hit, local to Redis{about}", exact.ratio(local, core), 1, "×"),
        at_most(f"semantic hit in Redis to embedding + raw FT.SEARCH{about}", fresh.ratio(core, "raw"), 1.15, "×"),
        at_most(f"the same beside the embedding, to raw FT.SEARCH{about}", known.ratio(core, "raw"), 1.6, "×"),
        at_most(f"semantic hit, local to Redis{about}", fresh.ratio(local, core), 1, "×"),
        at_most(f"the same beside the embedding{about}", known.ratio(local, core), 1, "×"),
    ]


def _filled(board: Stage) -> str:
    return "Filling took: " + "; ".join(f"{name} {seconds:.0f} s" for name, seconds in board.filled_s.items()) + "."


def _exact(board: Stage, size: int, misses: Misses) -> Timings:
    redis, local = board.cache("redis", "one", size), board.cache("local", "one", size)
    picked = range(0, size, max(1, size // (_EXACT_CALLS + 1)))[: _EXACT_CALLS + 1]
    requests = {row: board.request(board.texts[row], None, redis) for row in picked}
    prompts = {row: board.prompt(board.texts[row], None) for row in picked}
    for row in picked:
        board.raw.set(f"raw:{row}", redis.core.store.get(requests[row]) or b"")
    sides: Sides = {
        "raw GET": lambda row: board.raw.get(f"raw:{row}"),
        "Redis, core": lambda row: redis.core.lookup(requests[row]),
        "Redis, LangChain": lambda row: redis.lookup(prompts[row], LLM),
        "local, core": lambda row: local.core.lookup(requests[row]),
        "local, LangChain": lambda row: local.lookup(prompts[row], LLM),
    }
    return interleave(misses.watch(sides), lambda _: picked, board.options.rounds)


def _semantic(board: Stage, size: int, misses: Misses) -> tuple[Timings, Timings]:
    """With the embedding, and with the text known."""
    rounds, a_round = board.options.rounds, _FRESH_CALLS + 1
    probes = board.probes("one", size, KINDS[0], rounds * a_round)
    redis, local = board.cache("redis", "one", size), board.cache("local", "one", size)
    store: Any = redis.core.store
    commands = {
        probe.text: store._search_command(probe.request, vector, _NEIGHBOURS)
        for probe, vector in zip(probes, model().embed([probe.text for probe in probes]), strict=True)
    }

    def embed_and_search(probe: Probe) -> object:
        model().embed([probe.text])
        return board.raw.execute_command(*commands[probe.text])

    # The first text of each length makes torch compile for its shape; nobody here shall pay that for the others.
    for probe in probes:
        model().embed([probe.text])
    ours: Sides = {
        "Redis, core": lambda probe: redis.core.lookup(probe.request),
        "local, core": lambda probe: local.core.lookup(probe.request),
    }
    fresh = interleave(
        misses.watch({"raw": embed_and_search, **ours}), lambda number: probes[number * a_round :][:a_round], rounds
    )
    # The memos hold these wordings now; the adapter shares the core's, so only here it can be beside it.
    ours["Redis, LangChain"] = lambda probe: redis.lookup(probe.prompt, LLM)
    ours["raw"] = lambda probe: board.raw.execute_command(*commands[probe.text])
    return fresh, interleave(misses.watch(ours), lambda _: probes[: _KNOWN_CALLS + 1], rounds)


def _judged(board: Stage, size: int, misses: Misses) -> Timings:
    """With the embedding and the judge that comes by default."""
    rounds, a_round = board.options.rounds, _FRESH_CALLS + 1
    probes = board.probes("one", size, KINDS[0], rounds * a_round, judged=True)
    redis, local = board.judged("redis", "one", size).core, board.judged("local", "one", size).core
    store: Any = redis.store
    judge, prepared = CrossEncoderJudge(), {}
    for probe, vector in zip(probes, model().embed([probe.text for probe in probes]), strict=True):
        found = redis._flows._candidates(store.search(probe.request, vector, _NEIGHBOURS), probe.request)
        candidates = [(entry.text or "", similarity) for entry, similarity in found]
        prepared[probe.text] = store._search_command(probe.request, vector, _NEIGHBOURS), candidates
        # As above: torch compiles for each new length.
        model().embed([probe.text])
        judge.judge(probe.text, candidates)

    def by_hand(probe: Probe) -> object:
        command, candidates = prepared[probe.text]
        model().embed([probe.text])
        board.raw.execute_command(*command)
        return judge.judge(probe.text, candidates)

    sides: Sides = {
        "raw": by_hand,
        "Redis, core": lambda probe: redis.lookup(probe.request),
        "local, core": lambda probe: local.lookup(probe.request),
    }
    return interleave(misses.watch(sides), lambda number: probes[number * a_round :][:a_round], rounds)


def _peers(board: Stage, size: int, database: int, misses: Misses) -> list[str]:
    """One row: the same fresh questions to everybody."""
    ours, local = board.judged("redis", "one", size), board.judged("local", "one", size)
    cosine = board.cache("redis", "one", size)
    peer = langchain_redis_cache(board.server.url, f"peer{size}", board.texts[:size], board.vectors[:size], LLM)
    scan = LinearScan(board.server.url, database, board.vectors[:size])
    a_round = _PEER_CALLS + 1
    probes = board.probes("one", size, KINDS[0], board.options.rounds * a_round, judged=True)
    sides: Sides = {
        "costopt, Redis": lambda probe: ours.lookup(probe.text, LLM),
        "costopt, local": lambda probe: local.lookup(probe.text, LLM),
        "costopt, Redis, cosine": lambda probe: cosine.lookup(probe.text, LLM),
        "langchain-redis": lambda probe: peer.lookup(probe.text, LLM),
    }
    timed = interleave(misses.watch(sides), lambda number: probes[number * a_round :][:a_round], board.options.rounds)
    scans = 1 if size > _MANY else board.options.rounds
    scanned = interleave({"scan": lambda probe: scan.lookup(probe.text)}, lambda _: probes[:2], scans)
    board.raw.execute_command("FT.DROPINDEX", f"peer{size}", "DD")
    return [
        f"{size:,}",
        *(timed.show(side) for side in sides),
        scanned.show("scan"),
        f"{1 / timed.ratio('costopt, Redis', 'langchain-redis'):.1f}",
        f"{scanned.median('scan') / timed.median('costopt, Redis'):,.0f}",
    ]


class Misses:
    """Counts the lookups that were timed as hits and were none."""

    def __init__(self) -> None:
        self.missed = self.asked = 0

    def watch(self, sides: Sides) -> Sides:
        """The same sides, counted."""
        return {name: self._counted(side) for name, side in sides.items()}

    def _counted(self, side: Callable[[Any], object]) -> Callable[[Any], object]:
        def ask(item: Any) -> None:
            self.asked += 1
            self.missed += not side(item)

        return ask
