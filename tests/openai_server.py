"""A server on loopback that speaks as much of OpenAI's chat API as the real SDK needs; it can also fail, as asked."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.answers import arguments, called_tool, named_object, running

USAGE = {"prompt_tokens": 30, "completion_tokens": 12, "total_tokens": 42}


@dataclass(frozen=True)
class Behaviour:
    """How the server treats a request.

    Attributes:
        status: Of the response; from 400 on it holds `error`.
        error: Message of the error.
        headers: Of the response.
        seconds: It waits so long before it answers.
        cut_after: It drops the connection after so many events of a stream.
        error_after: It sends an error in place of the event after so many.
        text: The answer; numbered if None.
        finish: Why the answer stopped.
        usage: What it reports; None: nothing.
        logprobs: Log-probabilities of the tokens.
        calls: How often it calls the tool in one answer, where it calls one.
    """

    status: int = 200
    error: str = "the server was told to fail"
    headers: dict[str, str] = field(default_factory=dict)
    seconds: float = 0.0
    cut_after: int | None = None
    error_after: int | None = None
    text: str | None = None
    finish: str = "stop"
    usage: dict[str, Any] | None = field(default_factory=lambda: dict(USAGE))
    logprobs: tuple[float, ...] = ()
    calls: int = 1


class OpenAIServer(ThreadingHTTPServer):
    """Counts the requests it answered in `requests`; every answer is numbered.

    `behaviours` says by model how requests are treated; a function is given the number of the request.
    """

    daemon_threads = True
    request_queue_size = 512

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []
        self.behaviours: dict[str, Behaviour | Callable[[int], Behaviour]] = {}
        self._lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"

    def asked(self, model: str) -> int:
        """How many requests named this model."""
        return sum(request["model"] == model for request in self.requests)

    def take(self, request: dict[str, Any]) -> tuple[int, Behaviour]:
        with self._lock:
            self.requests.append(request)
            number = len(self.requests)
        told = self.behaviours.get(request["model"], Behaviour())
        return number, told if isinstance(told, Behaviour) else told(number)

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass  # clients that gave up waiting


class _Handler(BaseHTTPRequestHandler):
    server: OpenAIServer

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        number, told = self.server.take(request)
        time.sleep(told.seconds)
        if told.status >= 400:
            code = "context_length_exceeded" if "context length" in told.error else None
            error = {"error": {"message": told.error, "type": "error", "code": code}}
            self._send("application/json", json.dumps(error), told)
            return
        if self.path.endswith("/chat/completions"):
            answer, events = chat_completion(request, number, told), _events
        else:
            answer, events = _completion(request, number, told), _completion_events
        if request.get("stream"):
            self._stream(list(events(answer)), told)
        else:
            self._send("application/json", json.dumps(answer), told)

    def _stream(self, events: list[str], told: Behaviour) -> None:
        if told.error_after is not None:
            events = [*events[: told.error_after], _event({"error": {"message": told.error, "code": None}})]
        whole = "".join(events) + "data: [DONE]\n\n"
        self._send("text/event-stream", whole, told, "".join(events[: told.cut_after]) if told.cut_after else None)

    def _send(self, kind: str, text: str, told: Behaviour, sent: str | None = None) -> None:
        self.send_response(told.status)
        self.send_header("Content-Type", kind)
        for name, value in told.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(text.encode())))
        self.end_headers()
        self.wfile.write((text if sent is None else sent).encode())
        if sent is not None or told.cut_after == 0:
            self.close_connection = True

    def log_message(self, *args: Any) -> None:
        pass


def chat_completion(request: dict[str, Any], number: int, told: Behaviour) -> dict[str, Any]:
    """What the API answers."""
    message: dict[str, Any] = {"role": "assistant", "content": told.text or f"answer {number}", "refusal": None}
    finish = told.finish
    tool = called_tool(request)
    form = request.get("response_format") or {}
    if tool is not None:
        written = json.dumps(arguments(tool["parameters"], request["messages"]), ensure_ascii=False)
        function = {"name": tool["name"], "arguments": written}
        ids = [f"call_{number}"] + [f"call_{number}_{again}" for again in range(1, told.calls)]
        calls = [{"id": each, "type": "function", "function": function} for each in ids]
        message |= {"content": None, "tool_calls": calls}
        finish = "tool_calls" if finish == "stop" else finish
    elif form and told.text is None:
        schema = (form.get("json_schema") or {}).get("schema") or named_object(request["messages"])
        message["content"] = json.dumps(arguments(schema, request["messages"]))
    choice: dict[str, Any] = {"index": 0, "finish_reason": finish, "message": message}
    if told.logprobs:
        choice["logprobs"] = {"content": [{"token": "a", "logprob": v, "top_logprobs": []} for v in told.logprobs]}
    return {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": 1_700_000_000 + number,
        "model": request["model"],
        "choices": [choice],
        "usage": told.usage,
    }


def _completion(request: dict[str, Any], number: int, told: Behaviour) -> dict[str, Any]:
    """What follows a text."""
    logprobs = None
    if told.logprobs:
        values = list(told.logprobs)
        tops = [{"a": value, "b": value - 1} for value in values]
        logprobs = {"tokens": ["a"] * len(values), "token_logprobs": values, "top_logprobs": tops}
    text = told.text or f"answer {number}"
    choice = {"index": 0, "text": text, "finish_reason": told.finish, "logprobs": logprobs}
    return {
        "id": f"cmpl-{number}",
        "object": "text_completion",
        "created": 1_700_000_000 + number,
        "model": request["model"],
        "choices": [choice],
        "usage": told.usage,
    }


def _completion_events(answer: dict[str, Any]) -> Iterator[str]:
    choice = answer["choices"][0]
    base = {**answer, "usage": None}
    for i, word in enumerate(choice["text"].split(" ")):
        piece = {**choice, "text": word if i == 0 else f" {word}", "finish_reason": None}
        yield _event({**base, "choices": [{**piece, "logprobs": choice["logprobs"] if i == 0 else None}]})
    yield _event({**base, "choices": [{**choice, "text": "", "logprobs": None}]})
    if answer["usage"] is not None:
        yield _event({**base, "choices": [], "usage": answer["usage"]})


def streamed(answer: dict[str, Any]) -> bytes:
    """The same answer as the API streams it."""
    return ("".join(_events(answer)) + "data: [DONE]\n\n").encode()


def _events(answer: dict[str, Any]) -> Iterator[str]:
    """The same answer in chunks, the way the API streams it."""
    base = {**answer, "object": "chat.completion.chunk", "usage": None}
    choice = answer["choices"][0]
    if choice.get("logprobs"):
        yield _event({**base, "choices": [{"index": 0, "delta": {}, "logprobs": choice["logprobs"]}]})
    for delta in _deltas(choice["message"]):
        yield _event({**base, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
    yield _event({**base, "choices": [{"index": 0, "delta": {}, "finish_reason": choice["finish_reason"]}]})
    if answer["usage"] is not None:
        yield _event({**base, "choices": [], "usage": answer["usage"]})


def _deltas(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    for i, call in enumerate(message.get("tool_calls") or ()):
        name, written = call["function"]["name"], call["function"]["arguments"]
        half = len(written) // 2
        yield {"role": "assistant", "tool_calls": [{**call, "index": i, "function": {"name": name, "arguments": ""}}]}
        for part in (written[:half], written[half:]):
            yield {"tool_calls": [{"index": i, "function": {"arguments": part}}]}
    for i, word in enumerate((message["content"] or "").split(" ") if message["content"] else ()):
        yield {"role": "assistant", "content": word if i == 0 else f" {word}"}


def _event(chunk: dict[str, Any]) -> str:
    return f"data: {json.dumps(chunk)}\n\n"


@contextmanager
def openai_server() -> Iterator[OpenAIServer]:
    """The server, running."""
    with OpenAIServer() as server, running(server):
        yield server
