"""`costopt audit …`: what a log of model calls says of its spending, and what each lever would have saved."""

from __future__ import annotations

import gc
import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn

from costopt import cli_parts
from costopt.errors import ConfigError

if TYPE_CHECKING:
    from costopt.audit.report import CostReport

__all__ = ["audit_log"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


LogFile = Annotated[
    str,
    typer.Argument(metavar="LOG", help="A ledger, or JSONL of OpenAI, LangSmith, Langfuse, LiteLLM; .gz; - for stdin."),
]
HtmlFile = Annotated[Path | None, typer.Option("--html", metavar="F", help="Write a page that needs nothing else.")]
JsonFile = Annotated[
    str | None, typer.Option("--json", metavar="F", help="Write everything as JSON; - prints it instead.")
]
FormatName = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="openai, langsmith, langfuse, litellm or ledger; else by its rows."),
]
RouterFile = Annotated[
    Path | None, typer.Option("--router", metavar="F", help="What `router train` wrote: who was over-routed.")
]
Semantic = Annotated[
    bool, typer.Option("--semantic/--no-semantic", help="Look for reworded repeats, too (needs costopt\\[minilm]).")
]
Cheaper = Annotated[
    list[str] | None,
    typer.Option("--cheaper", metavar="MODEL", help="A cheaper model that could be used; repeatable."),
]
Prices = Annotated[
    list[str] | None,
    typer.Option("--price", metavar="MODEL=IN/OUT", help="Dollars per million tokens of your own; repeatable."),
]
GpuFile = Annotated[Path | None, typer.Option("--gpu", metavar="F", help="What a GpuSampler wrote.")]
Hours = Annotated[float, typer.Option(help="Hours for which a cache would serve an answer.")]
ShowText = Annotated[bool, typer.Option("--text/--no-text", help="Show how prompts begin.")]


def audit_log(
    log: LogFile,
    html: HtmlFile = None,
    json_file: JsonFile = None,
    format: FormatName = None,  # noqa: A002
    router: RouterFile = None,
    semantic: Semantic = True,
    cheaper: Cheaper = None,
    price: Prices = None,
    gpu: GpuFile = None,
    ttl: Hours = 24.0,
    text: ShowText = True,
) -> None:
    """Answer five questions about a log of model calls, and replay each lever over it. Nothing is sent anywhere."""
    from costopt.audit.report import audit
    from costopt.gpu import read_gpu_samples

    if not ttl > 0:
        raise ConfigError(f"--ttl {ttl:g}: give hours above 0, e.g. 24")
    embedder, judge = _semantic(semantic, router is not None)
    # Rows of a log make no circles, and looking for them takes a sixth of the time.
    gc.disable()
    with _steps() as steps:
        report = audit(
            log,
            format=format,
            router=_router(router),
            embedder=embedder,
            judge=judge,
            prices=cli_parts.prices(price or []),
            cheaper=cheaper or [],
            gpu=None if gpu is None else read_gpu_samples(gpu),
            ttl_s=ttl * 3_600,
            keep_text=text,
            steps=steps,
        )
    _deliver(report, html, json_file)


def _deliver(report: CostReport, html: Path | None, json_file: str | None) -> None:
    if html is not None:
        from costopt.audit.report_html import html_report

        _write(html, html_report(report), "--html")
    if json_file is not None:
        written = json.dumps(report.as_dict(), indent=2, default=str) + "\n"
        if json_file == "-":
            sys.stdout.write(written)
            return
        _write(Path(json_file), written, "--json")
    from costopt.audit.report_text import print_report

    print_report(report, out)


def _semantic(wanted: bool, routed: bool) -> tuple[Any, Any]:
    """Embedder and judge, where they are wanted and can be had; who asked for neither is told of what is left out."""
    from importlib.util import find_spec

    if not wanted and not routed:
        return None, None
    missing = next((name for name in ("torch", "tokenizers", "safetensors") if find_spec(name) is None), None)
    if missing is not None and not routed:
        err.print("reworded repeats are not looked for: pip install 'costopt[minilm]'", style="yellow", markup=False)
        return None, None
    from costopt.caching import CrossEncoderJudge
    from costopt.embedding import default_model

    # The bare model: every text is embedded once, and by nobody else at the same time.
    return default_model(), CrossEncoderJudge() if wanted else None


def _router(path: Path | None) -> Any:
    if path is None:
        return None
    from costopt.embedding import default_model
    from costopt.routing import load_router

    return load_router(path, default_model())


def _write(path: Path, text: str, option: str) -> None:
    cli_parts.write_text(path, text, option)
    err.print(f"written to {path}", markup=False)


class _Shown:
    """Steps as progress bars on standard error."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    @contextmanager
    def step(self, name: str, total: int | None) -> Iterator[Callable[[int], object]]:
        task = self._progress.add_task(name, total=total)
        yield lambda more: self._progress.advance(task, more)
        self._progress.update(task, total=1, completed=1)


@contextmanager
def _steps() -> Iterator[_Shown]:
    columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=err, transient=True) as progress:
        yield _Shown(progress)
