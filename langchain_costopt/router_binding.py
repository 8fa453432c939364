"""Tools and schemas that a router was given, as each of its models wants them.

Every model class has its own way to write tools down and to ask for a schema. So a router keeps what it was given, lets
the model that was chosen write it down, and shows caches and traces the common form.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable, RunnableBinding, RunnableSequence
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool

from costopt.errors import ConfigError

__all__ = ["BoundSchema", "BoundTools", "Child"]

_FOR_TRACES = ("ls_structured_output_format", "structured_output_format")


class Child:
    """The model of a tier: a chat model, or one with `.bind(...)`. It asks no cache; the router has asked.

    Raises:
        ConfigError: If it is something else, or has a cache of its own.
    """

    def __init__(self, name: str, model: Any) -> None:
        kwargs: dict[str, Any] = {}
        while isinstance(model, RunnableBinding):
            kwargs = {**model.kwargs, **kwargs}
            model = model.bound
        if not isinstance(model, BaseChatModel):
            raise ConfigError(
                f"the model of tier {name!r} is a {type(model).__name__}: give a chat model, or one with .bind(...)"
            )
        if model.cache:
            raise ConfigError(
                f"the model of tier {name!r} has a cache of its own, which would be asked after the router's: give "
                "cache= to the RouterRunnable"
            )
        self.name = name
        self.kwargs = kwargs
        self.model = model.model_copy(update={"cache": False})

    def prepared(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments of a call, with tools and schema as this model wants them."""
        given = dict(kwargs)
        tools, schema = given.get("tools"), given.pop("structured", None)
        if isinstance(tools, BoundTools):
            own = {name: given.pop(name) for name in tools.options if name in given}
            given.pop("tools")
            given = {**tools.written(self, own), **given}
        if isinstance(schema, BoundSchema):
            given = {**schema.written[self.name], **given}
        return {name: value for name, value in {**self.kwargs, **given}.items() if name not in _FOR_TRACES}


class BoundTools(list[Any]):
    """Tools in the common form, as a list of dicts; and as they were given."""

    def __init__(self, tools: Sequence[Any], options: Mapping[str, Any]) -> None:
        super().__init__(map(_common, tools))
        self.given = list(tools)
        self.options = dict(options)
        self._written: dict[str, dict[str, Any]] = {}

    def written(self, child: Child, options: Mapping[str, Any]) -> dict[str, Any]:
        """As this model writes them down, by its own `bind_tools`."""
        if options != self.options:
            return self._write(child, options)
        if child.name not in self._written:
            self._written[child.name] = self._write(child, options)
        return self._written[child.name]

    def _write(self, child: Child, options: Mapping[str, Any]) -> dict[str, Any]:
        given = {name: value for name, value in options.items() if value is not None}
        bound = child.model.bind_tools(self.given, **given)
        return dict(bound.kwargs) if isinstance(bound, RunnableBinding) else {"tools": list(self), **given}


class BoundSchema:
    """A schema that answers must follow; as each model asks for it, and reads it from the answer.

    Args:
        schema: As `with_structured_output` takes it.
        options: Of `with_structured_output`.
        children: The models.

    Raises:
        Exception: What the models raised, if none of them can.
    """

    def __init__(self, schema: Any, options: Mapping[str, Any], children: Sequence[Child]) -> None:
        self.written: dict[str, dict[str, Any]] = {}
        self.lacking: dict[str, str] = {}
        self._parsers: dict[str, Runnable[Any, Any]] = {}
        self._said = json.dumps([_shape(schema), dict(options)], sort_keys=True, default=str)
        self.by_tools = options.get("method") == "function_calling"
        error: Exception | None = None
        for child in children:
            try:
                self.written[child.name], self._parsers[child.name] = _split(child, schema, options)
            except Exception as failed:  # whatever it is by which a model says that it cannot
                self.lacking[child.name] = f"cannot follow this schema: {failed!r}"
                error = failed
        if not self.written and error is not None:
            raise error

    def __repr__(self) -> str:
        # What caches know a call by: the schema itself, not an address.
        return self._said

    def parse(self, message: AIMessage) -> Any:
        """What the answer says, read the way of the tier that gave it; of an answer out of a cache, in any way."""
        named = (message.response_metadata.get("costopt") or {}).get("chosen")
        names = sorted(self._parsers, key=lambda name: name != named)
        found, error = None, None
        for name in names[:1] if named in self._parsers else names:
            try:
                found = self._parsers[name].invoke(message, config={"callbacks": []})
            except Exception as failed:
                error = error or failed
                continue
            if found is not None:
                return found
        if error is not None:
            raise error
        return found

    def valid(self, produced: Any) -> bool:
        """Whether what a call produced follows the schema, read the way of its tier."""
        read = self._parsers[produced.tier].invoke(produced.message, config={"callbacks": []})
        return produced.message is not None and read is not None


def _split(child: Child, schema: Any, options: Mapping[str, Any]) -> tuple[dict[str, Any], Runnable[Any, Any]]:
    """(arguments, parser) of the model's own structured output."""
    made = child.model.with_structured_output(schema, **options)
    if not (isinstance(made, RunnableSequence) and isinstance(made.first, RunnableBinding)):
        made = BaseChatModel.with_structured_output(child.model, schema)
    if not (isinstance(made, RunnableSequence) and isinstance(made.first, RunnableBinding)):
        raise NotImplementedError(f"{type(child.model).__name__} has no structured output that can be routed")
    first, *rest = made.steps
    parser = rest[0] if len(rest) == 1 else RunnableSequence(*rest)
    return dict(first.kwargs), parser  # type: ignore[attr-defined]


def _common(tool: Any) -> Any:
    try:
        return convert_to_openai_tool(tool)
    except (ValueError, TypeError, KeyError):
        return tool  # a tool of the provider's own, which only its class knows


def _shape(schema: Any) -> Any:
    try:
        return convert_to_json_schema(schema)
    except (ValueError, TypeError, KeyError):
        return str(schema)
