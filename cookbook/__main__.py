"""`python -m cookbook NAME` runs a recipe without a key, against a stand-in on loopback; without NAME it lists them.

`python -m cookbook serve` says what to set so that notebooks, and whatever else, ask the stand-in; Ctrl-C ends it.
"""

from __future__ import annotations

import argparse
import os
import runpy
import signal
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path

__all__ = ["RECIPES"]

HERE = Path(__file__).parent
_NO_RECIPES = ("__init__", "__main__", "stand_in")
RECIPES = {path.stem: path for path in sorted(HERE.glob("*.py")) if path.stem not in _NO_RECIPES}


def main() -> None:
    """Run the recipe that the command line names."""
    parser = argparse.ArgumentParser(prog="python -m cookbook", description=__doc__)
    parser.add_argument("recipe", nargs="?", choices=[*RECIPES, "serve"])
    name = parser.parse_args().recipe
    if name is not None:
        _run(name)
        return
    for each, path in RECIPES.items():
        print(f"{each:18} {path.read_text('utf-8').splitlines()[0].strip(chr(34))}")


def _run(name: str) -> None:
    from cookbook.stand_in import known, stand_in

    with ExitStack() as opened, suppress(KeyboardInterrupt):
        url = opened.enter_context(stand_in(known(name))).url
        os.environ |= dict.fromkeys(("OPENAI_BASE_URL", "OPENAI_API_BASE", "VLLM_BASE_URL"), url)
        # What a recipe keeps, it keeps in a folder that goes when it is done.
        if name == "serve":
            print(f"export OPENAI_API_KEY=sk-none OPENAI_BASE_URL={url} OPENAI_API_BASE={url}", flush=True)
            signal.pause()
        folder = opened.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
        os.environ |= {"OPENAI_API_KEY": "sk-none", "COSTOPT_CACHE_DIR": folder}
        os.environ |= {"COSTOPT_LEDGER": f"{folder}/ledger.db", "COSTOPT_BATCH_JOURNAL": f"{folder}/batch.db"}
        os.chdir(folder)
        sys.argv = [str(RECIPES[name])]
        runpy.run_path(str(RECIPES[name]), run_name="__main__")


if __name__ == "__main__":
    main()
