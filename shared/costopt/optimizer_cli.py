"""`costopt init` writes the settings of an `Optimizer`; `costopt report` shows what it has saved so far."""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from costopt.cli_parts import AsJson, print_json
from costopt.errors import ConfigError

if TYPE_CHECKING:
    from costopt.audit.savings import SavingsReport

__all__ = ["init", "report"]

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)

_CONFIG = Path("costopt.toml")
_AGO = re.compile(r"(\d+) ?d(?:ays?)?")

InitFile = Annotated[Path, typer.Option("--path", metavar="FILE", help="Where to write it.")]
Force = Annotated[bool, typer.Option("--force", help="Write over a file that is there.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", metavar="FILE", help="Settings that name the ledger; else ./costopt.toml.")
]
LedgerFile = Annotated[Path | None, typer.Option("--ledger", metavar="FILE", help="This ledger.")]
Since = Annotated[str | None, typer.Option(metavar="WHEN", help="From this UTC day on: 2026-11-22, or 7d for a week.")]
Watch = Annotated[bool, typer.Option("--watch", help="Look again and again, until Ctrl-C.")]
Every = Annotated[float, typer.Option(help="With --watch: seconds between looks.")]


def init(path: InitFile = _CONFIG, force: Force = False) -> None:
    """Write a settings file with comments, for Optimizer.from_toml."""
    from costopt.settings_template import TEMPLATE

    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(TEMPLATE)
    except FileExistsError:
        raise ConfigError(f"{path} is there already: give another --path, or --force to write over it") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}): give another --path") from error
    err.print(f"written to {path}. Then, in the application:", markup=False)
    for line in (
        "from costopt import Optimizer",
        f"app = Optimizer.from_toml({str(path)!r}).langchain(ChatOpenAI(...))   # or .llamaindex(OpenAI(...))",
        "app.llm.invoke(...)",
    ):
        err.print(f"    {line}", markup=False, soft_wrap=True)
    shown = "" if path == _CONFIG else f" --config {path}"
    err.print(f"`costopt report{shown}` tells what it saved.", markup=False, soft_wrap=True)


def report(
    config: ConfigFile = None,
    ledger: LedgerFile = None,
    since: Since = None,
    watch: Watch = False,
    every: Every = 2.0,
    as_json: AsJson = False,
) -> None:
    """What was spent and what each lever saved, over all processes that write this ledger."""
    from costopt.audit.ledger import Ledger
    from costopt.audit.savings import savings

    if watch and as_json:
        raise ConfigError("--watch is for eyes, --json for machines: give one of them")
    if not every > 0:
        raise ConfigError(f"--every {every}: give seconds above 0")
    start = None if since is None else moment_of(since)
    with Ledger(_checked(_path(config, ledger), watch)) as opened:
        if watch:
            _watched(lambda: savings(opened, start), every)
            return
        found = savings(opened, start)
    if as_json:
        print_json(found.as_dict())
    else:
        _show(found)


def moment_of(text: str) -> float:
    """Seconds since 1970 of a UTC day, or of so many days ago.

    Raises:
        ConfigError: If it is neither.

    Example:
        >>> moment_of("2026-11-22")
        1795305600.0
    """
    ago = _AGO.fullmatch(text.strip())
    with suppress(ValueError, OverflowError):
        if ago:
            return (datetime.now(UTC) - timedelta(days=int(ago[1]))).timestamp()
        moment = datetime.fromisoformat(text.strip())
        return moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()
    raise ConfigError(f"--since {text!r}: give a day, as 2026-11-22, or days ago, as 7d")


def _path(config: Path | None, ledger: Path | None) -> Path:
    """The ledger that is meant: by name, by the settings, or the default one."""
    from costopt.audit.ledger import default_ledger_path
    from costopt.settings import read_settings

    if ledger is not None:
        return ledger
    if config is None and not _CONFIG.exists():
        return default_ledger_path()
    file = config or _CONFIG
    settings = read_settings(file, only="ledger")
    if "ledger" not in settings:
        raise ConfigError(f"{file} has no [ledger], so that nothing is written down: add that line, or give --ledger")
    return Path(settings["ledger"].get("path") or default_ledger_path())


def _checked(path: Path, may_come: bool) -> Path:
    """The file, if it is a ledger: a report must make or change none."""
    import sqlite3

    if not path.exists():
        if may_come:
            return path
        raise ConfigError(
            f"there is no ledger at {path}: an application makes it with its first call. Give another --ledger or "
            "--config, or --watch to wait for it"
        )
    try:
        with path.open("rb") as file:
            begin = file.read(16)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}): give another --ledger") from error
    if begin and begin != b"SQLite format 3\0":
        raise ConfigError(f"{path} is no ledger of costopt's: give another --ledger")
    with suppress(sqlite3.Error):  # what is damaged says so when it is opened
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        tables = {name for (name,) in db.execute("SELECT name FROM sqlite_master")}
        db.close()
        if tables and not {"attempts", "days"} <= tables:
            raise ConfigError(f"{path} is an SQLite file of something else, and no ledger: give another --ledger")
    return path


def _show(found: SavingsReport) -> None:
    if out.is_terminal:
        from costopt.audit.savings_text import table

        out.print(table(found))
    else:
        sys.stdout.write(f"{found}\n")


def _watched(look: Callable[[], SavingsReport], every: float) -> None:
    with suppress(KeyboardInterrupt):
        if not out.is_terminal:
            while True:
                _show(look())
                sys.stdout.flush()
                time.sleep(every)
        from rich.live import Live

        from costopt.audit.savings_text import table

        with Live(table(look()), console=out, auto_refresh=False) as live:
            while True:
                time.sleep(every)
                live.update(table(look()), refresh=True)
