"""Every exception that costopt raises on purpose.

    CostOptError
    ├── ConfigError          (also a ValueError)   an argument or option is wrong
    ├── MissingExtraError    (also an ImportError) an optional dependency is not installed
    ├── BudgetExceededError  a router's budget does not allow another call now
    ├── BatchError           a provider does not take, know or give back a batch
    │   ├── BatchUnavailableError ... for now: it is tried again
    │   ├── BatchTooLargeError    ... of this size: it is sent in smaller ones
    │   └── BatchNotFoundError    ... of this id, with the key that is used now
    ├── EmbeddingError       an embedder failed, or returned what is not an embedding
    ├── EngineError          a model that makes text failed at it
    │   ├── ContextLengthError     (also a ValueError)   prompt and answer are longer than its context
    │   ├── EngineClosedError      the engine was closed before the answer was whole
    │   ├── GenerationCancelledError  somebody gave the request up
    │   └── TruncatedOutputError   what had to follow a schema was cut off at max_tokens
    ├── OutOfMemoryError     (also a MemoryError)  a model needs more memory than there is
    ├── StoreError           a cache store failed
    │   └── StoreTimeoutError (also a TimeoutError) ... by taking longer than it may
    └── EntryError           a stored entry is not one this version can read

Inside a model call none of them reaches the application: the lever steps aside, counts the error and
logs it once. They are raised where somebody can mend the cause: in constructors and in commands. The exceptions
from that rule are a router's: without a tier that may serve a request, or without budget, there is no call to make.
"""

from __future__ import annotations

import importlib.util

__all__ = [
    "BatchError",
    "BatchNotFoundError",
    "BatchTooLargeError",
    "BatchUnavailableError",
    "BudgetExceededError",
    "ConfigError",
    "ContextLengthError",
    "CostOptError",
    "EmbeddingError",
    "EngineClosedError",
    "EngineError",
    "EntryError",
    "GenerationCancelledError",
    "MissingExtraError",
    "OutOfMemoryError",
    "StoreError",
    "StoreTimeoutError",
    "TruncatedOutputError",
    "require",
]


class CostOptError(Exception):
    """Base of every error that costopt raises on purpose."""


class ConfigError(CostOptError, ValueError):
    """An argument or option is wrong; the message says what would be right."""


class MissingExtraError(CostOptError, ImportError):
    """An optional dependency is not installed; the message is the command that installs it.

    Args:
        module: The module that could not be found, e.g. ``"redisvl"``.
        extra: The extra of costopt that brings it, e.g. ``"redis"``.
        instead: How to do without it, if one can.
    """

    def __init__(self, module: str, extra: str, instead: str = "") -> None:
        mend = f"pip install 'costopt[{extra}]'"
        super().__init__(f"{module!r} is not installed: {mend}" + (f", or {instead}" if instead else ""))
        self.module = module
        self.extra = extra


class BudgetExceededError(CostOptError):
    """The budget of the window does not allow another call now; the message says how much is left, and until when."""


class BatchError(CostOptError):
    """A provider does not take, know or give back a batch; the message says why."""


class BatchUnavailableError(BatchError):
    """A provider cannot be reached, is overloaded, or limits the rate; trying again later is all that is needed.

    Args:
        message: What happened.
        retry_after: Seconds that the provider asked to wait; None if it did not say.
        refused: Whether it is certain that nothing was done. After a cut connection it is not.
    """

    def __init__(self, message: str, *, retry_after: float | None = None, refused: bool = False) -> None:
        super().__init__(message)
        self.retry_after = retry_after
        self.refused = refused


class BatchTooLargeError(BatchError):
    """A provider takes batches of this kind, but not of this size."""


class BatchNotFoundError(BatchError):
    """A provider has no batch of this id, or none that the key in use may see."""


class EmbeddingError(CostOptError):
    """An embedder failed, or what it returned is not an embedding."""


class EngineError(CostOptError):
    """A model that makes text failed at it; the request is over, the engine lives on."""


class ContextLengthError(EngineError, ValueError):
    """Prompt and answer together are longer than the context.

    Args:
        prompt_tokens: Tokens of the prompt.
        max_tokens: Tokens asked for.
        limit: What the context holds.
        limited_by: What sets the limit, and what would raise it.
    """

    def __init__(self, prompt_tokens: int, max_tokens: int, limit: int, limited_by: str = "the model") -> None:
        super().__init__(
            f"context length exceeded: {prompt_tokens} prompt tokens and max_tokens={max_tokens} are "
            f"{prompt_tokens + max_tokens}, over the {limit} of {limited_by}: shorten the prompt or lower max_tokens"
        )
        self.prompt_tokens: int | None = prompt_tokens
        self.max_tokens: int | None = max_tokens
        self.limit: int | None = limit

    @classmethod
    def told(cls, message: str) -> ContextLengthError:
        """The same from a server, whose words have the figures."""
        error = cls.__new__(cls)
        Exception.__init__(error, message)
        error.prompt_tokens = error.max_tokens = error.limit = None
        return error


class EngineClosedError(EngineError):
    """The engine was closed before the answer was whole."""


class GenerationCancelledError(EngineError):
    """Somebody gave the request up before its answer was whole."""


class TruncatedOutputError(EngineError):
    """What had to follow a schema was cut off at max_tokens; raise max_tokens.

    Args:
        text: What there is of it.
        max_tokens: Tokens asked for.
    """

    def __init__(self, text: str, max_tokens: int) -> None:
        super().__init__(f"the structured answer was cut off at max_tokens={max_tokens}, and is not whole: raise it")
        self.text = text
        self.max_tokens = max_tokens


class OutOfMemoryError(CostOptError, MemoryError):
    """A model needs more memory than there is; the message has the figures, and settings that would fit."""


class StoreError(CostOptError):
    """A cache store failed."""


class StoreTimeoutError(StoreError, TimeoutError):
    """A cache store took longer than it may."""


class EntryError(CostOptError):
    """A stored entry is damaged, foreign, or of a version that this one cannot read."""


def require(module: str, extra: str, *, instead: str = "") -> None:
    """Raise `MissingExtraError` unless `module` can be imported; imports nothing itself."""
    try:
        found = importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        found = False
    if not found:
        raise MissingExtraError(module, extra, instead)
