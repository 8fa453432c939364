"""The command line as a user runs it: a process of its own, with its streams and its exit code.

A command spends seconds on importing libraries before it does anything. So the processes are forks of one that has
imported those (the libraries only: nothing of costopt); they read the environment, run and end as any other.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

__all__ = ["costopt"]

_LIBRARIES = "torch transformers.models.bert langchain_core.language_models redis genai_prices typer rich usearch.index"

_SERVER = f"""
import importlib, json, os, sys
for name in {_LIBRARIES.split()!r}:
    importlib.import_module(name)
for line in sys.stdin:
    call = json.loads(line)
    child = os.fork()
    if not child:
        break
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
else:
    os._exit(0)
for target, (name, flags) in enumerate(call["streams"]):
    os.dup2(os.open(name, flags), target)
sys.stdin = open(0, encoding="utf-8", closefd=False)
os.environ.clear()
os.environ.update(call["env"])
sys.argv = ["costopt", *call["args"]]
from costopt.cli import main
main()
"""


def costopt(*args: object, folder: Path, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `costopt ARGS` with its files in `folder`, no Redis unless `env` names one, and warnings as errors."""
    clean = {name: value for name, value in os.environ.items() if "REDIS" not in name}
    given = {**clean, "COSTOPT_CACHE_DIR": str(folder), "COLUMNS": "100", **env}
    words = list(map(str, args))
    with tempfile.TemporaryDirectory() as place:
        said = [Path(place, name) for name in ("stdin", "stdout", "stderr")]
        said[0].write_text(stdin or "", "utf-8")
        reads, writes = os.O_RDONLY, os.O_WRONLY | os.O_CREAT
        streams = [(str(path), flags) for path, flags in zip(said, (reads, writes, writes), strict=True)]
        code = _asked({"args": words, "env": given, "streams": streams})
        out, err = (path.read_text("utf-8") for path in said[1:])
    return subprocess.CompletedProcess(["costopt", *words], code, out, err)


_turn = threading.Lock()


def _asked(call: dict[str, object]) -> int:
    with _turn:
        server = _server()
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(call) + "\n")
        server.stdin.flush()
        return int(server.stdout.readline())


@functools.cache
def _server() -> subprocess.Popen[str]:
    # It ends with its stdin, and so with this process.
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
