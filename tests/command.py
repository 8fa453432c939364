"""Processes of a test's own: the command line as a user runs it, and scripts.

A process spends seconds on importing libraries before it does anything. So these are forks of one that has imported
those (the libraries only: nothing of costopt); they read the environment, run and end as any other. A test that claims
what is imported, or what the environment does to a library at its import, starts a real one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path

__all__ = ["costopt", "script"]

ROOT = Path(__file__).parents[1]
_MOST_S = 120

_LIBRARIES = "torch transformers.models.bert langchain_core.language_models redis genai_prices typer rich usearch.index"
_COSTOPT = "from costopt.cli import main; main()"

_SERVER = """
import gc, importlib, json, os, signal, sys, warnings

def next_call():
    for line in sys.stdin:
        call = json.loads(line)
        with warnings.catch_warnings(action="ignore"):
            for name in call["libraries"]:
                importlib.import_module(name)
        gc.freeze()  # or each child would go through all of it again at its end, which took longer than the rest
        child = os.fork()
        if not child:
            return call
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
    os._exit(0)

def run(call):
    for target, (name, flags) in enumerate(call["streams"]):
        os.dup2(os.open(name, flags), target)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    os.environ.clear()
    os.environ.update(call["env"])
    sys.stdout.reconfigure(encoding=os.environ.get("PYTHONIOENCODING", "utf-8"))
    os.chdir(call["folder"])
    sys.argv = call["argv"]
    if not call["strict"]:
        warnings.simplefilter("ignore")
    signal.alarm(call["most_s"])
    code, names = compile(call["code"], "<string>", "exec"), vars(sys.modules["__main__"])
    for name in [name for name in names if not name.startswith("__")]:
        del names[name]  # a script that forgets an import must fail
    exec(code, names)

run(next_call())
"""


def costopt(*args: object, folder: Path, stdin: str | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    """Run `costopt ARGS` with its files in `folder`, no Redis unless `env` names one, and warnings as errors."""
    clean = {name: value for name, value in os.environ.items() if "REDIS" not in name}
    given = {**clean, "COSTOPT_CACHE_DIR": str(folder), "COLUMNS": "100", **env}
    argv = ["costopt", *map(str, args)]
    return _run(_COSTOPT, argv, given, _LIBRARIES, stdin=stdin or "", folder=Path.cwd(), strict=True, most_s=0)


def script(
    code: str,
    *args: object,
    libraries: str,
    stdin: str = "",
    folder: Path = ROOT,
    env: Mapping[str, str] | None = None,
) -> str:
    """What Python says that runs `code` in `folder`; it must end well, in 2 minutes at most.

    `libraries` names, with blanks between, what it would spend its time on importing.
    """
    argv, given = ["-c", *map(str, args)], dict(os.environ if env is None else env)
    done = _run(code, argv, given, libraries, stdin=stdin, folder=folder, strict=False, most_s=_MOST_S)
    assert done.returncode == 0, f"exit code {done.returncode}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _run(
    code: str, argv: list[str], env: dict[str, str], libraries: str, *, stdin: str, folder: Path, **how: object
) -> subprocess.CompletedProcess[str]:
    with tempfile.TemporaryDirectory() as place:
        said = [Path(place, name) for name in ("stdin", "stdout", "stderr")]
        said[0].write_text(stdin, "utf-8")
        reads, writes = os.O_RDONLY, os.O_WRONLY | os.O_CREAT
        streams = [(str(path), flags) for path, flags in zip(said, (reads, writes, writes), strict=True)]
        call = {"code": code, "argv": argv, "env": env, "libraries": libraries.split(), "streams": streams}
        exit_code = _asked({**call, "folder": str(folder), **how})
        out, err = (path.read_text("utf-8") for path in said[1:])
    return subprocess.CompletedProcess(argv, exit_code, out, err)


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
