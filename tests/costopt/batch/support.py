"""What the tests of batches share; imports no framework."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from costopt.batch import AnthropicBatches, Backoff, BatchItem, BatchRequest, BatchRunner, Limits, OpenAIBatches
from tests.batch_answers import answer_to
from tests.batch_server import BatchServer, Fault

FAST = Backoff(first=0.005, most=0.02, patience=20.0)
_open: list[Any] = []
MODELS = {"openai": "gpt-4o-mini", "anthropic": "claude-haiku-4-5"}


def provider(name: str, url: str, **options: Any) -> Any:
    """The provider, by its real SDK, at this address; `close_clients` closes what this opens."""
    # Certificates take longer to load than a test takes.
    if name == "openai":
        import openai

        http: Any = openai.DefaultHttpxClient(verify=False)
        client: Any = openai.OpenAI(api_key="none", base_url=f"{url}/v1", max_retries=0, http_client=http)
        _open.append(client)
        return OpenAIBatches(client, **options)
    import anthropic

    http = anthropic.DefaultHttpxClient(verify=False)
    client = anthropic.Anthropic(api_key="none", base_url=url, max_retries=0, http_client=http)
    _open.append(client)
    return AnthropicBatches(client, **options)


def close_clients() -> None:
    """Close the clients that were made since the last time."""
    while _open:
        _open.pop().close()


@dataclass
class Setup:
    """A provider, the server behind it, and a journal."""

    name: str
    server: BatchServer
    provider: Any
    journal: Path

    def runner(self, *, limits: Limits | None = None, **options: Any) -> BatchRunner:
        if limits is not None:
            self.provider.limits = limits
        options = {"backoff": FAST, "settle": 0.05} | options
        return BatchRunner(self.provider, journal=str(self.journal), **options)

    def ask(self, text: str) -> BatchRequest:
        return request(MODELS[self.name], text)

    def asks(self, count: int) -> list[BatchRequest]:
        return [self.ask(f"question {number}") for number in range(count)]

    def faults(self, *faults: tuple[Callable[[str, str], bool], Fault], times: int = 1) -> None:
        """Each fault strikes at the first request that it is for, so many times."""
        left = dict.fromkeys(range(len(faults)), times)

        def fault(method: str, path: str, _: int) -> Fault | None:
            for number, (meant, what) in enumerate(faults):
                if left[number] and meant(method, path):
                    left[number] -= 1
                    return what
            return None

        self.server.fault = fault

    def billed_once(self, count: int) -> None:
        assert len(self.server.billed) == count
        assert set(self.server.billed.values()) <= {1}


def request(model: str, text: str) -> BatchRequest:
    return BatchRequest({"model": model, "max_tokens": 50, "messages": [{"role": "user", "content": text}]}, id=text)


def text_of(item: BatchItem) -> str:
    """What the model said."""
    assert item.body is not None, item.error
    if "choices" in item.body:
        return str(item.body["choices"][0]["message"]["content"])
    return str(item.body["content"][0]["text"])


def right(items: Any, requests: list[BatchRequest]) -> None:
    """Every row has its own answer, in the order asked."""
    assert [item.index for item in items] == list(range(len(requests)))
    assert [item.id for item in items] == [each.id for each in requests]
    assert [text_of(item) for item in items] == [answer_to(dict(each.body)) for each in requests]


def makes(method: str, path: str) -> bool:
    """Whether a request makes a batch."""
    return method == "POST" and path.endswith("/batches")


def reads(method: str, path: str) -> bool:
    """Whether a request reads results."""
    return method == "GET" and path.endswith(("/content", "/results"))


def looks(method: str, path: str) -> bool:
    """Whether a request asks how a batch stands."""
    return method == "GET" and "/batches/batch_" in path and not path.endswith("/results")
