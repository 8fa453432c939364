"""The history of a chat with fewer tokens: old tool results and long turns, each shortened once and for good."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from costopt.compression.compressor import Compressor
from costopt.compression.history_memo import Memo, digest
from costopt.compression.history_plan import Change, Plan
from costopt.compression.prompt_cache import PromptCache
from costopt.compression.protect import Protect
from costopt.compression.result import CompressionResult
from costopt.compression.turns import Limits, Message, Part, answered, is_asking, parts, question, replaced, steps
from costopt.embedding import Embedder, default_embedder
from costopt.errors import ConfigError
from costopt.pricing import Price
from costopt.tokens import _tokens

__all__ = ["HistoryCompressor", "HistoryResult", "Shortened", "compress_history"]

# Characters of the texts that a compressor remembers its work on.
_REMEMBERED_CHARS = 16_000_000
_WAITING = "{} more could be shortened, and will be when that saves more than sending what follows them anew costs"
_SHORT = "the chat has no more than the {} newest steps, which stay as they are"


@dataclass(frozen=True, slots=True)
class Shortened:
    """A text of a message that was shortened.

    Attributes:
        message: Place of the message in the chat.
        block: Place of the text in the message's content; None if the content is the text.
        result: What was kept, by offsets in the original, and what was dropped.
    """

    message: int
    block: int | None
    result: CompressionResult


@dataclass(frozen=True, slots=True)
class HistoryResult:
    """A chat with fewer tokens: the same messages in the same order, some of them with less text.

    Attributes:
        messages: The chat; a message that was not shortened is the very object that came in.
        originals: What came in.
        shortened: What was shortened, in order.
        waiting: Places of messages that will be shortened once it pays, the provider's prompt cache considered.
        tokens_before: Of the chat that came in, as `costopt.tokens` counts messages.
        tokens_after: Of the chat as it is now.
        counted_by: What counted, e.g. "o200k_base" or "estimate".
        notes: What there is to say, e.g. why nothing was done.

    Example:
        >>> chat = [{"role": "user", "content": "Hello"}]
        >>> result = compress_history(chat)
        >>> result.messages == tuple(chat), result.saved_tokens
        (True, 0)
    """

    messages: tuple[Message, ...]
    originals: tuple[Message, ...]
    shortened: tuple[Shortened, ...]
    waiting: tuple[int, ...]
    tokens_before: int
    tokens_after: int
    counted_by: str
    notes: tuple[str, ...] = ()

    @property
    def kept_ratio(self) -> float:
        """Share of the tokens that are left, in [0, 1]; 1 if there were none."""
        return self.tokens_after / self.tokens_before if self.tokens_before else 1.0

    @property
    def saved_tokens(self) -> int:
        """How many tokens fewer there are."""
        return self.tokens_before - self.tokens_after

    def restore(self) -> tuple[Message, ...]:
        """The messages as they came in."""
        return self.originals


class HistoryCompressor:
    r"""Shortens what is old in a chat, so that what was shortened never changes again.

    A step is a message, or a message with tool calls together with what the tools gave back. The newest steps stay as
    they are, as do instructions (system and developer messages) for ever, and a request that is still being worked on.
    Of older tool results and long turns whole sentences and lines are kept, those that say most about what the user
    had asked then and what the tool was called with, not about what is asked now: so the outcome is the same at every
    later turn. No message is removed, so that calls and results stay pairs.

    A provider charges less for a beginning that it has seen. Changing an old message ends that for all that follows it,
    once. So old messages wait until shortening them saves more, within `payback_calls`, than that costs.
    Whether they wait follows from the chat alone: the same chat is shortened in the same way in any process, and a chat
    that was shortened before and went on may be given in place of the original.

    Args:
        compressor: A `Compressor` to use, e.g. to share it; else one is made from `model`, `embedder` and `protect`.
        model: Name of the model that reads the chat, for counts and prices; or a tokenizer or a function that counts.
        embedder: Tells what is near a question; `default_embedder()` if None.
        protect: What is not taken apart, as `Compressor` has it.
        max_tool_tokens: Most tokens of an old tool result.
        max_turn_tokens: Most tokens of an old turn of user or assistant.
        keep_last: How many of the newest steps stay as they are.
        keep_tools: Names of tools whose results stay as they are for ever.
        prompt_cache: Whether the provider's prompt cache is in use. OpenAI's always is, Anthropic's on request.
        payback_calls: Within how many calls a change must pay for what it costs at first. 1: at once, so that no chat
            is ever dearer for it; more saves more on chats that go on.
        price: Of the model; the price list's if None.

    Raises:
        ConfigError: If an option is out of range; the message says what would be right.
        MissingExtraError: If the embedder's extra is not installed.

    Example:
        >>> log = "\n".join(f"10:{i:02} request {i} served by worker {i % 7}" for i in range(60))
        >>> chat = [
        ...     {"role": "user", "content": "Which worker served request 42?"},
        ...     {"role": "assistant", "tool_calls": [{"id": "1", "function": {"name": "logs", "arguments": "{}"}}]},
        ...     {"role": "tool", "tool_call_id": "1", "content": log},
        ...     {"role": "assistant", "content": "Worker 0."},
        ...     {"role": "user", "content": "Thank you."},
        ... ]
        >>> result = HistoryCompressor(max_tool_tokens=100, keep_last=2, prompt_cache=False).compress(chat)
        >>> result.saved_tokens > 500, "request 42 served by worker 0" in result.messages[2]["content"]
        (True, True)
        >>> result.messages[:2] + result.messages[3:] == tuple(chat[:2] + chat[3:])
        True
    """

    def __init__(
        self,
        *,
        compressor: Compressor | None = None,
        model: Any = "gpt-4o",
        embedder: Embedder | None = None,
        protect: Iterable[Protect] | None = None,
        max_tool_tokens: int = 300,
        max_turn_tokens: int = 1_000,
        keep_last: int = 6,
        keep_tools: Collection[str] = (),
        prompt_cache: bool = True,
        payback_calls: int = 6,
        price: Price | None = None,
    ) -> None:
        numbers = {"max_tool_tokens": max_tool_tokens, "max_turn_tokens": max_turn_tokens, "keep_last": keep_last}
        for name, value in numbers.items():
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{name}={value!r}: give a whole number of at least 1")
        if isinstance(keep_tools, str):
            raise ConfigError(f"keep_tools={keep_tools!r}: give a collection of names, e.g. ({keep_tools!r},)")
        if compressor is None and embedder is None:
            default_embedder()  # a missing extra is to be heard of here, and not in a call
        self._compressor = compressor or Compressor(model=model, embedder=embedder, protect=protect)
        self._count, self._model, self._price = self._compressor.count, self._compressor.model, price
        self._limits = Limits(max_tool_tokens, max_turn_tokens, frozenset(keep_tools))
        self._keep_last, self._prompt_cache = keep_last, prompt_cache
        self._calls = PromptCache(calls=payback_calls).calls  # which raises if that is out of range
        self._memo = Memo(_REMEMBERED_CHARS)

    def compress(self, messages: Sequence[Message]) -> HistoryResult:
        """Shorten what is old in a chat.

        Args:
            messages: All of it, from the first message on; OpenAI's shape, as dicts.

        Returns:
            The chat, and what became of it.

        Raises:
            ConfigError: If a message is no mapping with a role.
            EmbeddingError: If the embedder fails.
        """
        chat = tuple(messages)
        _check(chat)
        tokens = [self._tokens(message) for message in chat]
        plan, along = Plan(chat, tokens), steps(chat)
        for newest in range(1, len(along)):
            plan.close(along[newest - 1])
            old = newest - self._keep_last
            if old >= 0:
                for change in self._changes(chat, along[old], asked_on=answered(chat, along, old, newest)):
                    plan.add(change)
                plan.settle(self._cache)
        return self._result(chat, sum(tokens), plan, len(along))

    async def acompress(self, messages: Sequence[Message]) -> HistoryResult:
        """`compress` in a thread, so that the event loop goes on."""
        return await asyncio.to_thread(self.compress, messages)

    def _changes(self, chat: Sequence[Message], step: range, *, asked_on: bool) -> Iterator[Change]:
        """What can be shortened in a step; a request stays whole unless the user has asked on since."""
        for place in step:
            if not asked_on and is_asking(chat[place]):
                continue
            found = ((part, self._shortened(chat, part)) for part in parts(chat, place, self._limits))
            results = {part.block: result for part, result in found if result is not None}
            if results:
                texts = {block: result.text for block, result in results.items()}
                message = {**chat[place], "content": replaced(chat[place]["content"], texts)}
                yield Change(place, message, self._tokens(message), results)

    def _shortened(self, chat: Sequence[Message], part: Part) -> CompressionResult | None:
        """The part in fewer tokens; None if it stays as it is."""
        if len(part.text.encode("utf-8", "replace")) <= part.limit or self._number(part.text) <= part.limit:
            return None
        asked = question(chat, part.message)
        key = digest(part.text, asked, f"{part.limit} {part.ends}")
        return self._memo.get(key, len(part.text), lambda: self._shorten(part, asked))

    def _shorten(self, part: Part, asked: str) -> CompressionResult | None:
        # What cannot be cut to the limit, such as JSON, may still be put in fewer tokens without loss.
        for query in dict.fromkeys((asked or None, None)):
            fixed = part.fixed(part.text)
            protect = [*self._compressor.protect, *fixed] if fixed else None
            result = self._compressor.compress(part.text, query, target_tokens=part.limit, protect=protect)
            if _usable(part, result) and (result.tokens_after <= part.limit or self._ends_in(result, part, asked)):
                return result
        return None

    def _ends_in(self, result: CompressionResult, part: Part, asked: str) -> bool:
        """Whether it goes no further: what is still too long is looked at again when the shortened chat comes back."""
        return self._shorten(replace(part, text=result.text), asked) is None

    def _number(self, text: str) -> int:
        return self._memo.get(digest(text), len(text), lambda: self._count(text))

    def _tokens(self, message: Message) -> int:
        return _tokens([message], self._number) - _tokens([], self._number)

    @cached_property
    def _cache(self) -> PromptCache:
        # At first use: the price list takes a moment to load.
        return PromptCache.of(self._model, self._calls, self._price) if self._prompt_cache else PromptCache()

    def _result(self, chat: tuple[Message, ...], before: int, plan: Plan, count: int) -> HistoryResult:
        notes = [_WAITING.format(len(plan.pending))] if plan.pending else []
        if count <= self._keep_last:
            notes.append(_SHORT.format(self._keep_last))
        made = ((change.place, each) for change in plan.made for each in change.results.items())
        fixed = _tokens([], self._number)
        return HistoryResult(
            messages=tuple(plan.sent),
            originals=chat,
            shortened=tuple(Shortened(place, block, result) for place, (block, result) in made),
            waiting=tuple(change.place for change in plan.pending),
            tokens_before=fixed + before,
            tokens_after=fixed + sum(plan.tokens),
            counted_by=self._count.by,
            notes=tuple(notes),
        )


def compress_history(messages: Sequence[Message], **options: Any) -> HistoryResult:
    """Shorten what is old in a chat once. For a chat that goes on keep a `HistoryCompressor`: it remembers its work.

    Args:
        messages: All of the chat; OpenAI's shape, as dicts.
        options: Those of `HistoryCompressor`.

    Raises:
        ConfigError: If an option is out of range, or a message is no mapping with a role.

    Example:
        >>> compress_history([{"role": "user", "content": "Hello"}]).notes
        ('the chat has no more than the 6 newest steps, which stay as they are',)
    """
    return HistoryCompressor(**options).compress(messages)


def _usable(part: Part, result: CompressionResult) -> bool:
    """Whether there is less of it, but not nothing, and what must stay is still where it was."""
    text, ends = result.text, part.ends
    if not text.strip() or result.tokens_after >= result.tokens_before:
        return False
    return not ends or (text[:ends], text[-ends:]) == (part.text[:ends], part.text[-ends:])


def _check(messages: Sequence[Message]) -> None:
    for i, message in enumerate(messages):
        if not isinstance(message, Mapping) or not isinstance(message.get("role"), str):
            raise ConfigError(f"message {i} is a {type(message).__name__}, not a dict with a role: {_SHAPE}")


_SHAPE = 'give messages like {"role": "user", "content": "..."}'
