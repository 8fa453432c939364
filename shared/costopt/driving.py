"""Carrying out a flow: a generator that yields whatever must be waited for, and decides what comes next.

Levers say what their steps are; blocking and awaiting callers share every decision. What fails is thrown into the flow.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from typing import Any, TypeVar

__all__ = ["adrive", "drive"]

S = TypeVar("S")
T = TypeVar("T")


def drive(flow: Generator[S, Any, T], carry_out: Callable[[S], Any]) -> T:
    """Carry a flow out, blocking.

    Example:
        >>> def flow():
        ...     return (yield 2) + (yield 3)
        >>> drive(flow(), lambda step: step * 10)
        50
    """
    try:
        step = next(flow)
        while True:
            try:
                value = carry_out(step)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()


async def adrive(flow: Generator[S, Any, T], carry_out: Callable[[S], Awaitable[Any]]) -> T:
    """`drive`, awaiting."""
    try:
        step = next(flow)
        while True:
            try:
                value = await carry_out(step)
            except Exception as error:
                step = flow.throw(error)
            else:
                step = flow.send(value)
    except StopIteration as stop:
        result: T = stop.value
        return result
    finally:
        flow.close()
