"""What is natural to write and of the wrong kind: the constructor says what to write instead."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from llama_index.core.llms import MockLLM

import langchain_costopt
from costopt import ConfigError, LocalStore, MiniLMEmbedder, RedisStore, SemanticCache, SimilarityJudge
from costopt.embedding import SharedEmbedder
from llamaindex_costopt import CachedLLM
from tests.faults.words import Words


class OfLangChain:
    """Embeddings as LangChain has them."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        return [[1.0] for _ in texts]

    def embed_query(self, text: str) -> list[float]:
        return [1.0]

    def __repr__(self) -> str:
        return "OfLangChain(api_key='sk-secret')"


HERE = LocalStore("never made")
Make = Callable[..., Any]


@pytest.mark.parametrize(
    ("options", "mend"),
    [
        ({"embedder": OfLangChain()}, "of class OfLangChain, without name, dimension, embed: .*embed_documents"),
        ({"embedder": "all-MiniLM-L6-v2"}, "'all-MiniLM-L6-v2', without .*give an object with name, dimension"),
        ({"embedder": MiniLMEmbedder}, "class .*MiniLMEmbedder'>, without .*give an object"),
        ({"max_error": "0.05"}, "max_error='0.05': give the share"),
        ({"max_error": True}, "max_error=True: give the share"),
        ({"ttl": "1h"}, "ttl='1h': give seconds .* as in ttl=3600"),
        ({"ttl": timedelta(hours=1)}, "ttl=datetime.timedelta.*: give seconds .* as in ttl=3600"),
        ({"time_budget": "1"}, "time_budget='1': give seconds greater than 0, e.g. 0.25"),
        ({"time_budget": None}, "time_budget=None: give seconds"),
        ({"min_similarity": ".8"}, r"min_similarity='.8': give a cosine similarity in \[0, 1\]"),
        ({"exact_only": "no"}, "exact_only='no': give True or False"),
        ({"tags": None}, "tags=None: give a list"),
        ({"portable": 5}, "portable=5: give a list"),
        ({"judge": "all-MiniLM-L6-v2"}, "scores nothing: give what has predict"),
    ],
)
@pytest.mark.parametrize("make", [SemanticCache, langchain_costopt.SemanticCache])
def test_an_option_of_the_wrong_kind(make: Make, options: dict[str, Any], mend: str) -> None:
    with pytest.raises(ConfigError, match=mend) as error:
        make(HERE, **options)
    assert "secret" not in str(error.value)


@pytest.mark.parametrize(
    ("make", "mend"),
    [
        (lambda: SemanticCache(Path("c.db")), r"'c.db' is no Redis URL: give LocalStore\("),  # type: ignore[arg-type]
        (lambda: SemanticCache("c.db"), r"'c.db' is no Redis URL: give LocalStore\("),
        (lambda: SemanticCache("u:secret@h:6379"), "the store is no Redis URL: .*redis://localhost"),
        (lambda: SemanticCache(LocalStore), "give LocalStore"),  # type: ignore[arg-type]
        (lambda: SemanticCache({}), "a dict is no store: give LocalStore"),  # type: ignore[arg-type]
        (lambda: LocalStore("c.db", max_bytes="1GB"), "max_bytes='1GB': give a size in bytes, e.g. 536870912"),  # type: ignore[arg-type]
        (lambda: RedisStore("redis://h", timeout="1"), "timeout='1': give seconds"),  # type: ignore[arg-type]
        (lambda: SimilarityJudge("0.9"), "min_similarity='0.9'"),  # type: ignore[arg-type]
        (lambda: SharedEmbedder(OfLangChain()), "without name, dimension, embed"),  # type: ignore[arg-type]
        (lambda: SemanticCache(HERE).reject("text"), "takes the CacheHit that lookup.. gave, not a str"),  # type: ignore[arg-type]
        (lambda: langchain_costopt.SemanticCache(HERE).reject("text"), "give the answer as it was served"),  # type: ignore[arg-type]
        (lambda: CachedLLM(MockLLM(), SemanticCache(HERE)).reject("x"), "give the answer as it was served"),  # type: ignore[arg-type]
    ],
)
def test_a_store_an_embedder_or_a_rejection_of_the_wrong_kind(make: Make, mend: str) -> None:
    with pytest.raises(ConfigError, match=mend) as error:
        make()
    assert "secret" not in str(error.value)


def test_numbers_of_any_make_and_an_embedder_that_knows_its_dimension_late_will_do() -> None:
    import numpy as np

    SemanticCache(HERE, ttl=np.int64(60), time_budget=1, max_error=np.float32(0.05), tags={"docs"})  # type: ignore[arg-type]

    class Late(Words):
        @property
        def dimension(self) -> int:  # type: ignore[override]
            raise AssertionError("nobody has asked for a vector")

    SharedEmbedder(Late())
