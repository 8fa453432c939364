"""What several commands read from their options, and write."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from costopt.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from costopt.pricing import Price

__all__ = ["AsJson", "Namespace", "dollars", "is_denied", "prices", "print_json", "write_text"]

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
"""The option of commands that `print_json`."""

Namespace = Annotated[
    str | None, typer.Option(metavar="NAME", help="What RedisStore(namespace=NAME) was given; else costopt.")
]
"""The option of commands that look into a Redis."""


def is_denied(error: StoreError) -> bool:
    """Whether Redis was reached, and does not let this account do it; RedisVL's error may stand between.

    Example:
        >>> is_denied(StoreError("Redis took too long"))
        False
    """
    cause = error.__cause__
    # By its name: a local store's errors come here, too, where redis may not be installed.
    return "NoPermissionError" in (type(cause).__name__, type(cause and cause.__cause__).__name__)


def prices(given: Sequence[str]) -> dict[str, Price]:
    """Prices by model, of what `--price` was given.

    Raises:
        ConfigError: If one of them is not MODEL=INPUT/OUTPUT.

    Example:
        >>> prices(["my-model=0.5/1.5"])["my-model"].output
        Decimal('1.5')
    """
    from costopt.pricing import Price

    found = {}
    for each in given:
        model, _, amounts = each.rpartition("=")
        rates = amounts.split("/")
        if not model or len(rates) != 2:
            raise ConfigError(
                f"--price {each!r}: give MODEL=INPUT/OUTPUT in dollars per million tokens, e.g. my-model=0.5/1.5"
            )
        found[model] = Price(*(dollars(rate, "--price") for rate in rates))
    return found


def dollars(text: str, option: str) -> Decimal:
    """The amount that an option was given.

    Raises:
        ConfigError: If it is none.

    Example:
        >>> dollars("2.50", "--dollars")
        Decimal('2.50')
    """
    try:
        return Decimal(text)
    except InvalidOperation:
        raise ConfigError(f"{option} {text!r} is no amount of dollars: give e.g. 2.50") from None


def write_text(path: Path, text: str, option: str) -> None:
    """Write the file that an option names.

    Raises:
        ConfigError: If it cannot be written.

    Example:
        >>> write_text(tmp / "report.html", "<p>Saved.</p>", "--html")
    """
    try:
        path.write_text(text, "utf-8", errors="backslashreplace")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror or error}): give another {option}") from error


def print_json(value: Any) -> None:
    """On standard output, for machines.

    Example:
        >>> print_json({"usd": Decimal("2.50")})
        {
          "usd": "2.50"
        }
    """
    sys.stdout.write(json.dumps(value, indent=2, default=str) + "\n")
