"""One conversation stays on one tier, and may only move up: its history lies in one provider's prompt cache."""

from __future__ import annotations

import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable, Sequence

from costopt.errors import ConfigError
from costopt.forks import ForkLock

__all__ = ["Sticky", "conversation_id"]


class Sticky:
    """The tiers of recent conversations, least recently used first; within this process.

    Args:
        conversations: How many to remember.
        seconds: For how long after their last turn.
        clock: Monotonic seconds.

    Raises:
        ConfigError: If one of them is not above 0.

    Example:
        >>> sticky = Sticky()
        >>> sticky.keep("thread-7", 1)
        >>> sticky.keep("thread-7", 0)
        >>> sticky.tier("thread-7"), sticky.tier("thread-8")
        (1, None)
    """

    def __init__(
        self, conversations: int = 10_000, seconds: float = 3600.0, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        if conversations < 1 or not seconds > 0:
            raise ConfigError(f"conversations={conversations}, seconds={seconds}: give numbers above 0")
        self._most = conversations
        self._seconds = seconds
        self._clock = clock
        self._lock = ForkLock()
        self._held: OrderedDict[str, tuple[int, float]] = OrderedDict()  # place of the tier, last used

    def __reduce__(self) -> tuple[type[Sticky], tuple[int, float]]:
        return type(self), (self._most, self._seconds)  # which conversation is where belongs to this process

    def __len__(self) -> int:
        return len(self._held)

    def tier(self, conversation: str | None) -> int | None:
        """The place of the conversation's tier; None if it is not known, or was forgotten."""
        if conversation is None:
            return None
        with self._lock:
            held = self._held.get(conversation)
            if held is None:
                return None
            if self._clock() - held[1] > self._seconds:
                del self._held[conversation]
                return None
            return held[0]

    def keep(self, conversation: str | None, tier: int) -> None:
        """The conversation was answered by the tier at this place; it never moves down from where it was."""
        before = self.tier(conversation)
        if conversation is None:
            return
        with self._lock:
            self._held[conversation] = (max(tier, before or 0), self._clock())
            self._held.move_to_end(conversation)
            while len(self._held) > self._most:
                self._held.popitem(last=False)


def conversation_id(question: str, answer: str, call_ids: Sequence[str] = ()) -> str:
    """What a conversation is known by if nobody names it: its first question and the first answer to it.

    The answer is part of it because many conversations open with the same words; the system prompt is not,
    because it often tells the time.

    Args:
        question: The first human turn.
        answer: The model's first turn.
        call_ids: Ids of the tool calls in that turn.

    Example:
        >>> conversation_id("Hello", "Hi!") == conversation_id("Hello", "Hello!")
        False
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (question, answer, *call_ids):
        data = part.encode("utf-8", "replace")
        digest.update(len(data).to_bytes(8, "big") + data)
    return digest.hexdigest()
