"""Anthropic's Message Batches API, through Anthropic's SDK."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

from costopt.batch.protocol import UNDECIDED, Limits, Lot, LotState, Outcome
from costopt.batch.sdk import json_lines, translated, whole
from costopt.errors import require

if TYPE_CHECKING:
    import anthropic

__all__ = ["AnthropicBatches"]

_CLOCKS_DIFFER_S = 3600
_FINAL = frozenset((400, 401, 402, 403, 404, 413))
_STATUS = {
    "invalid_request_error": 400,
    "authentication_error": 401,
    "billing_error": 402,
    "permission_error": 403,
    "not_found_error": 404,
    "request_too_large": 413,
    "rate_limit_error": 429,
    "timeout_error": 504,
    "overloaded_error": 529,
}
# 100,000 rows and 256 MB are allowed.
_LIMITS = Limits(rows=100_000, bytes=250_000_000, one_model=False)


class AnthropicBatches:
    """Carries out batches by Anthropic's Message Batches API.

    Args:
        client: An `anthropic.Anthropic`; None makes one at first use, with ANTHROPIC_API_KEY and ANTHROPIC_BASE_URL.
        limits: What is taken as one batch.

    Raises:
        MissingExtraError: If `anthropic` is not installed.

    Example:
        >>> AnthropicBatches().endpoint
        '/v1/messages'
    """

    name = "anthropic"
    endpoint = "/v1/messages"

    def __init__(self, client: anthropic.Anthropic | None = None, *, limits: Limits = _LIMITS) -> None:
        require("anthropic", "batch")
        self._given = client
        self.limits = limits

    @cached_property
    def client(self) -> anthropic.Anthropic:
        """The SDK's client."""
        import anthropic

        with translated(anthropic, "Anthropic's client"):
            return self._given or anthropic.Anthropic()

    @cached_property
    def address(self) -> str:
        """Where requests go; an answer from one address is not taken for one from another."""
        return str(self.client.base_url).rstrip("/")

    def send(self, lot: Lot) -> str:
        """Make the batch."""
        # The SDK's own second try, after a cut connection, would make a second batch.
        client = self.client.with_options(max_retries=0)
        requests: Any = [{"custom_id": custom_id, "params": json.loads(body)} for custom_id, body in lot.rows]
        what = "sending a batch to Anthropic"
        with self._translated(what):
            return whole(client.messages.batches.create(requests=requests), what).id

    def find(self, lot: Lot, known: frozenset[str]) -> str | None:
        """The batch whose results are for rows of this lot.

        Anthropic keeps no note of ours beside a batch, only the ids of its rows, and shows those when it has ended.
        Until then a batch of the same size that we know nothing of may be this one.
        """
        undecided = False
        with self._translated("looking for a batch at Anthropic"):
            for batch in self.client.messages.batches.list(limit=100):
                if batch.created_at.timestamp() < lot.started - _CLOCKS_DIFFER_S:  # the newest come first
                    break
                if batch.id in known or _size(batch.request_counts) != lot.size:
                    continue
                if batch.processing_status != "ended":
                    undecided = True
                elif self._is(batch, lot):
                    return batch.id
        return UNDECIDED if undecided else None

    def _is(self, batch: Any, lot: Lot) -> bool:
        if batch.archived_at is not None:  # older than 29 days, and not to be read any more
            return False
        first = next(self._rows(batch.id, "looking for a batch at Anthropic"), None)
        return first is not None and str(first.get("custom_id")).startswith(lot.id)

    def look(self, batch: str) -> LotState:
        """How the batch stands."""
        found = self._retrieve(batch, f"asking Anthropic about {batch}")
        if found.archived_at is not None:
            return LotState(
                True, code="archived", message="the results are over 29 days old and not to be had any more"
            )
        cancelled = found.cancel_initiated_at is not None
        return LotState(found.processing_status == "ended", _size(found.request_counts), cancelled)

    def outcomes(self, batch: str) -> Iterator[Outcome]:
        """The rows of the results."""
        what = f"reading the results of {batch} from Anthropic"
        with self._translated(what):
            for row in self._rows(batch, what):
                yield _outcome(row)

    def _rows(self, batch: str, what: str) -> Iterator[dict[str, Any]]:
        with self.client.messages.batches.with_streaming_response.results(batch) as response:
            yield from json_lines(response.iter_bytes(), what)

    def cancel(self, batch: str) -> None:
        """Carry out no more of its rows; those that are done come back."""
        what = f"cancelling {batch} at Anthropic"
        if self._retrieve(batch, what).processing_status == "in_progress":
            with self._translated(what):
                self.client.messages.batches.cancel(batch)

    def _retrieve(self, batch: str, what: str) -> anthropic.types.messages.MessageBatch:
        with self._translated(what):
            return whole(self.client.messages.batches.retrieve(batch), what)

    def _translated(self, what: str) -> Any:
        import anthropic

        return translated(anthropic, what)


def _size(counts: Any) -> int:
    return int(counts.processing + counts.succeeded + counts.errored + counts.canceled + counts.expired)


def _outcome(row: Mapping[str, Any]) -> Outcome:
    custom_id, result = str(row.get("custom_id")), row.get("result")
    result = result if isinstance(result, Mapping) else {}
    kind, message = result.get("type"), result.get("message")
    if kind == "succeeded" and isinstance(message, Mapping):
        return Outcome(custom_id, 200, message)
    if kind != "errored":
        code = {"canceled": "cancelled", "expired": "expired"}.get(str(kind), "missing")
        return Outcome(custom_id, 0, {}, code, "", True)
    body = result.get("error")
    body = body if isinstance(body, Mapping) else {}
    said = body.get("error")
    said = said if isinstance(said, Mapping) else body
    code = str(said.get("type") or "api_error")
    status = _STATUS.get(code, 500)
    return Outcome(custom_id, status, body, code, str(said.get("message") or ""), status not in _FINAL)
