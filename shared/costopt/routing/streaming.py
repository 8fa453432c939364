"""The flow of an answer that is shown while it comes: another tier may take over until the first token was shown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import aclosing, closing, suppress
from typing import Any, Generic, TypeVar

from costopt.routing.cascade import Reply
from costopt.routing.serving import Ask, Flow, Interrupted, Served, Work

__all__ = ["Relay", "arelayed", "relayed"]

C = TypeVar("C")

# The text, the finish reason and the usage may come in chunks of their own.
_ENDING = 3


class Relay(Generic[C]):
    """Holds chunks back until one may be shown, and tells the flow how each stream went.

    Args:
        flow: Of one request.
        shows: Whether a chunk holds anything that a reader sees.
        reply: The reply that chunks of one stream add up to; its `raw` is those chunks.
        cumulative: Whether each chunk holds all that came before it: then only the last ones are kept once they are
            shown, or a long answer would be held as often as it has tokens.
    """

    def __init__(
        self,
        flow: Flow,
        shows: Callable[[C], bool],
        reply: Callable[[Ask, list[C]], Reply],
        *,
        cumulative: bool = False,
    ) -> None:
        self._flow = flow
        self._shows = shows
        self._reply = reply
        self._cumulative = cumulative
        self._chunks: list[C] = []
        self._live = False
        self.served: Served | None = None
        self.step: Ask | Work = next(flow)

    def feed(self, chunk: C) -> Sequence[C]:
        """Take a chunk; returns those to show now."""
        self._chunks.append(chunk)
        if self._live:
            if self._cumulative:
                del self._chunks[:-_ENDING]
            return (chunk,)
        if self._hold or not self._shows(chunk):
            return ()
        self._live = True
        return tuple(self._chunks)

    def ended(self, value: Any = None) -> None:
        """The stream ended by itself, or what was to be computed is `value`."""
        if isinstance(self.step, Work):
            self._go(lambda: self._flow.send(value))
            return
        reply = self._sum()
        if self._live or any(map(self._shows, self._chunks)) or reply.finish or reply.usage:
            self._go(lambda: self._flow.send(reply))
        else:
            # A connection that was cut ends like one that is done.
            self.failed(ConnectionError("the stream ended before the first token"))

    def failed(self, error: Exception) -> None:
        """The stream broke; raises the error if some of it was shown, or if no tier is left."""
        thrown = Interrupted(error, self._sum()) if self._live else error
        self._go(lambda: self._flow.throw(thrown))

    def left(self) -> None:
        """Whoever read the stream stopped reading."""
        if self._live:
            with suppress(Interrupted, StopIteration):
                self._flow.throw(Interrupted(None, self._sum()))
        self._flow.close()

    def unshown(self) -> Sequence[C]:
        """The chunks of the answer, if none of it was shown yet."""
        return () if self._live or self.served is None else tuple(self.served.reply.raw)

    @property
    def _hold(self) -> bool:
        return isinstance(self.step, Ask) and self.step.hold

    def _sum(self) -> Reply:
        assert isinstance(self.step, Ask)
        return self._reply(self.step, self._chunks)

    def _go(self, on: Callable[[], Ask | Work]) -> None:
        try:
            self.step = on()
            self._chunks = []
        except StopIteration as stop:
            self.served = stop.value


def relayed(relay: Relay[C], start: Callable[[Ask], Iterator[C]], last: Callable[[Served], C]) -> Iterator[C]:
    """The chunks of the answer, blocking.

    Args:
        relay: Of one request.
        start: Begins the stream of a tier; a generator.
        last: The chunk that closes the answer.
    """
    try:
        while relay.served is None:
            step, value = relay.step, None
            try:
                if isinstance(step, Work):
                    value = step.do()
                else:
                    with closing(start(step)) as chunks:  # type: ignore[type-var]
                        for chunk in chunks:
                            yield from relay.feed(chunk)
            except Exception as error:
                relay.failed(error)
            else:
                relay.ended(value)
    except BaseException:
        relay.left()
        raise
    yield from relay.unshown()
    yield last(relay.served)


async def arelayed(
    relay: Relay[C], start: Callable[[Ask], AsyncIterator[C]], last: Callable[[Served], C]
) -> AsyncIterator[C]:
    """`relayed`, awaiting."""
    try:
        while relay.served is None:
            step, value = relay.step, None
            try:
                if isinstance(step, Work):
                    value = await asyncio.to_thread(step.do)
                else:
                    async with aclosing(start(step)) as chunks:  # type: ignore[type-var]
                        async for chunk in chunks:
                            for shown in relay.feed(chunk):
                                yield shown
            except Exception as error:
                relay.failed(error)
            else:
                relay.ended(value)
    except BaseException:
        relay.left()
        raise
    for chunk in relay.unshown():
        yield chunk
    yield last(relay.served)
