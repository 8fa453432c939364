"""Answers that cannot but follow a JSON schema: what would break it is never drawn. By llguidance, an extra."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Collection, Mapping
from typing import TYPE_CHECKING, Any

from costopt.errors import ConfigError, require

if TYPE_CHECKING:
    import torch

__all__ = ["SchemaConstraint", "SchemaConstraints", "call_schema", "closed"]

# A model that knows no better would fill its answer with blanks.
_COMPACT: Any = {"whitespace_flexible": False}
_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
# Where a schema has schemas: one, several, or several by name.
_ONE = ("items", "additionalProperties", "contains")
_SEVERAL = ("anyOf", "oneOf", "allOf", "prefixItems")
_NAMED = ("properties", "$defs", "definitions")
# Beside "properties" these may name more of them; and what must not be is not made narrower.
_ELSEWHERE = ("$ref", "anyOf", "oneOf", "allOf", "patternProperties", "unevaluatedProperties")
_CONDITIONS = ("not", "if", "dependentSchemas")


class SchemaConstraints:
    """Makes constraints for one tokenizer, whose vocabulary is read once.

    Args:
        tokenizer: A fast one of transformers.
        vocabulary: How many scores the model gives, which may be more than the tokenizer has tokens.
        ends: Tokens that end an answer.
    """

    def __init__(self, tokenizer: Any, vocabulary: int, ends: Collection[int]) -> None:
        self._tokenizer = tokenizer
        self._vocabulary = vocabulary
        self._ends = sorted(ends)
        self._lock = threading.Lock()
        self._read: Any = None

    def follow(self, schema: Mapping[str, Any]) -> SchemaConstraint:
        """A constraint for one answer.

        Raises:
            MissingExtraError: llguidance is not installed.
            ConfigError: If the schema cannot be enforced.
        """
        require("llguidance", "structured")
        import llguidance

        with self._lock:
            if self._read is None:
                self._read = self._vocabulary_for_guidance()
        try:
            told = json.dumps(closed(schema))
            grammar = llguidance.LLMatcher.grammar_from_json_schema(told, overrides=_COMPACT)
            matcher = llguidance.LLMatcher(self._read, grammar, log_level=0)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"response_schema is no JSON schema: {error}") from error
        if matcher.is_error():
            raise ConfigError(f"response_schema cannot be enforced: {matcher.get_error()}")
        return SchemaConstraint(matcher)

    def _vocabulary_for_guidance(self) -> Any:
        from llguidance.hf import from_tokenizer

        try:
            return from_tokenizer(self._tokenizer, n_vocab=self._vocabulary, eos_token=self._ends or None)
        except (TypeError, ValueError) as error:
            raise ConfigError(f"this model's tokenizer cannot be constrained: {error}") from error


class SchemaConstraint:
    """What may come next in one answer; a `costopt.local.sampling.Constraint`."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def done(self) -> bool:
        """Whether the answer is whole."""
        return bool(self._matcher.is_stopped())

    def allowed(self, vocabulary: int) -> torch.Tensor:
        """True for each token that may come next, shape (vocabulary,)."""
        import torch

        biases = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        allowed = torch.zeros(vocabulary, dtype=torch.bool)
        shared = min(vocabulary, len(biases))
        allowed[:shared] = biases[:shared] > 0
        return allowed

    def accept(self, token: int) -> None:
        """Go on from this token."""
        if not self._matcher.consume_token(token):
            raise ConfigError(f"the schema cannot be followed: {self._matcher.get_error()}")


def closed(schema: Mapping[str, Any]) -> Mapping[str, Any]:
    """The schema, with objects that hold the properties it names, and no others.

    As JSON schema has it, an object may have any further properties unless it is said not to, and a model that knows
    no better makes them up. One that speaks of them, names none, or is put together of several parts stays as it is.

    Example:
        >>> closed({"type": "object", "properties": {"a": {"type": "integer"}}})["additionalProperties"]
        False
    """
    composed = False

    def shut(one: dict[str, Any]) -> dict[str, Any]:
        nonlocal composed
        composed = composed or _composed(one)
        return {"additionalProperties": False, **one} if isinstance(one.get("properties"), Mapping) else one

    made: Mapping[str, Any] = _mapped(schema, shut)
    return schema if composed else made


def _composed(schema: Mapping[str, Any]) -> bool:
    parts = schema.get("allOf")
    return (
        any(name in schema for name in _CONDITIONS)
        or (isinstance(parts, list) and len(parts) > 1)
        or ("properties" in schema and any(name in schema for name in _ELSEWHERE))
    )


def _mapped(schema: Any, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Any:
    """The schema with every schema in it changed, and itself."""
    if not isinstance(schema, Mapping):
        return schema
    made = dict(schema)
    for name, value in schema.items():
        if name in _ONE:
            made[name] = _mapped(value, change)
        elif name in _SEVERAL and isinstance(value, list):
            made[name] = [_mapped(one, change) for one in value]
        elif name in _NAMED and isinstance(value, Mapping):
            made[name] = {key: _mapped(one, change) for key, one in value.items()}
    return change(made)


def call_schema(tools: tuple[Mapping[str, Any], ...], choice: str) -> dict[str, Any]:
    """The schema of a call that must be made: {"name": ..., "arguments": ...} of one of the tools.

    Args:
        tools: As in a request.
        choice: "required", or the name of the only one allowed.

    Example:
        >>> tool = {"function": {"name": "add", "parameters": {"type": "object"}}}
        >>> call_schema((tool,), "required")["anyOf"][0]["properties"]["name"]
        {'const': 'add'}
    """
    variants, definitions = [], {}
    for tool in tools:
        function = tool["function"]
        if choice in ("required", function["name"]):
            parameters = dict(function.get("parameters") or _NOTHING)
            definitions.update(parameters.pop("$defs", {}))  # a reference is looked up from the root
            shape = {"name": {"const": function["name"]}, "arguments": parameters}
            variants.append(
                {"type": "object", "properties": shape, "required": list(shape), "additionalProperties": False}
            )
    return {"anyOf": variants, **({"$defs": definitions} if definitions else {})}
