"""The question pairs as clusters of paraphrases, for a stream of requests."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from cookbook.benchmarks.material import Options, read_rows
from cookbook.training.corpus import public_sets
from costopt.caching.request import normalise

__all__ = ["Clusters", "clusters"]


@dataclass(frozen=True, slots=True)
class Clusters:
    """Questions, joined where a pair is labelled the same.

    Attributes:
        texts: The questions, all different.
        cluster: Which cluster each belongs to.
        members: The rows of each cluster.
        apart: Clusters of which a pair is labelled different, the lesser first.
        unseen: Clusters of which no text was used to train or to calibrate the judge.
    """

    texts: list[str]
    cluster: list[int]
    members: list[list[int]]
    apart: set[tuple[int, int]]
    unseen: set[int]

    def verdict(self, asked: int, answered: int) -> str:
        """Whether the answer to one row is right for another: "right", "wrong", or "unjudged" if no label says."""
        one, other = sorted((self.cluster[asked], self.cluster[answered]))
        if one == other:
            return "right"
        return "wrong" if (one, other) in self.apart else "unjudged"


def clusters(options: Options) -> Clusters | None:
    """The question pairs as clusters; None if they are not there."""
    rows = read_rows(options, "caching/question_pairs.jsonl.gz")
    if rows is None or options.data is None:
        return None
    pairs = [(normalise(row["a"]), normalise(row["b"]), bool(row["same"])) for row in rows]
    texts = list(dict.fromkeys(text for one, other, _ in pairs for text in (one, other)))
    place = {text: row for row, text in enumerate(texts)}
    cluster = _joined(len(texts), ((place[one], place[other]) for one, other, same in pairs if same))
    members: list[list[int]] = [[] for _ in range(max(cluster) + 1)]
    for row, number in enumerate(cluster):
        members[number].append(row)
    between = (sorted((cluster[place[one]], cluster[place[other]])) for one, other, same in pairs if not same)
    test = public_sets(options.data)["questions"].test
    held = {normalise(text) for pair in test for text in (pair.a, pair.b)}
    unseen = {number for number, own in enumerate(members) if all(texts[row] in held for row in own)}
    return Clusters(texts, cluster, members, {(one, other) for one, other in between if one != other}, unseen)


def _joined(count: int, links: Iterable[tuple[int, int]]) -> list[int]:
    """Number of the component of each of `count` things."""
    parent = list(range(count))

    def head(row: int) -> int:
        while parent[row] != row:
            parent[row] = parent[parent[row]]
            row = parent[row]
        return row

    for one, other in links:
        parent[head(one)] = head(other)
    numbers: dict[int, int] = defaultdict(lambda: len(numbers))
    return [numbers[head(row)] for row in range(count)]
