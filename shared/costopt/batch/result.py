"""What a batch came to, row by row and as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, Literal

from costopt.pricing import Usage

__all__ = ["BatchItem", "BatchJob", "BatchResult", "BatchStatus", "ItemError", "Source"]

Source = Literal["batch", "journal", "cache", "duplicate"]
_ZERO = Decimal(0)


@dataclass(frozen=True, slots=True)
class ItemError:
    """Why a row has no answer.

    Attributes:
        status: The HTTP status that the row got in the batch; 0 if it was never carried out.
        code: The provider's word for it, or "cancelled", "expired", "missing", "too_large".
        message: For people.
        body: The provider's own error, as it came.
    """

    status: int
    code: str
    message: str
    body: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return f"{self.code}: {self.message}" if self.message else self.code


@dataclass(frozen=True, slots=True)
class BatchItem:
    """One row: what was answered, or why it was not.

    Attributes:
        index: Its place among the requests, from 0.
        id: The name the caller gave it, if any.
        key: Hex digest of the request; equal requests have equal keys.
        body: The provider's answer as the API would have given it; None if there is none.
        error: Why there is none.
        usage: Its tokens; None if the provider reported none.
        cost: US dollars at the batch price; None if that is not known; 0 if this row was not paid for (see `source`).
        list_cost: What the same call would have cost by itself; None if not known.
        source: "batch": answered by the provider for this row; "duplicate": an earlier row of the same job asks the
            same; "cache": a cache had it; "journal": it had been answered before this job asked for it.
        batch: The provider's id of the batch that answered it.
    """

    index: int
    id: str | None
    key: str
    body: Mapping[str, Any] | None
    error: ItemError | None
    usage: Usage | None
    cost: Decimal | None
    list_cost: Decimal | None
    source: Source
    batch: str | None


@dataclass(frozen=True, slots=True)
class BatchJob:
    """A list of requests that was handed in.

    Attributes:
        id: Follows from the requests: the same list again is the same job, and goes on where it was.
        rows: How many requests.
        distinct: How many different ones; only these are ever sent.
        answered: How many of the different ones had an answer already.
    """

    id: str
    rows: int
    distinct: int
    answered: int


@dataclass(frozen=True, slots=True)
class BatchStatus:
    """How far a job is, in different requests.

    Attributes:
        job: Its id.
        rows: All requests, duplicates included.
        pending: Not sent yet.
        sent: With the provider.
        done: Answered.
        failed: Answered with an error.
        cancelled: Not to be answered.
        batches: The provider's ids of its batches that have not ended.
        trouble: What stood in the way when the job was last looked after; it is tried again.

    Example:
        >>> BatchStatus("a1", rows=3, pending=0, sent=1, done=2, failed=0, cancelled=0).finished
        False
    """

    job: str
    rows: int
    pending: int
    sent: int
    done: int
    failed: int
    cancelled: int
    batches: tuple[str, ...] = ()
    trouble: str = ""

    @property
    def finished(self) -> bool:
        """Whether nothing is to be waited for."""
        return not self.pending and not self.sent

    def __str__(self) -> str:
        parts = (f"{getattr(self, name)} {name}" for name in ("done", "failed", "cancelled", "sent", "pending"))
        trouble = f" ({self.trouble})" if self.trouble else ""
        return f"{self.rows} requests: {', '.join(parts)}{trouble}"


@dataclass(frozen=True, slots=True)
class BatchResult:
    """All rows of a job, in the order in which they were asked.

    Attributes:
        job: Its id.
        items: One for each request.

    Example:
        >>> BatchResult("a1", ()).cost
        Decimal('0')
    """

    job: str
    items: tuple[BatchItem, ...]

    def __iter__(self) -> Iterator[BatchItem]:
        return iter(self.items)

    def __len__(self) -> int:
        return len(self.items)

    @property
    def errors(self) -> tuple[BatchItem, ...]:
        """The rows without an answer."""
        return tuple(item for item in self.items if item.error is not None)

    @property
    def usage(self) -> Usage:
        """The tokens that were paid for: of each different request once."""
        return sum((item.usage for item in self.items if item.source == "batch" and item.usage), Usage())

    @property
    def cost(self) -> Decimal:
        """US dollars for what this job had answered, each different request once; rows in `unpriced` are left out."""
        return sum((item.cost for item in self.items if item.cost is not None), _ZERO)

    @property
    def baseline(self) -> Decimal:
        """What the same rows would have cost one call at a time, each of them."""
        return sum((item.list_cost for item in self.items if item.list_cost is not None), _ZERO)

    @property
    def unpriced(self) -> int:
        """How many answers have no known price."""
        return sum(item.cost is None and item.body is not None for item in self.items)
