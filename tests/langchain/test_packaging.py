"""What the adapters for LangChain need, and what they say where it is missing."""

from __future__ import annotations

import subprocess
import sys

# langchain-core and the rest are there.
_WITHOUT_LANGCHAIN = """
import sys, importlib.abc
class Block(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("langchain", "langgraph"):
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Block())
from costopt import MissingExtraError
from langchain_costopt import DocumentCompressor, HistoryCompressor, RouterRunnable
for name in ("CompressionMiddleware", "RouterMiddleware"):
    try:
        exec(f"from langchain_costopt import {name}")
    except MissingExtraError as error:
        print(error)
"""


def test_without_langchain_the_middleware_says_what_to_install() -> None:
    done = subprocess.run([sys.executable, "-c", _WITHOUT_LANGCHAIN], capture_output=True, text=True, check=True)
    compression, router = done.stdout.splitlines()
    assert compression == router
    assert "or pip install langchain" in router
