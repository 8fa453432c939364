"""`costopt plan MODEL`: will it fit? `costopt local run FILE`: a batch on a machine of one's own."""

from __future__ import annotations

import os
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from costopt.cli_parts import AsJson, print_json
from costopt.errors import ConfigError

if TYPE_CHECKING:
    from costopt.local.batch_report import BatchReport, MachinePrice

__all__ = ["local_app", "plan"]

local_app = typer.Typer(help="Run models of one's own.", no_args_is_help=True)

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

Quantization = Annotated[str, typer.Option(help="nf4, fp4, int8 or none.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, ...; the GPU if there is one.")]


def plan(
    model: Annotated[str, typer.Argument(metavar="MODEL", help="A folder, a config.json, or a hub id.")],
    quantization: Quantization = "nf4",
    context: Annotated[
        int | None, typer.Option(help="Tokens of the longest sequence; 4,096 or what the model can.", min=1)
    ] = None,
    concurrency: Annotated[int, typer.Option(help="Sequences of that length at the same time.", min=1)] = 1,
    device: Device = None,
    dtype: Annotated[str, typer.Option(help="Of what is not quantised: bfloat16, float16, float32.")] = "bfloat16",
    free: Annotated[
        str | None, typer.Option(metavar="GIB", help="Plan for this much memory, not for what is free here.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say what a model will need before it is loaded, and which settings would fit; exit 1 if this one does not.

    Reads the model's configuration only: no weights are read or fetched.
    """
    from costopt.local.plan import MemoryPlan

    found = MemoryPlan.of(
        model,
        quantization=quantization,
        context=context,
        concurrency=concurrency,
        device=device,
        dtype=dtype,
        free=None if free is None else _gibibytes(free),
    )
    if as_json:
        print_json(found.as_dict())
    else:
        out.print(found.explain(), markup=False)
    if not found.fits:
        raise typer.Exit(1)


@local_app.callback()
def _local() -> None:
    """Run models of one's own."""


@local_app.command()
def run(
    file: Annotated[
        str, typer.Argument(metavar="FILE", help="JSONL as OpenAI's batch API takes it; .gz; - for stdin.")
    ],
    model: Annotated[str, typer.Option(help="A folder, a hub id, or the name that the server has for it.")],
    out_file: Annotated[
        Path,
        typer.Option("--out", metavar="FILE", help="Where answers are appended; what is in it is not asked again."),
    ],
    base_url: Annotated[
        str | None, typer.Option(help="Of a server that speaks OpenAI's API; its key is read from COSTOPT_API_KEY.")
    ] = None,
    quantization: Annotated[str | None, typer.Option(help="nf4, fp4, int8 or none; nf4 if there is no server.")] = None,
    context: Annotated[int | None, typer.Option(help="Tokens of the longest sequence.", min=1)] = None,
    device: Device = None,
    concurrency: Annotated[int, typer.Option(help="Most rows under way at once.", min=1)] = 64,
    dollars_per_hour: Annotated[str, typer.Option(help="What the machine costs while it runs.")] = "0",
    dollars_per_kwh: Annotated[str, typer.Option(help="What electricity costs.")] = "0",
    watts: Annotated[float, typer.Option(help="What the machine draws beside its GPUs.", min=0)] = 0.0,
    gpu_samples: Annotated[
        Path | None, typer.Option(metavar="F", help="Append what the GPUs do, for `costopt audit --gpu F`.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Answer a file of requests; interrupted, it goes on where it stopped. Exit 1 if a row failed."""
    from costopt.gpu import GpuSampler
    from costopt.local.batch_runner import LocalBatchRunner
    from costopt.local.shared import shared_engine

    price = _price(dollars_per_hour, dollars_per_kwh, watts)
    options = {"quantization": quantization, "context": context, "device": device}
    if base_url is not None:
        options |= {"api_key": os.environ.get("COSTOPT_API_KEY"), "max_concurrency": concurrency}
    engine = shared_engine(model, base_url=base_url, **options)
    try:
        with err.status("loading") as status:
            runner = LocalBatchRunner(engine, concurrency=concurrency, price=price, sampler=GpuSampler(gpu_samples))
            report = runner.run(file, out_file, on_progress=lambda progress: status.update(str(progress)))
    finally:
        engine.close()
    if as_json:
        print_json(report.as_dict())
    else:
        _say(report)
    if report.failed:
        raise typer.Exit(1)


def _say(report: BatchReport) -> None:
    out.print(f"answered   {report.done:,} rows, {report.before:,} were before, {report.failed:,} failed")
    made = f"{report.completion_tokens:,} made of {report.prompt_tokens:,} read"
    out.print(f"tokens     {made}, {report.tokens_per_second:,.1f} a second, {report.seconds:,.1f} s")
    if report.gpu is None:
        out.print(f"GPU        {report.gpu_note}", markup=False)
    else:
        out.print(f"GPU        {report.gpu.utilisation:.0%} busy, {report.gpu.memory_bytes / 2**30:,.1f} GiB")
        out.print(f"energy     {_energy(report)}")
    if report.dollars is not None:
        rate = report.dollars_per_million_tokens
        shown = "" if rate is None else f", ${rate:,.4f} for a million tokens"
        out.print(f"dollars    ${report.dollars:,.6f}{shown}")
    err.print(f"answers in {report.output}", markup=False)
    if report.errors:
        err.print(f"errors in {report.errors}, the first: {report.first_error}", markup=False)


def _energy(report: BatchReport) -> str:
    if report.gpu is None or report.gpu.joules is None:
        return "not available: the driver tells neither energy nor power"
    said = [f"{report.gpu.joules:,.0f} J"]
    said += [] if report.gpu.watts is None else [f"{report.gpu.watts:,.0f} W"]
    said += [] if report.joules_per_token is None else [f"{report.joules_per_token:.3g} J a token"]
    return ", ".join(said)


def _price(per_hour: str, per_kwh: str, watts: float) -> MachinePrice | None:
    from costopt.local.batch_report import MachinePrice

    price = MachinePrice(_money(per_hour, "--dollars-per-hour"), _money(per_kwh, "--dollars-per-kwh"), watts)
    return price if price.per_hour or price.per_kwh else None


def _money(text: str, option: str) -> Decimal:
    try:
        amount = Decimal(text)
    except InvalidOperation:
        amount = Decimal("NaN")
    if not amount.is_finite() or amount < 0:
        raise ConfigError(f"{option} {text!r} is no amount of dollars: give e.g. 0.35")
    return amount


def _gibibytes(text: str) -> int:
    try:
        size = float(text)
        if not 0 < size < 2**40:
            raise ValueError
    except ValueError:
        raise ConfigError(f"--free {text!r}: give a number of GiB, e.g. 24") from None
    return int(size * 2**30)
