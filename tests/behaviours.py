"""Behaviours of the server that several tests ask for."""

from __future__ import annotations

import asyncio
import threading

from tests.openai_server import Behaviour

__all__ = ["FAULTS", "AnotherTask"]

FAULTS = [
    (Behaviour(status=429, error="Rate limit reached"), "rate limit"),
    (Behaviour(status=500), "server error"),
    (Behaviour(status=401), "authentication"),
    (Behaviour(status=400, error="maximum context length is 128000 tokens"), "context overflow"),
    (Behaviour(status=400, error="no such parameter"), "invalid request"),
]
"""What goes wrong with a model, and what a router calls it."""


class AnotherTask:
    """The server answers, with "True", only once another task of the caller's event loop had its turn."""

    def __init__(self) -> None:
        self._arrived, self._released = threading.Event(), threading.Event()

    def __call__(self, _: int) -> Behaviour:
        self._arrived.set()
        return Behaviour(text=str(self._released.wait(10)))

    async def turn(self) -> None:
        """The other task."""
        await asyncio.to_thread(self._arrived.wait, 10)
        self._released.set()
