"""The public API, a line for each thing that a user may depend on; `python -m tests.api_snapshot` writes it anew.

Names, parameters (their kinds and defaults, options behind `**Unpack[...]` included), fields, properties and the
command line. Annotations are left out: mypy sees to those, and their spelling changes with Python.
"""

from __future__ import annotations

import dataclasses
import inspect
import sys
import typing
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from types import MappingProxyType
from typing import Any

__all__ = ["COMMAND", "FILE", "public_api"]

FILE = Path(__file__).with_name("public_api.txt")
COMMAND = "python -m tests.api_snapshot"
_OURS = ("costopt", "langchain_costopt", "llamaindex_costopt")
_PACKAGES = (
    "costopt",
    *(f"costopt.{name}" for name in "audit batch caching compression embedding errors local".split()),
    *(f"costopt.{name}" for name in "pricing routing tokens usage".split()),
    "langchain_costopt",
    "llamaindex_costopt",
)
_PLAIN = (type(None), bool, int, float, str, bytes)


def public_api() -> list[str]:
    """Every line, in the order of the packages."""
    lines: list[str] = []
    told: dict[int, str] = {}
    for package in _PACKAGES:
        module = import_module(package)
        for name in sorted(module.__all__):
            value, where = getattr(module, name), f"{package}.{name}"
            if id(value) in told and callable(value):
                lines.append(f"{where} is {told[id(value)]}")
            else:
                told[id(value)] = where
                lines += _told(value, where)
    return [*lines, *_commands()]


def _told(value: Any, where: str) -> Iterator[str]:
    if not inspect.isclass(value):
        yield where + _signature(value) if callable(value) else f"{where} = {_default(value)}"
        return
    bases = [base.__name__ for base in value.__bases__ if base not in (typing.Generic, typing.Protocol)]
    yield f"{where}{_made(value)} < {', '.join(bases) or 'object'}"
    if not issubclass(value, BaseException):
        yield from (f"  {where}.{line}" for line in sorted(_members(value)))


def _made(cls: type) -> str:
    """The parameters that it is made with."""
    if typing.is_typeddict(cls) or getattr(cls, "_is_protocol", False):
        return ""
    fields = getattr(cls, "model_fields", None)
    if fields is not None and not _ours(cls.__init__):
        own = [name for base in cls.__mro__ if _ours(base) for name in vars(base).get("__annotations__", ())]
        return f"({', '.join(_field(name, fields[name]) for name in fields if name in own)})"
    if issubclass(cls, BaseException) and not _ours(cls.__init__):
        return "(*args)"
    return _signature(cls.__init__ if _ours(cls.__init__) else cls)


def _field(name: str, field: Any) -> str:
    return (
        f"{name}=…" if field.default_factory else name if field.is_required() else f"{name}={_default(field.default)}"
    )


def _members(cls: type) -> Iterator[str]:
    """What it defines itself, or what a class of ours that is not public defines for it."""
    seen = set()
    for base in [base for base in cls.__mro__ if _ours(base)]:
        for name, value in vars(base).items():
            if name.startswith("_") or name in seen:
                continue
            seen.add(name)
            if inspect.isroutine(value) or isinstance(value, classmethod | staticmethod):
                kind = type(value).__name__ + " " if isinstance(value, classmethod | staticmethod) else ""
                yield f"{name}{_signature(inspect.unwrap(getattr(base, name)))} {kind}".rstrip()
            elif isinstance(value, property) or hasattr(value, "func"):
                yield f"{name}: property"
        shown = (
            name for name in vars(base).get("__annotations__", ()) if not name.startswith("_") and name not in seen
        )
        if dataclasses.is_dataclass(base) or getattr(base, "_is_protocol", False) or typing.is_typeddict(base):
            yield from (f"{name}: field" for name in shown)


def _ours(value: Any) -> bool:
    return (getattr(value, "__module__", None) or "").split(".")[0] in _OURS


def _signature(function: Any) -> str:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return "(...)"
    shown, keyword_only = [], False
    for parameter in signature.parameters.values():
        if parameter.name in ("self", "cls") or (parameter.name.startswith("_") and parameter.default is not _EMPTY):
            continue
        if parameter.kind is parameter.VAR_KEYWORD:
            shown += _options(function, parameter)
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and not keyword_only:
            shown, keyword_only = [*shown, "*"], True
        keyword_only = keyword_only or parameter.kind is parameter.VAR_POSITIONAL
        star = "*" if parameter.kind is parameter.VAR_POSITIONAL else ""
        given = "" if parameter.default is _EMPTY else f"={_default(parameter.default)}"
        shown.append(f"{star}{parameter.name}{given}")
        if parameter.kind is parameter.POSITIONAL_ONLY:
            shown.append("/")
    return f"({', '.join(shown)})"


_EMPTY = inspect.Parameter.empty


def _options(function: Any, parameter: inspect.Parameter) -> list[str]:
    """The options by name, where they are a TypedDict."""
    named = parameter.annotation
    if isinstance(named, str) and named.startswith("Unpack["):
        namespace = getattr(inspect.unwrap(function), "__globals__", None) or vars(sys.modules[function.__module__])
        options = eval(named[len("Unpack[") : -1], dict(namespace))
        return ["**{" + " ".join(sorted(options.__annotations__)) + "}"]
    return [f"**{parameter.name}"]


def _default(value: Any) -> str:
    if isinstance(value, tuple | list | frozenset):
        inner = [_default(each) for each in value]
        return f"{type(value).__name__}({', '.join(sorted(inner) if isinstance(value, frozenset) else inner)})"
    if isinstance(value, dict | MappingProxyType):
        return "{" + ", ".join(f"{key}: {_default(each)}" for key, each in value.items()) + "}"
    if isinstance(value, _PLAIN) or type(value).__module__ in ("decimal", "datetime"):
        return repr(value)
    return "…"  # made anew for each, or the system's: what it is says nothing that could be depended on


def _commands() -> Iterator[str]:
    import typer.main

    from costopt.cli import app

    yield from _command("$ costopt", typer.main.get_command(app))


def _command(called: str, command: Any) -> Iterator[str]:
    below = getattr(command, "commands", {})
    shown = [
        "/".join([*param.opts, *param.secondary_opts]) if param.param_type_name == "option" else str(param.name).upper()
        for param in command.params
        if not getattr(param, "hidden", False) and "completion" not in str(param.name)
    ]
    if shown or not below:
        yield " ".join([called, *shown])
    for name in sorted(below):
        yield from _command(f"{called} {name}", below[name])


if __name__ == "__main__":
    FILE.write_text("\n".join(public_api()) + "\n", "utf-8")
