"""The settings of an `Optimizer`: which sections and keys there are, and how they are read from a TOML file."""

from __future__ import annotations

import difflib
import os
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from costopt.errors import ConfigError

__all__ = ["SECTIONS", "read_settings", "store_of"]

_KINDS: dict[str, tuple[str, tuple[type, ...]]] = {
    "text": ("a text", (str,)),
    "path": ("a path", (str,)),
    "whole number": ("a whole number", (int,)),
    "number": ("a number", (int, float)),
    "seconds": ('a number of seconds, or "never"', (int, float)),
    "yes or no": ("true or false", (bool,)),
    "texts": ("a list of texts", (list,)),
    "numbers": ("a list of numbers", (list,)),
    "table": ("a table, as in {name = 0.5}", (dict,)),
}
_EACH: dict[str, tuple[type, ...]] = {"texts": (str,), "numbers": (int, float)}
_ENVIRONMENT = "env:"

_Section = dict[str, str]

SECTIONS: dict[str, _Section] = {
    "cache": {
        "store": "path",
        "exact_only": "yes or no",
        "max_error": "number",
        "policy": "path",
        "min_similarity": "number",
        "guards": "yes or no",
        "tenant": "text",
        "ttl": "seconds",
        "tags": "texts",
        "split": "text",
        "shadow": "yes or no",
        "single_flight": "yes or no",
        "time_budget": "number",
        "portable": "texts",
    },
    "router": {
        "thresholds": "numbers",
        "estimator": "path",
        "policy": "table",
        "default": "text",
        "regions": "texts",
        "required_tags": "texts",
        "sticky": "yes or no",
        "split": "text",
        "cascade": "table",
        "shadow": "yes or no",
        "explore": "number",
        "seed": "whole number",
    },
    "compressor": {
        "target_ratio": "number",
        "target_tokens": "whole number",
        "per_document": "whole number",
        "model": "text",
        "protect": "texts",
    },
    "history": {
        "max_tool_tokens": "whole number",
        "max_turn_tokens": "whole number",
        "keep_last": "whole number",
        "keep_tools": "texts",
        "prompt_cache": "yes or no",
        "payback_calls": "whole number",
        "model": "text",
        "protect": "texts",
    },
    "ledger": {"path": "path", "keep_text": "yes or no", "max_rows": "whole number", "max_bytes": "whole number"},
    "limit": {
        "dollars": "number",
        "period": "text",
        "hard": "yes or no",
        "alerts": "numbers",
        "tenant": "text",
        "account": "text",
    },
    "batch": {
        "journal": "path",
        "tries": "whole number",
        "settle": "number",
        "keep": "number",
        "urgent": "whole number",
    },
}
"""The keys of each section and of what kind they are. A key is the option of that name of what the section sets up."""


def read_settings(path: str | os.PathLike[str], *, only: str | None = None) -> dict[str, dict[str, Any]]:
    r"""The sections of a file, checked. Paths in it count from its folder; "env:NAME" is what the environment says.

    Args:
        path: The TOML file.
        only: The one section that is wanted.

    Raises:
        ConfigError: If there is no such file, it is no TOML, or a section, key or value is not known; the message says
            what is.

    Example:
        >>> _ = (tmp / "costopt.toml").write_text("[cache]\nmax_error = 0.02\n")
        >>> read_settings(tmp / "costopt.toml")
        {'cache': {'max_error': 0.02}}
    """
    file = Path(path)
    found: dict[str, dict[str, Any]] = {}
    for name, given in _parsed(file).items():
        where = f"{file}, [{name}]"
        section = SECTIONS.get(name)
        if section is None:
            known = ", ".join(f"[{each}]" for each in SECTIONS)
            raise ConfigError(f"{where}: there is no such section{_near(name, SECTIONS)}. There are {known}")
        if not isinstance(given, dict):
            raise ConfigError(f"{file}: {name} = ... is no section: write [{name}] on a line, and its keys below")
        if only in (None, name):
            found[name] = {key: _read(section, key, value, where, file.parent) for key, value in given.items()}
    return found


def _parsed(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except FileNotFoundError:
        raise ConfigError(f"there is no {file}: `costopt init --path {file}` writes one, with comments") from None
    except OSError as error:
        raise ConfigError(f"{file} cannot be read ({error.strerror or error}): give another file") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"{file} is no TOML: {error}. Texts stand in quotes, true and false are written small; `costopt init` "
            "writes a file to begin with"
        ) from error


def _read(section: _Section, key: str, value: Any, where: str, folder: Path) -> Any:
    kind = section.get(key)
    if kind is None:
        raise ConfigError(f"{where}: {key} is not known{_near(key, section)}. Known are {', '.join(section)}")
    if kind == "seconds" and value == "never":
        return None
    if isinstance(value, str) and value.startswith(_ENVIRONMENT):
        value = _from_environment(value, f"{where}: {key}")
    elif kind == "path" and isinstance(value, str) and "://" in value and urlsplit(value).password:
        raise ConfigError(
            f"{where}: {key} holds a password, which is not for a file that others read: put the address into a "
            f'variable, and write {key} = "env:COSTOPT_REDIS_URL"'
        )
    if not _fits(value, kind):
        raise ConfigError(f"{where}: {key} = {value!r} is not {_KINDS[kind][0]}")
    return str(folder / Path(value).expanduser()) if kind == "path" and "://" not in value else value


def _fits(value: Any, kind: str) -> bool:
    types, each = _KINDS[kind][1], _EACH.get(kind)
    if isinstance(value, bool):
        return bool in types
    if each is not None and isinstance(value, list):
        return all(isinstance(item, each) and not isinstance(item, bool) for item in value)
    return isinstance(value, types)


def _from_environment(named: str, where: str) -> str:
    name = named.removeprefix(_ENVIRONMENT)
    value = os.environ.get(name)
    if not value:
        raise ConfigError(f"{where} = {named!r}, and {name} is not set: export {name}=..., or leave the key out")
    return value


def store_of(named: str) -> Any:
    """The store of a cache: a Redis by its URL, else a file.

    Raises:
        MissingExtraError: If it is a Redis, and what that needs is not installed.

    Example:
        >>> type(store_of("cache.db")).__name__
        'LocalStore'
    """
    if "://" in named:
        from costopt.caching.redis_store import RedisStore

        return RedisStore(named)
    from costopt.caching.local_store import LocalStore

    return LocalStore(named)


def _near(name: str, known: Iterable[str]) -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""
