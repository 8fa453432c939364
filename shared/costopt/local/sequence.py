"""One request on its way through an engine: from tokens to the pieces that its reader sees."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any

from costopt.errors import CostOptError, EngineError, TruncatedOutputError
from costopt.local.channel import Channel
from costopt.local.engine import Delta, GenerationRequest, LocalUsage, TokenLogprob, ToolCall
from costopt.local.sampling import Choice, Sampling
from costopt.local.text import StopFinder, TextStream
from costopt.local.toolparse import CallFinder

__all__ = ["Sequence"]


class Sequence:
    """What was asked, what was made of it so far, and where it goes.

    Args:
        request: What was asked.
        channel: Where the answer goes.
        prompt: Its tokens.
        max_tokens: Most tokens to make.
        sampling: How they are drawn.
        ends: Tokens that end an answer.
        tokenizer: Of the model.
        parse: Finds tool calls in a whole answer where the tokenizer knows how, given the tokens; else None.
    """

    def __init__(
        self,
        request: GenerationRequest,
        channel: Channel,
        prompt: list[int],
        max_tokens: int,
        sampling: Sampling,
        ends: Collection[int],
        tokenizer: Any,
        parse: Callable[[list[int]], tuple[str, tuple[ToolCall, ...]]] | None = None,
    ) -> None:
        self.request = request
        self.channel = channel
        self.prompt = prompt
        self.max_tokens = max_tokens
        self.sampling = sampling
        self.made: list[int] = []
        self.finished = False
        self.on_end: Callable[[], None] | None = None  # called before the reader can see the end
        self._failed = False
        self.ends = ends
        self._tokenizer = tokenizer
        self._parse = parse
        tools = [tool["function"]["name"] for tool in request.tools] if request.tool_choice != "none" else []
        self._forced = bool(tools) and request.tool_choice != "auto"
        # The marks of a call are often special tokens.
        self._text = TextStream(tokenizer, special=bool(tools) and not self._forced)
        self._stops = StopFinder(() if self._forced else request.stop)
        self._calls = CallFinder(tools) if tools else None
        self._held: list[str] = []  # text that is shown only when it is whole
        self._logprobs: list[TokenLogprob] = []

    @property
    def need(self) -> int:
        """Most positions that it may come to take."""
        return len(self.prompt) + self.max_tokens

    @property
    def over(self) -> bool:
        """Whether nothing more has to be made: the answer is whole, has failed, or is not wanted any more."""
        return self.finished or self.channel.closed

    @property
    def outcome(self) -> str:
        """How it ended: "finished", "failed" or "cancelled"."""
        if self._failed:
            return "failed"
        return "finished" if self.finished else "cancelled"

    def accept(self, choice: Choice) -> None:
        """Go on by one token."""
        self.made.append(choice.token)
        if choice.logprob is not None:
            self._note(choice, choice.logprob)
        if choice.token in self.ends:
            self._finish("stop")
            return
        self._show(self._stops.add(self._text.add(choice.token)))
        constraint = self.sampling.constraint
        if constraint is not None:
            constraint.accept(choice.token)
        if self._stops.stopped or (constraint is not None and constraint.done):
            self._finish("stop")
        elif len(self.made) >= self.max_tokens:
            self._finish("length")

    def fail(self, error: BaseException) -> None:
        """End with an error; what is not of costopt is said to be of the engine."""
        if self.finished:
            return
        self._failed = True
        self._ended()
        if isinstance(error, CostOptError):
            self.channel.fail(error)
            return
        failure = EngineError(f"the model failed: {type(error).__name__}: {error}")
        failure.__cause__ = error
        self.channel.fail(failure)

    def _note(self, choice: Choice, logprob: float) -> None:
        top = tuple((self._written(token), value) for token, value in choice.top)
        self._logprobs.append(TokenLogprob(self._written(choice.token), logprob, top))

    def _written(self, token: int) -> str:
        text: str = self._tokenizer.decode([token], skip_special_tokens=False, clean_up_tokenization_spaces=False)
        return text

    def _show(self, text: str) -> None:
        if self._forced or (self._calls is not None and self._parse is not None):
            self._held.append(text)
            return
        shown = self._calls.add(text) if self._calls is not None else text
        if shown or self._logprobs:
            self.channel.put(Delta(shown, logprobs=self._said()))

    def _said(self) -> tuple[TokenLogprob, ...]:
        said, self._logprobs = tuple(self._logprobs), []
        return said

    def _ended(self) -> None:
        self.finished = True
        told, self.on_end = self.on_end, None
        if told is not None:
            told()

    def _finish(self, reason: str) -> None:
        if not self._stops.stopped:
            tail = self._stops.add(self._text.rest())
            self._show(tail + self._stops.rest())
        if reason == "length" and (self._forced or self.request.response_schema is not None):
            whole = self._tokenizer.decode(self.made, skip_special_tokens=True)
            self.fail(TruncatedOutputError(whole, self.max_tokens))
            return
        text, calls = self._called()
        usage = LocalUsage(len(self.prompt), len(self.made))
        if calls and reason == "stop":
            reason = "tool_calls"
        self._ended()
        self.channel.put(Delta(text, calls, self._said(), reason, usage))

    def _called(self) -> tuple[str, tuple[ToolCall, ...]]:
        """What was held back, and the calls in it."""
        if self._calls is None:
            return "", ()
        if self._forced:
            call = json.loads("".join(self._held))  # cannot but be one: its schema was enforced
            self._calls.add(json.dumps(call))
        elif self._parse is not None:
            return self._parse(self.made)
        return self._calls.end()
