"""What a new user gets wrong once: the message says what would have been right, before anything is paid."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from langchain_core.documents import Document
from langchain_core.globals import set_llm_cache

import costopt
import langchain_costopt
import llamaindex_costopt
from costopt import ConfigError, LocalStore
from costopt.audit import audit
from costopt.routing import load_router
from langchain_costopt.demo import SimulatedChatModel

CHEAP, STRONG = (SimulatedChatModel(model_name=name) for name in ("gpt-4o-mini", "gpt-4o"))


class OfOnesOwn(SimulatedChatModel):
    def _stream(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError


PAGE = Document("The museum opened in 1931. Tickets cost 12 EUR.")

MISTAKES: dict[str, tuple[Callable[[], Any], str]] = {
    "an option of another package": (
        lambda: langchain_costopt.SemanticCache(distance_threshold=0.1),  # type: ignore[call-arg]
        r"no option distance_threshold: it has .*max_error",
    ),
    "an option that is not there": (
        lambda: langchain_costopt.DocumentCompressor(ratio=0.4),  # type: ignore[call-arg]
        r"DocumentCompressor has no option ratio: it has target_ratio",
    ),
    "the same in LlamaIndex": (
        lambda: llamaindex_costopt.CompressorPostprocessor(ratio=0.4),  # type: ignore[call-arg]
        r"CompressorPostprocessor has no option ratio: it has target_ratio",
    ),
    "one document, and no list": (
        lambda: langchain_costopt.DocumentCompressor().compress_documents(PAGE, "?"),  # type: ignore[arg-type]
        r"give a list of Documents, as in \[Document\(text\)\]",
    ),
    "texts, and no documents": (
        lambda: langchain_costopt.DocumentCompressor().compress_documents(["A text."], "?"),  # type: ignore[list-item]
        r"give a list of Documents",
    ),
    "names of models": (
        lambda: langchain_costopt.RouterRunnable(tiers=["gpt-4o-mini", "gpt-4o"]),
        "give a chat model",
    ),
    "the dear one first": (
        lambda: langchain_costopt.RouterRunnable(tiers=[STRONG, CHEAP]),
        "list the tiers from the cheapest to the strongest",
    ),
    "a number for thresholds": (
        lambda: langchain_costopt.RouterRunnable(tiers=[CHEAP, STRONG], thresholds=0.5),  # type: ignore[arg-type]
        r"as in thresholds=\(0.5,\)",
    ),
    "a router that was never trained": (
        lambda: load_router("nowhere"),
        r"^there is no router at nowhere.json .*`costopt router train",
    ),
    "one cheaper model, and no list": (
        lambda: audit("log.jsonl", cheaper="gpt-4o-mini"),
        r"cheaper=\['gpt-4o-mini'\]",
    ),
    "a cheaper model that nobody sells": (
        lambda: audit("log.jsonl", cheaper=["gpt-4o-mini", "gpt-4o-mnii"]),
        r"no price is known of 'gpt-4o-mnii': .*--price",
    ),
    "StreamCache in the wrong place": (
        lambda: type("Chat", (OfOnesOwn, langchain_costopt.StreamCache), {}),
        r"class Chat\(StreamCache, OfOnesOwn\)",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_tells_its_mend(mistake: str) -> None:
    made, mend = MISTAKES[mistake]
    with pytest.raises(ConfigError, match=mend):
        made()


def test_the_cores_cache_in_langchain_is_told_before_a_call_is_paid(tmp_path: Path) -> None:
    paid: list[Any] = []

    class Counting(SimulatedChatModel):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            paid.append(args)
            return super()._generate(*args, **kwargs)

    core = costopt.SemanticCache(LocalStore(tmp_path / "cache.db"))
    set_llm_cache(core)  # type: ignore[arg-type]
    try:
        with pytest.raises(ConfigError, match=r"langchain_costopt\.SemanticCache"):
            Counting(model_name="gpt-4o-mini").invoke("How do I reset my password?")
    finally:
        set_llm_cache(None)
        core.close()
    assert not paid
