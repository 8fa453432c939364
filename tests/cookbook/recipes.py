"""Running the recipes of the cookbook as they are, and reading what they say."""

from __future__ import annotations

import ast
import os
import re
from pathlib import Path

from tests.command import script

__all__ = ["COOKBOOK", "SAVED", "patient", "recipe"]

COOKBOOK = Path(__file__).parents[2] / "cookbook"
SAVED = re.compile(r"^saved \$([\d.]+) of \$([\d.]+) \((\d+)%\)", re.MULTILINE)

_OURS = ("costopt", "langchain_costopt", "llamaindex_costopt")
_GIVEN = re.compile("OPENAI|REDIS|COSTOPT|VLLM")


def recipe(name: str, *args: str, folder: Path, url: str = "", **env: str) -> str:
    """What a recipe prints, run in `folder` against the provider at `url`."""
    code = patient((COOKBOOK / f"{name}.py").read_text("utf-8"))
    clean = {each: value for each, value in os.environ.items() if not _GIVEN.match(each)}
    kept = {"COSTOPT_CACHE_DIR": folder, "COSTOPT_LEDGER": folder / "l.db", "COSTOPT_BATCH_JOURNAL": folder / "b.db"}
    clean |= {each: str(path) for each, path in kept.items()}
    if url:
        clean |= dict.fromkeys(("OPENAI_BASE_URL", "OPENAI_API_BASE"), url) | {"OPENAI_API_KEY": "sk-none"}
    return script(code, *args, libraries=" ".join(_libraries(code)), folder=folder, env=clean | env)


def patient(code: str) -> str:
    """With caches that wait as long as it takes: nobody else's use of the machine is to make a hit a miss."""
    return code.replace("SemanticCache()", "SemanticCache(time_budget=60)").replace(
        "[cache]\n", "[cache]\ntime_budget = 60\n"
    )


def _libraries(code: str) -> list[str]:
    """What it would spend its time on importing, and is not ours."""
    found = ["torch", "genai_prices"]
    if "quantization=" in code:
        found += ["transformers.models.llama.modeling_llama", "bitsandbytes", "accelerate"]
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.ImportFrom) and node.module:
            found.append(node.module)
        elif isinstance(node, ast.Import):
            found += [alias.name for alias in node.names]
    return [name for name in found if name.split(".")[0] not in _OURS]
