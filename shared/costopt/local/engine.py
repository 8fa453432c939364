"""The seam between whoever asks for text and whatever makes it: a model in this process, or a server elsewhere.

    engine.submit(request) -> Handle -> Delta, Delta, ... the last with `finish_reason` and `usage`

`submit` returns at once, whatever the engine is doing; what goes wrong is raised where the answer is read.
"""

from __future__ import annotations

import math
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from costopt.errors import ConfigError

__all__ = [
    "Delta",
    "Engine",
    "EngineStats",
    "Generation",
    "GenerationRequest",
    "Handle",
    "LocalUsage",
    "TokenLogprob",
    "ToolCall",
    "joined",
]

Message = Mapping[str, Any]

_CHOICES = ("auto", "none", "required")
_MOST_LOGPROBS = 20


@dataclass(frozen=True, slots=True)
class GenerationRequest:
    """What is asked of an engine.

    Args:
        messages: A chat, shaped as OpenAI has it: "role", "content", and "tool_calls", "tool_call_id", "name".
        prompt: A text to go on from, in place of `messages`; no chat template is applied.
        max_tokens: Most tokens to generate; None: as many as the engine's default says.
        temperature: 0 always takes the likeliest token; None: the engine's default, which is 0 for a local model.
        top_p: Draw from the likeliest tokens that together have this probability.
        stop: Texts that end the answer, and are not part of it.
        seed: The same request with the same seed draws the same tokens.
        logprobs: How many alternatives to report for each token, 0 to 20; None reports no probabilities.
        tools: Functions on offer, each {"type": "function", "function": {"name", "description", "parameters"}}.
        tool_choice: "auto", "none", "required", or the name of the one that must be called.
        response_schema: A JSON schema that the answer will follow: nothing else can be generated.
        template_options: More variables for the chat template, e.g. {"enable_thinking": False}.

    Raises:
        ConfigError: If a value cannot be meant; the message says what would be right.

    Example:
        >>> GenerationRequest.chat("What is the code of Anna?", max_tokens=8).messages
        ({'role': 'user', 'content': 'What is the code of Anna?'},)
    """

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    tool_choice: str = "auto"
    response_schema: Mapping[str, Any] | None = None
    template_options: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.prompt is not None):
            raise ConfigError("give either messages or a prompt: one message at least, and not both")
        stop: object = self.stop
        if not isinstance(stop, tuple) or not all(isinstance(text, str) and text for text in stop):
            raise ConfigError(f"stop={self.stop!r}: give a tuple of texts that are not empty")
        for name, value, low, high in self._ranges():
            if value is not None and not low <= value <= high:  # NaN, too, is in no range
                raise ConfigError(f"{name}={value}: use a number {_span(low, high)}, or None")
        self._check_tools()

    def _ranges(self) -> Iterator[tuple[str, float | None, float, float]]:
        yield "temperature", self.temperature, 0.0, 100.0
        yield "top_p", self.top_p, math.ulp(0.0), 1.0
        yield "max_tokens", self.max_tokens, 1, math.inf
        yield "logprobs", self.logprobs, 0, _MOST_LOGPROBS
        yield "seed", self.seed, 0, 2**63 - 1

    def _check_tools(self) -> None:
        names = [tool["function"]["name"] if "function" in tool else None for tool in self.tools]
        if None in names:
            raise ConfigError('each of tools must be {"type": "function", "function": {"name", "parameters"}}')
        if self.tool_choice not in (*_CHOICES, *names):
            known = ", ".join(repr(name) for name in (*_CHOICES, *names))
            raise ConfigError(f"tool_choice={self.tool_choice!r}: use one of {known}")
        if self.tool_choice == "required" and not names:
            raise ConfigError("tool_choice='required' needs tools")

    @classmethod
    def chat(cls, text: str, *, system: str = "", **options: Any) -> GenerationRequest:
        """One question, and what goes before it."""
        turns: list[Message] = [{"role": "system", "content": system}] if system else []
        return cls(messages=(*turns, {"role": "user", "content": text}), **options)


def _span(low: float, high: float) -> str:
    if high == math.inf:
        return f"of at least {low:g}"
    return f"above 0, at most {high:g}" if low == math.ulp(0.0) else f"from {low:g} to {high:g}"


@dataclass(frozen=True, slots=True)
class LocalUsage:
    """Tokens of one answer; special tokens count, since they are computed like any other."""

    prompt_tokens: int
    completion_tokens: int

    @property
    def total_tokens(self) -> int:
        """Both together."""
        return self.prompt_tokens + self.completion_tokens


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """The probability of one generated token, before temperature and top_p.

    Attributes:
        token: Its text; a part of a character shows as U+FFFD.
        logprob: Natural logarithm of its probability.
        top: The likeliest tokens at this place and theirs, from the likeliest.
    """

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the model wants called; `arguments` is JSON text, as OpenAI has it."""

    name: str
    arguments: str
    id: str


@dataclass(frozen=True, slots=True)
class Delta:
    """A piece of an answer, as it comes; only the last has a `finish_reason`.

    Attributes:
        text: What to append; may be empty.
        tool_calls: Whole calls, never parts of one.
        logprobs: Of the tokens that made `text`, if asked for.
        finish_reason: "stop", "length" or "tool_calls".
        usage: On the last; None if a server does not say.
    """

    text: str = ""
    tool_calls: tuple[ToolCall, ...] = ()
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: str | None = None
    usage: LocalUsage | None = None


@dataclass(frozen=True, slots=True)
class Generation:
    """A whole answer.

    Attributes:
        text: Its text, without the stop text and without tool calls.
        tool_calls: The functions that the model wants called.
        finish_reason: "stop", "length" (cut off at `max_tokens`) or "tool_calls".
        usage: None if a server does not say.
        logprobs: One for each token, if asked for.
    """

    text: str
    tool_calls: tuple[ToolCall, ...]
    finish_reason: str
    usage: LocalUsage | None
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True)
class EngineStats:
    """What an engine has done so far, and is doing.

    Attributes:
        requests: How many were submitted; each ends as `finished`, `failed` or `cancelled`.
        finished: Answers that were completed.
        failed: Requests that ended with an error.
        cancelled: Requests given up by whoever asked.
        waiting: Requests not begun yet.
        running: Requests whose tokens are being made.
        prompt_tokens: Tokens read, of all finished requests.
        completion_tokens: Tokens made, of all finished requests.
        steps: Forward passes.
        restarts: How often the loop that runs the model had to be started again.
        weight_bytes: What the weights take, quantisation state included.
        cache_bytes: What the keys and values may take, or take now where nothing is set apart.
        unquantised: Names of layers left as they were, because the quantisation cannot take their shape.
    """

    requests: int = 0
    finished: int = 0
    failed: int = 0
    cancelled: int = 0
    waiting: int = 0
    running: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    steps: int = 0
    restarts: int = 0
    weight_bytes: int = 0
    cache_bytes: int = 0
    unquantised: tuple[str, ...] = ()


class Handle(Protocol):
    """One request under way, read once and by one reader: in a thread or in an event loop.

    A handle that is dropped, or whose reader leaves early, is cancelled. Errors are `CostOptError`s.
    """

    def __iter__(self) -> Iterator[Delta]: ...
    def __aiter__(self) -> AsyncIterator[Delta]: ...
    def result(self, timeout: float | None = None) -> Generation: ...
    async def aresult(self) -> Generation: ...
    def cancel(self) -> None: ...


class Engine(Protocol):
    """Whatever makes text. Safe to call from any thread and any event loop."""

    @property
    def name(self) -> str:
        """Identity of the model and of how it is run, e.g. for a cache's scope."""

    def submit(self, request: GenerationRequest) -> Handle: ...
    def stats(self) -> EngineStats: ...
    def close(self) -> None: ...


def joined(deltas: Iterable[Delta] | Sequence[Delta]) -> Generation:
    """The whole answer from its pieces.

    Example:
        >>> joined([Delta("Hel"), Delta("lo", finish_reason="stop", usage=LocalUsage(3, 2))]).text
        'Hello'
    """
    pieces = list(deltas)
    last = pieces[-1] if pieces else Delta()
    return Generation(
        text="".join(piece.text for piece in pieces),
        tool_calls=tuple(call for piece in pieces for call in piece.tool_calls),
        finish_reason=last.finish_reason or "stop",
        usage=last.usage,
        logprobs=tuple(each for piece in pieces for each in piece.logprobs),
    )
