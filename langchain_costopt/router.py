"""A chat model that sends each request to the cheapest of several chat models that will do.

Not `langchain_core.runnables.RouterRunnable`, which picks a runnable by a key in its input.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing, closing
from typing import Any, Literal, Unpack

from langchain_core.caches import BaseCache
from langchain_core.globals import get_llm_cache
from langchain_core.language_models import LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration
from langchain_core.rate_limiters import BaseRateLimiter
from langchain_core.runnables import Runnable, RunnableConfig, RunnableLambda, RunnableMap, RunnablePassthrough
from langchain_core.runnables.config import get_config_list, get_executor_for_config
from langchain_core.runnables.utils import gather_with_concurrency

from costopt.arguments import known_options
from costopt.routing.books import RouterStats
from costopt.routing.decision import RouteDecision
from costopt.routing.options import RoutingOptions, router_of
from costopt.routing.router import Router
from costopt.tokens import count_tokens
from langchain_costopt.router_binding import BoundSchema, BoundTools, Child
from langchain_costopt.router_calls import called, common_profile
from langchain_costopt.router_flow import RoutedChat

__all__ = ["RouterRunnable"]

_log = logging.getLogger("costopt.routing")

# LangChain's standard arguments that are a matter of each tier's model.
_OF_THE_MODELS = frozenset(("api_key", "timeout", "max_retries", "base_url"))


class RouterOptions(RoutingOptions, total=False):
    """Those, and the fields of any chat model."""

    temperature: float
    max_tokens: int
    stop: list[str]
    streaming: bool
    cache: BaseCache | bool | None
    callbacks: Any
    tags: list[str]
    metadata: dict[str, Any]
    name: str
    verbose: bool
    rate_limiter: BaseRateLimiter
    disable_streaming: bool | Literal["tool_calling"]
    output_version: str
    profile: Any
    custom_get_token_ids: Callable[[str], list[int]]
    api_key: Any
    timeout: Any
    max_retries: Any
    base_url: Any


class RouterRunnable(RoutedChat):
    """Not langchain_core's `RouterRunnable`: a chat model that asks the cheapest of its models that will do.

    To callbacks, caches and traces it is one model with one run per request; the message that comes back has the usage
    and the name of the model that answered, and the decision in ``response_metadata["costopt"]``. A cache, given as
    `cache=` or set for all, is asked once and before anything is routed.

    The conversation is that of `conversation_id`, `thread_id` or `session_id` in the config's "configurable" or
    "metadata"; else it is known by its first turns. "costopt_regions" and "costopt_required_tags" there restrict one
    request.
    The name of a tier as `model=` sends a request there.

    Args:
        tiers: `costopt.Tier`s or chat models, from the cheapest to the strongest.
        router: A `costopt.Router` in place of `tiers` and the options, e.g. to share it.
        options: Those of `costopt.Router`, whose `tags` are `required_tags` here; the fields of any chat model:
            `cache`, `callbacks`, `tags`, `metadata`, ...; and `temperature`, `max_tokens`, `stop` and `streaming`,
            which hold for whichever model is asked.

    Raises:
        ConfigError: If tiers, thresholds or options do not fit together; the message says how to mend it.

    Example:
        >>> cheap, strong = (SimulatedChatModel(model_name=name) for name in ("gpt-4o-mini", "gpt-4o"))
        >>> router = RouterRunnable(tiers=[cheap, strong])
        >>> answer = router.invoke("What is the capital of France?")
        >>> answer.response_metadata["costopt"]["chosen"], answer.response_metadata["costopt"]["default"]
        ('gpt-4o-mini', 'gpt-4o')
    """

    def __init__(
        self, tiers: Sequence[Any] = (), *, router: Router | None = None, **options: Unpack[RouterOptions]
    ) -> None:
        fields: dict[str, Any] = dict(options)
        own = {name: fields.pop(name) for name in RoutingOptions.__annotations__ if name in fields}
        known_options(
            type(self).__name__, fields.keys() - type(self).model_fields.keys(), RouterOptions.__annotations__
        )
        left = sorted(set(fields) & _OF_THE_MODELS)
        if left:
            _log.info("costopt: %s is a matter of the tiers' models, and does nothing here", ", ".join(left))
        core = router_of(tiers, router, own)
        children = {tier.name: Child(tier.name, tier.model) for tier in core.tiers}
        versions = {child.model.output_version for child in children.values()}
        if len(versions) == 1:
            fields.setdefault("output_version", versions.pop())
        fields.setdefault("profile", common_profile(children.values()))
        super().__init__(**{name: value for name, value in fields.items() if name not in _OF_THE_MODELS})
        self._core, self._children = core, children

    @property
    def router(self) -> Router:
        """The core that decides: `router.stats()`, `router.calibrate(prompts)`, ..."""
        return self._core

    def stats(self) -> RouterStats:
        """What this router has done so far; `print(router.stats())` says it in a line."""
        return self._core.stats()

    def get_num_tokens(self, text: str) -> int:
        """Tokens as the default tier counts, without asking anybody."""
        return count_tokens(text, self._core.tiers[self._core.default].model_name).tokens

    def bind_tools(
        self, tools: Sequence[Any], *, tool_choice: Any = None, **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """Offer tools; the model that is asked writes them down its own way."""
        options = {"tool_choice": tool_choice, **kwargs} if tool_choice is not None else kwargs
        return self.bind(tools=BoundTools(tools, options), **options)

    def with_structured_output(
        self, schema: Any = None, *, include_raw: bool = False, **kwargs: Any
    ) -> Runnable[LanguageModelInput, Any]:
        """Ask for answers that follow a schema; the model that is asked does it its own way.

        Models that cannot are left out of the choice.
        """
        bound = BoundSchema(schema, kwargs, list(self._children.values()))
        form = {"kwargs": {"method": kwargs.get("method"), "strict": kwargs.get("strict")}, "schema": schema}
        llm = self.bind(structured=bound, ls_structured_output_format=form)
        parser = RunnableLambda(bound.parse)
        if not include_raw:
            return llm | parser
        parsed = RunnablePassthrough.assign(parsed=lambda said: bound.parse(said["raw"]), parsing_error=lambda _: None)
        none = RunnablePassthrough.assign(parsed=lambda _: None)
        return RunnableMap(raw=llm) | parsed.with_fallbacks([none], exception_key="parsing_error")

    def invoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """Ask whichever model will do."""
        with called(self._core, config):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AIMessage:
        """`invoke`, without blocking the event loop."""
        with called(self._core, config):
            return await super().ainvoke(input, config, **kwargs)

    def stream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> Iterator[AIMessageChunk]:
        """Stream the answer; another model may take over until the first token was shown."""
        chunks = super().stream(input, config, **kwargs)
        with called(self._core, config):
            # Where the stream is routed; a context variable must not stay set while the caller holds the stream.
            first = next(chunks, None)
        with closing(chunks):  # type: ignore[type-var]
            if first is not None:
                yield first
                yield from chunks

    async def astream(
        self,
        input: LanguageModelInput,  # noqa: A002
        config: RunnableConfig | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[AIMessageChunk]:
        """`stream`, without blocking the event loop."""
        chunks = super().astream(input, config, **kwargs)
        with called(self._core, config):
            first = await anext(chunks, None)
        async with aclosing(chunks):  # type: ignore[type-var]
            if first is not None:
                yield first
                async for chunk in chunks:
                    yield chunk

    def batch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """Ask for many at once: scored together, and called tier by tier, several at a time.

        With a cache each is looked up first, and routed by itself if it is not there.
        """
        configs = get_config_list(config, len(inputs)) if inputs else []
        plans = self._planned(inputs, configs, kwargs)
        if plans is None:
            return super().batch(inputs, config, return_exceptions=return_exceptions, **kwargs)

        def one(i: int) -> Any:
            try:
                with called(self._core, configs[i], plans[i]):
                    return super(RouterRunnable, self).invoke(inputs[i], configs[i], **kwargs)
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        order = self._by_tier(plans)
        with get_executor_for_config(configs[0]) as executor:
            found = dict(zip(order, executor.map(one, order), strict=True))
        return [found[i] for i in range(len(inputs))]

    async def abatch(
        self,
        inputs: list[LanguageModelInput],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[AIMessage]:
        """`batch`, without blocking the event loop."""
        configs = get_config_list(config, len(inputs)) if inputs else []
        plans = await asyncio.to_thread(self._planned, inputs, configs, kwargs)
        if plans is None:
            return await super().abatch(inputs, config, return_exceptions=return_exceptions, **kwargs)

        async def one(i: int) -> Any:
            try:
                with called(self._core, configs[i], plans[i]):
                    return await super(RouterRunnable, self).ainvoke(inputs[i], configs[i], **kwargs)
            except Exception as error:
                if return_exceptions:
                    return error
                raise

        order = self._by_tier(plans)
        answers = await gather_with_concurrency(configs[0].get("max_concurrency"), *map(one, order))
        found = dict(zip(order, answers, strict=True))
        return [found[i] for i in range(len(inputs))]

    @property
    def _llm_type(self) -> str:
        return "costopt-router"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        # What an answer may depend on. Thresholds are not among it: the same question may go either way anyhow.
        models = {
            name: [child.model._llm_type, dict(child.model._identifying_params), child.kwargs]
            for name, child in self._children.items()
        }
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens, "stop": self.stop}
        return {"tiers": models, **{name: value for name, value in own.items() if value is not None}}

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> Any:
        params = super()._get_ls_params(stop=stop, **kwargs)
        params["ls_provider"] = "costopt"
        params.setdefault("ls_model_name", "router(" + "|".join(self._core.names) + ")")
        return params

    def _convert_cached_generations(self, cache_val: list[Any]) -> list[ChatGeneration]:
        found = super()._convert_cached_generations(cache_val)
        for generation in found:
            said = generation.message.response_metadata.get("costopt")
            if isinstance(said, dict) and "attempts" in said:
                # Of the request that paid for it: this one was neither routed nor paid for.
                kept = {**generation.message.response_metadata, "costopt": {"cache": "hit", "chosen": said["chosen"]}}
                generation.message = generation.message.model_copy(update={"response_metadata": kept})
        return found

    def _planned(
        self, inputs: Sequence[LanguageModelInput], configs: Sequence[RunnableConfig], kwargs: Mapping[str, Any]
    ) -> list[RouteDecision] | None:
        """Where the requests of a batch go; None if each had better be decided by itself."""
        cached = self.cache is not False and (isinstance(self.cache, BaseCache) or get_llm_cache() is not None)
        if len(inputs) < 2 or cached:
            return None
        requests = []
        try:
            for given, config in zip(inputs, configs, strict=True):
                with called(self._core, config):
                    requests.append(self._request(self._convert_input(given).to_messages(), kwargs)[0])
            return self._core.decide_many(requests)
        except Exception:
            return None  # one cannot be routed, and will say so itself: the others must not suffer

    def _by_tier(self, plans: Sequence[RouteDecision]) -> list[int]:
        return sorted(range(len(plans)), key=lambda i: self._core.names.index(plans[i].chosen))
