"""The history of a chat with fewer tokens, as a runnable that stands before the model."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, TypedDict, Unpack

from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage, convert_to_messages
from langchain_core.prompt_values import PromptValue
from langchain_core.runnables import Runnable, RunnableConfig

from costopt.arguments import known_options
from costopt.compression import Compressor
from costopt.compression.books import Books, CompressionStats
from costopt.compression.history import HistoryCompressor as Core
from costopt.compression.history import HistoryResult
from costopt.compression.protect import Protect
from costopt.embedding import Embedder
from costopt.errors import ConfigError
from costopt.pricing import Price

__all__ = ["HistoryCompressor", "HistoryOptions"]


class HistoryOptions(TypedDict, total=False):
    """The options of `costopt.compression.HistoryCompressor`."""

    compressor: Compressor
    model: Any
    embedder: Embedder
    protect: Iterable[Protect]
    max_tool_tokens: int
    max_turn_tokens: int
    keep_last: int
    keep_tools: Collection[str]
    prompt_cache: bool
    payback_calls: int
    price: Price


class HistoryCompressor(Runnable[LanguageModelInput, list[BaseMessage]]):
    """Shortens old tool results and long turns of a chat: ``prompt | HistoryCompressor() | llm``.

    What was shortened once stays as it is in all later turns, calls and their results stay pairs, instructions and the
    newest messages are left alone, and nothing is shortened where the provider's prompt cache would make that dearer:
    see `costopt.compression.HistoryCompressor`. Messages keep their ids, names, metadata and tool calls; one that was
    shortened says so in ``response_metadata["costopt"]["compression"]``. If anything fails, the chat goes on as it is.

    Args:
        core: A `costopt.compression.HistoryCompressor` to use instead of making one, e.g. to share it.
        options: Those of `costopt.compression.HistoryCompressor`: model, max_tool_tokens, keep_last, ...

    Raises:
        ConfigError: If an option is out of range.
        MissingExtraError: If the embedder's extra is not installed.

    Example:
        >>> llm = SimulatedChatModel(model_name="gpt-4o-mini")
        >>> chain = HistoryCompressor(model="gpt-4o-mini", max_tool_tokens=200) | llm
        >>> chain.invoke([("user", "What is the capital of France?")]).type
        'ai'
    """

    def __init__(self, *, core: Core | None = None, **options: Unpack[HistoryOptions]) -> None:
        self.core = core_of("HistoryCompressor", core, options)
        self._books = Books("HistoryCompressor")

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[BaseMessage]:
        """The chat with fewer tokens: as many messages, in their order.

        Args:
            input: All messages of the chat, or what makes them: a prompt's value, tuples, a text.
            config: As for any runnable.
            kwargs: None are known.
        """
        return self._call_with_config(self._compressed, input, config)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> list[BaseMessage]:
        """`invoke`, without blocking the event loop."""
        return await self._acall_with_config(self._acompressed, input, config)

    def stats(self) -> CompressionStats:
        """What this object has done so far; `print(compressor.stats())` says it in a line."""
        return self._books.stats()

    def _compressed(self, given: LanguageModelInput) -> list[BaseMessage]:
        return shortened(self._books, _messages(given), lambda: self.core)

    async def _acompressed(self, given: LanguageModelInput) -> list[BaseMessage]:
        return await ashortened(self._books, _messages(given), lambda: self.core)


def core_of(whose: str, core: Core | None, options: Mapping[str, Any]) -> Core:
    """The core that was given, or one made of the options of the class that is called so."""
    known_options(whose, options, HistoryOptions.__annotations__)
    if core is not None and options:
        raise ConfigError("give either core= or options, not both")
    return core or Core(**options)


def shortened(books: Books, messages: list[BaseMessage], core: Callable[[], Core]) -> list[BaseMessage]:
    """The messages with less text; as they are if anything fails."""
    try:
        return _noted(books, messages, core().compress(_as_turns(messages)))
    except Exception as error:
        books.failed(error)
        return messages


async def ashortened(books: Books, messages: list[BaseMessage], core: Callable[[], Core]) -> list[BaseMessage]:
    """`shortened`, without blocking the event loop."""
    try:
        return _noted(books, messages, await core().acompress(_as_turns(messages)))
    except Exception as error:
        books.failed(error)
        return messages


def _as_turns(messages: Sequence[BaseMessage]) -> list[dict[str, Any]]:
    """LangChain's messages as the core knows them."""
    return [
        {
            "role": str(getattr(message, "role", message.type)).removesuffix("MessageChunk").lower(),
            "content": message.content,
            "name": message.name,
            "tool_calls": message.tool_calls if isinstance(message, AIMessage) else None,
            "tool_call_id": message.tool_call_id if isinstance(message, ToolMessage) else None,
        }
        for message in messages
    ]


def _noted(books: Books, messages: Sequence[BaseMessage], result: HistoryResult) -> list[BaseMessage]:
    """The messages as the result has them; those that were shortened are copies that say so."""
    made = list(messages)
    for i in dict.fromkeys(each.message for each in result.shortened):
        texts = [each.result for each in result.shortened if each.message == i]
        tokens = {
            f"tokens_{when}": sum(getattr(text, f"tokens_{when}") for text in texts) for when in ("before", "after")
        }
        metadata = messages[i].response_metadata
        ours = {**(metadata.get("costopt") or {}), "compression": tokens}
        changed = {"content": result.messages[i]["content"], "response_metadata": {**metadata, "costopt": ours}}
        made[i] = messages[i].model_copy(update=changed)
    books.done(result.tokens_before, result.tokens_after)
    return made


def _messages(given: LanguageModelInput) -> list[BaseMessage]:
    if isinstance(given, PromptValue):
        return given.to_messages()
    return convert_to_messages([given] if isinstance(given, str) else given)
