"""The names people import, what importing them costs, and which way the arrows point."""

from __future__ import annotations

import ast
import difflib
import subprocess
import sys
from pathlib import Path

import pytest

import costopt
import langchain_costopt
import llamaindex_costopt
from tests.api_snapshot import COMMAND, FILE, public_api

ROOT = Path(__file__).parents[1]


def test_every_public_name_is_there_and_told_by_dir() -> None:
    for package in (costopt, costopt.audit, langchain_costopt, llamaindex_costopt):
        for name in package.__all__:
            assert getattr(package, name) is not None
        assert set(package.__all__) <= set(dir(package))
        with pytest.raises(AttributeError, match="'nothing'"):
            package.nothing  # noqa: B018


def test_nothing_changes_in_the_public_api_unnoticed() -> None:
    """What a user may depend on is what `tests/public_api.txt` says."""
    before = FILE.read_text("utf-8").splitlines()
    changed = [line for line in difflib.unified_diff(before, public_api(), lineterm="", n=0) if line[0] in "+-"][2:]
    assert not changed, (
        "the public API is not what tests/public_api.txt says:\n  "
        + "\n  ".join(changed)
        + f"\nif that is meant: run `{COMMAND}`, and tell users of what went (-) or changed in CHANGELOG.md"
    )


def test_every_module_says_what_it_exports() -> None:
    for module in [*ROOT.glob("shared/costopt/**/*.py"), *ROOT.glob("*_costopt/*.py")]:
        names = {node.id for node in ast.walk(ast.parse(module.read_text())) if isinstance(node, ast.Name)}
        assert "__all__" in names, module


def test_every_error_is_a_costopt_error() -> None:
    errors = [value for name, value in vars(costopt.errors).items() if name.endswith("Error")]
    assert len(errors) >= 7
    assert all(issubclass(error, costopt.CostOptError) for error in errors)


@pytest.mark.parametrize(
    ("statement", "absent"),
    [
        ("import costopt", "torch redis redisvl langchain_core llama_index transformers genai_prices numpy typer"),
        (
            "import costopt; costopt.Optimizer(cache={}, router={}, compressor={}, history={}, ledger={})",
            "torch redis redisvl langchain_core llama_index transformers genai_prices",
        ),
        ("from costopt import Ledger", "numpy costopt.audit.report costopt.routing costopt.caching"),
        ("import langchain_costopt", "torch redis redisvl langchain_core numpy"),
        ("import costopt.local", "torch transformers bitsandbytes openai pynvml llguidance accelerate"),
        ("import costopt.batch as b; b.BatchRunner(b.OpenAIBatches())", "openai anthropic genai_prices langchain_core"),
        ("from langchain_costopt import SemanticCache", "torch redis redisvl llama_index transformers"),
        ("import langchain_costopt as c; c.SemanticCache()", "torch redis redisvl llama_index transformers usearch"),
        ("import langchain_costopt as c; c.DocumentCompressor()", "torch redis redisvl llama_index transformers"),
        ("import langchain_costopt as c; c.HistoryCompressor()", "torch redis redisvl llama_index genai_prices"),
        ("import llamaindex_costopt", "torch redis redisvl langchain_core llama_index transformers openai numpy"),
        ("import llamaindex_costopt as c; c.CompressorPostprocessor()", "torch redis redisvl langchain_core usearch"),
    ],
)
def test_nothing_heavy_is_imported_before_it_is_used(statement: str, absent: str, tmp_path: Path) -> None:
    code = f"{statement}\nimport sys; print([name for name in {absent.split()!r} if name in sys.modules])"
    env = {"COSTOPT_CACHE_DIR": str(tmp_path), "PATH": "/usr/bin"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env)
    assert done.stdout.strip() == "[]"
    assert list(tmp_path.iterdir()) == [], "a constructor must not make files"


@pytest.mark.parametrize(
    ("missing", "code", "extra"),
    [
        ("torch", "import costopt; costopt.SemanticCache()", "costopt[minilm]"),
        ("redisvl", "import costopt; costopt.RedisStore('redis://localhost')", "costopt[redis]"),
        ("openai", "from costopt.batch import OpenAIBatches; OpenAIBatches()", "costopt[batch]"),
        ("anthropic", "from costopt.batch import AnthropicBatches; AnthropicBatches()", "costopt[batch]"),
        (
            "langchain_core",
            "import sys; from costopt.cli import main; sys.argv = ['costopt', 'demo']; main()",
            "costopt[langchain]",
        ),
        ("langchain_core", "from langchain_costopt import SemanticCache", "costopt[langchain]"),
        ("llama_index", "from llamaindex_costopt import CachedLLM", "costopt[llamaindex]"),
        ("langchain_core", "import costopt; costopt.Optimizer(ledger={}).langchain(1)", "costopt[langchain]"),
        ("llama_index", "import costopt; costopt.Optimizer(ledger={}).llamaindex(1)", "costopt[llamaindex]"),
        ("torch", "import costopt; costopt.Optimizer(cache={})", "costopt[minilm]"),
        ("openai", "import costopt; costopt.OpenAICompatibleEngine(base_url='http://a', model='m')", "costopt[served]"),
        ("transformers", "import costopt; costopt.MemoryPlan.of('.')", "costopt[local]"),
    ],
)
def test_a_missing_extra_is_named(missing: str, code: str, extra: str) -> None:
    block = (
        "import sys, importlib.abc, importlib.util\n"
        "real = importlib.util.find_spec\n"
        "class Block(importlib.abc.MetaPathFinder):\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        f"        if name.split('.')[0] == {missing!r}: raise ModuleNotFoundError(name)\n"
        "sys.meta_path.insert(0, Block())\n"
    )
    done = subprocess.run([sys.executable, "-c", block + code], capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert extra in done.stderr


def test_the_arrows_point_down() -> None:
    """The core imports no framework, and nothing below the command line and the optimizer imports an adapter."""
    for module in ROOT.glob("shared/costopt/**/*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            for name in names:
                assert not name.startswith(("langchain_core", "langchain.", "llama_index")), module
                if name.startswith(("langchain_costopt", "llamaindex_costopt")):
                    assert module.name in ("cli.py", "optimizer.py"), module
