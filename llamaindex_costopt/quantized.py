"""A model of one's own for LlamaIndex: quantised in this process, or behind a server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
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
    MessageRole,
)
from llama_index.core.bridge.pydantic import BaseModel, ConfigDict, Field, PrivateAttr, SecretStr
from llama_index.core.constants import DEFAULT_NUM_OUTPUTS
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection
from llama_index.core.program.streaming_utils import process_streaming_content_incremental
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool

from costopt.errors import ConfigError
from costopt.local.calling import SETTINGS, answer_in, request_for
from costopt.local.engine import Delta, Engine, Handle, joined
from costopt.local.shared import check_fields, shared_engine
from llamaindex_costopt.quantized_messages import (
    chat_response,
    completion_response,
    openai_messages,
    selections,
)
from llamaindex_costopt.wrapper import without_keys

__all__ = ["QuantizedLLM"]

_DEFAULT_CONTEXT = 4_096

M = TypeVar("M", bound=BaseModel)


class QuantizedLLM(FunctionCallingLLM):
    """A model in this process, four bits a weight unless told otherwise; or on a server, by `base_url`.

    Everything that uses the same model with the same settings, LangChain included, shares one copy of its weights, and
    requests that arrive together run together. Nothing is loaded before the first request. `structured_predict` and
    `as_structured_llm` constrain the model to the schema while it writes.

    Any of `temperature`, `max_tokens`, `top_p`, `seed`, `stop` and `logprobs` can be given with a call, too.

    Args:
        model: A local folder or a hub id; or the name that the server has for it.
        quantization: "nf4", "fp4", "int8" or "none".
        base_url: Of a server that speaks OpenAI's API (vLLM, SGLang, llama.cpp, Ollama), in place of loading a model.
        api_key: For that server.
        engine: An engine of one's own, in place of all these.
        options: More for the engine, e.g. {"context": 8_192, "concurrency": 8, "device": "cuda:1"}.
        temperature: 0 always takes the likeliest token; None: as the engine has it.
        max_tokens: Most tokens of an answer.
        top_p: Draw from the likeliest tokens that together have this probability.
        seed: The same request with the same seed draws the same tokens.
        stop: Texts that end the answer, and are not part of it.
        logprobs: True, or how many alternatives to report for each token.
        context_window: Tokens of the longest sequence; None: what the engine says, or 4,096.
        function_calling: Whether it may be offered tools; None: whether its chat template tells of them.
        timeout: Seconds for an answer, or for the next piece of it where it streams from a server.
        max_retries: How often to ask the server again when a connection fails.

    Raises:
        ConfigError: If an argument cannot be meant.
        MissingExtraError: Without the extra that is needed: ``local``, or ``served`` with a `base_url`.

    Example:
        >>> llm = QuantizedLLM(model="my-model", base_url="http://localhost:8000/v1", temperature=0)
        >>> llm.metadata.model_name, llm.metadata.is_function_calling_model
        ('my-model', True)
    """

    model_config = ConfigDict(extra="forbid", arbitrary_types_allowed=True)

    model: str = ""
    quantization: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = Field(default=None, exclude=True)
    engine: Any = Field(default=None, exclude=True)
    options: dict[str, Any] = Field(default_factory=dict)
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    logprobs: bool | int | None = None
    context_window: int | None = None
    function_calling: bool | None = None
    timeout: float | None = None
    max_retries: int | None = None
    _held: Engine = PrivateAttr()

    def __init__(self, **kwargs: Any) -> None:
        # Not in a validator: pydantic would make a ValidationError of a ConfigError.
        check_fields(type(self), kwargs)
        super().__init__(**kwargs)
        if not self.model and self.engine is None:
            raise ConfigError("give model=, a folder or a hub id, or an engine=")
        if self.quantization is not None and self.base_url is not None:
            raise ConfigError("quantization= is a matter of the server at base_url: leave it out")
        self._request("?", {})  # for its checks
        self._held = self.engine if self.engine is not None else self._shared()

    def __getstate__(self) -> dict[str, Any]:
        state: dict[str, Any] = FunctionCallingLLM.__getstate__(without_keys(self))
        # Made anew, with the key of the environment it comes to.
        return {**state, "__pydantic_private__": {**(state.get("__pydantic_private__") or {}), "_held": None}}

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex keeps of this class."""
        return "costopt_quantized_llm"

    @property
    def served_by(self) -> Engine:
        """The engine that answers: `llm.served_by.stats()`."""
        return self._held

    @property
    def metadata(self) -> LLMMetadata:
        """What LlamaIndex wants to know of a model."""
        told = self.function_calling
        return LLMMetadata(
            context_window=self.context_window or getattr(self._held, "context_window", None) or _DEFAULT_CONTEXT,
            num_output=self.max_tokens or DEFAULT_NUM_OUTPUTS,
            is_chat_model=True,
            is_function_calling_model=getattr(self._held, "knows_tools", True) if told is None else told,
            model_name=self.model or self._held.name,
        )

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The answer to a chat."""
        return chat_response(answer_in(self.timeout, self._asked(openai_messages(messages), kwargs)))

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """The answer to a chat, as it comes."""
        return (
            chat_response(joined(said), said[-1]) for said in _pieces(self._asked(openai_messages(messages), kwargs))
        )

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        handle = self._asked(openai_messages(messages), kwargs)
        return chat_response(await asyncio.wait_for(handle.aresult(), self.timeout))

    @llm_chat_callback()
    async def astream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseAsyncGen:
        """`stream_chat`, without blocking the event loop."""
        handle = self._asked(openai_messages(messages), kwargs)

        async def answers() -> ChatResponseAsyncGen:
            async for said in _apieces(handle):
                yield chat_response(joined(said), said[-1])

        return answers()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The answer to a question; or, if `formatted`, what follows the text, without a chat template."""
        return completion_response(answer_in(self.timeout, self._asked(_question(prompt, formatted), kwargs)))

    @llm_completion_callback()
    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseGen:
        """`complete`, as it comes."""
        handle = self._asked(_question(prompt, formatted), kwargs)
        return (completion_response(joined(said), said[-1]) for said in _pieces(handle))

    @llm_completion_callback()
    async def acomplete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        handle = self._asked(_question(prompt, formatted), kwargs)
        return completion_response(await asyncio.wait_for(handle.aresult(), self.timeout))

    @llm_completion_callback()
    async def astream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponseAsyncGen:
        """`stream_complete`, without blocking the event loop."""
        handle = self._asked(_question(prompt, formatted), kwargs)

        async def answers() -> CompletionResponseAsyncGen:
            async for said in _apieces(handle):
                yield completion_response(joined(said), said[-1])

        return answers()

    def structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """An object of this class: nothing that is none can be generated."""
        response = self.chat(self._get_messages(prompt, **prompt_args), **_to_follow(output_cls, llm_kwargs))
        return output_cls.model_validate_json(response.message.content or "")

    async def astructured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """`structured_predict`, without blocking the event loop."""
        messages = self._get_messages(prompt, **prompt_args)
        response = await self.achat(messages, **_to_follow(output_cls, llm_kwargs))
        return output_cls.model_validate_json(response.message.content or "")

    def stream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[M | Any, None, None]:
        """The object as it grows; what is not complete yet has its fields, but is not of the class."""
        current: Any = None
        messages = self._get_messages(prompt, **prompt_args)
        for response in self.stream_chat(messages, **_to_follow(output_cls, llm_kwargs)):
            current = process_streaming_content_incremental(response, output_cls, current)
            yield current

    async def astream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> AsyncGenerator[M | Any, None]:
        """`stream_structured_predict`, without blocking the event loop."""
        messages = self._get_messages(prompt, **prompt_args)
        responses = await self.astream_chat(messages, **_to_follow(output_cls, llm_kwargs))

        async def growing() -> AsyncGenerator[M | Any, None]:
            current: Any = None
            async for response in responses:
                current = process_streaming_content_incremental(response, output_cls, current)
                yield current

        return growing()

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of an answer."""
        found = selections(response.message)
        if not found and error_on_no_tool_call:
            raise ValueError(f"no tool was called; the answer was {response.message.content!r}")
        return found

    def _prepare_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        verbose: bool = False,
        allow_parallel_tool_calls: bool = False,
        tool_required: bool = False,
        tool_choice: Any = None,
        **kwargs: Any,
    ) -> dict[str, Any]:
        messages = list(chat_history or [])
        if user_msg is not None:
            asked = ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
            messages.append(asked)
        offered = [tool.metadata.to_openai_tool(skip_length_check=True) for tool in tools]
        choice = tool_choice if tool_choice is not None else "required" if tool_required and offered else None
        return {"messages": messages, "tools": offered, "tool_choice": choice, **kwargs}

    def _asked(self, asked: list[dict[str, Any]] | str, kwargs: dict[str, Any]) -> Handle:
        return self._held.submit(self._request(asked, kwargs))

    def _request(self, asked: list[dict[str, Any]] | str, kwargs: dict[str, Any]) -> Any:
        return request_for(asked, {name: getattr(self, name) for name in SETTINGS}, kwargs)

    def _shared(self) -> Engine:
        return shared_engine(
            self.model,
            base_url=self.base_url,
            api_key=self.api_key.get_secret_value() if self.api_key else None,
            timeout=self.timeout,
            max_retries=self.max_retries,
            quantization=self.quantization,
            **self.options,
        )


def _question(prompt: str, formatted: bool) -> list[dict[str, Any]] | str:
    return prompt if formatted else [{"role": "user", "content": prompt}]


def _to_follow(output_cls: type[BaseModel], llm_kwargs: dict[str, Any] | None) -> dict[str, Any]:
    return {**(llm_kwargs or {}), "response_schema": output_cls.model_json_schema()}


def _pieces(handle: Handle) -> Generator[list[Delta], None, None]:
    """All there is so far, each time there is more."""
    said: list[Delta] = []
    try:
        for delta in handle:
            said.append(delta)
            yield said
    finally:
        handle.cancel()  # the reader may have left


async def _apieces(handle: Handle) -> AsyncGenerator[list[Delta], None]:
    said: list[Delta] = []
    try:
        async for delta in handle:
            said.append(delta)
            yield said
    finally:
        handle.cancel()
