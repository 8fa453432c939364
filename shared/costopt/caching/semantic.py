"""The semantic cache: never pay twice for one question."""

from __future__ import annotations

import math
import os
from collections import deque
from collections.abc import Callable, Sequence
from typing import Self, TypeVar

from costopt.arguments import is_list, number, switch
from costopt.caching.agreement import Agreement
from costopt.caching.answer import Answer
from costopt.caching.defaults import store_of
from costopt.caching.flight import Caller
from costopt.caching.flows import CacheFlows
from costopt.caching.judge import Judge, PairModel, SimilarityJudge, as_judge
from costopt.caching.online import Evidence, encode_evidence
from costopt.caching.policy import Policy
from costopt.caching.request import CacheRequest, Message, build_request, digest
from costopt.caching.results import CacheHit, CacheStats
from costopt.caching.steps import adrive, drive
from costopt.caching.store import Selector, Store, StoreSize
from costopt.embedding import DEFAULT_SPACE, Embedder, SharedEmbedder, default_embedder
from costopt.errors import ConfigError
from costopt.prompts import Split, checked_split

__all__ = ["DEFAULT_TTL_S", "SemanticCache", "selector"]

DEFAULT_TTL_S = 24 * 3600.0

T = TypeVar("T")


class SemanticCache:
    """Answers a question from an earlier answer to the same question, however worded.

    Args:
        store: Where the entries lie; by default Redis if `COSTOPT_REDIS_URL` or `REDIS_URL` is set, else a
            file in the user's cache folder. A string is a Redis URL.
        embedder: Turns texts into vectors; by default the MiniLM that all of costopt shares.
        judge: Who decides whether a similar question wants the same answer: a `Judge`, or a model that scores
            pairs (a `sentence_transformers.CrossEncoder`, or a function of (asked, cached) that returns a
            probability); by default the MiniLM that comes with the package, see `CrossEncoderJudge`.
        max_error: Share of the answers served by the semantic tier that may be wrong, in [0, 1), as expected on
            traffic like that the policy was fitted to; 0 serves the same text only. Default 0.05.
        policy: File written by `costopt cache tune`, which knows your traffic better, or a `Policy`.
        min_similarity: Least cosine similarity, in [0, 1], at which a stored question is shown to the judge;
            by default the judge's own. To switch the semantic tier off, give `exact_only=True`.
        guards: Whether a different number, name, negation and the like forbids serving.
        exact_only: Serve the same text only; nothing is embedded.
        tenant: Whose questions these are, or a function that tells: it is asked before and after the model
            call, and must say the same (a `ContextVar` does). Answers are never shared between tenants.
        ttl: Seconds until an answer expires, counted from when it was given; None for ever.
        tags: Labels for `invalidate`, or a function that tells at each call.
        split: How to part a prompt that carries context into (context, question): a marker that stands
            before the question, or a function. The context must then match exactly, the question loosely.
        shadow: Look up and record, serve nothing: what would this cache do to my traffic? What it would have
            served is compared with what the model then answers, and the thresholds learn from that.
        same_answer: Whether two answers say the same, for `shadow`; by default `Agreement` with the embedder.
        single_flight: Whether callers who ask the same at the same moment share one model call.
        time_budget: Seconds a lookup may take before it counts as a miss.
        portable: Names of models that you declare to be the same whichever framework asks them: LangChain is
            then served what LlamaIndex asked, and the other way round. Of their settings, those count that every
            framework knows (temperature, max_tokens, stop, seed, tools, ...), but neither address nor class.

    Raises:
        ConfigError: If an argument is out of range.
        MissingExtraError: If what the store or embedder needs is not installed.

    Example:
        >>> cache = SemanticCache(LocalStore(tmp / "cache.db"), tenant="acme")
        >>> question = cache.request([{"role": "user", "content": "What is a llama?"}], model="gpt-4o-mini")
        >>> cache.lookup(question) is None
        True
        >>> cache.update(question, Answer(({"kind": "chat", "content": "An animal."},)))
        >>> print(cache.lookup(question).tier)
        exact
    """

    def __init__(
        self,
        store: Store | str | None = None,
        *,
        embedder: Embedder | None = None,
        judge: Judge | PairModel | Callable[[str, str], float] | None = None,
        max_error: float | None = None,
        policy: Policy | str | os.PathLike[str] | None = None,
        min_similarity: float | None = None,
        guards: bool = True,
        exact_only: bool = False,
        tenant: str | Callable[[], str] = "default",
        ttl: float | None = DEFAULT_TTL_S,
        tags: Sequence[str] | Callable[[], Sequence[str]] = (),
        split: Split | None = None,
        shadow: bool = False,
        same_answer: Callable[[Answer, Answer], bool | None] | None = None,
        single_flight: bool = True,
        time_budget: float = 0.25,
        portable: Sequence[str] = (),
    ) -> None:
        _check(ttl, tenant, tags, time_budget, portable)
        switches = {"guards": guards, "exact_only": exact_only, "shadow": shadow, "single_flight": single_flight}
        for name, value in switches.items():
            switch(name, value)
        if min_similarity is not None:
            SimilarityJudge(min_similarity)  # for its checks
        decides = as_judge(judge, max_error=max_error, policy=policy, guards=guards) if not exact_only else None
        # Nothing that is judged would be served, so nothing is embedded, either.
        exact_only = exact_only or max_error == 0
        self.store: Store = store_of(store)
        self._embedder = None if exact_only and embedder is None else _shared(embedder)
        name, dimension = DEFAULT_SPACE if self._embedder is None else (self._embedder.name, self._embedder.dimension)
        self.store.bind(name, dimension)
        if exact_only:
            self._embedder = None
        self._tenant = tenant
        self._split = checked_split(split)
        self._portable = frozenset(portable)
        self._flows = CacheFlows(
            self.store,
            self._embedder,
            decides or SimilarityJudge(1.0),
            floor=min_similarity,
            ttl=ttl,
            tags=tags if callable(tags) else lambda: tags,
            shadow=shadow,
            same_answer=same_answer or Agreement(self._embedder),
            single_flight=single_flight,
            time_budget=time_budget,
        )

    # -- asking ----------------------------------------------------------------------------------------

    def request(self, messages: Sequence[Message], *, model: str, params: str = "") -> CacheRequest:
        """The request for a model call, under this cache's tenant and `split`; see `build_request`."""
        tenant = self._tenant() if callable(self._tenant) else self._tenant
        return build_request(messages, model=model, params=params, tenant=tenant, split=self._split)

    def is_portable(self, model: str) -> bool:
        """Whether this model was declared to be the same in every framework; for adapters."""
        return model in self._portable

    def lookup(self, request: CacheRequest, caller: Caller | None = None) -> CacheHit | None:
        """The answer to this question, if there is one. Never raises: what fails counts as a miss.

        Args:
            request: What is asked.
            caller: Who will make the model call on a miss and report it by `update`. With it, others who
                ask the same meanwhile wait for that answer.

        Raises:
            ConfigError: If it was given to a framework as it is.
        """
        _check_request(request)
        return drive(self._flows.lookup(request, caller))

    async def alookup(self, request: CacheRequest, caller: Caller | None = None) -> CacheHit | None:
        """`lookup`, without blocking the event loop."""
        _check_request(request)
        return await adrive(self._flows.lookup(request, caller))

    def update(self, request: CacheRequest, answer: Answer | Callable[[], Answer]) -> None:
        """Keep an answer, unless it is empty, truncated, filtered or failed. Never raises.

        Args:
            request: What was asked.
            answer: What the model said, or a function that makes it (whose failing is stepped over, too).
        """
        drive(self._flows.update(request, answer))

    async def aupdate(self, request: CacheRequest, answer: Answer | Callable[[], Answer]) -> None:
        """`update`, without blocking the event loop."""
        await adrive(self._flows.update(request, answer))

    def guarded(self, kind: str, work: Callable[[], T]) -> T | None:
        """The result of `work`, or None if it fails; for adapters, whose own steps must not break a call either."""
        try:
            return work()
        except Exception as error:
            self._flows.stepped_over(kind, error)
            return None

    def served(self, hit: CacheHit | None, make: Callable[[CacheHit], T]) -> T | None:
        """What an adapter makes of a hit; None if it cannot: then the hit does not count, for the model is paid."""
        if hit is None:
            return None
        try:
            return make(hit)
        except Exception as error:
            self._flows.unserved(hit, error)
            return None

    # -- keeping house: these raise, because whoever calls them wants to know ---------------------------

    def reject(self, hit: CacheHit) -> None:
        """Report a wrong answer. Its entry goes, and the two questions are never matched again.

        Raises:
            ConfigError: If it is no hit.
            StoreError: If the store cannot be reached; the rejection is then not recorded.
        """
        if not isinstance(hit, CacheHit):
            raise ConfigError(f"reject() takes the CacheHit that lookup() gave, not a {type(hit).__name__}")
        self.reject_match(hit.tenant, hit.request_key, hit.key, hit.scope, hit.asked, hit.cached, hit.probability)

    def reject_match(
        self,
        tenant: str,
        request_key: str,
        key: str,
        scope: str = "",
        asked: str | None = None,
        cached: str | None = None,
        probability: float | None = None,
    ) -> None:
        """`reject`, by the fields of a hit of the same names."""
        if request_key != key:
            self.store.reject(tenant, request_key, key)
        self.store.reject(tenant, key, "")
        if scope and asked and cached and probability is not None:
            evidence = Evidence(asked, cached, same=False, probability=probability)
            self.store.add_evidence(tenant, scope, encode_evidence(evidence))
            self._flows.judging.forget(scope)
        self._flows.tally.count("rejected")

    def invalidate(self, *, tag: str | None = None, model: str | None = None, tenant: str | None = None) -> int:
        """Remove the entries that match everything given; returns how many there were.

        Given a tenant alone, the question texts that its thresholds were learned from go, too.

        Raises:
            ConfigError: If nothing is given.
            StoreError: If the store cannot be reached.

        Example:
            >>> cache.invalidate(tag="docs-v3")
            0
        """
        if tag is None and model is None and tenant is None:
            raise ConfigError("invalidate() needs a tag, a model or a tenant; clear() removes everything")
        return self.store.remove(selector(tag=tag, model=model, tenant=tenant))

    def clear(self) -> None:
        """Remove every entry of every tenant, and the question texts that thresholds were learned from.

        Rejections stay, as digests without a text: a wrong match is wrong tomorrow, too.
        """
        self.store.clear()

    def warm(self) -> Self:
        """Load the embedder and open the store now, so that the first request need not.

        Raises:
            CostOptError: If either cannot be had; the message says how to mend it.
        """
        self.store.open()
        if self._embedder is not None:
            self._embedder.embed_one("warm")
            self._flows.judging.warm()
        return self

    def stats(self) -> CacheStats:
        """What this object has done so far."""
        return self._flows.tally.snapshot()

    @property
    def shadow_hits(self) -> deque[CacheHit]:
        """With `shadow=True`, the last 1,000 hits that would have been served."""
        return self._flows.shadow.hits

    def size(self) -> StoreSize:
        """How much lies in the store, of all tenants."""
        return self.store.size()

    def close(self) -> None:
        """Write what is pending and give connections back."""
        drive(self._flows.flush())
        self.store.close()

    async def aclose(self) -> None:
        """`close`, and the connections of the running event loop, too."""
        await adrive(self._flows.flush())
        await self.store.aclose()


def selector(*, tag: str | None = None, model: str | None = None, tenant: str | None = None) -> Selector:
    """What stores know tags, models and tenants by."""
    return Selector(
        tag=None if tag is None else digest("tag", tag),
        model=None if model is None else digest("model", model),
        tenant=None if tenant is None else digest("tenant", tenant),
    )


def _check_request(request: object) -> None:
    # Both classes are called SemanticCache; without this, LangChain's first call is paid for and then fails.
    if not isinstance(request, CacheRequest):
        raise ConfigError(
            "this is costopt.SemanticCache, which takes a CacheRequest: give LangChain langchain_costopt.SemanticCache;"
            " wrap an LLM of LlamaIndex in llamaindex_costopt.CachedLLM(llm, cache=...)"
        )


def _check(
    ttl: float | None,
    tenant: str | Callable[[], str],
    tags: Sequence[str] | Callable[[], Sequence[str]],
    time_budget: float,
    portable: Sequence[str],
) -> None:
    if ttl is not None:
        mend = "seconds greater than 0, or None to keep answers for ever, as in ttl=3600"
        number("ttl", ttl, lambda ttl: 0 < ttl < math.inf, mend)
    if not callable(tenant) and not (isinstance(tenant, str) and tenant.strip()):
        raise ConfigError(f"tenant is {tenant!r}: name whose answers these are, e.g. tenant='acme'")
    for name, value in (("tags", tags), ("portable", portable)):
        if not callable(value) and not is_list(value):
            raise ConfigError(f"{name}={value!r}: give a list, as in {name}=[{value!r}]")
    number("time_budget", time_budget, lambda seconds: 0 < seconds < math.inf, "seconds greater than 0, e.g. 0.25")


def _shared(embedder: Embedder | None) -> SharedEmbedder:
    if embedder is None:
        return default_embedder()
    return embedder if isinstance(embedder, SharedEmbedder) else SharedEmbedder(embedder)
