"""A chat model of one's own for LangChain: quantised in this process, or behind a server that speaks OpenAI's API."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage
from langchain_core.output_parsers import JsonOutputParser, PydanticOutputParser
from langchain_core.output_parsers.openai_tools import JsonOutputKeyToolsParser, PydanticToolsParser
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable, RunnableConfig, RunnableMap, RunnablePassthrough
from langchain_core.runnables.config import get_config_list
from langchain_core.utils.function_calling import convert_to_json_schema, convert_to_openai_tool
from langchain_core.utils.pydantic import is_basemodel_subclass
from pydantic import ConfigDict, Field, PrivateAttr, SecretStr

from costopt.errors import ConfigError
from costopt.local.calling import SETTINGS, answer_in, request_for, tool_choice_of
from costopt.local.engine import Engine, GenerationRequest, Handle
from costopt.local.shared import check_fields, shared_engine
from langchain_costopt.quantized_messages import chunk_of, message_of, openai_messages

__all__ = ["ChatQuantized"]

_MOST_THREADS = 256  # of a batch: they only wait, for the engine to run what they submitted together


class ChatQuantized(BaseChatModel):
    """A chat model in this process, four bits a weight unless told otherwise; or on a server, by `base_url`.

    Everything that uses the same model with the same settings, LlamaIndex included, shares one copy of its weights, and
    requests that arrive together run together. Nothing is loaded before the first request.

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
        logprobs: True, or how many alternatives to report for each token: in ``response_metadata["logprobs"]``.
        timeout: Seconds for an answer, or for the next piece of it where it streams from a server.
        max_retries: How often to ask the server again when a connection fails.

    Raises:
        ConfigError: If an argument cannot be meant.
        MissingExtraError: Without the extra that is needed: ``local``, or ``served`` with a `base_url`.

    Example:
        >>> chat = ChatQuantized(model="my-model", base_url="http://localhost:8000/v1", temperature=0)
        >>> chat.with_structured_output({"title": "Answer", "type": "object", "properties": {}}) is not None
        True
    """

    model_config = ConfigDict(populate_by_name=True, extra="forbid")

    model_name: str = Field(default="", alias="model")
    quantization: str | None = None
    base_url: str | None = None
    api_key: SecretStr | None = None
    engine: Any = Field(default=None, exclude=True)
    options: dict[str, Any] = Field(default_factory=dict)
    temperature: float | None = None
    max_tokens: int | None = None
    top_p: float | None = None
    seed: int | None = None
    stop: list[str] | None = None
    logprobs: bool | int | None = None
    timeout: float | None = None
    max_retries: int | None = None
    streaming: bool = False
    _engines: dict[str, Engine] = PrivateAttr(default_factory=dict)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Not in a validator: pydantic would make a ValidationError of a ConfigError.
        check_fields(type(self), kwargs)
        super().__init__(*args, **kwargs)
        if not self.model_name and self.engine is None:
            raise ConfigError("give model=, a folder or a hub id, or an engine=")
        if self.quantization is not None and self.base_url is not None:
            raise ConfigError("quantization= is a matter of the server at base_url: leave it out")
        self._request([HumanMessage("?")], None, {})  # for its checks
        self._served_by(self._named({}))

    @property
    def served_by(self) -> Engine:
        """The engine that answers: `chat.served_by.stats()`."""
        return self._served_by(self._named({}))

    def bind_tools(
        self,
        tools: Sequence[Mapping[str, Any] | type | Callable[..., Any] | Any],
        *,
        tool_choice: str | bool | Mapping[str, Any] | None = None,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools.

        Args:
            tools: Functions, LangChain tools, pydantic models or schemas.
            tool_choice: "auto", "none", "any" (one must be called), or the name of the one that must be.
            strict: Of no consequence here: the arguments of a call that must be made always follow their schema.
            kwargs: Options of each call.
        """
        offered = [convert_to_openai_tool(tool, strict=strict) for tool in tools]
        choice = tool_choice_of(tool_choice, [tool["function"]["name"] for tool in offered])
        return self.bind(tools=offered, **({} if choice is None else {"tool_choice": choice}), **kwargs)

    def with_structured_output(
        self,
        schema: Any = None,
        *,
        method: Literal["json_schema", "function_calling", "json_mode"] = "json_schema",
        include_raw: bool = False,
        strict: bool | None = None,
        **kwargs: Any,
    ) -> Runnable[LanguageModelInput, Any]:
        """Answers that follow a schema, because nothing else can be generated.

        Args:
            schema: A pydantic model, a TypedDict or a JSON schema.
            method: "json_schema"; "json_mode" for any JSON object; "function_calling" to have it as a tool call.
            include_raw: Answer {"raw", "parsed", "parsing_error"} rather than raise.
            strict: Of no consequence: the schema always holds.
            kwargs: Options of each call.
        """
        if schema is None and method != "json_mode":
            raise ConfigError('give a schema, or method="json_mode"')
        form = {"kwargs": {"method": method}, "schema": schema}
        typed = isinstance(schema, type) and is_basemodel_subclass(schema)
        parser: Any
        if method == "function_calling":
            llm = self.bind_tools([schema], tool_choice="any", ls_structured_output_format=form, **kwargs)
            name = convert_to_openai_tool(schema)["function"]["name"]
            keyed = JsonOutputKeyToolsParser(key_name=name, first_tool_only=True)
            parser = PydanticToolsParser(tools=[schema], first_tool_only=True) if typed else keyed
        else:
            wanted = {"type": "object"} if method == "json_mode" else convert_to_json_schema(schema)
            llm = self.bind(response_schema=wanted, ls_structured_output_format=form, **kwargs)
            parser = PydanticOutputParser(pydantic_object=schema) if typed else JsonOutputParser()
        if not include_raw:
            answers: Runnable[LanguageModelInput, Any] = llm | parser
            return answers
        parsed = RunnablePassthrough.assign(parsed=itemgetter("raw") | parser, parsing_error=lambda _: None)
        none = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=llm) | parsed.with_fallbacks([none], exception_key="parsing_error")

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Ask for many at once: all are submitted together, and the engine runs them as one batch."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        if configs and configs[0].get("max_concurrency") is None:
            configs[0] = {**configs[0], "max_concurrency": min(len(inputs), _MOST_THREADS)}
        return super().batch(inputs, configs, return_exceptions=return_exceptions, **kwargs)

    @property
    def _llm_type(self) -> str:
        return "costopt-quantized"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        engine = {"engine": self.engine.name} if self.engine is not None else {}
        own = {name: getattr(self, name) for name in (*SETTINGS, "quantization", "base_url")}
        return {"model": self.model_name, **engine, **own, "options": self.options}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop or self.stop, **kwargs)
        params["ls_provider"] = "local"
        params["ls_model_name"] = self._named(kwargs)
        return params

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        message = message_of(answer_in(self.timeout, self._asked(messages, stop, kwargs)), self._named(kwargs))
        return ChatResult(generations=[ChatGeneration(message=message)])

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        handle = self._asked(messages, stop, kwargs)
        message = message_of(await asyncio.wait_for(handle.aresult(), self.timeout), self._named(kwargs))
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        name, handle = self._named(kwargs), self._asked(messages, stop, kwargs)
        try:
            for delta in handle:
                chunk = ChatGenerationChunk(message=chunk_of(delta, name))
                if run_manager is not None:
                    run_manager.on_llm_new_token(delta.text, chunk=chunk)
                yield chunk
        finally:
            handle.cancel()  # the caller may have left

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        name, handle = self._named(kwargs), self._asked(messages, stop, kwargs)
        try:
            async for delta in handle:
                chunk = ChatGenerationChunk(message=chunk_of(delta, name))
                if run_manager is not None:
                    await run_manager.on_llm_new_token(delta.text, chunk=chunk)
                yield chunk
        finally:
            handle.cancel()

    def _asked(self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]) -> Handle:
        return self._served_by(self._named(kwargs)).submit(self._request(messages, stop, kwargs))

    def _request(
        self, messages: list[BaseMessage], stop: list[str] | None, kwargs: Mapping[str, Any]
    ) -> GenerationRequest:
        settings = {name: getattr(self, name) for name in SETTINGS}
        call = {**kwargs, "stop": stop} if stop is not None else kwargs
        return request_for(openai_messages(messages), settings, call)

    def _named(self, kwargs: Mapping[str, Any]) -> str:
        return str(kwargs.get("model") or self.model_name or self.engine.name)

    def _served_by(self, name: str) -> Engine:
        if self.engine is not None:
            engine: Engine = self.engine
            return engine
        held = self._engines.get(name)
        if held is None:
            held = self._engines[name] = shared_engine(
                name,
                base_url=self.base_url,
                api_key=self.api_key.get_secret_value() if self.api_key else None,
                timeout=self.timeout,
                max_retries=self.max_retries,
                quantization=self.quantization,
                **self.options,
            )
        return held
