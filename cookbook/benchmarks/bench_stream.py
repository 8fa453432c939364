"""A day of requests from several tenants: what each cache saves, and how often it is wrong."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from contextvars import ContextVar
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Protocol

from langchain_core.outputs import Generation
from langchain_redis import RedisSemanticCache

from cookbook.benchmarks.clusters import Clusters, clusters
from cookbook.benchmarks.findings import share, table
from cookbook.benchmarks.material import MODEL, SOURCES, Library, Options, embedded
from cookbook.benchmarks.peers import OurEmbeddings
from costopt import RedisStore, SemanticCache, SharedEmbedder, SimilarityJudge
from costopt.caching import Answer, Judge
from costopt.pricing import Usage, cost
from tests.servers import RedisServer

__all__ = ["run"]

_REQUESTS, _QUICK_REQUESTS = 50_000, 3_000
_SHARES = (0.4, 0.25, 0.17, 0.12, 0.06)  # of the requests, by tenant
_LONE = 3  # one request in so many is a question that nobody asks again
_ZIPF = 1.05
_USAGE = Usage(60, 150)
_PATIENCE_S = 30.0  # nothing may time out: what is compared is what is served
_LLM = f"model={MODEL}"

_KINDS = ("used in training", "unseen")
_UNSEEN = _KINDS[1:]
_BECAME = ("paid", "exact", "right", "wrong", "unjudged")

Request = tuple[int, int]  # (tenant, row of the text)
Served = tuple[bool, int]  # (whether the text is the same, the row that the answer was given to)
Counts = Counter[tuple[str, str]]  # of (one of _KINDS, one of _BECAME)


class _Contender(Protocol):
    """A cache for every tenant."""

    def ask(self, tenant: int, row: int) -> Served | None:
        """Look up, and on a miss pay for an answer and keep it."""

    def close(self) -> None:
        """Give everything back."""


@dataclass(frozen=True, slots=True)
class _Outcome:
    """What came of a stream: (kind of request, what became of it) counted, and seconds."""

    counts: Counts
    seconds: float

    def of(self, kinds: Sequence[str], *became: str) -> int:
        """How many requests of these kinds became one of these."""
        return sum(self.counts[kind, one] for kind in kinds for one in became)


def run(options: Options) -> dict[str, Any]:
    """The same stream to everybody, one after another."""
    found = clusters(options)
    if found is None:
        name = "caching/question_pairs.jsonl.gz"
        note = f"{name} is not there: it can be had from {SOURCES[name]}; set COSTOPT_DATA to the folder that holds it."
        return {"bars": [], "tables": [], "notes": [note]}
    stream = _stream(found, _QUICK_REQUESTS if options.quick else _REQUESTS)
    texts = [found.texts[row] for row in sorted({row for _, row in stream})]
    embedder = SharedEmbedder(Library(texts, embedded(texts)), memo_size=len(texts))
    embedder.embed(texts)

    def costopt(judge: Judge | None) -> Callable[[str], _Contender]:
        return lambda url: _Costopt(url, embedder, judge, found.texts)

    contenders: dict[str, Callable[[str], _Contender]] = {
        "costopt as it is": costopt(None),
        "cosine ≥ 0.95, no guards": costopt(SimilarityJudge(0.95, guards=False)),
        "cosine ≥ 0.9, no guards": costopt(SimilarityJudge(0.9, guards=False)),
        "langchain-redis": lambda url: _LangChainRedis(url, OurEmbeddings(embedder), found.texts),
    }
    outcomes = {name: _outcome(make, stream, found) for name, make in contenders.items()}
    return {"bars": [], "tables": _tables(outcomes), "notes": _notes(found, stream)}


def _stream(found: Clusters, count: int) -> list[Request]:
    """(tenant, row) of each request."""
    chosen = random.Random(17)
    many = [number for number, own in enumerate(found.members) if len(own) > 1]
    chosen.shuffle(many)
    ranked = _in_turn([n for n in many if n in found.unseen], [n for n in many if n not in found.unseen])
    weights = [1 / rank**_ZIPF for rank in range(1, len(ranked) + 1)]
    lone = _lone(found, count // _LONE, chosen)
    repeated = chosen.choices(ranked, weights, k=count - len(lone))
    requests = lone + [(_tenant(chosen), chosen.choice(found.members[number])) for number in repeated]
    chosen.shuffle(requests)
    return requests


def _in_turn(some: list[int], others: list[int]) -> list[int]:
    """One of some, one of the others, while there are both; then the rest."""
    both = min(len(some), len(others))
    mixed = [number for pair in zip(some[:both], others[:both], strict=True) for number in pair]
    return mixed + some[both:] + others[both:]


def _lone(found: Clusters, count: int, chosen: random.Random) -> list[Request]:
    """Questions that nobody asks again; those that are labelled different from each other go to the same tenant."""
    pairs = sorted(found.apart)
    chosen.shuffle(pairs)
    pairs.sort(key=lambda pair: not found.unseen.issuperset(pair))
    tenants: dict[int, int] = {}
    for pair in pairs:
        if len(tenants) >= count:
            break
        tenant = next((tenants[number] for number in pair if number in tenants), _tenant(chosen))
        tenants |= {number: tenant for number in pair if len(found.members[number]) == 1}
    return [(tenant, found.members[number][0]) for number, tenant in tenants.items()][:count]


def _tenant(chosen: random.Random) -> int:
    return chosen.choices(range(len(_SHARES)), _SHARES)[0]


def _outcome(make: Callable[[str], _Contender], stream: list[Request], found: Clusters) -> _Outcome:
    """Each tenant asks in order, all tenants at once."""
    with RedisServer() as server, closing(make(server.url)) as contender, ThreadPoolExecutor(len(_SHARES)) as pool:

        def asked(tenant: int) -> Counts:
            counts: Counts = Counter()
            for row in (row for who, row in stream if who == tenant):
                served = contender.ask(tenant, row)
                counts[_kind(found, row), _became(found, row, served)] += 1
            return counts

        started = time.monotonic()
        counts = sum(pool.map(asked, range(len(_SHARES))), Counts())
        return _Outcome(counts, time.monotonic() - started)


def _kind(found: Clusters, row: int) -> str:
    return _KINDS[found.cluster[row] in found.unseen]


def _became(found: Clusters, row: int, served: Served | None) -> str:
    if served is None:
        return "paid"
    return "exact" if served[0] else found.verdict(row, served[1])


class _Costopt:
    """One `SemanticCache` for all tenants, who ask from threads of their own."""

    def __init__(self, url: str, embedder: SharedEmbedder, judge: Judge | None, texts: Sequence[str]) -> None:
        self._texts = texts
        self._tenant = ContextVar("tenant", default="nobody")
        self._cache = SemanticCache(
            RedisStore(url, timeout=_PATIENCE_S),
            embedder=embedder,
            judge=judge,
            tenant=self._tenant.get,
            time_budget=_PATIENCE_S,
        ).warm()

    def ask(self, tenant: int, row: int) -> Served | None:
        self._tenant.set(f"tenant {tenant}")
        request = self._cache.request([{"role": "user", "content": self._texts[row]}], model=MODEL)
        hit = self._cache.lookup(request)
        if hit is not None:
            return hit.tier == "exact", int(hit.answer.generations[0]["content"])
        self._cache.update(request, Answer(({"kind": "chat", "content": str(row)},), _USAGE, cost(MODEL, _USAGE)))
        return None

    def close(self) -> None:
        """Give everything back.

        Raises:
            RuntimeError: If anything was stepped over, for then it is another cache that was measured.
        """
        stats = self._cache.stats()
        self._cache.close()
        if stats.failures or stats.refused:
            raise RuntimeError(f"not a healthy cache: {dict(stats.failures)}, {dict(stats.refused)}")


class _LangChainRedis:
    """`RedisSemanticCache` with its defaults, one index a tenant."""

    def __init__(self, url: str, embeddings: OurEmbeddings, texts: Sequence[str]) -> None:
        self._texts = texts
        self._caches = [
            RedisSemanticCache(embeddings, redis_url=url, name=f"tenant{number}") for number in range(len(_SHARES))
        ]

    def ask(self, tenant: int, row: int) -> Served | None:
        cache, text = self._caches[tenant], self._texts[row]
        found = cache.lookup(text, _LLM)
        if found:
            answered = int(found[0].text)
            return self._texts[answered] == text, answered
        cache.update(text, _LLM, [Generation(text=str(row))])
        return None

    def close(self) -> None:
        """Nothing to do: the server goes."""


def _tables(outcomes: dict[str, _Outcome]) -> list[dict[str, Any]]:
    price = cost(MODEL, _USAGE) or Decimal(0)
    rows, unseen = [], []
    for name, outcome in outcomes.items():
        rows.append(
            [
                name,
                *_shown(outcome, _KINDS),
                f"${outcome.of(_KINDS, 'paid') * price:.3f}",
                f"${outcome.of(_KINDS, 'exact', 'right', 'unjudged') * price:.3f}",
                f"${outcome.of(_KINDS, 'unjudged') * price:.3f}",
                f"{outcome.seconds:,.0f}",
            ]
        )
        unseen.append([name, *_shown(outcome, _UNSEEN)])
    columns = [
        "served by", "requests", "hit rate", "exact hits", "semantic hits", "wrong hits", "of the semantic hits",
        "of all hits", "unjudged hits", "of all hits",
    ]  # fmt: skip
    money = ["paid", "saved, wrong hits not counted", "of this by unjudged hits", "seconds"]
    return [
        table("The whole stream", [*columns, *money], rows),
        table(
            "Of these, the requests whose questions were used neither to train nor to calibrate the judge",
            columns,
            unseen,
        ),
    ]


def _shown(outcome: _Outcome, kinds: Sequence[str]) -> list[str]:
    exact, right, wrong, unjudged = (outcome.of(kinds, became) for became in ("exact", "right", "wrong", "unjudged"))
    requests, semantic = outcome.of(kinds, *_BECAME), right + wrong + unjudged
    return [
        f"{requests:,}",
        f"{(exact + semantic) / max(1, requests):.1%}",
        f"{exact:,}",
        f"{semantic:,}",
        f"{wrong:,}",
        share(wrong, semantic),
        share(wrong, exact + semantic),
        f"{unjudged:,}",
        share(unjudged, exact + semantic),
    ]


def _notes(found: Clusters, stream: Sequence[Request]) -> list[str]:
    lone = sum(len(found.members[found.cluster[row]]) == 1 for _, row in stream)
    different = len({row for _, row in stream})
    return [
        (
            f"{len(stream):,} requests, {different:,} different texts, {len(_SHARES)} tenants "
            f"({', '.join(f'{part:.0%}' for part in _SHARES)}), made of the question pairs. {len(stream) - lone:,} are "
            "drawn from clusters of paraphrases (joined where a pair is labelled the same) by a Zipf law with "
            f"s = {_ZIPF}, then a text of the cluster by lot; {lone:,} are in no such cluster and asked once. Of "
            "these, two that are labelled different from each other go to the same tenant, so that there is something "
            "to mistake: the stream is harder than chance would make it."
        ),
        (
            "Wrong: served the answer to a question of another cluster, where a pair between the two clusters is "
            "labelled different. Unjudged: of another cluster, and no label says anything. Right: of the same "
            "cluster. The labels are noisy, see the judge."
        ),
        (
            "Nine in ten of the clusters were used to train or to calibrate the judge, which is no merit in the first "
            "table: the second holds the others, drawn more often than one in ten so that there are enough of them."
        ),
        (
            f"Money: {_USAGE.input_tokens} tokens in and {_USAGE.output_tokens} out a call, list price of {MODEL}. "
            "A wrong answer saves nothing; what it costs otherwise is not counted."
        ),
        (
            "Seconds: all lookups and updates, each tenant on a thread of its own, Redis on this machine; all know "
            "the embeddings beforehand, and time budgets are so generous that nothing is given up. One cache after "
            "another, each on a server of its own."
        ),
        (
            "langchain-redis with its defaults (distance 0.2, FLAT index), an index for each tenant, given the bare "
            "question as from a plain LLM: its best case."
        ),
    ]
