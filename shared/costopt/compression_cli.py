"""`costopt compress`: what would be left of a file, and a view of what stays and what goes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console

from costopt.errors import ConfigError

if TYPE_CHECKING:
    from costopt.compression import CompressionResult

__all__ = ["compress"]

out = Console(highlight=False, soft_wrap=True)
err = Console(stderr=True, highlight=False, soft_wrap=True)

_COLOURS = {"- ": "red", "~ ": "yellow", "# ": "bold", "  ": ""}


def compress(
    file: Annotated[str, typer.Argument(metavar="FILE", help="A text; .gz is read as is; - for stdin.")],
    query: Annotated[str | None, typer.Option(metavar="Q", help="The question that the text is to answer.")] = None,
    ratio: Annotated[float | None, typer.Option(metavar="R", help="Share of the tokens to keep, in (0, 1].")] = None,
    tokens: Annotated[int | None, typer.Option(metavar="N", help="The most tokens to keep.")] = None,
    model: Annotated[str, typer.Option(help="Whose tokens are counted.")] = "gpt-4o",
    protect: Annotated[
        list[str] | None, typer.Option(metavar="TEXT", help="Keep where this stands, in any case; may be given again.")
    ] = None,
    backend: Annotated[
        str | None, typer.Option(metavar="MODEL", help="Drop words by this LLMLingua-2 model: a folder or hub id.")
    ] = None,
    show: Annotated[bool, typer.Option("--show", help="Show what stays and what goes.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for machines.")] = False,
) -> None:
    """Leave out of a text what a question does not need; without a question, only what loses nothing."""
    from costopt.compression import DEFAULT_KINDS, Compressor

    text = _read(file)
    compressor = Compressor(
        model=model,
        target_ratio=ratio,
        target_tokens=tokens,
        protect=None if not protect else [*(kind for kind in DEFAULT_KINDS if kind != "json"), *protect],
        backend=None if backend is None else _backend(backend),
    )
    with err.status("compressing"):
        result = compressor.compress(text, query)
    if as_json:
        sys.stdout.write(_json(result) + "\n")
        return
    if show:
        for line in result.show().splitlines():
            out.print(line, style=_COLOURS.get(line[:2], ""), markup=False)
    else:
        # To a file or a pipe goes the text and nothing else.
        sys.stdout.write(result.text + ("\n" if sys.stdout.isatty() else ""))
    kept = f"{result.tokens_after:,} of {result.tokens_before:,} tokens kept ({result.kept_ratio:.1%})"
    err.print(f"{kept}, counted by {result.counted_by}" + ("" if result.exact else " (an estimate)"), markup=False)
    for note in result.notes:
        err.print(note, markup=False)


def _json(result: CompressionResult) -> str:
    """On one line, and in ASCII: a terminal or a pipe may take nothing else."""
    facts = {
        "text": result.text,
        "tokens_before": result.tokens_before,
        "tokens_after": result.tokens_after,
        "exact": result.exact,
        "counted_by": result.counted_by,
        "notes": result.notes,
        "kept": [[piece.start, piece.end] for piece in result.kept],
        "dropped": [[each.start, each.end, each.reason, each.tokens] for each in result.dropped],
    }
    return json.dumps(facts)


def _backend(model: str) -> Any:
    from costopt.compression import LLMLingua2

    return LLMLingua2(model)


def _read(source: str) -> str:
    import gzip

    try:
        data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
        if source.endswith(".gz"):
            data = gzip.decompress(data)
        return data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(f"{source} is not UTF-8 text (byte {error.start}): convert it first") from error
    except (OSError, EOFError) as error:
        raise ConfigError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from error
