"""Does the trained router send the right prompts to the strong model? On public outcomes that it has not seen."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import SOURCES, Options, embedded, model, read_rows
from cookbook.benchmarks.routing_figures import PAIR, curves, middle, saved_at_95
from costopt.routing import GainEstimator, HeuristicEstimator, Outcomes, QualityFloor, read_outcomes, train_router
from costopt.routing.evaluate import RouterEvaluation, evaluate_router, evaluate_scores
from costopt.routing.metrics import METRICS, Ranking
from costopt.routing.outcomes import check_apart
from costopt.routing.policies import choices

__all__ = ["run"]

Vectors = NDArray[np.float32]

_SEEDS = 5
_FLOOR, _UNLABELLED, _DRAWS = 0.95, 200, 10
_TITLES = {"apgr": "APGR", "cpt50": "CPT(50 %)", "cpt80": "CPT(80 %)", "share_at_95": "share at 95 %"}
_PUBLISHED = ["RouteLLM's best published on this file", "0.603", "0.354", "0.703", "–", "–"]
_GSM8K_TRAINED = 0.7  # share of its rows; there are few


@dataclass(frozen=True)
class _Split:
    """One seed: a router, and the outcomes that it has not seen."""

    router: GainEstimator
    rest: Outcomes
    vectors: Vectors
    found: RouterEvaluation


def run(options: Options) -> dict[str, Any]:
    """Held-out quality on MMLU and GSM8K outcomes, the quality floor, novelty, training time."""
    mmlu, gsm8k = (_outcomes(options, name) for name in ("mmlu", "gsm8k"))
    if mmlu is None or gsm8k is None:
        names = [f"routing/{name}.jsonl.gz" for name in ("mmlu", "gsm8k")]
        notes = [f"{name} is not there: it can be had from {SOURCES[name]}; set COSTOPT_DATA." for name in names]
        return {"bars": [], "tables": [], "notes": notes}
    seeds, resamples = (1, 100) if options.quick else (_SEEDS, 1_000)
    parts = [_mmlu(mmlu, seeds, resamples, options), _gsm8k(gsm8k, seeds, resamples), _time(mmlu)]
    return {
        "bars": [bar for part in parts for bar in part["bars"]],
        "tables": [each for part in parts for each in part["tables"]],
        "figures": {
            "saved_at_95": {
                "MMLU outcomes, quality held at 95 %": parts[0]["saved"],
                "GSM8K outcomes, quality held at 95 %": parts[1]["saved"],
            },
            "curves": parts[0]["curves"],
        },
        "notes": _NOTES,
    }


_NOTES = [
    (
        "Outcomes of mixtral-8x7b and gpt-4-1106 as published with RouteLLM, of its development half as "
        "COSTOPT_DATA has it. For each seed a router is trained on rows drawn at random, and measured on rows "
        "that are not among them, by `costopt.routing.evaluate`: means over the seeds, and least and greatest. "
        "What was chosen about the router (features, neighbours, blend) was chosen on the same half with other "
        "splits, so expect a little less on data of your own."
    ),
    (
        "HeuristicEstimator looks at the prompt only, and at how hard it looks: on traffic of one kind that is "
        "worth no more than its length. Train a router before you call one good."
    ),
    (
        "Over length: APGR less that of sorting by length, on the same bootstrap resamples of the held-out "
        "prompts; the lower end of its 95 % interval, the least of all seeds."
    ),
    (
        "In the table of savings: the share of strong calls at 95 % of the strong model's quality, of the seed "
        f"in the middle, in money at the list prices of {PAIR[0]} and {PAIR[1]} for a prompt's tokens. The "
        "threshold is the one that is right for these very prompts; the table of the floor says what one "
        "from other prompts keeps."
    ),
]


def _outcomes(options: Options, name: str) -> Outcomes | None:
    path = f"routing/{name}.jsonl.gz"
    if options.data is None or read_rows(options, path) is None:
        return None
    read = read_outcomes(options.data / path)
    return read.take(range(2_500)) if options.quick and len(read) > 2_500 else read


def _splits(whole: Outcomes, vectors: Vectors, labels: int, seeds: int, resamples: int) -> list[_Split]:
    found = []
    for seed in range(seeds):
        order = np.random.default_rng(seed).permutation(len(whole))
        kept, left = order[:labels], order[labels:]
        train, rest = whole.take(kept), whole.take(left)
        check_apart(train.prompts, rest.prompts)
        router = train_router(train, model(), seed=seed, vectors=vectors[kept]).router
        measured = evaluate_router(rest, router, vectors[left], seed=seed, resamples=resamples)
        found.append(_Split(router, rest, vectors[left], measured))
    return found


def _mmlu(whole: Outcomes, seeds: int, resamples: int, options: Options) -> dict[str, Any]:
    vectors = embedded(whole.prompts)
    many, few = (_splits(whole, vectors, labels, seeds, resamples) for labels in (1_500, 300))
    heuristic = [
        evaluate_scores(one.rest, HeuristicEstimator().scores(one.rest.prompts)[:, 0], resamples=resamples)
        for one in many
    ]
    rows = [
        _row("GainEstimator, 1,500 labels", [one.found.router for one in many]),
        _row("GainEstimator, 300 labels", [one.found.router for one in few]),
        _PUBLISHED,
        _row("HeuristicEstimator, no labels", [each.router for each in heuristic]),
        *(_row(name, [one.found.controls[name] for one in many]) for name in many[0].found.controls),
    ]
    off = train_router(whole.take(range(99)), model(), vectors=vectors[:99]).router
    bars = [
        at_least("APGR, MMLU, 1,500 labels", _mean(many, "apgr"), 0.64),
        at_most("CPT(50 %), MMLU, 1,500 labels", _mean(many, "cpt50"), 0.31),
        at_most("CPT(80 %), MMLU, 1,500 labels", _mean(many, "cpt80"), 0.63),
        at_least("APGR over length, lower end, MMLU, 1,500 labels", _over(one.found.router for one in many), 0.0),
        at_least("APGR, MMLU, 300 labels", _mean(few, "apgr"), 0.61),
        at_least("prompts on which a router of 99 labels has no opinion", _unsure(off, whole, vectors), 1.0),
    ]
    floors, lost = _floors(many)
    about = f"MMLU outcomes, {seeds} seeds, {len(many[0].rest):,} held-out prompts at 1,500 labels"
    columns = ["", *_TITLES.values(), "APGR over length"]
    tables = [table(about, columns, rows), floors]
    novelty = _novelty(many, options)
    typical, few_typical = (middle([one.found for one in each]) for each in (many, few))
    ours = {"1,500 labels": typical.router, "300 labels": few_typical.router}
    figures = {"saved": saved_at_95(ours, typical), "curves": curves(typical)}
    return {"bars": [*bars, lost], "tables": [*tables, *novelty], **figures}


def _gsm8k(whole: Outcomes, seeds: int, resamples: int) -> dict[str, Any]:
    vectors, labels = embedded(whole.prompts), int(_GSM8K_TRAINED * len(whole))
    splits = _splits(whole, vectors, labels, seeds, resamples)
    cascades = [one.found.cascade for one in splits if one.found.cascade is not None]
    rows = [
        _row(f"GainEstimator, {labels} labels", [one.found.router for one in splits]),
        _row("its cascade, the cheap answer read", cascades),
        *(_row(name, [one.found.controls[name] for one in splits]) for name in splits[0].found.controls),
    ]
    bars = [
        at_least("APGR, GSM8K, from the prompt", _mean(splits, "apgr"), 0.65),
        at_least("APGR, GSM8K, the cheap answer read", statistics.mean(_values(cascades, "apgr")), 0.69),
        at_least("APGR over length, lower end, GSM8K, the cheap answer read", _over(cascades), 0.0),
    ]
    about = f"GSM8K outcomes, {seeds} seeds, {len(splits[0].rest):,} held-out prompts"
    typical = middle([one.found for one in splits])
    ours = {"from the prompt": typical.router}
    if typical.cascade is not None:
        ours["cascade that reads the cheap answer"] = typical.cascade
    found = table(about, ["", *_TITLES.values(), "APGR over length"], rows)
    return {"bars": bars, "tables": [found], "saved": saved_at_95(ours, typical)}


def _row(label: str, rankings: Sequence[Ranking]) -> list[str]:
    cells = [label]
    for name in METRICS:
        values = _values(rankings, name)
        cells.append(f"{statistics.mean(values):.3f} ({min(values):.3f}–{max(values):.3f})")
    return [*cells, "–" if label == "length" else f"{_over(rankings):+.3f}"]


def _values(rankings: Sequence[Ranking], name: str) -> list[float]:
    return [ranking.figures[name].value for ranking in rankings]


def _mean(splits: Sequence[_Split], name: str) -> float:
    return statistics.mean(_values([one.found.router for one in splits], name))


def _over(rankings: Iterable[Ranking]) -> float:
    """The least lower end of the intervals of APGR over length."""
    bounds = [ranking.over_length["apgr"].interval for ranking in rankings]
    return min(-1.0 if each is None else each[0] for each in bounds)


def _unsure(router: GainEstimator, whole: Outcomes, vectors: Vectors) -> float:
    return float(np.isnan(router.scores(whole.prompts[99:], vectors[99:])).mean())


def _floors(splits: Sequence[_Split]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Quality against the target, where thresholds come from 200 unlabelled prompts of the same traffic."""
    rows, means = [], []
    for seed, one in enumerate(splits):
        scores, expected = (each(one.rest.prompts, one.vectors) for each in (one.router.scores, one.router.expected))
        drawn = [
            _floor(one.rest.scores, scores, expected, np.random.default_rng(100 * seed + i)) for i in range(_DRAWS)
        ]
        kept, shares = zip(*drawn, strict=True)
        means.append(statistics.mean(kept))
        rows.append([str(seed), f"{means[-1]:+.4f}", f"{min(kept):+.4f}", f"{statistics.mean(shares):.3f}"])
    title = (
        f"Quality less the target of {_FLOOR:.0%} of the strong score, MMLU, 1,500 labels: thresholds by "
        f"QualityFloor({_FLOOR}) from {_UNLABELLED} held-out prompts without labels, measured on the other ones"
    )
    columns = ["seed", f"mean of {_DRAWS} draws", "least", "share of strong calls"]
    demand = f"quality lost against the target, mean of {_DRAWS} draws, the worst seed"
    return table(title, columns, rows), at_most(demand, max(0.0, -min(means)), 0.01)


def _floor(
    quality: NDArray[np.float64],
    scores: NDArray[np.float64],
    expected: NDArray[np.float64],
    chosen: np.random.Generator,
) -> tuple[float, float]:
    order = chosen.permutation(len(quality))
    seen, rest = order[:_UNLABELLED], order[_UNLABELLED:]
    thresholds = QualityFloor(_FLOOR).thresholds(scores[seen], np.zeros((len(seen), 2)), expected[seen])
    tiers = choices(scores[rest], thresholds)
    kept = float(quality[rest, tiers].mean()) - _FLOOR * float(quality[rest, 1].mean())
    return kept, float(tiers.mean())


def _novelty(splits: Sequence[_Split], options: Options) -> list[dict[str, Any]]:
    """How many prompts are called novel: of the same traffic, and of one that no label is from."""
    rows = read_rows(options, "caching/banking77.jsonl.gz")
    if rows is None:
        return []
    texts = [row["text"] for row in rows][: 300 if options.quick else None]
    foreign = embedded(texts)
    own = statistics.mean(float(one.router.novel(one.rest.prompts, one.vectors).mean()) for one in splits)
    other = statistics.mean(float(one.router.novel(texts, foreign).mean()) for one in splits)
    cells = [["held-out MMLU prompts", f"{own:.3f}"], ["questions to a bank (banking77)", f"{other:.3f}"]]
    return [
        table("Share of prompts on which a router of 1,500 MMLU labels has no opinion", ["traffic", "share"], cells)
    ]


def _time(whole: Outcomes) -> dict[str, Any]:
    labels = min(5_000, len(whole))
    rows, vectors = whole.take(range(labels)), embedded(whole.prompts)[:labels]
    seconds = _took(lambda: train_router(rows, model(), vectors=vectors))
    return {"bars": [at_most(f"training on {labels:,} rows, beside embedding", seconds, 20.0, " s")], "tables": []}


def _took(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
