"""A server on loopback that speaks as much of Anthropic's Messages API as the real SDK needs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.answers import arguments, called_tool, running


class AnthropicServer(ThreadingHTTPServer):
    """Counts the requests it answered in `requests`; fails with a `status` from 400 on; `usage` is what it reports."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.status = 200
        self.usage: Callable[[dict[str, Any]], dict[str, Any]] = lambda _: {"input_tokens": 30, "output_tokens": 12}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: AnthropicServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        if self.server.status >= 400:
            kind = "rate_limit_error" if self.server.status == 429 else "overloaded_error"
            self._send("application/json", json.dumps({"type": "error", "error": {"type": kind, "message": "no"}}))
            return
        answer = _answer(request, len(self.server.requests), self.server.usage(request))
        if request.get("stream"):
            self._send("text/event-stream", "".join(_events(answer)))
        else:
            self._send("application/json", json.dumps(answer))

    def _send(self, kind: str, text: str) -> None:
        body = text.encode()
        self.send_response(self.server.status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


def _answer(request: dict[str, Any], number: int, usage: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "text", "text": f"claude {number}"}
    forced = request.get("tool_choice") or {}
    asked = {**request, "tool_choice": "required" if forced.get("type") == "any" else forced or None}
    tool = called_tool(asked)
    if tool is not None:
        made = arguments(tool["input_schema"], request["messages"])
        content = {"type": "tool_use", "id": f"toolu_{number}", "name": tool["name"], "input": made}
    return {
        "id": f"msg_{number}",
        "type": "message",
        "role": "assistant",
        "model": request["model"],
        "content": [content],
        "stop_reason": "tool_use" if tool is not None else "end_turn",
        "stop_sequence": None,
        "usage": usage,
    }


def _events(answer: dict[str, Any]) -> Iterator[str]:
    block = answer["content"][0]
    begun = {**answer["usage"], "output_tokens": 1}
    yield _event("message_start", message={**answer, "content": [], "stop_reason": None, "usage": begun})
    if block["type"] == "text":
        yield _event("content_block_start", index=0, content_block={"type": "text", "text": ""})
        for i, word in enumerate(block["text"].split(" ")):
            said = word if i == 0 else f" {word}"
            yield _event("content_block_delta", index=0, delta={"type": "text_delta", "text": said})
    else:
        yield _event("content_block_start", index=0, content_block={**block, "input": {}})
        written = json.dumps(block["input"], ensure_ascii=False)
        yield _event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": written})
    yield _event("content_block_stop", index=0)
    ended = {"stop_reason": answer["stop_reason"], "stop_sequence": None}
    # Cumulative, as the API sends it; for how long what was written is kept, only the start says.
    told = {name: count for name, count in answer["usage"].items() if name != "cache_creation"}
    yield _event("message_delta", delta=ended, usage=told)
    yield _event("message_stop")


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"


@contextmanager
def anthropic_server() -> Iterator[AnthropicServer]:
    """The server, running."""
    with AnthropicServer() as server, running(server):
        yield server
