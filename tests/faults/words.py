"""What the core needs in a test and in the processes that it starts; imports no framework, so they start fast."""

from __future__ import annotations

import functools
import hashlib
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np

from costopt import Answer, CacheRequest, SemanticCache, SimilarityJudge

ROOT = Path(__file__).parents[2]
# The bar is 250 ms added, measured by `make bench`; a test on a shared machine guards against seconds.
MOST_ADDED_S = 0.35
# Serves whatever is near: what is tested here is the way to the judge, and not the judge.
NEAR = SimilarityJudge(0.9, guards=False)
# How a process with a cache on the file that it is given begins.
ON_A_FILE = """
import os, signal, sys, time
from costopt import LocalStore, SemanticCache
from tests.faults.words import NEAR, Words, found, human, keep, said
cache = SemanticCache(LocalStore(sys.argv[1]), embedder=Words(), judge=NEAR).warm()
"""


class Words:
    """An embedder of bags of words: equal words, equal vector; fails as told by `fault`."""

    name = "words"
    dimension = 64

    def __init__(self) -> None:
        self.fault: Callable[[Sequence[str]], Any] | None = None

    def embed(self, texts: Sequence[str]) -> Any:
        return self.good(texts) if self.fault is None else self.fault(texts)

    def good(self, texts: Sequence[str]) -> Any:
        rows = np.full((len(texts), self.dimension), 1e-3, np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in text.lower().replace("?", " ").split():
                row += _direction(word, self.dimension)
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)


@functools.lru_cache(maxsize=4096)
def _direction(word: str, dimension: int) -> Any:
    seed = hashlib.sha256(word.encode("utf-8", "replace")).digest()[:4]
    return np.random.default_rng(list(seed)).standard_normal(dimension).astype(np.float32)


def human(cache: SemanticCache, content: Any, **more: Any) -> CacheRequest:
    """The request for one human message."""
    return cache.request([{"role": "user", "content": content, **more}], model="fault-test-1")


def said(content: str) -> Answer:
    """An answer of one message."""
    return Answer(({"kind": "chat", "content": content},))


def keep(cache: SemanticCache, question: str, content: str | None = None) -> None:
    """Store an answer that names its question."""
    cache.update(human(cache, question), said(content or f"answer to {question}"))


def found(cache: SemanticCache, question: str) -> tuple[str, str] | None:
    """The tier and the content of a hit."""
    hit = cache.lookup(human(cache, question))
    return None if hit is None else (hit.tier, str(hit.answer.generations[0]["content"]))


def wait_for(condition: Callable[[], Any], what: str, timeout: float = 20.0) -> Any:
    """The first true value of `condition`."""
    give_up = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < give_up, f"not in {timeout:g} s: {what}"
        time.sleep(0.05)
    return value


def timed_miss(cache: SemanticCache, question: str) -> float:
    """Seconds that a question without an answer takes: a look-up and an update, neither of which raises."""
    started = time.perf_counter()
    assert found(cache, question) is None
    keep(cache, question)
    return time.perf_counter() - started


class Process:
    """A Python that runs `code`; what it prints comes by `line`, what it waits for is sent by `send`."""

    def __init__(self, code: str, *arguments: object) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *map(str, arguments)],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    @property
    def pid(self) -> int:
        return self._process.pid

    def line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def send(self, line: str = "go") -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def rest(self, timeout: float = 60.0) -> list[str]:
        """What else it prints; it must end by itself, and well."""
        output, _ = self._process.communicate(timeout=timeout)
        assert self._process.returncode == 0, output
        return output.splitlines()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
