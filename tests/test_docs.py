"""What the docstrings show, runs; tests/test_snippets.py has the documents."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import costopt
import langchain_costopt
import llamaindex_costopt
from costopt import compression
from costopt.batch import Backoff, OpenAIBatches
from costopt.caching.policy import default_policy
from costopt.local.transformers_engine import TransformersEngine
from tests.batch_server import batch_server
from tests.costopt.compression.classifiers import bert


def modules() -> Iterator[ModuleType]:
    for package in (costopt, langchain_costopt, llamaindex_costopt):
        yield package
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            yield importlib.import_module(info.name)


EXAMPLES = [
    test for module in modules() for test in doctest.DocTestFinder(exclude_empty=True).find(module) if test.examples
]


@pytest.fixture
def names(tmp_path: Path) -> Iterator[dict[str, Any]]:
    """What the examples take for granted."""
    from langchain_core.globals import set_llm_cache

    from langchain_costopt.demo import SimulatedChatModel
    from langchain_costopt.streaming import StreamCache

    cache = costopt.SemanticCache(costopt.LocalStore(tmp_path / "given.db"))
    given = {name: getattr(costopt, name) for name in costopt.__all__}
    given |= {"tmp": tmp_path, "cache": cache, "set_llm_cache": set_llm_cache, "default_policy": default_policy}
    yield given | {"SimulatedChatModel": SimulatedChatModel, "StreamCache": StreamCache}
    cache.close()
    set_llm_cache(None)


@pytest.fixture(scope="module")
def classifier_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small token classifier."""
    return bert(tmp_path_factory.mktemp("models"))


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What the examples of batches take for granted: a provider."""
    import openai
    from langchain_openai import ChatOpenAI
    from llama_index.llms.openai import OpenAI

    with batch_server() as server, openai.OpenAI(api_key="sk-none", base_url=f"{server.url}/v1") as client:
        monkeypatch.setenv("OPENAI_API_KEY", "sk-none")
        monkeypatch.setenv("OPENAI_BASE_URL", f"{server.url}/v1")
        llm = OpenAI("gpt-4o-mini", api_base=f"{server.url}/v1", openai_client=client)
        yield {
            "client": client,
            "ChatOpenAI": ChatOpenAI,
            "llm": llm,
            "OpenAIBatches": OpenAIBatches,
            "Backoff": Backoff,
        }


def test_the_examples_are_found() -> None:
    assert len(EXAMPLES) >= 20


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_docstring_example(example: doctest.DocTest, names: dict[str, Any], request: pytest.FixtureRequest) -> None:
    if "redis_url" in example.docstring:
        names["redis_url"] = request.getfixturevalue("redis_url")
        request.getfixturevalue("redis_client")
    if "facts_model" in example.docstring:
        names["facts_model"] = request.getfixturevalue("facts_model")
    if example.name.startswith("langchain_costopt"):
        names["SemanticCache"] = langchain_costopt.SemanticCache
    if example.name.startswith("costopt.compression"):
        names |= {name: getattr(compression, name) for name in compression.__all__}
    if "classifier_folder" in example.docstring:
        names["classifier_folder"] = request.getfixturevalue("classifier_folder")
    if "BatchRunner(" in example.docstring:
        names |= request.getfixturevalue("batches")
    example.globs = {**example.globs, **names}
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS, verbose=False)
    assert runner.run(example).failed == 0
    for value in example.globs.values():
        if isinstance(value, costopt.RedisStore | costopt.LocalStore | TransformersEngine):
            value.close()
