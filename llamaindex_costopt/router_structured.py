"""Objects through a router: each model comes to one in its own way, and what it answered is kept.

Some models have a schema that the provider enforces, others call a tool, others are asked for JSON. So the model that
was chosen is left to it, with its calls listened to: the response has the usage, and the object is read from it again,
whether it comes from a model or out of a cache.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, TypeVar

from llama_index.core.base.llms.generic_utils import completion_response_to_chat_response
from llama_index.core.base.llms.types import ChatMessage, ChatResponse, CompletionResponse, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel, ValidationError
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.output_parsers import PydanticOutputParser
from llama_index.core.program.streaming_utils import process_streaming_content_incremental
from llama_index.core.program.utils import create_flexible_model
from llama_index.core.prompts import ChatPromptTemplate
from llama_index_instrumentation.dispatcher import active_instrument_tags, instrument_tags

from llamaindex_costopt.streams import aclosed, closed

__all__ = ["Object", "Schema", "grown", "parsed"]

M = TypeVar("M", bound=BaseModel)

_flexible = lru_cache(maxsize=256)(create_flexible_model)


class Schema(dict[str, Any]):
    """The class that is wanted, and arguments for the model; as data, for whoever looks on."""

    def __init__(self, output_cls: type[BaseModel], llm_kwargs: Mapping[str, Any] | None) -> None:
        given = dict(llm_kwargs or {})
        super().__init__(name=output_cls.__name__, schema=output_cls.model_json_schema(), given=given)
        self.output_cls = output_cls
        self.given = given


@dataclass(frozen=True, slots=True)
class Object:
    """An object that is wanted of a chat."""

    messages: Sequence[ChatMessage]
    output_cls: type[BaseModel]
    given: Mapping[str, Any]

    def begin(self, model: LLM, way: str) -> Any:
        """See `Asked`: what comes is the response that the object was read from."""
        ways = {"": self._now, "a": self._later, "stream_": self._stream, "astream_": self._astream}
        return ways[way](model)

    def follows(self, made: Sequence[ChatResponse]) -> bool:
        """Whether an answer is such an object."""
        return isinstance(parsed(self.output_cls, made[-1]), BaseModel)

    @property
    def _arguments(self) -> tuple[Any, ...]:
        # Of a copy each time: programs put their own words into prompts, and take theirs out of arguments.
        prompt = ChatPromptTemplate(message_templates=[message.model_copy() for message in self.messages])
        return self.output_cls, prompt, dict(self.given)

    def _now(self, model: LLM) -> ChatResponse:
        heard = _Heard()
        with heard.listening():
            heard.beside(model).structured_predict(*self._arguments)
        return heard.last()

    async def _later(self, model: LLM) -> ChatResponse:
        heard = _Heard()
        with heard.listening():
            await heard.beside(model).astructured_predict(*self._arguments)
        return heard.last()

    def _stream(self, model: LLM) -> Generator[ChatResponse, None, None]:
        heard = _Heard()
        with heard.listening(), closed(heard.beside(model).stream_structured_predict(*self._arguments)) as objects:
            for _ in objects:
                yield from heard.new()
        yield from heard.new()

    async def _astream(self, model: LLM) -> AsyncGenerator[ChatResponse, None]:
        async def responses() -> AsyncGenerator[ChatResponse, None]:
            with heard.listening():
                async with aclosed(await heard.beside(model).astream_structured_predict(*self._arguments)) as objects:
                    async for _ in objects:
                        for response in heard.new():
                            yield response
            for response in heard.new():
                yield response

        heard = _Heard()
        return responses()


@dataclass(slots=True)
class _Heard:
    """What a model's own calls came to while it was making an object."""

    responses: list[ChatResponse] = field(default_factory=list)
    told: int = 0
    error: BaseException | None = None
    tags: dict[str, Any] = field(default_factory=active_instrument_tags.get)

    def beside(self, model: LLM) -> Any:
        """The model, whose calls are listened to."""
        view = model.model_copy()
        # In the object itself, where Python looks before it looks at the class for a function.
        for kind in ("chat", "complete"):
            vars(view).update(self._now(model, kind) | self._streams(model, kind))
        return view

    @contextmanager
    def listening(self) -> Generator[None, None, None]:
        """What fails after there was an answer is the reading of it, on which the router judges."""
        try:
            yield
        except Exception:
            if self.error is not None or not self.responses:
                raise

    def last(self) -> ChatResponse:
        """The answer."""
        return self.responses[-1]

    def new(self) -> list[ChatResponse]:
        """What was heard since this was asked last; of that, only the end is kept."""
        fresh = self.responses[self.told :]
        del self.responses[:-1]
        self.told = len(self.responses)
        return fresh

    def _now(self, model: LLM, kind: str) -> dict[str, Callable[..., Any]]:
        def now(*args: Any, **kwargs: Any) -> Any:
            with self._calling():
                return self._kept(getattr(model, kind)(*args, **kwargs))

        async def later(*args: Any, **kwargs: Any) -> Any:
            with self._calling():
                return self._kept(await getattr(model, f"a{kind}")(*args, **kwargs))

        return {kind: now, f"a{kind}": later}

    def _streams(self, model: LLM, kind: str) -> dict[str, Callable[..., Any]]:
        def stream(*args: Any, **kwargs: Any) -> Generator[Any, None, None]:
            with self._calling(), instrument_tags(self.tags):
                begun = getattr(model, f"stream_{kind}")(*args, **kwargs)

            def responses() -> Generator[Any, None, None]:
                with self._calling(), closed(begun) as held:
                    yield from map(self._kept, held)

            return responses()

        async def astream(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, None]:
            with self._calling(), instrument_tags(self.tags):
                begun = await getattr(model, f"astream_{kind}")(*args, **kwargs)

            async def responses() -> AsyncGenerator[Any, None]:
                with self._calling():
                    async with aclosed(begun) as held:
                        async for response in held:
                            yield self._kept(response)

            return responses()

        return {f"stream_{kind}": stream, f"astream_{kind}": astream}

    def _kept(self, response: Any) -> Any:
        completed = isinstance(response, CompletionResponse)
        self.responses.append(completion_response_to_chat_response(response) if completed else response)
        return response

    @contextmanager
    def _calling(self) -> Generator[None, None, None]:
        try:
            yield
        except BaseException as error:
            self.error = error
            raise


def parsed(output_cls: type[M], response: ChatResponse) -> M:
    """The object in an answer: the arguments of the tool that it calls, or the JSON in its text.

    Raises:
        ValueError: If there is none.
    """
    call = next((block for block in response.message.blocks if isinstance(block, ToolCallBlock)), None)
    if call is None:
        made: M = PydanticOutputParser(output_cls).parse(response.message.content or "")
        return made
    given = call.tool_kwargs
    return output_cls.model_validate(json.loads(given or "{}") if isinstance(given, str) else given)


def grown(output_cls: type[M], response: ChatResponse, calls: Sequence[ToolSelection], before: Any) -> Any:
    """The object as far as it is there: of the class if it can be, else with its fields.

    Args:
        output_cls: What is wanted.
        response: What there is of the answer.
        calls: The tool calls in it, as far as they are there.
        before: What there was of the object.
    """
    if not calls:
        return process_streaming_content_incremental(response, output_cls, before)
    try:
        return output_cls.model_validate(calls[0].tool_kwargs)
    except ValidationError:
        return _flexible(output_cls).model_validate(calls[0].tool_kwargs)
