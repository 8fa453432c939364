"""A chat told again from its beginning: what could be shortened at which moment, and when that was done."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from costopt.compression.prompt_cache import PromptCache
from costopt.compression.result import CompressionResult
from costopt.compression.turns import Message

__all__ = ["Change", "Plan"]


@dataclass(frozen=True, slots=True)
class Change:
    """A message that may be shortened.

    Attributes:
        place: Where it stands in the chat.
        message: What it would be.
        tokens: How many that would have.
        results: What was made of its texts, by block.
    """

    place: int
    message: Message
    tokens: int
    results: Mapping[int | None, CompressionResult]


class Plan:
    """What is sent at each moment of a chat, and what waits to be shortened.

    Every decision looks only at messages that were there at that moment and at none that may still grow; so it is the
    same whenever the chat is told again.

    Args:
        messages: Of the chat.
        tokens: Of each message.
    """

    def __init__(self, messages: Sequence[Message], tokens: Sequence[int]) -> None:
        self.sent = list(messages)
        self.tokens = list(tokens)
        self.made: list[Change] = []
        self.pending: list[Change] = []
        self._closed = 0  # messages of steps that another step follows
        self._removable = 0  # tokens that the pending changes would take away
        self._behind = 0  # tokens of the closed messages from the first pending one on

    def close(self, step: range) -> None:
        """Another step follows this one, which therefore never grows."""
        self._closed = step.stop
        if self.pending:
            self._behind += sum(self.tokens[step.start : step.stop])

    def add(self, change: Change) -> None:
        """From this moment on a message may be shortened, if that takes anything away."""
        less = self.tokens[change.place] - change.tokens
        if less <= 0:
            return
        if not self.pending:
            self._behind = sum(self.tokens[change.place : self._closed])
        self.pending.append(change)
        self._removable += less

    def settle(self, cache: PromptCache) -> None:
        """Make all pending changes if that pays, or none: the first of them ends the provider's cache for all."""
        if not self.pending or not cache.pays(self._removable, self._behind - self._removable):
            return
        for change in self.pending:
            self.sent[change.place], self.tokens[change.place] = change.message, change.tokens
        self.made += self.pending
        self.pending, self._removable, self._behind = [], 0, 0
