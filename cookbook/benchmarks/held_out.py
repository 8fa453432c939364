"""Pairs that the shipped judge was never trained on, and what a cache as it is does with them."""

from __future__ import annotations

import json
import random
import re
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cookbook.benchmarks.material import MODEL, Options, read_rows
from cookbook.training.corpus import UNSEEN, Example, own_sets, public_sets
from cookbook.training.generate import negated, renumbered, reversed_roles
from costopt import LocalStore, SemanticCache, SharedEmbedder
from costopt.caching import Answer
from costopt.caching.evaluate import Evaluation, Pair
from costopt.caching.request import CacheRequest, normalise
from costopt.caching.results import Tier

__all__ = [
    "HeldOut",
    "NearMisses",
    "both_ways",
    "counted",
    "end_to_end",
    "held_out",
    "label_noise",
    "near_misses",
    "texts_of",
]

_FILE = Path(__file__).parents[1] / "data" / "near_misses.jsonl"
_VERSIONS: dict[str, Callable[[str, random.Random], str | None]] = {
    "reversed": reversed_roles,
    "negated": negated,
    "renumbered": renumbered,
}
_SEED = 3
_QUICK = 300  # pairs of a set, to try things out
_PATIENCE_S = 60.0  # what is asked here is what is served, not how soon
_MARKS = re.compile(r"""[\s?.!,;:'"’()]+""")


@dataclass(frozen=True, slots=True)
class HeldOut:
    """A set of labelled pairs.

    Attributes:
        name: What it is, in words.
        pairs: The pairs.
        precision: Least precision asked of the cache as it is.
        recall: Least recall.
        bound: Whether its measured error must be within `max_error`: not where labels are noisy, nor where every
            negative pair was written to be mistaken.
    """

    name: str
    pairs: list[Pair]
    precision: float
    recall: float
    bound: bool


@dataclass(frozen=True, slots=True)
class NearMisses:
    """Pairs of which none wants the same answer: what they are, and (one text, another, kind of difference)."""

    name: str
    pairs: list[tuple[str, str, str]]


def held_out(options: Options) -> list[HeldOut]:
    """The sets: those of the public data if it is there, and the domain that was never trained on."""
    misses, neighbours = (sets[UNSEEN].test for sets in own_sets())
    found = []
    if options.data is not None:
        public = public_sets(options.data)
        found += [
            HeldOut("question pairs", _pairs(public["questions"].test, options), 0.90, 0.40, False),
            HeldOut("prompt pairs", _pairs(public["prompts"].test, options), 0.95, 0.45, True),
        ]
    found += [
        HeldOut(f"{UNSEEN} questions, neighbours", _pairs(neighbours, options), 0.95, 0.35, True),
        HeldOut(f"{UNSEEN} questions, near misses", _pairs(misses, options), 0.95, 0.35, False),
    ]
    return [one for one in found if one.pairs]


def near_misses(options: Options) -> list[NearMisses]:
    """The written list, and versions of the prompts of the development half."""
    rows = [json.loads(line) for line in _FILE.read_text("utf-8").splitlines()]
    found = [NearMisses("written near misses", [(row["a"], row["b"], row["kind"]) for row in rows])]
    prompts = read_rows(options, "caching/prompt_pairs.jsonl.gz")
    if prompts is None or options.data is None:
        return found
    texts = list(dict.fromkeys(normalise(row[side]) for row in prompts for side in ("a", "b")))
    for kind, version in _VERSIONS.items():
        chosen = random.Random(_SEED)
        versions = [(text, version(text, chosen)) for text in texts]
        pairs = [(text, other, kind) for text, other in versions if other is not None and normalise(other) != text]
        found.append(NearMisses(f"{kind} prompts", pairs))
    return found


def _pairs(examples: Sequence[Example], options: Options) -> list[Pair]:
    pairs = [Pair(one.a, one.b, one.same) for one in examples]
    if options.quick and len(pairs) > _QUICK:
        return random.Random(_SEED).sample(pairs, _QUICK)
    return pairs


def both_ways(pairs: Sequence[tuple[str, str, str]]) -> list[tuple[str, str, str]]:
    """Each pair in both directions."""
    return [*pairs, *((b, a, kind) for a, b, kind in pairs)]


def texts_of(pairs: Sequence[Pair] | Sequence[tuple[str, str, str]]) -> list[str]:
    """All texts as the cache sees them, each once."""
    both = ((pair.a, pair.b) if isinstance(pair, Pair) else pair[:2] for pair in pairs)
    return list(dict.fromkeys(normalise(text) for pair in both for text in pair))


def end_to_end(pairs: Sequence[tuple[str, str]], embedder: SharedEmbedder) -> list[Tier | None]:
    """Store the answer to the first text of each pair, then ask the second: in which tier was it served?

    Every pair has a system prompt of its own, so that no two pairs meet.

    Raises:
        RuntimeError: If anything failed and was stepped over, for then it is another cache that was measured.
    """
    with tempfile.TemporaryDirectory() as folder:
        cache = SemanticCache(LocalStore(Path(folder) / "pairs.db"), embedder=embedder, time_budget=_PATIENCE_S).warm()

        def request(number: int, text: str) -> CacheRequest:
            system = {"role": "system", "content": f"You answer pair {number}."}
            return cache.request([system, {"role": "user", "content": text}], model=MODEL)

        for number, (stored, _) in enumerate(pairs):
            cache.update(request(number, stored), Answer(({"kind": "chat", "content": str(number)},)))
        cache.store.open()  # so many writes at once reach the index aside, and until then nothing is found
        # One after the other: with several, a pause of the machine is a fault to those who queue at the file.
        hits = [cache.lookup(request(number, asked)) for number, (_, asked) in enumerate(pairs)]
        stats = cache.stats()
        cache.close()
    if stats.failures or stats.stored != len(pairs):
        raise RuntimeError(f"not a healthy cache: {stats.stored} of {len(pairs)} stored, {dict(stats.failures)}")
    for number, hit in enumerate(hits):
        if hit is not None and hit.answer.generations[0]["content"] != str(number):
            raise RuntimeError(f"pair {number} was served the answer of another pair: {hit}")
    return [None if hit is None else hit.tier for hit in hits]


def counted(pairs: Sequence[Pair], served: Sequence[Tier | None]) -> Evaluation:
    """What `end_to_end` found of labelled pairs, in the terms of `evaluate`."""
    return Evaluation(
        pairs=len(pairs),
        same=sum(pair.same for pair in pairs),
        served=sum(tier is not None for tier in served),
        right=sum(pair.same for pair, tier in zip(pairs, served, strict=True) if tier is not None),
        exact=served.count("exact"),
    )


def label_noise(pairs: Sequence[Pair]) -> tuple[int, int]:
    """(labelled different, of) the pairs that are one text but for case, blanks and punctuation."""
    equal = [pair for pair in pairs if _bare(pair.a) == _bare(pair.b)]
    return sum(not pair.same for pair in equal), len(equal)


def _bare(text: str) -> str:
    return _MARKS.sub(" ", text.lower()).strip()
