"""What the documents show, runs: every docstring example, and every snippet of the README."""

from __future__ import annotations

import doctest
import importlib
import pkgutil
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import costopt
import langchain_costopt
import llamaindex_costopt
from costopt import compression
from costopt.batch import OpenAIBatches
from costopt.caching.policy import default_policy
from costopt.local.transformers_engine import TransformersEngine
from costopt.routing import train_router
from tests.batch_server import batch_server
from tests.command import script
from tests.costopt.compression.classifiers import bert
from tests.costopt.routing.rows import outcomes
from tests.openai_server import openai_server

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


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
        yield {"client": client, "ChatOpenAI": ChatOpenAI, "llm": llm, "OpenAIBatches": OpenAIBatches}


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


SNIPPETS = re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)


@pytest.mark.parametrize("snippet", SNIPPETS, ids=range(len(SNIPPETS)))
def test_readme_snippet(snippet: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    with openai_server() as server, batch_server() as batches:
        env = {
            "PATH": "/usr/bin:/bin",
            "COSTOPT_CACHE_DIR": str(tmp_path),
            "OPENAI_API_KEY": "sk-none",
            "OPENAI_BASE_URL": f"{batches.url}/v1" if "BatchRunner" in snippet else server.url,
        }
        (tmp_path / "policy.json").write_text(default_policy().as_json())  # as `cache tune` would
        env["OPENAI_API_BASE"] = env["OPENAI_BASE_URL"]  # where LlamaIndex looks
        if "load_router" in snippet:  # as `router train` would
            labelled = replace(outcomes(60), tiers=("gpt-4o-mini", "gpt-4o"), answers={})
            train_router(labelled, costopt.default_embedder()).router.save(tmp_path / "router")
        if "LLMLingua2" in snippet:
            (tmp_path / "models").mkdir()
            bert(tmp_path).rename(tmp_path / "models" / "token-classifier")
        if "ChatQuantized" in snippet:
            (tmp_path / "models").mkdir()
            (tmp_path / "models" / "my-chat-model").symlink_to(request.getfixturevalue("facts_model"))
        printed = script(snippet, libraries=f"torch {others(snippet)}", env=env, folder=tmp_path)
        if "print(cache.stats())" in snippet:
            assert len(server.requests) == 1
            assert printed.startswith("How do I reset my password?\n")
            assert "2 lookups, 1 hits (50.0%: 0 exact, 1 semantic, 0 in flight), 42 tokens" in printed


def others(snippet: str) -> str:
    """The packages that it imports and that are not ours."""
    named = re.findall(r"^(?:from|import) ([\w.]+)", snippet, flags=re.MULTILINE)
    return " ".join(name for name in named if "costopt" not in name)


def test_every_file_the_readme_links_to_is_there() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert len(links) >= 5
    for link in links:
        assert link.startswith("http") or (ROOT / link).exists(), link


def test_every_command_the_readme_names_is_there() -> None:
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"^    make (\w+)", README, flags=re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
    assert "make test" in (ROOT / ".ci" / "run").read_text()
