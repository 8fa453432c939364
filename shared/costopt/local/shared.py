"""One engine for everybody in the process who asks for the same model, run the same way."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from weakref import WeakValueDictionary

from costopt.arguments import known_options
from costopt.errors import ConfigError
from costopt.local.engine import Engine

if TYPE_CHECKING:
    from costopt.local.openai_engine import OpenAICompatibleEngine

__all__ = ["check_fields", "shared_engine"]

_OF_A_SERVER = frozenset(("api_key", "extra_body", "max_concurrency", "max_retries", "timeout"))

_lock = threading.Lock()
_servers: WeakValueDictionary[tuple[Any, ...], OpenAICompatibleEngine] = WeakValueDictionary()


def shared_engine(model: str | Path, *, base_url: str | None = None, **options: Any) -> Engine:
    """The engine of this process for a model; made where there is none, and nothing is loaded or connected yet.

    It lives as long as somebody holds it: keep what is returned.

    Args:
        model: A local folder or a hub id; the name that the server has for it if there is a `base_url`.
        base_url: Of a server that speaks OpenAI's API, in place of a model in this process.
        options: Those of `OpenAICompatibleEngine` with a `base_url`, else of `TransformersEngine`; None is left out.

    Raises:
        ConfigError: If an option cannot be meant.
        MissingExtraError: Without the extra that is needed: ``served`` or ``local``.

    Example:
        >>> a, b = (shared_engine("my-model", base_url="http://localhost:8000/v1") for _ in range(2))
        >>> a is b
        True
    """
    given = {name: value for name, value in options.items() if value is not None}
    if base_url is None:
        from costopt.local.transformers_engine import EngineOptions, TransformersEngine

        local: Any = {name: value for name, value in given.items() if name not in _OF_A_SERVER}
        unknown = sorted(set(local) - set(EngineOptions.__annotations__))
        if unknown:
            raise ConfigError(f"a model in this process has no option {', '.join(unknown)}: see TransformersEngine")
        return TransformersEngine.shared(model, **local)
    unknown = sorted(set(given) - _OF_A_SERVER)
    if unknown:
        raise ConfigError(f"{', '.join(unknown)}: a matter of the server at {base_url}, leave it out")
    key = (str(model), base_url, *sorted((name, repr(value)) for name, value in given.items()))
    from costopt.local.openai_engine import OpenAICompatibleEngine

    with _lock:
        engine = _servers.get(key)
        if engine is None or engine.closed:
            engine = _servers[key] = OpenAICompatibleEngine(base_url=base_url, model=str(model), **given)
        return engine


def check_fields(model: Any, given: Iterable[str]) -> None:
    """Refuse arguments of a framework's model that are none of its fields, and say where the engine's go.

    Args:
        model: A class of pydantic's, as `ChatQuantized`; which would raise a ValidationError.
        given: Names of arguments.

    Raises:
        ConfigError: If there is one.
    """
    fields = {each for name, field in model.model_fields.items() for each in (field.alias or name, name)}
    for name in set(given) - fields:
        from costopt.local.transformers_engine import EngineOptions

        if name in {*EngineOptions.__annotations__, *_OF_A_SERVER}:
            raise ConfigError(f'{name}= is an option of the engine: give options={{"{name}": ...}}')
    known_options(model.__name__, given, sorted(fields))


def _after_fork() -> None:
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(after_in_child=_after_fork)
