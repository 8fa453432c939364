"""`costopt router …`: train on measured outcomes, measure, set thresholds, score prompts."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from costopt import cli_parts
from costopt.cli_parts import AsJson, print_json, write_text
from costopt.errors import ConfigError

if TYPE_CHECKING:
    from costopt.embedding import Embedder
    from costopt.routing.calibrate import Calibration
    from costopt.routing.evaluate import RouterEvaluation
    from costopt.routing.gain import GainEstimator, Training
    from costopt.routing.metrics import Ranking
    from costopt.routing.outcomes import Outcomes
    from costopt.routing.policies import Policy

__all__ = ["router_app"]

router_app = typer.Typer(help="Train, measure and set a router of models.", no_args_is_help=True)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

OutcomesFile = Annotated[
    str,
    typer.Argument(metavar="OUTCOMES", help='JSONL of {"prompt", "scores": {model: 0 to 1}}; .gz; - for stdin.'),
]
PromptsFile = Annotated[str, typer.Argument(metavar="PROMPTS", help='JSONL of {"prompt"}; .gz; - for stdin.')]
RouterFile = Annotated[Path, typer.Option("--router", metavar="F", help="What `router train` wrote.")]
Marker = Annotated[
    str | None, typer.Option("--split", metavar="MARKER", help="What stands before the question: a Router's split=.")
]
Seed = Annotated[int, typer.Option(help="Of everything random.", min=0)]

_NAMES = {"apgr": "APGR", "cpt50": "CPT(50 %)", "cpt80": "CPT(80 %)", "share_at_95": "share at 95 %"}


@router_app.command()
def train(
    outcomes: OutcomesFile,
    out_file: Annotated[Path, typer.Option("--out", metavar="F", help="Writes F.npz and F.json.")],
    labels: Annotated[int | None, typer.Option(metavar="N", help="Learn from so many rows, drawn at random.")] = None,
    seed: Seed = 0,
    tiers: Annotated[
        str | None, typer.Option(metavar="A,B", help="The models, cheapest first; else by rising mean score.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Learn from outcomes what the stronger model adds, and write the router."""
    from costopt.embedding import default_embedder
    from costopt.routing.gain import train_router
    from costopt.routing.outcomes import read_outcomes

    read = read_outcomes(outcomes, None if tiers is None else [name.strip() for name in tiers.split(",")])
    chosen = read if labels is None else read.split(labels, seed)[0]
    with err.status("embedding and training"):
        training = train_router(chosen, default_embedder(), seed=seed)
    training.router.save(out_file)
    facts = _trained(training, chosen, read)
    if as_json:
        print_json({**facts, "out": str(out_file)})
        return
    _say_trained(training, read, facts)
    if training.router.mode != "off":
        out.print(f'next       costopt router calibrate PROMPTS --router "{out_file}" --strong-share 0.3', markup=False)
    err.print(f"written to {out_file}.npz and {out_file}.json", markup=False)


def _trained(training: Training, chosen: Outcomes, read: Outcomes) -> dict[str, Any]:
    """What training found, and how it would have done on each row without it."""
    from costopt.routing.evaluate import evaluate_scores

    router = training.router
    facts: dict[str, Any] = {
        "rows": router.rows,
        "mode": router.mode,
        "tiers": dict(zip(router.tiers, chosen.scores.mean(axis=0).round(6).tolist(), strict=True)),
        "incomplete": read.incomplete,
        "merged": read.merged,
        "answers": router.answer_model is not None,
        "left_out": None,
    }
    if router.mode != "off" and chosen.gains.mean() > 0:
        after = training.answer_gains
        usable = after if after is not None and not any(after != after) else None
        found = evaluate_scores(chosen, training.gains, usable, resamples=400)
        facts["left_out"] = {key: value for key, value in found.as_dict().items() if key != "points"}
    return facts


def _say_trained(training: Training, read: Outcomes, facts: Mapping[str, Any]) -> None:
    from costopt.routing.gain import ROUTES_FROM, SHADOWS_FROM

    router = training.router
    if read.incomplete:
        err.print(f"{read.incomplete:,} rows without the scores of all tiers were left out")
    if read.merged:
        err.print(f"{read.merged:,} rows had a prompt that was there before: merged, their scores averaged")
    scores = ", ".join(f"{name} {score:.3f}" for name, score in facts["tiers"].items())
    out.print(f"tiers      {scores} (mean score, cheapest first)", markup=False)
    why = f"from {SHADOWS_FROM} labels a router shadows, from {ROUTES_FROM} it routes"
    out.print(f"mode       {router.mode}: {router.rows:,} labelled prompts; {why}")
    left_out = facts["left_out"]
    if left_out:
        out.print("each prompt by a router that had not seen it (leave-one-out):")
        _say_flat("apgr", left_out, left_out["over_length"])
        if left_out["cascade"]:
            _say_flat("apgr", left_out["cascade"], left_out["cascade"]["over_length"], "APGR, answer read")
        low = (left_out["over_length"]["apgr"]["interval"] or (0, 0))[0]
        if low <= 0:
            err.print("not shown to be better than sorting by length: label more prompts before you rely on it")


def _say_flat(name: str, found: Mapping[str, Any], over: Mapping[str, Any], label: str = "") -> None:
    text = f"{label or _NAMES[name]:<18} {found[name]:.3f}{_between(found['intervals'][name])}"
    out.print(f"{text}; over length {over[name]['value']:+.3f}{_between(over[name]['interval'])}")


@router_app.command("eval")
def evaluate(
    outcomes: OutcomesFile,
    router_file: Annotated[
        str, typer.Option("--router", metavar="F", help='What `router train` wrote, or "heuristic".')
    ],
    plot: Annotated[Path | None, typer.Option(metavar="F.svg", help="Draw the curve.")] = None,
    seed: Seed = 0,
    resamples: Annotated[int, typer.Option(help="Of the bootstrap.", min=10)] = 1_000,
    as_json: AsJson = False,
) -> None:
    """Measure a router on outcomes that it was not trained on: APGR, CPT, share of strong calls, and controls."""
    found = _evaluated(outcomes, router_file, seed, resamples)
    if plot is not None:
        from costopt.routing.plot import svg

        write_text(plot, svg(found), "--plot")
    if as_json:
        print_json(found.as_dict())
        return
    (cheap, low), (strong, high) = found.cheap, found.strong
    out.print(f"{found.prompts:,} prompts; {cheap} scores {low:.3f}, {strong} {high:.3f}", markup=False)
    for label, ranking in _rankings(found).items():
        out.print(f"[bold]{label}[/]")
        for name, title in _NAMES.items():
            figure = ranking.figures[name]
            over = ranking.over_length[name]
            rest = "" if label == "length" else f"; over length {over.value:+.3f}{_between(over.interval)}"
            out.print(f"  {title:<14} {figure.value:.3f}{_between(figure.interval)}{rest}")
    out.print("[bold]quality at a share of strong calls[/]")
    for point in found.points:
        out.print(f"  {point.share:<14.0%} {point.quality.value:.3f}{_between(point.quality.interval)}")


def _rankings(found: RouterEvaluation) -> dict[str, Ranking]:
    cascade = {} if found.cascade is None else {"cascade (answer read)": found.cascade}
    return {"router": found.router, **cascade, **found.controls}


def _evaluated(outcomes: str, router_file: str, seed: int, resamples: int) -> RouterEvaluation:
    from costopt.routing.estimator import HeuristicEstimator
    from costopt.routing.evaluate import evaluate_router, evaluate_scores, unseen
    from costopt.routing.outcomes import read_outcomes

    if router_file == "heuristic":
        read = read_outcomes(outcomes)
        return evaluate_scores(read, HeuristicEstimator().scores(read.prompts)[:, 0], seed=seed, resamples=resamples)
    router, embedder = _loaded(router_file)
    read = read_outcomes(outcomes, router.tiers)
    fresh = unseen(read, router)
    known = len(read) - len(fresh)
    if known:
        err.print(f"{known:,} prompts on which the router was trained were left out")
    if router.mode == "off":
        err.print(f"this router is off: it was trained on {router.rows} labels, and holds every prompt for the same")
    with err.status("embedding and measuring"):
        vectors = embedder.embed(fresh.prompts)
        return evaluate_router(fresh, router, vectors, seed=seed, resamples=resamples, trained_on=known)


@router_app.command()
def calibrate(
    prompts: PromptsFile,
    router_file: RouterFile,
    strong_share: Annotated[float | None, typer.Option(help="Target: share of the strongest tier, in [0, 1].")] = None,
    dollars: Annotated[str | None, typer.Option(help="Target: dollars for 1,000 requests.")] = None,
    quality: Annotated[
        float | None, typer.Option(help="Target: share of the strongest tier's score to keep, in (0, 1].")
    ] = None,
    price: Annotated[
        list[str] | None,
        typer.Option(metavar="MODEL=IN/OUT", help="Dollars per million tokens, for a model the price list lacks."),
    ] = None,
    output_tokens: Annotated[int, typer.Option(help="Tokens of a typical answer, for dollars.", min=1)] = 300,
    split: Marker = None,
    as_json: AsJson = False,
) -> None:
    """Set the thresholds for a target from prompts like those to come; no labels are needed. Writes them into F."""
    from costopt.routing.calibrate import calibrate_router, request_costs
    from costopt.routing.outcomes import read_prompts

    policy, prices = _policy(strong_share, dollars, quality), cli_parts.prices(price or [])
    router, embedder = _loaded(router_file)
    texts, answers = read_prompts(prompts)
    costs = request_costs(texts, router.tiers, prices, output_tokens)  # of all of a prompt
    texts = _questions(texts, split)
    with err.status("embedding"):
        vectors = embedder.embed(texts)
    found = calibrate_router(router, policy, texts, vectors, costs, [each.get(router.tiers[0]) for each in answers])
    found.router.save(router_file)
    if as_json:
        print_json({**found.as_dict(), "router": str(router_file)})
        return
    _say_calibrated(found, router_file)


def _say_calibrated(found: Calibration, router_file: Path) -> None:
    facts, tiers = found.as_dict(), found.router.tiers
    out.print(f"thresholds  {', '.join(f'{value:.4f}' for value in found.router.thresholds or ())}")
    out.print(f"by them     {', '.join(f'{name} {share:.1%}' for name, share in found.shares.items())}", markup=False)
    out.print(f"quality     {found.quality:.1%} of what {tiers[-1]} alone is expected to score", markup=False)
    if found.dollars is not None:
        out.print(
            f"dollars     {found.dollars:,.4f} for 1,000 requests, {found.dollars_strong:,.4f} by {tiers[-1]} alone"
        )
    if found.novel:
        out.print(
            f"novel       {found.novel:,} of {facts['prompts']:,} prompts are unlike the labelled ones: {tiers[-1]}"
        )
    if found.router.mode != "route":
        err.print(
            f"this router is in mode {found.router.mode}: with {found.router.rows} labels it decides on paper only"
        )
    names = ", ".join(json.dumps(name) for name in tiers)
    out.print(
        f'\nrouter = Router([{names}], estimator=GainEstimator.load("{router_file}"))', markup=False, soft_wrap=True
    )
    cascade = found.router.cascade_threshold
    if cascade is not None:
        line = f"cascade = Cascade(estimator=router.estimator.for_answers(), threshold={cascade:.4f})"
        out.print(line, markup=False)


@router_app.command()
def score(prompts: PromptsFile, router_file: RouterFile, split: Marker = None) -> None:
    """Print for each prompt, in order, what the strongest tier is expected to add to the cheapest.

    Where a line carries the cheapest model's answer ("answers": {model: text}) and the router has learned to read them,
    the score is what the strongest tier would add to that answer.
    """
    from costopt.routing.outcomes import read_prompts

    router, embedder = _loaded(router_file)
    texts, answers = read_prompts(prompts)
    texts = _questions(texts, split)
    if router.mode == "off":
        err.print(f"this router is off: it was trained on {router.rows} labels, and holds every prompt for the same")
    with err.status("embedding"):
        vectors = embedder.embed(texts)
    gains, novel = router.gains(texts, vectors), router.novel(texts, vectors)
    given = [each.get(router.tiers[0]) for each in answers]
    rows = [i for i, answer in enumerate(given) if answer is not None and router.answer_model is not None]
    gains = gains.copy()
    if rows:
        read = [given[i] or "" for i in rows]
        gains[rows] = router.for_answers().gains([texts[i] for i in rows], read, vectors[rows])
    by = {True: "answer", False: "prompt"}
    chosen = set(rows)
    for i, gain in enumerate(gains):
        line = {"score": round(float(gain), 9), "novel": bool(novel[i]), "by": by[i in chosen]}
        sys.stdout.write(json.dumps(line) + "\n")


def _questions(prompts: Sequence[str], split: str | None) -> list[str]:
    """What a `Router` with the same `split` has its estimator read."""
    from costopt.routing.reading import Reading

    return [*map(Reading(split).question, prompts)]


def _loaded(path: str | Path) -> tuple[GainEstimator, Embedder]:
    from costopt.embedding import default_embedder
    from costopt.routing.gain import GainEstimator

    router = GainEstimator.load(path)
    embedder = default_embedder()
    router.check(embedder)
    return router, embedder


def _policy(strong_share: float | None, dollars: str | None, quality: float | None) -> Policy:
    from costopt.routing.policies import DollarsPer1000, QualityFloor, StrongShare

    if sum(each is not None for each in (strong_share, dollars, quality)) != 1:
        raise ConfigError("give one target: --strong-share 0.3, --dollars 2.50 or --quality 0.95")
    if strong_share is not None:
        return StrongShare(strong_share)
    if quality is not None:
        return QualityFloor(quality)
    return DollarsPer1000(cli_parts.dollars(dollars or "", "--dollars"))


def _between(interval: Sequence[float] | None) -> str:
    return "" if interval is None else f" ({interval[0]:.3f} to {interval[1]:.3f})"
