"""A server on loopback that speaks OpenAI's files and batches and Anthropic's message batches; it can fail, as asked.

It counts what it bills: every row that a batch answered, with its tokens.
"""

from __future__ import annotations

import json
import random
import re
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

from tests.answers import running
from tests.batch_answers import (
    USAGE_OF_INPUT,
    Fate,
    answer_to,
    anthropic_answer,
    anthropic_row,
    openai_answer,
    openai_row,
)
from tests.openai_server import streamed

__all__ = ["Batch", "BatchServer", "Fault", "batch_server"]

_FILE = re.compile(rb'filename="([^"]*)"[^\r]*\r\n(?:[^\r\n]+\r\n)*\r\n(.*?)\r\n--', re.DOTALL)


@dataclass(frozen=True)
class Fault:
    """What goes wrong with a request.

    Attributes:
        status: It is answered with this, and not carried out.
        cut: "before": the connection is cut and nothing done; "after": it is done, and the answer never sent; "amid":
            half of the answer is sent.
        headers: Of an answer with `status`.
        quiet: With "amid", no length is told, so that the half looks whole; it ends with a whole line.
    """

    status: int = 0
    cut: Literal["", "before", "after", "amid"] = ""
    headers: dict[str, str] = field(default_factory=dict)
    quiet: bool = False


@dataclass
class Batch:
    """A batch as the server has it; rows are (custom id, body)."""

    id: str
    rows: list[tuple[str, dict[str, Any]]]
    metadata: dict[str, str]
    created: float
    endpoint: str = "/v1/messages"
    input_file: str = ""
    looks: int = 0
    status: str = "running"  # ended, failed, expired, cancelled
    results: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    fates: Counter[str] = field(default_factory=Counter)
    cancel_asked: bool = False


class BatchServer(ThreadingHTTPServer):
    """Both providers' batch APIs.

    Attributes:
        billed: How often each body was answered and paid, by its JSON.
        usage: Tokens of all that was paid: input, output.
        batches: Every batch that was made.
        polls: A batch ends when it is looked at for the so-manyth time, in a list or by itself.
        fate: What becomes of a row, told its body and how often the body was in a batch before.
        fault: What goes wrong with a request, told its method, its path and its number.
        refuse: Why a batch of these rows is refused after it was made, as OpenAI does: errors, or nothing.
        twice: Every so-manyth row stands in the results twice.
        answer: What it says to a body in OpenAI's protocol, one by one and in batches.
    """

    daemon_threads = True
    request_queue_size = 256

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.RLock()
        self.billed: Counter[str] = Counter()
        self.seen: Counter[str] = Counter()
        self.usage = [0, 0]
        self.batches: dict[str, Batch] = {}
        self.files: dict[str, tuple[str, bytes]] = {}
        self.requests: list[tuple[str, str]] = []
        self.single: list[dict[str, Any]] = []
        self.polls = 1
        self.most_bytes = 10**9
        self.fate: Callable[[dict[str, Any], int], Fate] = lambda body, before: "ok"
        self.fault: Callable[[str, str, int], Fault | None] = lambda method, path, number: None
        self.refuse: Callable[[Batch], list[dict[str, Any]]] = lambda batch: []
        self.twice = 7
        self.chance = random.Random(1)
        self.answer: Callable[[dict[str, Any]], dict[str, Any]] = openai_answer

    @property
    def url(self) -> str:
        """For Anthropic's SDK; OpenAI's wants `/v1` at the end."""
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that were killed

    # -- what goes on behind the API ----------------------------------------------------------------------

    def make(self, rows: list[tuple[str, dict[str, Any]]], **more: Any) -> Batch:
        batch = Batch(f"batch_{len(self.batches)}", rows, created=time.time(), **more)
        self.batches[batch.id] = batch
        errors = self.refuse(batch)
        if errors:
            batch.status, batch.errors = "failed", errors
        return batch

    def look(self, batch: Batch) -> None:
        batch.looks += 1
        if batch.status == "running" and (batch.looks >= self.polls or batch.cancel_asked):
            self.end(batch)

    def end(self, batch: Batch) -> None:
        done_before_cancel = len(batch.rows) // 2
        for number, (custom_id, body) in enumerate(batch.rows):
            text = json.dumps(body, sort_keys=True)
            fate = self.fate(body, self.seen[text])
            self.seen[text] += 1
            if batch.cancel_asked and number >= done_before_cancel:
                fate = "missing"
            batch.fates[fate] += 1
            if fate == "ok":
                self.billed[text] += 1
                self.usage[0] += len(text) // USAGE_OF_INPUT
                self.usage[1] += len(answer_to(body))
            if batch.input_file:
                row = openai_row(custom_id, body, fate, self.answer)
            else:
                row = anthropic_row(custom_id, body, fate)
            if row is None:
                continue
            batch.results.append(row)
            if self.twice and number % self.twice == 0:
                batch.results.append(row)
        self.chance.shuffle(batch.results)
        short = bool(batch.fates["expired"] + batch.fates["missing"])
        batch.status = "cancelled" if batch.cancel_asked else "expired" if short else "ended"


class _Handler(BaseHTTPRequestHandler):
    server: BatchServer
    protocol_version = "HTTP/1.1"
    # Headers and body in one packet: else each answer waits 40 ms for the client's delayed acknowledgement.
    wbufsize = -1

    def do_GET(self) -> None:
        self._do("GET")

    def do_POST(self) -> None:
        self._do("POST")

    def do_DELETE(self) -> None:
        self._do("DELETE")

    def _do(self, method: str) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        data = self.rfile.read(size)
        if len(data) < size:  # the client died while it sent this
            return
        path, _, query = self.path.partition("?")
        with self.server.lock:
            self.server.requests.append((method, path))
            fault = self.server.fault(method, path, len(self.server.requests)) or Fault()
            if fault.status:
                self._send(fault.status, _error(fault.status), fault)
                return
            if fault.cut == "before":
                self.close_connection = True
                return
            status, body = self._answer(method, path, query, data)
        if fault.cut == "after":
            self.close_connection = True
            return
        self._send(status, body, fault)

    def _send(self, status: int, body: Any, fault: Fault) -> None:
        whole = body if isinstance(body, bytes) else json.dumps(body).encode()
        sent = whole
        if fault.cut == "amid":
            sent = whole[: len(whole) // 2]
            if fault.quiet:
                sent = sent[: sent.rfind(b"\n") + 1]
            self.close_connection = True
        self.send_response(status)
        self.send_header("Content-Type", "application/binary" if isinstance(body, bytes) else "application/json")
        for name, value in fault.headers.items():
            self.send_header(name, value)
        if fault.quiet:
            self.send_header("Connection", "close")
        else:
            self.send_header("Content-Length", str(len(whole)))
        self.end_headers()
        self.wfile.write(sent)

    def _answer(self, method: str, path: str, query: str, data: bytes) -> tuple[int, Any]:
        if len(data) > self.server.most_bytes:
            return 413, _error(413)
        anthropic = "messages" in path
        parts = path.removeprefix("/v1/").removeprefix("messages/").split("/")
        if method == "POST" and path in ("/v1/chat/completions", "/v1/responses", "/v1/messages"):
            body = json.loads(data)
            self.server.single.append(body)
            answer = (anthropic_answer if anthropic else self.server.answer)(body)
            return 200, streamed(answer) if body.get("stream") and "chat" in path else answer
        if parts[0] == "files":
            return self._files(method, parts, data)
        if len(parts) == 1 and method == "POST":
            return 200, self._made(anthropic, json.loads(data))
        if len(parts) == 1:
            return 200, self._list(anthropic, query)
        batch = self.server.batches.get(parts[1])
        if batch is None or bool(batch.input_file) == anthropic:
            return 404, _error(404)
        if parts[2:] == ["results"]:
            return 200, _lines(batch.results)
        if parts[2:] == ["cancel"]:
            batch.cancel_asked = True
        else:
            self.server.look(batch)
        return 200, self._said(anthropic, batch)

    def _files(self, method: str, parts: list[str], data: bytes) -> tuple[int, Any]:
        files = self.server.files
        if method == "DELETE":
            del files[parts[1]]
            return 200, {"id": parts[1], "object": "file", "deleted": True}
        if len(parts) == 1:
            found = _FILE.search(data)
            assert found is not None
            name = f"file-{len(self.server.requests)}"
            files[name] = found.group(1).decode(), found.group(2)
            about = {"object": "file", "bytes": len(found.group(2)), "created_at": 1, "purpose": "batch"}
            return 200, about | {"id": name, "filename": files[name][0], "status": "processed"}
        kind, _, batch = parts[1].partition("-of-")
        results = self.server.batches[batch].results
        return 200, _lines([row for row in results if _answered(row) == (kind == "output")])

    def _made(self, anthropic: bool, body: dict[str, Any]) -> dict[str, Any]:
        if anthropic:
            rows = [(row["custom_id"], row["params"]) for row in body["requests"]]
            assert all(re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", custom_id) for custom_id, _ in rows)
            batch = self.server.make(rows, metadata={})
        else:
            lines = [json.loads(line) for line in self.server.files[body["input_file_id"]][1].splitlines()]
            assert len({line["body"]["model"] for line in lines}) == 1
            assert {(line["method"], line["url"]) for line in lines} == {("POST", body["endpoint"])}
            batch = self.server.make(
                [(line["custom_id"], line["body"]) for line in lines],
                metadata=body.get("metadata") or {},
                endpoint=body["endpoint"],
                input_file=body["input_file_id"],
            )
        assert len({custom_id for custom_id, _ in batch.rows}) == len(batch.rows)
        return self._said(anthropic, batch)

    def _list(self, anthropic: bool, query: str) -> dict[str, Any]:
        """Two a page, so that there are pages."""
        mine = [batch for batch in self.server.batches.values() if bool(batch.input_file) != anthropic]
        found = list(reversed(mine))
        after = re.search(r"after(?:_id)?=([^&]+)", query)
        ids = [batch.id for batch in found]
        start = ids.index(after.group(1)) + 1 if after else 0
        page = found[start : start + 2]
        for batch in page:  # time goes by
            self.server.look(batch)
        about = {"data": [self._said(anthropic, batch) for batch in page], "has_more": start + 2 < len(found)}
        last = page[-1].id if page else None
        return about | {"object": "list", "first_id": page[0].id if page else None, "last_id": last}

    def _said(self, anthropic: bool, batch: Batch) -> dict[str, Any]:
        return self._said_by_anthropic(batch) if anthropic else _said_by_openai(batch)

    def _said_by_anthropic(self, batch: Batch) -> dict[str, Any]:
        ended, fates = batch.status != "running", batch.fates
        made = datetime.fromtimestamp(batch.created, UTC)
        counts = {
            "processing": 0 if ended else len(batch.rows),
            "succeeded": fates["ok"],
            "errored": fates["invalid"] + fates["overloaded"],
            "canceled": fates["missing"],
            "expired": fates["expired"],
        }
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": "ended" if ended else "canceling" if batch.cancel_asked else "in_progress",
            "request_counts": counts,
            "created_at": made.isoformat(),
            "expires_at": (made + timedelta(days=1)).isoformat(),
            "ended_at": made.isoformat() if ended else None,
            "archived_at": None,
            "cancel_initiated_at": made.isoformat() if batch.cancel_asked else None,
            "results_url": f"{self.server.url}/v1/messages/batches/{batch.id}/results" if ended else None,
        }

    def log_message(self, *args: Any) -> None:
        pass


def _said_by_openai(batch: Batch) -> dict[str, Any]:
    names = {"running": "cancelling" if batch.cancel_asked else "in_progress", "ended": "completed"}
    done = batch.fates["ok"]
    failed = len(batch.rows) - done - batch.fates["missing"]
    ended = batch.status in ("ended", "expired", "cancelled")
    return {
        "id": batch.id,
        "object": "batch",
        "endpoint": batch.endpoint,
        "input_file_id": batch.input_file,
        "completion_window": "24h",
        "status": names.get(batch.status, batch.status),
        "created_at": int(batch.created),
        "metadata": batch.metadata,
        "errors": {"object": "list", "data": batch.errors} if batch.errors else None,
        "request_counts": {"total": len(batch.rows), "completed": done, "failed": failed if ended else 0},
        "output_file_id": f"output-of-{batch.id}" if ended and done else None,
        "error_file_id": f"error-of-{batch.id}" if ended and failed else None,
    }


def _answered(row: dict[str, Any]) -> bool:
    return bool(row["response"]) and row["response"]["status_code"] == 200


def _lines(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode()


def _error(status: int) -> dict[str, Any]:
    kinds = {401: "authentication_error", 404: "not_found_error", 413: "request_too_large", 429: "rate_limit_error"}
    error = {"message": f"the server was told to answer {status}", "type": kinds.get(status, "api_error"), "code": None}
    return {"type": "error", "error": error}


@contextmanager
def batch_server() -> Iterator[BatchServer]:
    """The server, running."""
    with BatchServer() as server, running(server):
        yield server
