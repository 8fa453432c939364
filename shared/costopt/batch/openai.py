"""OpenAI's Batch API, through OpenAI's SDK."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any

from costopt.batch.protocol import Limits, Lot, LotState, Outcome
from costopt.batch.sdk import json_lines, translated, whole
from costopt.errors import require

if TYPE_CHECKING:
    import openai

__all__ = ["OpenAIBatches"]

_TAG = "costopt"
_ENDED = frozenset(("cancelled", "completed", "expired", "failed"))
_CLOCKS_DIFFER_S = 86_400
# 50,000 rows and 200 MB are allowed; what goes around the file counts, too.
_LIMITS = Limits(rows=50_000, bytes=190_000_000, one_model=True)


class OpenAIBatches:
    """Carries out batches by OpenAI's Batch API, or by a server that speaks it.

    Args:
        client: An `openai.OpenAI`; None makes one at first use, with OPENAI_API_KEY and OPENAI_BASE_URL.
        endpoint: The path for requests that name none.
        limits: What the server takes as one batch, if it is not OpenAI.

    Raises:
        MissingExtraError: If `openai` is not installed.

    Example:
        >>> OpenAIBatches().name
        'openai'
    """

    name = "openai"

    def __init__(
        self,
        client: openai.OpenAI | None = None,
        *,
        endpoint: str = "/v1/chat/completions",
        limits: Limits = _LIMITS,
    ) -> None:
        require("openai", "batch")
        self._given = client
        self.endpoint = endpoint
        self.limits = limits

    @cached_property
    def client(self) -> openai.OpenAI:
        """The SDK's client."""
        import openai

        with translated(openai, "OpenAI's client"):
            return self._given or openai.OpenAI()

    @cached_property
    def address(self) -> str:
        """Where requests go; an answer from one address is not taken for one from another."""
        return str(self.client.base_url).rstrip("/")

    def send(self, lot: Lot) -> str:
        """Upload the rows and make the batch; the lot's id goes along as metadata."""
        # The SDK's own second try, after a cut connection, would make a second batch.
        client = self.client.with_options(max_retries=0)
        what = "sending a batch to OpenAI"
        with self._translated(what):
            content = (f"{_TAG}-{lot.id}.jsonl", io.BytesIO(_file(lot)))
            file = whole(client.files.create(file=content, purpose="batch"), what)
            try:
                made = client.batches.create(
                    input_file_id=file.id,
                    endpoint=lot.endpoint,  # type: ignore[arg-type]  # it says itself what it does not take
                    completion_window="24h",
                    metadata={_TAG: lot.id},
                )
            except Exception as error:
                status = getattr(error, "status_code", 0)
                if 400 <= status < 500 and status != 408:  # refused, so that nothing needs the file
                    with suppress(Exception):
                        client.files.delete(file.id)
                raise
        return whole(made, what).id

    def find(self, lot: Lot, known: frozenset[str]) -> str | None:
        """The batch with this lot's id in its metadata."""
        with self._translated("looking for a batch at OpenAI"):
            for batch in self.client.batches.list(limit=100):
                if (batch.metadata or {}).get(_TAG) == lot.id:
                    return batch.id
                if batch.created_at < lot.started - _CLOCKS_DIFFER_S:  # the newest come first
                    return None
        return None

    def look(self, batch: str) -> LotState:
        """How the batch stands."""
        found = self._retrieve(batch, f"asking OpenAI about {batch}")
        counts = found.request_counts
        answered = counts.completed + counts.failed if counts else 0
        if found.status != "failed":
            return LotState(found.status in _ENDED, answered, found.status == "cancelled")
        errors = (found.errors.data if found.errors else None) or []
        said = "; ".join(dict.fromkeys(error.message or error.code or "" for error in errors))
        lines = tuple((error.line - 1, error.message or error.code or "") for error in errors if error.line)
        code = (errors[0].code if errors else None) or "failed"
        return LotState(True, code=code, message=said or "the batch failed", lines=lines)

    def outcomes(self, batch: str) -> Iterator[Outcome]:
        """The rows of the output file and of the error file."""
        what = f"reading the results of {batch} from OpenAI"
        found = self._retrieve(batch, what)
        with self._translated(what):
            for file in (found.output_file_id, found.error_file_id):
                if file is not None:
                    with self.client.files.with_streaming_response.content(file) as response:
                        for row in json_lines(response.iter_bytes(), what):
                            yield _outcome(row)

    def cancel(self, batch: str) -> None:
        """Carry out no more of its rows; those that are done come back."""
        what = f"cancelling {batch} at OpenAI"
        if self._retrieve(batch, what).status not in _ENDED:
            with self._translated(what):
                self.client.batches.cancel(batch)

    def _retrieve(self, batch: str, what: str) -> openai.types.Batch:
        with self._translated(what):
            return whole(self.client.batches.retrieve(batch), what)

    def _translated(self, what: str) -> Any:
        import openai

        return translated(openai, what)


def _file(lot: Lot) -> bytes:
    about = json.dumps(lot.endpoint)
    lines = (
        f'{{"custom_id":"{custom_id}","method":"POST","url":{about},"body":{body}}}\n' for custom_id, body in lot.rows
    )
    return "".join(lines).encode("ascii")


def _outcome(row: Mapping[str, Any]) -> Outcome:
    custom_id = str(row.get("custom_id"))
    error, response = row.get("error"), row.get("response")
    if isinstance(response, Mapping):
        status, body = int(response.get("status_code") or 0), response.get("body")
        body = body if isinstance(body, Mapping) else {}
        if status < 300 and body:
            return Outcome(custom_id, status, body)
        said = body.get("error")
        said = said if isinstance(said, Mapping) else {}
        code = str(said.get("code") or said.get("type") or f"http_{status}")
        again = status in (0, 408, 409, 429) or status >= 500
        return Outcome(custom_id, status, body, code, str(said.get("message") or ""), again)
    error = error if isinstance(error, Mapping) else {}
    # Not carried out: "batch_expired", "batch_cancelled".
    return Outcome(custom_id, 0, {"error": dict(error)}, str(error.get("code") or "missing"), _said(error), True)


def _said(error: Mapping[str, Any]) -> str:
    return str(error.get("message") or "")
