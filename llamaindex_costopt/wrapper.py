"""An LLM around an LLM that does nothing on its own; the others of this package change what they are there for."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import BaseModel, SecretStr, SerializeAsAny, field_serializer
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool

from costopt.errors import ConfigError

__all__ = ["WrapperLLM", "without_keys", "without_secrets"]

_EIGHT = (
    *("complete", "chat", "stream_complete", "stream_chat"),
    *("acomplete", "achat", "astream_complete", "astream_chat"),
)
# Where LlamaIndex hangs its handlers and limits: what is set on the wrapper is set on the wrapped model.
_SHARED = frozenset(("callback_manager", "rate_limiter"))
# What LlamaIndex's prompts and programs read of an LLM.
_MIRRORED = (
    *("callback_manager", "rate_limiter", "system_prompt", "messages_to_prompt", "completion_to_prompt"),
    *("output_parser", "pydantic_program_mode", "query_wrapper_prompt"),
)
_SECRET = re.compile(r"(^|_)(api_?key|key|token|secret|password|credentials?|authorization|headers)$", re.IGNORECASE)

M = TypeVar("M", bound=BaseModel)


class WrapperLLM(FunctionCallingLLM):
    """Asks the LLM that it wraps. To change something, override the eight methods, or some of them.

    Those are `complete`, `chat`, `stream_complete`, `stream_chat` and their asynchronous twins. Everything else comes
    down to them: prediction and tool calls in LlamaIndex's way, with the wrapped model's own way of preparing and
    reading them; structured prediction in the wrapped model's own way, with its calls made by the wrapper.

    Events and callbacks come from the wrapped model: once per call that is made, with the name of the model that
    is paid. So the eight methods here have no `llm_chat_callback`; an override that answers without asking the wrapped
    model tells of that answer itself. The callback manager and the rate limiter are those of the wrapped model: set on
    one, they are set on both, and no limiter holds up an answer that costs nothing.

    `to_dict` and pickles hold no keys: a model that comes out of a pickle looks for its key where it looks
    if it is given none.

    Args:
        llm: Any LLM of LlamaIndex.
        kwargs: Fields of `llama_index.core.llms.LLM`, e.g. system_prompt; those that are not given are the
            wrapped model's.

    Raises:
        ConfigError: If it is no LLM.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> WrapperLLM(MockLLM()).complete("What is a llama?").text
        'What is a llama?'
    """

    llm: SerializeAsAny[LLM]

    def __init__(self, llm: LLM, **kwargs: Any) -> None:
        if not isinstance(llm, LLM):
            # Not in a validator: pydantic would make a ValidationError of it.
            raise ConfigError(f"{type(llm).__name__} is no LLM of LlamaIndex: wrap one, e.g. OpenAI(model=...)")
        own = {name: getattr(llm, name) for name in _MIRRORED if kwargs.get(name) is None}
        super().__init__(llm=llm, **{**kwargs, **own})
        for name in _SHARED.intersection(kwargs).difference(own):
            setattr(llm, name, kwargs[name])

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _SHARED:
            setattr(self.llm, name, value)

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = super().__getstate__()
        llm = state["__dict__"].get("llm")
        if llm is not None:
            state["__dict__"]["llm"] = without_keys(llm)
        return state

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex keeps of this class."""
        return "costopt_wrapper_llm"

    @property
    def metadata(self) -> LLMMetadata:
        """The wrapped model's."""
        return self.llm.metadata

    def to_payload(self) -> dict[str, Any]:
        """What events say of the model: the wrapped one's."""
        told = getattr(self.llm, "to_payload", None)  # from llama-index-core 0.14.23 on
        payload: dict[str, Any] = without_secrets(self.llm.to_dict()) if told is None else told()
        return payload

    @field_serializer("llm")
    def _serialized(self, llm: LLM) -> Any:
        return without_secrets(llm.to_dict())

    # -- the eight ----------------------------------------------------------------------------------------

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """What the model says after a text."""
        return self.llm.complete(prompt, formatted=formatted, **kwargs)

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """What the model answers."""
        return self.llm.chat(messages, **kwargs)

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete`, as it comes."""
        return self.llm.stream_complete(prompt, formatted=formatted, **kwargs)

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat`, as it comes."""
        return self.llm.stream_chat(messages, **kwargs)

    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        return await self.llm.acomplete(prompt, formatted=formatted, **kwargs)

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        return await self.llm.achat(messages, **kwargs)

    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, without blocking the event loop."""
        return await self.llm.astream_complete(prompt, formatted=formatted, **kwargs)

    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, without blocking the event loop."""
        return await self.llm.astream_chat(messages, **kwargs)

    # -- tools ----------------------------------------------------------------------------------------------

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of an answer, as the wrapped model reads them."""
        return self._calling().get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        # The wrapped model may be of a kind that does not know `tool_required`.
        return self._calling()._prepare_chat_with_tools_compat(
            tools,
            user_msg=user_msg,
            chat_history=chat_history,
            verbose=verbose,
            allow_parallel_tool_calls=allow_parallel_tool_calls,
            tool_required=tool_required,
            **kwargs,
        )

    def _validate_chat_with_tools_response(
        self,
        response: ChatResponse,
        tools: Sequence[BaseTool],
        allow_parallel_tool_calls: bool = False,
        **kwargs: Any,
    ) -> ChatResponse:
        return self._calling()._validate_chat_with_tools_response(
            response, tools, allow_parallel_tool_calls=allow_parallel_tool_calls, **kwargs
        )

    def _calling(self) -> FunctionCallingLLM:
        if not isinstance(self.llm, FunctionCallingLLM):
            name = type(self.llm).__name__
            raise ConfigError(f"{name} cannot call tools: wrap a FunctionCallingLLM, or use a ReActAgent")
        return self.llm

    # -- structured prediction ------------------------------------------------------------------------------

    def structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """An object of this class."""
        made: M = self._through().structured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        return made

    async def astructured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """`structured_predict`, without blocking the event loop."""
        made: M = await self._through().astructured_predict(output_cls, prompt, llm_kwargs, **prompt_args)
        return made

    def stream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[M | Any, None, None]:
        """The object as it grows; what is not complete yet has its fields, but is not of the class."""
        growing: Generator[M | Any, None, None] = self._through().stream_structured_predict(
            output_cls, prompt, llm_kwargs, **prompt_args
        )
        return growing

    async def astream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[M | Any, None]:
        """`stream_structured_predict`, without blocking the event loop."""
        growing: AsyncGenerator[M | Any, None] = await self._through().astream_structured_predict(
            output_cls, prompt, llm_kwargs, **prompt_args
        )
        return growing

    def _through(self) -> Any:
        """The wrapped model as it is, but for its eight methods, which are the wrapper's.

        Models differ in how they come to an object: by a schema that the provider enforces, by a tool, by asking
        for JSON. All of them get there by `self.chat` or `self.complete`.
        """
        view = self.llm.model_copy(update={name: getattr(self, name) for name in _MIRRORED})
        # In the object itself, where Python looks before it looks at the class for a function.
        vars(view).update({name: getattr(self, name) for name in _EIGHT})
        return view


def without_keys(llm: LLM) -> LLM:
    """The model, or a copy of it that holds no keys.

    Args:
        llm: The model; it is left as it is.

    Returns:
        It, or the copy.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> without_keys(MockLLM(max_tokens=5)).max_tokens
        5
    """
    if isinstance(llm, WrapperLLM):
        return llm  # it leaves them out itself
    keys: dict[str, Any] = {name: None for name in type(llm).model_fields if _SECRET.search(name)}
    # What has no field of its own (headers, a gateway's key) lies in bags.
    bags = {name: without_secrets(value) for name, value in vars(llm).items() if isinstance(value, dict)}
    changed = {name: value for name, value in {**bags, **keys}.items() if value != getattr(llm, name)}
    return llm.model_copy(update=changed) if changed else llm


def without_secrets(data: Any) -> Any:
    """Plain data without what is named like a key.

    Args:
        data: As `to_dict` gives it.

    Returns:
        The same without the entries that hold keys, at any depth.

    Example:
        >>> without_secrets({"model": "gpt-4o", "api_key": "sk-...", "max_tokens": 100})
        {'model': 'gpt-4o', 'max_tokens': 100}
    """
    if isinstance(data, Mapping):
        return {
            name: without_secrets(value)
            for name, value in data.items()
            if not (_SECRET.search(str(name)) or isinstance(value, SecretStr))
        }
    return [without_secrets(item) for item in data] if isinstance(data, list | tuple) else data
