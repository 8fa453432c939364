"""The command line: data on stdout, messages and progress on stderr; exit 0, 1 (it failed), 2 (used wrongly)."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from costopt.audit_cli import audit_log
from costopt.batch_cli import batch_app
from costopt.cli_parts import AsJson, Namespace, is_denied, print_json, write_text
from costopt.compression_cli import compress
from costopt.errors import ConfigError, CostOptError, StoreError, require
from costopt.local_cli import local_app, plan
from costopt.optimizer_cli import init, report
from costopt.routing_cli import router_app

__all__ = ["main"]

app = typer.Typer(
    help="Cut what an application pays for model calls.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
cache_app = typer.Typer(help="Look at, empty and measure a cache.", no_args_is_help=True)
app.add_typer(cache_app, name="cache")
app.add_typer(router_app, name="router")
app.command()(compress)
app.add_typer(local_app, name="local")
app.command()(plan)
app.add_typer(batch_app, name="batch")
app.command("audit")(audit_log)
app.command()(init)
app.command()(report)

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

Redis = Annotated[str | None, typer.Option("--redis", metavar="URL", help="Use this Redis, not the local file.")]
CacheFile = Annotated[Path | None, typer.Option("--path", metavar="FILE", help="Use this local file.")]
MaxError = Annotated[
    float | None, typer.Option("--max-error", help="Share of served answers that may be wrong, in [0, 1).")
]


@app.command()
def demo(
    redis: Redis = None,
    log: Annotated[
        str | None, typer.Option("--log", metavar="FILE", help="Replay your own requests (JSONL, .gz, - for stdin).")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Replay sample traffic through LangChain with and without the cache: calls, tokens, dollars, wrong hits."""
    require("langchain_core", "langchain")
    # The command line stands above the adapters; nothing below it may import them.
    from langchain_costopt.demo import run_demo

    run_demo(log=log, redis=redis, as_json=as_json, out=out, err=err)


@app.command()
def doctor(namespace: Namespace = None, as_json: AsJson = False) -> None:
    """Check this installation: one line for each check, and how to mend what is wrong."""
    from costopt.doctor import examine

    checks = examine(namespace)
    if as_json:
        print_json([check.as_dict() for check in checks])
    else:
        for check in checks:
            mark, colour = {"ok": ("ok  ", "green"), "off": ("-   ", "dim"), "bad": ("BAD ", "red")}[check.state]
            out.print(f"[{colour}]{mark}[/] {escape(f'{check.name}: {check.finding}')}", soft_wrap=True)
            if check.mend:
                out.print(f"       {check.mend}", style="yellow", soft_wrap=True, markup=False)
    if any(check.state == "bad" for check in checks):
        raise typer.Exit(1)


@cache_app.command()
def stats(redis: Redis = None, path: CacheFile = None, namespace: Namespace = None, as_json: AsJson = False) -> None:
    """What lies in the cache, and what it has saved so far, over all processes."""
    with _opened(redis, path, namespace) as store:
        (entries, size), totals = _size(store), dict(store.totals())
    hits = sum(totals.get(tier, 0) for tier in ("exact", "semantic", "in_flight"))
    lookups = totals.get("lookups", 0)
    facts = {
        "entries": entries,
        "bytes": size,
        "lookups": lookups,
        "hits": hits,
        "hit_rate": hits / lookups if lookups else None,
        "exact": totals.get("exact", 0),
        "semantic": totals.get("semantic", 0),
        "in_flight": totals.get("in_flight", 0),
        "stored": totals.get("stored", 0),
        "rejected": totals.get("rejected", 0),
        "saved_tokens": totals.get("saved_tokens", 0),
        "saved_usd": totals.get("saved_nanousd", 0) / 1e9,
        "unpriced_hits": totals.get("unpriced", 0),
    }
    if as_json:
        print_json(facts)
        return
    table = Table(show_header=False, box=None)
    for name, value in facts.items():
        table.add_row(name.replace("_", " "), _shown(name, value))
    out.print(table)


@cache_app.command()
def clear(
    redis: Redis = None,
    path: CacheFile = None,
    namespace: Namespace = None,
    tenant: Annotated[str | None, typer.Option(help="Only entries of this tenant.")] = None,
    model: Annotated[str | None, typer.Option(help="Only entries of this model.")] = None,
    tag: Annotated[str | None, typer.Option(help="Only entries with this tag.")] = None,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove entries: all of them, or those of a tenant, a model, a tag."""
    from costopt.caching.semantic import selector

    given = {name: value for name, value in (("tenant", tenant), ("model", model), ("tag", tag)) if value is not None}
    for name, value in given.items():
        if not value.strip():
            raise ConfigError(f"--{name} is empty: name a {name}, or leave it out to remove those of all")
    chosen = selector(**given)
    which = ", ".join(f"{name} {value!r}" for name, value in given.items()) or "ALL"
    if not yes and not typer.confirm(f"Remove {which} entries?", err=True):
        raise typer.Exit(1)
    with _opened(redis, path, namespace) as store:
        err.print(f"{store.remove(chosen)} entries removed")


@cache_app.command("eval")
def evaluate(
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help='JSONL of {"a", "b", "same"}; .gz; - for stdin.')],
    max_error: MaxError = None,
    policy: Annotated[Path | None, typer.Option(metavar="FILE", help="What `cache tune` wrote.")] = None,
    min_similarity: Annotated[float | None, typer.Option(help="Judge nothing less similar; cosine in [0, 1].")] = None,
    cosine: Annotated[
        float | None, typer.Option(help="Serve by this cosine similarity, to compare with; the judge is not asked.")
    ] = None,
    guards: Annotated[bool, typer.Option("--guards/--no-guards", help="Heed the guards.")] = True,
    as_json: AsJson = False,
) -> None:
    """Precision, recall and hit rate of the semantic tier on labelled pairs of questions."""
    from costopt.caching import CrossEncoderJudge, SimilarityJudge
    from costopt.caching.evaluate import evaluate as measure
    from costopt.caching.evaluate import interval
    from costopt.embedding import default_embedder

    if cosine is not None and (max_error is not None or policy is not None or min_similarity is not None):
        raise ConfigError("--cosine decides by itself: leave out --max-error, --policy and --min-similarity")
    if min_similarity is not None:
        SimilarityJudge(min_similarity)  # for its checks
    judge: Any = SimilarityJudge(cosine, guards) if cosine is not None else None
    judge = judge or CrossEncoderJudge(max_error=max_error, policy=policy, guards=guards)
    with err.status("embedding and judging"):
        found = measure(_pairs(pairs), default_embedder(), judge, min_similarity=min_similarity)
    if as_json:
        print_json({"max_error": getattr(judge, "max_error", None), "guards": guards, **found.as_dict()})
        return
    out.print(f"{found.pairs:,} pairs, {found.same:,} of them want the same answer")
    out.print(f"served     {found.served:,} ({found.hit_rate:.1%}), {found.exact:,} of them the same text")
    for name, share, bounds in (
        ("precision", found.precision, interval(found.right, found.served)),
        ("recall", found.recall, interval(found.right, found.same)),
    ):
        out.print(_measured(name, share, bounds))
    for reason, count in sorted(found.vetoed.items(), key=lambda item: -item[1]):
        out.print(f"  kept back {count:,} by {reason}")


@cache_app.command()
def tune(
    pairs: Annotated[str, typer.Argument(metavar="PAIRS", help='JSONL of {"a", "b", "same"}; .gz; - for stdin.')],
    max_error: Annotated[float, typer.Option(help="Share of served answers that may be wrong, in [0, 1).")] = 0.05,
    out_file: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the policy is written.")] = Path(
        "policy.json"
    ),
    guards: Annotated[bool, typer.Option("--guards/--no-guards", help="Heed the guards.")] = True,
    as_json: AsJson = False,
) -> None:
    """Fit the judge to your own pairs, and write the policy that SemanticCache(policy=FILE) loads."""
    from costopt.caching import CrossEncoderJudge
    from costopt.caching.evaluate import interval
    from costopt.caching.tune import tune as fit
    from costopt.embedding import default_embedder

    with err.status("embedding and judging"):
        found = fit(_pairs(pairs), default_embedder(), CrossEncoderJudge(guards=guards), max_error)
    write_text(out_file, found.policy.as_json(), "--out")
    if as_json:
        print_json({**found.as_dict(), "out": str(out_file)})
        return
    out.print(f"{found.pairs:,} pairs, {found.judged:,} of which the judge was asked about; five folds:")
    for name, share, bounds in (
        ("coverage", found.coverage, interval(found.served, found.pairs)),
        ("error", found.error, interval(found.wrong, found.served)),
    ):
        out.print(_measured(name, share, bounds))
    if found.threshold > 1:
        out.print(f"no threshold is known to keep the error within {max_error}: only the same text will be served")
    else:
        out.print(f"threshold  probability {found.threshold:.3f} for an error of at most {max_error}")
    err.print(f"written to {out_file}")


@cache_app.command()
def pairs(redis: Redis = None, path: CacheFile = None, namespace: Namespace = None) -> None:
    """Print what was rejected, or compared in shadow mode, as the JSONL that `tune` and `eval` read."""
    from costopt.caching.online import decode_evidence

    with _opened(redis, path, namespace) as store:
        rows = [decode_evidence(data) for data in store.all_evidence()]
    for row in rows:
        if row is not None:
            fields = {"a": row.b, "b": row.a, "same": row.same, "probability": row.probability}
            # ASCII: a terminal or a pipe may take nothing else, and half a character is in no encoding.
            sys.stdout.write(json.dumps(fields) + "\n")
    err.print(f"{sum(row is not None for row in rows)} pairs")


def _measured(name: str, share: float | None, bounds: tuple[float, float] | None) -> str:
    shown = "nothing to measure" if share is None else f"{share:.3f}"
    between = "" if bounds is None else f"  (95 % interval {bounds[0]:.3f} - {bounds[1]:.3f})"
    return f"{name:<10} {shown}{between}"


def _pairs(source: str) -> Iterator[Any]:
    from costopt.caching.evaluate import Pair
    from costopt.jsonl import read_jsonl

    for number, row in read_jsonl(source):
        a, b, same = row.get("a"), row.get("b"), row.get("same")
        if not isinstance(a, str) or not isinstance(b, str) or same not in (0, 1):
            raise ConfigError(f'{source}, line {number}: a pair is {{"a": "...", "b": "...", "same": true or false}}')
        yield Pair(a, b, bool(same))


def _opened(redis: str | None, path: Path | None, namespace: str | None) -> Any:
    from contextlib import closing

    from costopt.caching import LocalStore, RedisStore
    from costopt.caching.defaults import default_path, redis_url
    from costopt.embedding import DEFAULT_SPACE

    if redis is not None and path is not None:
        raise ConfigError("give --redis or --path, not both")
    url = redis or (None if path is not None else redis_url())
    # Keeping house may take its time, unlike a lookup.
    if url is not None:
        named: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
        return closing(RedisStore(url, timeout=5.0, **named))
    if namespace is not None:
        raise ConfigError("--namespace is Redis's, and this is a file: give --redis, or leave --namespace out")
    file = path or default_path()
    if not file.exists():
        raise ConfigError(
            f"there is no cache at {file}: it is made when an application first uses it; if yours lies elsewhere, give "
            "--path or --redis"
        )
    store = LocalStore(file)
    store.bind(*DEFAULT_SPACE)
    return closing(store)


def _size(store: Any) -> tuple[int | None, int | None]:
    """Entries and bytes, None where this account of Redis may not list keys."""
    try:
        size = store.size()
        return size.entries, size.bytes
    except StoreError as error:
        if not is_denied(error):
            raise
    err.print("this account may not list keys, so entries cannot be counted: use one that may", style="yellow")
    return None, None


def _shown(name: str, value: Any) -> str:
    if value is None:
        return "unknown"
    if name == "saved_usd":
        return f"${value:,.4f}"
    return f"{value:.1%}" if name == "hit_rate" else f"{value:,}"


def main() -> None:
    """Entry point of the `costopt` command."""
    try:
        app()
    except CostOptError as error:
        # No markup: a message may well name costopt[redis].
        err.print(f"costopt: {error}", style="red", soft_wrap=True, markup=False)
        sys.exit(2 if isinstance(error, ConfigError) else 1)
