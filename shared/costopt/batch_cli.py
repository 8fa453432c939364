"""`costopt batch …`: hand in a file of requests, see how far it is, fetch the answers, call it off."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TextIO

import typer
from rich.console import Console

from costopt.cli_parts import AsJson, print_json
from costopt.errors import ConfigError

if TYPE_CHECKING:
    from costopt.batch import AnthropicBatches, BatchItem, BatchResult, BatchRunner, BatchStatus, OpenAIBatches

__all__ = ["batch_app"]

batch_app = typer.Typer(help="Ask many things at half the price, by a provider's batch API.", no_args_is_help=True)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Requests = Annotated[
    str,
    typer.Argument(
        metavar="REQUESTS",
        help='JSONL of {"custom_id", "url", "body"} as for OpenAI, {"custom_id", "params"} as for Anthropic, bodies; '
        ".gz; - for stdin.",
    ),
]
JobName = Annotated[str, typer.Argument(metavar="JOB", help="What `batch submit` printed.")]
JournalFile = Annotated[
    Path | None, typer.Option("--journal", metavar="F", help="Where all is written down, prompts and answers too.")
]

_PROVIDERS = ("openai", "anthropic")


@batch_app.command()
def submit(
    requests: Requests,
    journal: JournalFile = None,
    provider: Annotated[str | None, typer.Option(help="openai or anthropic; else the lines tell.")] = None,
    salt: Annotated[str, typer.Option(help="Another text asks anew what was answered before.")] = "",
    as_json: AsJson = False,
) -> None:
    """Hand in requests; prints the job. The same file again is the same job: it goes on, and nothing is sent twice."""
    rows, told = _requests(requests)
    if not rows:
        raise ConfigError(f"{requests} is empty: give a line of JSON for each request")
    name = provider or told
    if name not in _PROVIDERS:
        raise ConfigError(f"the lines do not tell who is to be asked ({name}): give --provider openai or anthropic")
    with _runner(name, journal) as runner:
        job = runner.submit(rows, salt=salt)
    if as_json:
        about = {"job": job.id, "rows": job.rows, "distinct": job.distinct, "answered": job.answered}
        print_json(about | {"journal": str(runner.journal.path)})
        return
    out.print(job.id, markup=False)
    sent = job.distinct - job.answered
    err.print(f"{job.rows:,} requests, {job.distinct:,} different, {job.answered:,} answered already: {sent:,} to send")
    err.print(f"next: costopt batch collect {job.id}")


@batch_app.command()
def status(
    job: Annotated[str | None, typer.Argument(metavar="JOB", help="One of them; else all are listed.")] = None,
    journal: JournalFile = None,
    as_json: AsJson = False,
) -> None:
    """How far a job is. Looks after it, too: sends what waits, fetches what has ended."""
    if job is None:
        _list_jobs(journal, as_json)
        return
    with _runner_of(job, journal) as runner:
        found = runner.status(job)
    if as_json:
        print_json(_facts(found))
    else:
        out.print(str(found), markup=False)
        for batch in found.batches:
            out.print(f"  {batch}", markup=False)


def _list_jobs(journal: Path | None, as_json: bool) -> None:
    from costopt.batch import Journal

    opened = Journal(journal)
    jobs = opened.jobs() if opened.path.exists() else []
    rows: list[dict[str, Any]] = [
        {"job": name, "provider": provider, "rows": size, "created": created, "states": opened.counts(name)}
        for name, provider, size, created in jobs
    ]
    if as_json:
        print_json(rows)
        return
    for row in rows:
        states = ", ".join(f"{count:,} {state}" for state, count in sorted(row["states"].items()))
        when = f"{datetime.fromtimestamp(row['created'], UTC):%Y-%m-%d %H:%M} UTC"
        out.print(f"{row['job']}  {when}  {row['provider']}  {row['rows']:,} requests: {states}", markup=False)
    if not rows:
        err.print(f"no jobs in {opened.path}", markup=False)


@batch_app.command()
def collect(
    job: JobName,
    journal: JournalFile = None,
    out_file: Annotated[Path | None, typer.Option("--out", metavar="F", help="Else the answers go to stdout.")] = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is finished.")] = True,
    ledger: Annotated[Path | None, typer.Option(metavar="F", help="Write what it cost into this ledger.")] = None,
) -> None:
    """Print one JSON line for each request, in the order asked; exit code 1 if one has no answer.

    A line has "custom_id", "response" (the provider's answer, or null), "error", "usage", "cost" (dollars), "source".
    """
    with _runner_of(job, journal) as runner, err.status("waiting") as shown:
        for found in runner.progress(job, wait=wait):
            shown.update(str(found))
        result = runner.results(job)
    if ledger is not None:
        _record(result, runner.provider.name, ledger)
    _write(result, out_file)
    saved = f", {1 - float(result.cost / result.baseline):.0%} less than call by call" if result.baseline else ""
    unpriced = f"; {result.unpriced:,} answers have no known price" if result.unpriced else ""
    err.print(f"{len(result) - len(result.errors):,} of {len(result):,} answered; ${result.cost:.4f}{saved}{unpriced}")
    if result.errors:
        raise typer.Exit(1)


@batch_app.command()
def cancel(job: JobName, journal: JournalFile = None, as_json: AsJson = False) -> None:
    """Send no more of a job, and stop what is at the provider. What is done is paid, and `collect` has it."""
    with _runner_of(job, journal) as runner:
        found = runner.cancel(job)
    if as_json:
        print_json(_facts(found))
    else:
        out.print(str(found), markup=False)


# -- requests ------------------------------------------------------------------------------------------------


def _requests(source: str) -> tuple[list[Any], str]:
    """The rows, and who is to be asked: a provider, "" if no line tells, or both."""
    from costopt.jsonl import read_jsonl

    rows, told = [], set()
    for number, line in read_jsonl(source):
        request, provider = _request(line, f"{source}, line {number}")
        rows.append(request)
        told.add(provider)
    told.discard("")
    return rows, " and ".join(sorted(told))


def _request(line: dict[str, Any], where: str) -> tuple[Any, str]:
    from costopt.batch import BatchRequest

    name = line.get("custom_id")
    name = None if name is None else str(name)
    if isinstance(line.get("params"), dict):
        return BatchRequest(line["params"], name), "anthropic"
    if isinstance(line.get("body"), dict):
        url = line.get("url") or ""
        if not isinstance(url, str) or line.get("method", "POST") != "POST":
            raise ConfigError(f'{where}: "url" is a path such as /v1/chat/completions, and "method" is POST')
        return BatchRequest(line["body"], name, url), "openai"
    if not isinstance(line.get("model"), str):
        raise ConfigError(f'{where}: give {{"custom_id", "body"}}, {{"custom_id", "params"}}, or the body of a call')
    body = {key: value for key, value in line.items() if key != "custom_id"}
    return BatchRequest(body, name), "anthropic" if line["model"].startswith("claude") else ""


# -- providers -----------------------------------------------------------------------------------------------


@contextmanager
def _runner(provider: str, journal: Path | None, address: str | None = None) -> Iterator[BatchRunner]:
    from costopt.batch import BatchRunner, Journal
    from costopt.errors import require

    require(provider, "batch")
    asked = _openai(address) if provider == "openai" else _anthropic(address)
    with asked.client:
        yield BatchRunner(asked, journal=Journal(journal))


def _openai(address: str | None) -> OpenAIBatches:
    import openai

    from costopt.batch import OpenAIBatches
    from costopt.batch.sdk import translated

    with translated(openai, "OpenAI's client"):
        return OpenAIBatches(openai.OpenAI(base_url=address))


def _anthropic(address: str | None) -> AnthropicBatches:
    import anthropic

    from costopt.batch import AnthropicBatches
    from costopt.batch.sdk import translated

    with translated(anthropic, "Anthropic's client"):
        return AnthropicBatches(anthropic.Anthropic(base_url=address))


def _runner_of(job: str, journal: Path | None) -> AbstractContextManager[BatchRunner]:
    """The runner of the provider that a job was handed in to, whatever the environment says now."""
    from costopt.batch import Journal

    opened = Journal(journal)
    known = opened.job(job) if opened.path.exists() else None
    if known is None:
        raise ConfigError(f"there is no job {job!r} in {opened.path}: see `costopt batch status`")
    name, _, address = known[0].partition(" ")
    return _runner(name, journal, address)


def _record(result: BatchResult, provider: str, path: Path) -> None:
    from contextlib import closing

    from costopt.audit import Ledger
    from costopt.audit.batches import attempts_of

    with closing(Ledger(path)) as ledger:
        ledger.record_all(attempts_of(result, provider))


# -- answers -------------------------------------------------------------------------------------------------


def _write(result: BatchResult, path: Path | None) -> None:
    if path is None:
        _lines(result, sys.stdout)
        return
    # Written aside and then renamed: a file that is there is whole.
    aside = path.with_name(path.name + ".part")
    try:
        with aside.open("w", encoding="ascii") as file:
            _lines(result, file)
        aside.replace(path)
    except OSError as error:
        with suppress(OSError):
            aside.unlink()
        raise ConfigError(f"{path} cannot be written ({error}): give another --out") from error


def _lines(result: BatchResult, file: TextIO) -> None:
    # ASCII: a terminal or a pipe may take nothing else, and half a character is in no encoding.
    for item in result:
        file.write(json.dumps(_line(item)) + "\n")


def _line(item: BatchItem) -> dict[str, Any]:
    error, usage = item.error, item.usage
    return {
        "custom_id": item.id,
        "index": item.index,
        "response": item.body,
        "error": None if error is None else {"status": error.status, "code": error.code, "message": error.message},
        "usage": None if usage is None else {name: getattr(usage, name) for name in usage.__slots__},
        "cost": None if item.cost is None else str(item.cost),
        "source": item.source,
        "batch": item.batch,
    }


def _facts(found: BatchStatus) -> dict[str, Any]:
    names = ("job", "rows", "pending", "sent", "done", "failed", "cancelled", "batches", "finished")
    return {name: getattr(found, name) for name in names}
