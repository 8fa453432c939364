"""An LLM that sends each request to the cheapest of several LLMs that will do."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar, Unpack

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata, MessageRole
from llama_index.core.bridge.pydantic import BaseModel, field_serializer
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.prompts import BasePromptTemplate
from llama_index.core.tools import BaseTool

from costopt.arguments import known_options
from costopt.errors import ConfigError
from costopt.routing.books import RouterStats
from costopt.routing.options import RoutingOptions, router_of
from costopt.routing.router import Router
from llamaindex_costopt.router_calls import OfferedTools
from llamaindex_costopt.router_flow import RoutedLLM
from llamaindex_costopt.router_structured import Schema, grown, parsed
from llamaindex_costopt.streams import aclosed, closed
from llamaindex_costopt.wrapper import WrapperLLM, without_keys, without_secrets

__all__ = ["RouterLLM"]

M = TypeVar("M", bound=BaseModel)

# Where LlamaIndex hangs its handlers and limits: what is set on the router is set on its models, which make the calls.
_SHARED = frozenset(("callback_manager", "rate_limiter"))
_PROMPTING = (
    *("system_prompt", "messages_to_prompt", "completion_to_prompt", "output_parser"),
    *("pydantic_program_mode", "query_wrapper_prompt"),
)


class RouterOptions(RoutingOptions, total=False):
    """Those of a router, and the fields of any LLM."""

    callback_manager: Any
    rate_limiter: Any
    system_prompt: str | None
    messages_to_prompt: Any
    completion_to_prompt: Any
    output_parser: Any
    pydantic_program_mode: Any
    query_wrapper_prompt: Any


class RouterLLM(RoutedLLM):
    """An LLM that asks the cheapest of its LLMs that will do.

    The response is that of the model that answered, with its usage; the decision is in
    ``additional_kwargs["costopt"]``, of a stream in that of the last response. Events and callbacks come from the
    models: once per call that is made, with the name of the model that is paid. Tools and schemas are written down
    by the model that is asked, and who cannot is not asked. A cache goes before it: ``CachedLLM(RouterLLM([...]))``.

    `metadata` promises what every tier can hold, so that what LlamaIndex packs into a prompt fits the cheapest; longer
    requests go to a tier that they fit. Give the tiers ``max_retries=0``, and the next one takes over at once.

    The conversation is that of `conversation_id`, `thread_id` or `session_id`, as an argument of the call or in
    LlamaIndex's `instrument_tags`; else it is known by its first turns. `costopt_regions` and
    `costopt_required_tags` there restrict one request. The name of a tier as `model=` sends a request there.

    Args:
        tiers: `costopt.Tier`s or LLMs, from the cheapest to the strongest.
        router: A `costopt.Router` in place of `tiers` and the options, e.g. to share it.
        options: Those of `costopt.Router`, whose `tags` are `required_tags` here; and the fields of any LLM:
            `callback_manager`, `rate_limiter`, `system_prompt`, ...

    Raises:
        ConfigError: If tiers, thresholds or options do not fit together; the message says how to mend it.

    Example:
        >>> from llama_index.core.llms import MockLLM
        >>> cheap, strong = Tier(MockLLM(), name="gpt-4o-mini"), Tier(MockLLM(), name="gpt-4o")
        >>> answer = RouterLLM(tiers=[cheap, strong]).complete("What is the capital of France?")
        >>> answer.additional_kwargs["costopt"]["chosen"], answer.additional_kwargs["costopt"]["default"]
        ('gpt-4o-mini', 'gpt-4o')
    """

    def __init__(
        self, tiers: Sequence[Any] = (), *, router: Router | None = None, **options: Unpack[RouterOptions]
    ) -> None:
        fields: dict[str, Any] = dict(options)
        own = {name: fields.pop(name) for name in RoutingOptions.__annotations__ if name in fields}
        known_options(type(self).__name__, fields, RouterOptions.__annotations__)
        core = router_of(tiers, router, own)
        super().__init__(models={tier.name: _checked(tier.name, tier.model) for tier in core.tiers}, **fields)
        self._core = core
        for name in _SHARED:
            if fields.get(name) is not None:
                setattr(self, name, fields[name])

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name in _SHARED:
            for model in self.models.values():
                setattr(model, name, value)

    def __reduce__(self) -> tuple[Any, ...]:
        # As the other LLMs here: without keys, and without what belongs to this process.
        make, (kind, tiers, options) = self._core.__reduce__()
        keyless = tuple(replace(tier, model=without_keys(tier.model)) for tier in tiers)
        fields = {name: getattr(self, name) for name in _PROMPTING}
        return _remade, (type(self), make, (kind, keyless, options), fields)

    @classmethod
    def class_name(cls) -> str:
        """The name that LlamaIndex keeps of this class."""
        return "costopt_router_llm"

    @property
    def router(self) -> Router:
        """The core that decides: `router.stats()`, `router.calibrate(prompts)`, ..."""
        return self._core

    def stats(self) -> RouterStats:
        """What this router has done so far; `print(llm.stats())` says it in a line."""
        return self._core.stats()

    @property
    def metadata(self) -> LLMMetadata:
        """What every tier can hold; and what one of them can do, as who cannot is not asked for it."""
        said = [model.metadata for model in self.models.values()]
        windows = [tier.window or each.context_window for tier, each in zip(self._core.tiers, said, strict=True)]
        outputs = [each.num_output for each in said if each.num_output > 0]
        roles = {each.system_role for each in said}
        return LLMMetadata(
            context_window=min(windows),
            num_output=min(outputs, default=-1),
            is_chat_model=any(each.is_chat_model for each in said),
            is_function_calling_model=any(each.is_function_calling_model for each in said),
            model_name=f"router({'|'.join(self._core.names)})",
            system_role=roles.pop() if len(roles) == 1 else MessageRole.USER,
        )

    @field_serializer("models")
    def _serialized(self, models: dict[str, LLM]) -> Any:
        return {name: without_secrets(model.to_dict()) for name, model in models.items()}

    # -- tools --------------------------------------------------------------------------------------------

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls of an answer, as the model that gave it reads them."""
        said = response.additional_kwargs.get("costopt")
        named = said.get("chosen") if isinstance(said, Mapping) else None
        models = sorted(self.models, key=lambda name: name != named)
        able = next((model for name in models if isinstance(model := self.models[name], FunctionCallingLLM)), None)
        if able is None:
            raise ConfigError("no tier of this router can call tools: add a FunctionCallingLLM, or use a ReActAgent")
        return able.get_tool_calls_from_response(response, error_on_no_tool_call=error_on_no_tool_call, **kwargs)

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
        asked = ChatMessage(role=MessageRole.USER, content=user_msg) if isinstance(user_msg, str) else user_msg
        options = {"allow_parallel_tool_calls": allow_parallel_tool_calls, "tool_required": tool_required, **kwargs}
        if verbose:
            options["verbose"] = True
        return {
            "messages": [*(chat_history or ()), *([asked] if asked else ())],
            "tools": OfferedTools(tools),
            **options,
        }

    # -- structured prediction ----------------------------------------------------------------------------

    def structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """An object of this class; the model that is asked comes to it in its own way."""
        schema = Schema(output_cls, llm_kwargs)
        return parsed(output_cls, self.chat(self._get_messages(prompt, **prompt_args), structured=schema))

    async def astructured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> M:
        """`structured_predict`, without blocking the event loop."""
        schema = Schema(output_cls, llm_kwargs)
        return parsed(output_cls, await self.achat(self._get_messages(prompt, **prompt_args), structured=schema))

    def stream_structured_predict(
        self,
        output_cls: type[M],
        prompt: BasePromptTemplate,
        llm_kwargs: dict[str, Any] | None = None,
        **prompt_args: Any,
    ) -> Generator[M | Any, None, None]:
        """The object as it grows; what is not complete yet has its fields, but is not of the class."""
        messages, current = self._get_messages(prompt, **prompt_args), None
        with closed(self.stream_chat(messages, structured=Schema(output_cls, llm_kwargs))) as responses:
            for response in responses:
                current = grown(output_cls, response, self._calls(response), current)
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
        begun = await self.astream_chat(messages, structured=Schema(output_cls, llm_kwargs))

        async def growing() -> AsyncGenerator[M | Any, None]:
            current: Any = None
            async with aclosed(begun) as responses:
                async for response in responses:
                    current = grown(output_cls, response, self._calls(response), current)
                    yield current

        return growing()

    def _calls(self, response: ChatResponse) -> list[ToolSelection]:
        able = any(isinstance(model, FunctionCallingLLM) for model in self.models.values())
        return self.get_tool_calls_from_response(response, error_on_no_tool_call=False) if able else []


def _checked(name: str, model: Any) -> LLM:
    if isinstance(model, WrapperLLM) and getattr(model, "cache", None) is not None:
        raise ConfigError(
            f"the model of tier {name!r} has a cache of its own, which would be asked after routing: put it before the "
            "router, as in CachedLLM(RouterLLM([...]))"
        )
    if not isinstance(model, LLM):
        raise ConfigError(
            f"the model of tier {name!r} is a {type(model).__name__}: give an LLM of LlamaIndex, e.g. OpenAI(model=...)"
        )
    return model


def _remade(kind: type[RouterLLM], make: Any, made_of: tuple[Any, ...], fields: dict[str, Any]) -> RouterLLM:
    return kind(router=make(*made_of), **fields)
