"""The model's provider, in a process of its own: it gives right answers and counts what it is owed.

`python -m cookbook.benchmarks.soak_server` reads the topics from its first line of input, prints its address, and then
obeys one command a line and prints the sums: `bill` that only, `refuse MODEL` rate-limits one, `serve MODEL` no more.
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from collections import Counter
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from cookbook.benchmarks.soak_questions import Topic, as_json, from_json, right_answer, topics_by_text
from tests.answers import running
from tests.billing import Bill
from tests.openai_server import Behaviour, OpenAIServer, _Handler

__all__ = ["Provider"]

_THINKING_S = 0.03
_REFUSED = Behaviour(status=429, error="slow down", headers={"retry-after-ms": "1"})


class Provider:
    """The server's process, seen from the one that asks."""

    def __init__(self, topics: list[Topic]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cookbook.benchmarks.soak_server"],
            cwd=Path(__file__).parents[2],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self._lock = threading.Lock()
        self.url = self._asked(as_json(topics))

    def bill(self) -> dict[str, Any]:
        """The server's own count: answers, refused, unknown, tokens, dollars."""
        said: dict[str, Any] = json.loads(self._asked("bill"))
        return {**said, "dollars": Decimal(said["dollars"])}

    def refuse(self, model: str) -> None:
        """From now on this model is rate-limited."""
        self._asked(f"refuse {model}")

    def serve(self, model: str) -> None:
        """No more."""
        self._asked(f"serve {model}")

    def _asked(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with self._lock:
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()
            said = self._process.stdout.readline().strip()
        if not said:
            raise RuntimeError("the provider's process has ended")
        return said

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()


class _Asking(_Handler):
    """Notes whose key a request came with."""

    def do_POST(self) -> None:  # noqa: N802
        self.server.key.tenant = (self.headers["Authorization"] or "").removeprefix("Bearer sk-")  # type: ignore[attr-defined]
        super().do_POST()


class _Server(OpenAIServer):
    """Keeps sums, not requests, for it runs for an hour."""

    def __init__(self, topics: list[Topic]) -> None:
        super().__init__()
        self.RequestHandlerClass = _Asking
        self.key = threading.local()
        self.refusing: set[str] = set()
        self.counts: Counter[str] = Counter()
        self.made = Bill(seed=9)
        self._topics = topics_by_text(topics)
        self._chance = random.Random(9)

    def take(self, request: dict[str, Any]) -> tuple[int, Behaviour]:
        model = request["model"]
        refused = model in self.refusing
        with self._lock:
            self.counts["refused" if refused else "answered"] += 1
            number = self.counts.total()
        return number, _REFUSED if refused else self.made.openai(model, self._answer(request))

    def _answer(self, request: dict[str, Any]) -> Behaviour:
        said = {message["role"]: message["content"] for message in request["messages"]}
        try:
            text = right_answer(self.key.tenant, said.get("system", ""), said["user"], self._topics)
        except KeyError:
            self.counts["unknown"] += 1
            text = "Nobody was expected to ask this."
        return Behaviour(text=text, seconds=_THINKING_S)

    def bill(self) -> dict[str, Any]:
        counts = {name: self.counts[name] for name in ("answered", "refused", "unknown")}
        return {**counts, "tokens": dict(self.made.tokens), "dollars": str(self.made.dollars)}


def main() -> None:
    """Serve until the input ends."""
    with _Server(from_json(sys.stdin.readline())) as server, running(server):
        print(server.url, flush=True)
        for line in sys.stdin:
            command, _, model = line.strip().partition(" ")
            if command == "refuse":
                server.refusing.add(model)
            elif command == "serve":
                server.refusing.discard(model)
            print(json.dumps(server.bill()), flush=True)


if __name__ == "__main__":
    main()
