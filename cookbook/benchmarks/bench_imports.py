"""What `import langchain_costopt` adds to an application that imports langchain-core already."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from typing import Any

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options
from cookbook.benchmarks.timing import interleave

__all__ = ["run"]

_BASE = "import langchain_core"
_NAME = "from langchain_core.language_models import BaseChatModel"
_SCRIPTS = {
    _BASE: _BASE,
    "… and `import langchain_costopt`": f"{_BASE}; import langchain_costopt",
    _NAME: _NAME,
    "… and `from langchain_costopt import SemanticCache`": f"{_NAME}; from langchain_costopt import SemanticCache",
}
_ROUNDS = 7


def run(options: Options) -> dict[str, Any]:
    """Whole processes, in turn."""
    timed = interleave(
        {name: _process(script) for name, script in _SCRIPTS.items()},
        lambda _: range(2),
        3 if options.quick else _ROUNDS,
    )
    base, ours = (timed.median(name) for name in list(_SCRIPTS)[:2])
    return {
        "bars": [at_most("`import langchain_costopt` on top of `import langchain_core`", ours - base, 0.3, " s")],
        "tables": [
            table("A process that imports, ms", ["process", "ms"], [[name, timed.show(name)] for name in _SCRIPTS])
        ],
        "notes": ["Whole processes, interpreter included, files in the page cache; a warm-up before each."],
    }


def _process(script: str) -> Callable[[object], object]:
    return lambda _: subprocess.run([sys.executable, "-c", script], check=True)
