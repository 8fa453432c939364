"""What the tests of the embedder and of what shares it have in common."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any

import numpy as np

from costopt import embedding
from costopt.embedding import SharedEmbedder

__all__ = ["OFFLINE", "Letters", "Odd", "hold", "python"]

SHARED = Path(embedding.__file__).parents[1]
OFFLINE = {**os.environ, "PYTHONPATH": str(SHARED), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}


def python(script: str, stdin: str = "") -> str:
    """What a process of its own says that runs this script; it must end well."""
    done = subprocess.run(
        [sys.executable, "-c", script],
        input=stdin,
        capture_output=True,
        text=True,
        timeout=120,
        env=OFFLINE,
    )
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stderr}"
    return done.stdout


class Letters:
    """A small real embedder: counts letters. Slow on demand, failing on demand, and it keeps a diary."""

    name = "letters"
    dimension = 27

    def __init__(self, delay_s: float = 0.0) -> None:
        self.delay_s = delay_s
        self.batches: list[list[str]] = []
        self.fail: BaseException | None = None
        self.running = threading.Event()
        self.may_go = threading.Event()
        self.may_go.set()

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        self.batches.append(list(texts))
        self.running.set()
        assert self.may_go.wait(20)
        time.sleep(self.delay_s)
        if self.fail is not None:
            raise self.fail
        rows = np.ones((len(texts), 27), np.float32)
        for row, text in zip(rows, texts, strict=True):
            for character in text.lower():
                row[(ord(character) - 97) % 26] += 1
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)

    def one(self, text: str) -> np.ndarray:
        return Letters().embed([text])[0]


def hold(embedder: Letters, shared: SharedEmbedder) -> Future[Any]:
    """Keep the dispatcher in a forward pass until `may_go` is set."""
    embedder.may_go.clear()
    future = shared.submit("the text that holds the dispatcher")
    assert embedder.running.wait(10)
    return future


class Odd:
    """Returns what it was made with, which may be no embedding."""

    name = "odd-model"
    dimension = 2

    def __init__(self, rows: Any) -> None:
        self.rows = rows

    def embed(self, texts: Sequence[str]) -> Any:
        return self.rows
