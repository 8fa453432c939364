"""The seam between batches and those who carry them out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from costopt.errors import ConfigError

__all__ = [
    "UNDECIDED",
    "AnswerCache",
    "BatchProvider",
    "BatchRequest",
    "Limits",
    "Lot",
    "LotState",
    "Outcome",
    "body_of",
    "key_of",
]


UNDECIDED = ""
"""Instead of a batch's id: whether there is one cannot be told yet."""


@dataclass(frozen=True, slots=True)
class BatchRequest:
    """One row of a batch.

    Attributes:
        body: What would be posted to the provider's API, as JSON-like data.
        id: A name of the caller's own, handed back with the result.
        endpoint: The path it would be posted to; "" for the provider's chat API.

    Example:
        >>> BatchRequest({"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "Hi"}]}, id="row 1").endpoint
        ''
    """

    body: Mapping[str, Any]
    id: str | None = None
    endpoint: str = ""


@dataclass(frozen=True, slots=True)
class Limits:
    """What a provider takes as one batch.

    Attributes:
        rows: At most so many requests.
        bytes: At most so many of JSON.
        one_model: Whether they must all be for one model.
    """

    rows: int
    bytes: int
    one_model: bool


@dataclass(frozen=True, slots=True)
class Lot:
    """Rows that go to the provider as one batch.

    Attributes:
        id: Our name for it, 16 hex digits. It goes along, so that a batch whose id was never heard is found again.
        endpoint: The path that all rows are for.
        rows: (custom id, body as JSON text) of each; the custom ids begin with the lot's id.
        started: Unix time before it was first sent, in seconds.
        size: How many rows.
    """

    id: str
    endpoint: str
    rows: Sequence[tuple[str, str]]
    started: float
    size: int


@dataclass(frozen=True, slots=True)
class LotState:
    """How a batch stands with its provider.

    Attributes:
        ended: Whether no row will change any more.
        answered: How many rows the results must hold at least.
        cancelled: Whether somebody had it cancelled.
        code: Of the error that ended the whole batch before any row was carried out, if one did.
        message: Of that error.
        lines: Rows (from 0) that it was about, with what was wrong with each; empty if it was about none in particular.
    """

    ended: bool
    answered: int = 0
    cancelled: bool = False
    code: str = ""
    message: str = ""
    lines: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one row.

    Attributes:
        custom_id: As it was sent.
        status: HTTP status of the row; 0 if it was not carried out.
        body: The answer, or the error.
        code: Of the error; "" for an answer.
        message: Of the error.
        again: Whether it may be answered if it is sent again.
    """

    custom_id: str
    status: int
    body: Mapping[str, Any]
    code: str = ""
    message: str = ""
    again: bool = False


class BatchProvider(Protocol):
    """Who carries out batches. What it raises is a `BatchError`; a `BatchUnavailableError` is tried again."""

    name: str
    endpoint: str
    limits: Limits

    @property
    def address(self) -> str:
        """Where it is; equal requests to different places are different requests."""

    def send(self, lot: Lot) -> str:
        """Make the batch; returns the provider's id."""

    def find(self, lot: Lot, known: frozenset[str]) -> str | None:
        """The id of a batch that may have been made, not one of `known`; None if it was not, or `UNDECIDED`."""

    def look(self, batch: str) -> LotState:
        """How it stands."""

    def outcomes(self, batch: str) -> Iterator[Outcome]:
        """What became of its rows."""

    def cancel(self, batch: str) -> None:
        """Carry out no more of its rows."""


class AnswerCache(Protocol):
    """Where answers may lie already; it is asked for equal requests only, never for similar ones."""

    def get(self, request: BatchRequest) -> Mapping[str, Any] | None:
        """The provider's answer to this request, if there is one."""

    def put(self, request: BatchRequest, body: Mapping[str, Any]) -> None:
        """Keep an answer."""


def body_of(request: BatchRequest) -> str:
    r"""The body as it is sent: JSON in ASCII, its fields in the order they were given.

    Raises:
        ConfigError: If it is no object, or holds what JSON cannot.

    Example:
        >>> print(body_of(BatchRequest({"b": 1, "a": "é"})))
        {"b":1,"a":"\u00e9"}
    """
    if not isinstance(request.body, Mapping):
        raise ConfigError(f"the body of a request is a JSON object, not {type(request.body).__name__}")
    # ASCII escapes: half a character, which no UTF-8 encoder takes, goes through, too. The order of fields stays: in a
    # schema it is the order in which the model writes them.
    return _json(request, sort=False)


def key_of(provider: BatchProvider, request: BatchRequest, salt: str = "") -> str:
    """Hex digest (40 characters) of a request: who is asked, where, what. The order of fields is no part of it.

    Args:
        provider: Who is asked.
        request: What.
        salt: Another one, another key: for a second, independent answer.

    Raises:
        ConfigError: As `body_of`.
    """
    about = [provider.name, provider.address, request.endpoint or provider.endpoint, salt]
    parts = json.dumps(about) + _json(request, sort=True)
    return hashlib.blake2b(parts.encode("ascii"), digest_size=20).hexdigest()


def _json(request: BatchRequest, *, sort: bool) -> str:
    try:
        return json.dumps(request.body, sort_keys=sort, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        name = f"the request {request.id!r}" if request.id else "a request"
        raise ConfigError(f"{name} is not JSON ({error}): give numbers, texts, lists and objects") from None
