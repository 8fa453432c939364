"""Closing a model's stream, and whatever it reads from, for readers who leave before its end."""

from __future__ import annotations

import gc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from types import AsyncGeneratorType, GeneratorType
from typing import Any, TypeVar

__all__ = ["aclosed", "closed"]

T = TypeVar("T")
_K = TypeVar("_K", bound=type)


@contextmanager
def closed(stream: Iterator[T]) -> Iterator[Iterator[T]]:
    """Close a stream at the end of the block, with all that it reads from.

    LlamaIndex's streams leave what they read from to the garbage collector, and those of OpenAI's SDK are cycles:
    until its next full run the connection stayed open, and the provider went on writing what nobody reads.

    Args:
        stream: As a model's `stream_chat` returns it; what cannot be closed is left as it is.

    Yields:
        The stream.

    Example:
        >>> source = (number for number in range(10))
        >>> with closed(number * 2 for number in source) as doubled:
        ...     first = next(doubled)
        >>> first, list(source)
        (0, [])
    """
    try:
        yield stream
    finally:
        sources = _sources(stream, GeneratorType)
        if hasattr(stream, "close"):
            stream.close()
        for source in sources:
            with suppress(Exception):
                source.close()


@asynccontextmanager
async def aclosed(stream: AsyncIterator[T]) -> AsyncGenerator[AsyncIterator[T], None]:
    """`closed`, awaiting.

    Args:
        stream: As a model's `astream_chat` gives it.

    Yields:
        The stream.

    Example:
        >>> import asyncio
        >>> async def numbers():
        ...     yield 1
        ...     yield 2
        >>> async def first():
        ...     async with aclosed(numbers()) as stream:
        ...         return await anext(stream)
        >>> asyncio.run(first())
        1
    """
    try:
        yield stream
    finally:
        sources = _sources(stream, AsyncGeneratorType)
        if hasattr(stream, "aclose"):
            await stream.aclose()
        for source in sources:
            with suppress(Exception):
                await source.aclose()


def _sources(stream: Any, kind: _K) -> list[Any]:
    """The generators that a waiting generator reads from, the next one first; once it is closed, nothing tells."""
    found: list[Any] = [stream]
    for each in found:
        if isinstance(each, kind):
            found += [held for held in gc.get_referents(each) if isinstance(held, kind) and held not in found]
    return found[1:]
