"""Shadow mode: nothing is served, and what would have been is compared with what the model then says."""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable

from costopt.caching.answer import Answer
from costopt.caching.judging import Choice
from costopt.caching.online import Evidence
from costopt.caching.policy import GRID
from costopt.caching.request import CacheRequest
from costopt.caching.results import CacheHit
from costopt.caching.steps import Flow, Step

__all__ = ["Shadow"]

_HITS = 1000


class Shadow:
    """What would have been served lately.

    Args:
        same_answer: Whether two answers say the same; None if that cannot be told.
    """

    def __init__(self, same_answer: Callable[[Answer, Answer], bool | None]) -> None:
        self.hits: deque[CacheHit] = deque(maxlen=_HITS)
        self._same_answer = same_answer
        self._pending: OrderedDict[str, tuple[str, Choice]] = OrderedDict()

    def keep(self, request: CacheRequest, choice: Choice) -> None:
        """Remember a choice, served or not, until the model has answered: both say something of the threshold."""
        if choice.probability is not None and choice.probability >= GRID[0]:
            self._pending[request.key] = (request.text or "", choice)
            while len(self._pending) > _HITS:
                self._pending.popitem(last=False)

    def compare(self, request: CacheRequest, answer: Answer) -> Flow[tuple[Evidence, bool] | None]:
        """What the model's answer says of the choice, and whether that would have been served; None if nothing."""
        if request.key not in self._pending:
            return None
        asked, choice = self._pending.pop(request.key)
        cached = choice.entry.answer

        def work() -> bool | None:
            return self._same_answer(answer, cached)

        same = yield Step(work, lambda: asyncio.to_thread(work))
        if same is None:
            return None
        return Evidence(asked, choice.entry.text or "", bool(same), choice.probability or 0.0), choice.accepted
