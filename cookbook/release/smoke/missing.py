"""Whatever is not installed here says what would install it."""

import importlib.util
import sys
from collections.abc import Callable

import costopt
from costopt import MissingExtraError


def _langchain() -> object:
    from langchain_costopt import SemanticCache

    return SemanticCache


def _llamaindex() -> object:
    from llamaindex_costopt import CachedLLM

    return CachedLLM


def _batch() -> object:
    from costopt.batch import AnthropicBatches

    return AnthropicBatches()


def _compress() -> object:
    from costopt.compression import LLMLingua2

    return LLMLingua2("some-model")


# By extra: a module that it brings, and what cannot do without.
NEEDS: dict[str, tuple[str, Callable[[], object]]] = {
    "langchain": ("langchain_core", _langchain),
    "llamaindex": ("llama_index", _llamaindex),
    "redis": ("redisvl", lambda: costopt.RedisStore("redis://127.0.0.1")),
    "minilm": ("torch", lambda: costopt.MiniLMEmbedder().embed(["a text"])),
    "compress": ("transformers", _compress),
    "local": ("transformers", lambda: costopt.MemoryPlan.of(sys.argv[1])),
    "served": ("openai", lambda: costopt.OpenAICompatibleEngine(base_url="http://127.0.0.1", model="m")),
    "batch": ("anthropic", _batch),
}

absent = [extra for extra, (module, _) in NEEDS.items() if importlib.util.find_spec(module) is None]
for extra in absent:
    try:
        NEEDS[extra][1]()
    except MissingExtraError as error:
        assert f"pip install 'costopt[{extra}]'" in str(error), error
        print(f"{extra}: {error}")
    else:
        raise AssertionError(f"without [{extra}] nothing was missed")
