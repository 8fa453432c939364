"""One object that holds every lever of an application, and gives a framework its pieces in the right order."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

from costopt.audit.batches import attempts_of
from costopt.audit.ledger import Ledger
from costopt.audit.savings import LeftOut, SavingsReport, savings
from costopt.audit.spending import SpendingLimit
from costopt.batch import BatchItem, BatchProvider, BatchResult, BatchRunner
from costopt.caching import SemanticCache
from costopt.compression import Compressor, HistoryCompressor
from costopt.compression.documents import DocumentOptions
from costopt.errors import ConfigError, CostOptError, require
from costopt.pricing import Price
from costopt.routing.options import RoutingOptions
from costopt.routing.tier import Tier, checked_tiers
from costopt.settings import read_settings, store_of

if TYPE_CHECKING:  # Below them at run time: they are looked up by the methods that were asked for them.
    from langchain_costopt.app import LangChainApp
    from llamaindex_costopt.app import LlamaIndexApp

__all__ = ["Optimizer", "Parts"]

_log = logging.getLogger("costopt")

Options = Mapping[str, Any]
_OF_ADAPTERS = ("urgent", "salt")


@dataclass(frozen=True, slots=True)
class Parts:
    """What an adapter makes an application of.

    Attributes:
        tiers: The models, from the cheapest to the strongest.
        cache: Asked first; None: off.
        router: Options of the router, the limit among them; None: one model.
        documents: Options of a compressor of documents; None: off.
        history: Options of a compressor of chats; None: off.
        ledger: Where attempts are written; None: off.
        limit: For whoever sees calls begin; None: there is none, or the router has it.
        batch_limit: For calls that go past the router.
        batch: Options of batch runners.
    """

    tiers: tuple[Tier, ...]
    cache: SemanticCache | None = None
    router: dict[str, Any] | None = None
    documents: dict[str, Any] | None = None
    history: dict[str, Any] | None = None
    ledger: Ledger | None = None
    limit: SpendingLimit | None = None
    batch_limit: SpendingLimit | None = None
    batch: dict[str, Any] = field(default_factory=dict)

    @property
    def prices(self) -> dict[str, Price]:
        """Prices that the user gave, by the name of the model."""
        return {tier.model_name or tier.name: tier.price for tier in self.tiers if tier.price is not None}

    def batch_runner(self, provider: BatchProvider, options: Options) -> BatchRunner:
        """A runner of bare requests, whose finished rows are in the ledger."""
        given = {name: value for name, value in options.items() if name not in _OF_ADAPTERS}
        return BatchRunner(provider, **given) if self.ledger is None else _BookedBatches(self.ledger, provider, given)


class _BookedBatches(BatchRunner):
    """Writes what it collects into a ledger; what it collects again counts once."""

    def __init__(self, ledger: Ledger, provider: BatchProvider, options: Options) -> None:
        super().__init__(provider, **options)
        self._ledger = ledger

    def _items(self, job: str, positions: list[int] | None = None) -> Iterator[BatchItem]:
        found = tuple(super()._items(job, positions))
        try:
            self._ledger.record_all(attempts_of(BatchResult(job, found), self.provider.name))
        except CostOptError as error:
            _log.warning("costopt: the batch is not in the ledger: %s", error)
        return iter(found)


class Optimizer:
    """Cache, router, compressors, ledger and limit of an application, set up once. What is not given is off.

    Each may be an object, or a mapping of the options of one; `from_toml` reads them from a file that `costopt init`
    writes. Nothing is opened, loaded or connected before the first request. All applications made by one optimizer
    share its cache, ledger and limit. A request meets the levers in this order: cache, router, compression, batch.

    Args:
        cache: A `costopt.SemanticCache`, LangChain's or options of one; its `store` may be a path or a Redis URL.
        router: Options of `costopt.Router`: `thresholds`, `estimator` (or the file of `costopt router train`), `policy`
            (or ``{"strong_share": 0.3}``), ...
        compressor: For documents that a retriever found: a `costopt.Compressor`, or options of `DocumentCompressor`.
        history: For chats of agents: a `costopt.compression.HistoryCompressor`, or options of one.
        ledger: A `costopt.Ledger`, its file, or options of one.
        limit: A `costopt.SpendingLimit` on that ledger, or options of one: ``{"dollars": 20}``.
        batch: Options of `costopt.batch.BatchRunner`, for `batch_runner` of an application.

    Raises:
        ConfigError: If nothing is given, or an option is not known or out of range; the message says how to mend it.
        MissingExtraError: If what a lever needs is not installed.

    Example:
        >>> optimizer = Optimizer(
        ...     cache={"store": str(tmp / "cache.db"), "time_budget": 5},
        ...     router={"thresholds": (0.5,)},
        ...     ledger=tmp / "ledger.db",
        ... )
        >>> names = ("gpt-4o-mini", "gpt-4o")
        >>> app = optimizer.langchain(*(SimulatedChatModel(model_name=name, answer="Paris") for name in names))
        >>> for _ in range(2):
        ...     answer = app.llm.invoke("What is the capital of France?")
        >>> answer.response_metadata["costopt"]["cache"], optimizer.report().levers["cache"].requests
        ('exact', 1)
    """

    def __init__(
        self,
        *,
        cache: SemanticCache | Options | Any = None,
        router: Options | None = None,
        compressor: Compressor | Options | None = None,
        history: HistoryCompressor | Options | None = None,
        ledger: Ledger | Options | str | os.PathLike[str] | None = None,
        limit: SpendingLimit | Options | None = None,
        batch: Options | None = None,
    ) -> None:
        if all(each is None for each in (cache, router, compressor, history, ledger, limit)):
            raise ConfigError(
                "no lever is on: give one, as in Optimizer(cache={}, ledger={}), or have `costopt init` write a file "
                "for Optimizer.from_toml('costopt.toml')"
            )
        self.cache = _cache(cache)
        self.ledger = _ledger(ledger, limit)
        self.limit = _limit(limit, self.ledger)
        self._router = None if router is None else _known("router", router, [*RoutingOptions.__annotations__])
        self._compressor = _compressor(compressor)
        self._history = _history(history)
        self._batch = _known("batch", batch or {}, [*_names(BatchRunner), *_OF_ADAPTERS])

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str] = "costopt.toml") -> Self:
        r"""An optimizer by a file, as `costopt init` writes it. A section that is missing is a lever that is off.

        Args:
            path: The file; paths in it count from its folder.

        Raises:
            ConfigError: If there is no such file, or a section, key or value in it is not known.
            MissingExtraError: If what a lever needs is not installed.

        Example:
            >>> _ = (tmp / "costopt.toml").write_text('[ledger]\npath = "ledger.db"\n')
            >>> Optimizer.from_toml(tmp / "costopt.toml").ledger.path == tmp / "ledger.db"
            True
        """
        return cls(**read_settings(path))

    def langchain(self, *models: Any) -> LangChainApp:
        """The pieces of a LangChain application.

        Args:
            models: Chat models or `costopt.Tier`s, from the cheapest to the strongest; one of them needs no router.

        Raises:
            ConfigError: If there is no model, or something that is none; the message shows how to give them.
            MissingExtraError: If LangChain is not installed.
        """
        require("langchain_core", "langchain")
        from langchain_costopt.app import LangChainApp

        return LangChainApp(self._parts(models, ".langchain", 'ChatOpenAI(model="gpt-4o-mini")'))

    def llamaindex(self, *models: Any) -> LlamaIndexApp:
        """The pieces of a LlamaIndex application. The ledger's tracker hears of every call from now on.

        LlamaIndex has no place where a chat's history could be shortened, so `history` does nothing there.

        Args:
            models: LLMs or `costopt.Tier`s, from the cheapest to the strongest; one of them needs no router.

        Raises:
            ConfigError: If there is no model, or something that is none; the message shows how to give them.
            MissingExtraError: If LlamaIndex is not installed.
        """
        require("llama_index.core", "llamaindex")
        from llamaindex_costopt.app import LlamaIndexApp

        if self._history is not None:
            _log.info("costopt: chats of LlamaIndex are not compressed: the history settings do nothing there")
        return LlamaIndexApp(self._parts(models, ".llamaindex", 'OpenAI("gpt-4o-mini")'))

    def report(self, since: float | None = None) -> SavingsReport:
        """What has been spent and saved so far, by the ledger, over all processes; `print` shows it.

        Args:
            since: Seconds since 1970; counted are whole UTC days, from the one that holds it. None: from the first.

        Raises:
            ConfigError: If there is no ledger.
            StoreError: If it cannot be read.
        """
        if self.ledger is None:
            raise ConfigError("there is no ledger to report on: give ledger={}, or write [ledger] into the file")
        return savings(self.ledger, since)

    def close(self) -> None:
        """Write what waits, and give connections back; all of it is opened again if it is used again."""
        for each in (self.cache, self.ledger):
            if each is not None:
                each.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _parts(self, models: Sequence[Any], method: str, example: str) -> Parts:
        """What an adapter makes an application of.

        Args:
            models: As they were given.
            method: That they were given to, for messages.
            example: A model, for messages.

        Raises:
            ConfigError: If they are no models that go together.
        """
        tiers = _tiers(models, method, example)
        if len(tiers) > 1 and self._router is None:
            raise ConfigError(
                f"{len(tiers)} models, and no router to choose: write [router] into the file, or give router={{}}; or "
                "give one model"
            )
        routed = len(tiers) > 1
        return Parts(
            tiers,
            self.cache,
            self._routing() if routed else None,
            self._documents(tiers[0]),
            None if self._history is None else _with_model(self._history, tiers[-1].model_name),
            self.ledger,
            None if routed else self.limit,
            self.limit,
            dict(self._batch),
        )

    def _routing(self) -> dict[str, Any]:
        given = dict(self._router or {})
        estimator, policy, cascade = given.get("estimator"), given.get("policy"), given.get("cascade")
        if isinstance(estimator, str | os.PathLike):
            from costopt.routing import load_router

            given["estimator"] = load_router(estimator)
        if isinstance(policy, Mapping):
            given["policy"] = _policy(policy)
        if isinstance(cascade, Mapping):
            from costopt.routing import Cascade

            given["cascade"] = Cascade(**_known("cascade", cascade, _names(Cascade)))
        if self.limit is not None:
            given.setdefault("budget", self.limit)
        return given

    def _documents(self, tier: Tier) -> dict[str, Any] | None:
        """Options of a compressor whose documents this tier, the cheapest, is taken to read: it saves no less."""
        if self._compressor is None:
            return None
        given = _with_model(self._compressor, tier.model_name)
        if self.ledger is not None:
            given.setdefault("told", LeftOut(self.ledger, tier.model_name or tier.name, price=tier.price))
        return given


def _tiers(models: Sequence[Any], method: str, example: str) -> tuple[Tier, ...]:
    call = f"optimizer{method}({example})"
    if not models:
        raise ConfigError(f"no model was given: give one, or several from the cheapest to the strongest, as in {call}")
    for model in models:
        if isinstance(model, str):
            raise ConfigError(f"{model!r} is a text: give the model itself, as in {call}")
        if isinstance(model, list | tuple):
            raise ConfigError(f"give models one by one, and no list of them: optimizer{method}(*models)")
    if len(models) == 1 and not isinstance(models[0], Tier):
        try:
            return (Tier(models[0]),)
        except ConfigError:  # it does not say its name, and there is nobody to tell it from
            return (Tier(models[0], name=type(models[0]).__name__),)
    return checked_tiers(models)


def _cache(given: Any) -> SemanticCache | None:
    given = getattr(given, "core", given)  # LangChain's is a coat over ours
    if given is None or isinstance(given, SemanticCache):
        return given
    options = _known("cache", given, _names(SemanticCache))
    store = options.pop("store", None)
    return SemanticCache(store_of(store) if isinstance(store, str) else store, **options)


def _ledger(given: Any, limit: Any) -> Ledger | None:
    if given is None:
        return limit.ledger if isinstance(limit, SpendingLimit) else None
    if isinstance(given, Ledger):
        return given
    if isinstance(given, str | os.PathLike):
        return Ledger(given)
    return Ledger(**_known("ledger", given, _names(Ledger)))


def _limit(given: Any, ledger: Ledger | None) -> SpendingLimit | None:
    if given is None:
        return None
    if ledger is None:
        raise ConfigError("a limit counts what a ledger has: give ledger={}, or write [ledger] into the file")
    if isinstance(given, SpendingLimit):
        if given.ledger.path != ledger.path:
            raise ConfigError(f"the limit counts on {given.ledger.path}, and not on {ledger.path}: give it that ledger")
        return given
    options = _known("limit", given, _names(SpendingLimit))
    if "dollars" not in options:
        raise ConfigError('the limit says no dollars: give them, as in limit={"dollars": 20, "period": "month"}')
    return SpendingLimit(ledger, **options)


def _compressor(given: Any) -> dict[str, Any] | None:
    if given is None or isinstance(given, Compressor):
        return None if given is None else {"core": given}
    return _known("compressor", given, [*DocumentOptions.__annotations__])


def _history(given: Any) -> dict[str, Any] | None:
    if given is None or isinstance(given, HistoryCompressor):
        return None if given is None else {"core": given}
    return _known("history", given, _names(HistoryCompressor))


def _with_model(options: Options, model: str) -> dict[str, Any]:
    """The options, and whose tokens are counted, if they do not say."""
    said = not model or options.keys() & {"model", "core", "compressor"}
    return dict(options) if said else {**options, "model": model}


def _policy(given: Options) -> Any:
    from costopt.routing import DollarsPer1000, QualityFloor, StrongShare

    makes: dict[str, Callable[[Any], Any]] = {
        "strong_share": StrongShare,
        "dollars_per_1000": DollarsPer1000,
        "quality_floor": QualityFloor,
    }
    options = _known("policy", given, makes)
    if len(options) != 1:
        raise ConfigError(f"policy = {dict(given)!r}: give one target, as in policy = {{ strong_share = 0.3 }}")
    [(name, target)] = options.items()
    return makes[name](target)


def _names(kind: Callable[..., Any]) -> list[str]:
    """The options of a constructor, without what the optimizer gives it."""
    return [name for name in inspect.signature(kind).parameters if name not in ("provider", "ledger")]


def _known(what: str, given: Any, names: Iterable[str]) -> dict[str, Any]:
    known = list(names)
    if not isinstance(given, Mapping):
        raise ConfigError(
            f"{what}={given!r}: give a mapping of options, as in {what}={{}}; known are {', '.join(known)}"
        )
    unknown = next((name for name in given if name not in known), None)
    if unknown is not None:
        raise ConfigError(f"{what}: {unknown} is not known. Known are {', '.join(known)}")
    return dict(given)
