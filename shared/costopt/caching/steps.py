"""One logic, two drivers: a flow is a generator that yields a `Step` wherever something must be waited for.

`drive` carries the steps out blocking, `adrive` awaits them; what fails is thrown into the flow, which decides.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Generator
from typing import Any, NamedTuple, TypeVar

from costopt import driving

__all__ = ["Flow", "Step", "adrive", "drive"]

T = TypeVar("T")


class Step(NamedTuple):
    """Something to wait for.

    Attributes:
        run: Does it, blocking.
        arun: Does it, awaited.
        within: Seconds after which an awaiting driver gives up; what blocks has limits of its own.
    """

    run: Callable[[], Any]
    arun: Callable[[], Awaitable[Any]]
    within: float | None = None


Flow = Generator[Step, Any, T]


def drive(flow: Flow[T]) -> T:
    """Carry a flow out, blocking."""
    return driving.drive(flow, _run)


async def adrive(flow: Flow[T]) -> T:
    """Carry a flow out, awaiting."""
    return await driving.adrive(flow, _arun)


def _run(step: Step) -> Any:
    return step.run()


async def _arun(step: Step) -> Any:
    async with asyncio.timeout(step.within):
        return await step.arun()
