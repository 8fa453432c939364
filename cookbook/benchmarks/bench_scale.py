"""What size and scopes do to a lookup: time, recall and memory at 1,000 and at 100,000 entries."""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options, model
from cookbook.benchmarks.stage import KINDS, Stage, reworded, stage
from cookbook.benchmarks.timing import interleave
from costopt.caching.entry import decode
from costopt.caching.flows import _NEIGHBOURS

__all__ = ["run"]

_CALLS = 20
_REACHABLE = 0.8  # below, no judge would accept: what an index finds there does not matter


def run(options: Options) -> dict[str, Any]:
    """Every kind of scope in both stores."""
    board = stage(options)
    small, large = options.sizes[0], options.sizes[-1]
    rows, bars = [], []
    for store in ("redis", "local"):
        for kind in KINDS:
            layout = "one" if kind == KINDS[0] else "many"
            total, beside = _growth(board, store, layout, kind)
            recall, count = _recall(board, store, layout, kind)
            rows.append(
                [store, kind, *total[1], *beside[1], f"{total[0]:.2f}", f"{beside[0]:.2f}", f"{recall:.3f}", str(count)]
            )
            about = f"{large:,} entries to {small:,}, {store}, {kind}"
            bars.append(at_most(f"semantic hit, {about}", total[0], 2.0, "×"))
            bars.append(at_most(f"the same beside the embedding, {about}", beside[0], 2.0, "×"))
    columns = [
        "store", "lookups in", f"{small:,}: ms", f"{large:,}: ms", f"{small:,}: ms, text known",
        f"{large:,}: ms, text known", "growth", "growth, text known", "recall@1", "of",
    ]  # fmt: skip
    memory = _memory(board)
    bars += [at_most(f"memory of the local index, {name}", size, 1000, " bytes an entry") for name, size in memory]
    return {
        "bars": bars,
        "tables": [table("Semantic hits as the cache grows", columns, rows)],
        "notes": [
            (
                "Scopes: one that holds everything; or half of the entries in one scope, a quarter in scopes of 250, a "
                "quarter in scopes of one entry each, all in one index."
            ),
            (
                f"Recall@1 at {large:,} entries: how often the store's first neighbour is the one brute force finds "
                f"in the scope, over questions whose nearest one has cosine {_REACHABLE} or more. Equal texts "
                "and cosines (within 0.002) count as the same."
            ),
        ],
    }


def _growth(
    board: Stage, store: str, layout: str, kind: str
) -> tuple[tuple[float, list[str]], tuple[float, list[str]]]:
    """(ratio of the large to the small store, ms of both), with the embedding and with the text known."""
    small, large = board.options.sizes[0], board.options.sizes[-1]
    a_round, rounds = _CALLS + 1, board.options.rounds
    probes = {size: board.probes(layout, size, kind, a_round * rounds) for size in (small, large)}

    def side(size: int) -> Any:
        core = board.cache(store, layout, size).core

        def lookup(number: int) -> None:
            if core.lookup(probes[size][number].request) is None:
                missed.append(number)

        return lookup

    missed: list[int] = []
    sides = {str(size): side(size) for size in (small, large)}
    fresh = interleave(sides, lambda number: range(number * a_round, (number + 1) * a_round), rounds)
    known = interleave(sides, lambda number: range(number * a_round, (number + 1) * a_round), rounds)
    if len(missed) > a_round:
        raise RuntimeError(f"{len(missed)} lookups that were timed as hits missed")
    total, beside = (
        (timed.ratio(str(large), str(small)), [timed.show(name) for name in timed.seconds]) for timed in (fresh, known)
    )
    return total, beside


def _recall(board: Stage, store: str, layout: str, kind: str) -> tuple[float, int]:
    size = board.options.sizes[-1]
    cache = board.cache(store, layout, size)
    # Not `board.probes`: those are questions that an index has found already.
    chosen = random.Random(f"{kind}{size}")
    rows = [chosen.randrange(*board.span(size, kind)) for _ in range(100 if board.options.quick else 400)]
    texts = [reworded(board.texts[row], chosen) for row in rows]
    scopes = np.array([hash(board.scope(layout, size, row)) for row in range(size)])
    found = of = 0
    for row, text, vector in zip(rows, texts, model().embed(texts), strict=True):
        scope = board.scope(layout, size, row)
        inside = np.flatnonzero(scopes == hash(scope))
        best = float((board.vectors[inside] @ vector).max())
        if best < _REACHABLE:
            continue
        request = board.request(text, scope, cache)
        neighbours = cache.core.store.search(request, vector, _NEIGHBOURS)
        mine = [n.similarity for n in neighbours if decode(n.data).scope == request.scope]
        of += 1
        found += bool(mine) and max(mine) > best - 0.002
    return found / of, of


def _memory(board: Stage) -> list[tuple[str, float]]:
    """Bytes an entry of the largest local indexes."""
    size = board.options.sizes[-1]
    sizes = []
    for layout in ("one", "many"):
        index: Any = board.cache("local", layout, size).core.store._index  # type: ignore[attr-defined]
        sizes.append(
            (f"{'one scope' if layout == 'one' else 'many scopes'}, {size:,} entries", index.memory_bytes / len(index))
        )
    return sizes
