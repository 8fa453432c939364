"""Tries a wheel: each extra alone in an environment of its own, with what it promises really used."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cookbook.release.artefacts import Built
from cookbook.release.environments import Environment, Resolution, installed

__all__ = ["COMPANIONS", "EXTRAS", "Trial", "served", "tried"]

SMOKE = Path(__file__).with_name("smoke")
_LINES = 12  # of what a script that failed has said
# By extra: the scripts that must run.
EXTRAS: dict[str, tuple[str, ...]] = {
    "": ("none",),
    "langchain": ("langchain",),
    "llamaindex": ("llamaindex",),
    "redis": ("redis",),
    "minilm": ("minilm",),
    "compress": ("compress",),
    "local": ("local",),
    "structured": ("structured",),
    "served": ("served",),
    "batch": ("batch",),
    "gpu": ("gpu",),
    "all": ("none", "langchain", "llamaindex", "redis", "minilm", "local"),
}
# What is added to an environment when its extra was tried alone: the packages through which most people use it.
COMPANIONS = {"langchain": ("langchain", "langchain-openai"), "llamaindex": ("llama-index-llms-openai",)}


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of one extra.

    Attributes:
        extra: Its name; empty: the base install.
        python: The release of Python, as asked for.
        resolution: Newest or oldest releases.
        environment: Where it was tried; None if nothing could be installed.
        faults: What did not work; nothing, if all did.
        said: What the scripts saw.
        seconds: It took.
    """

    extra: str
    python: str
    resolution: Resolution
    environment: Environment | None
    faults: tuple[str, ...]
    said: tuple[str, ...]
    seconds: float

    @property
    def called(self) -> str:
        """For people."""
        return f"[{self.extra}] {self.resolution}, Python {self.python}" if self.extra else f"base {self.resolution}"


@contextmanager
def served(folder: Path) -> Iterator[dict[str, str]]:
    """What the scripts ask: servers on loopback that speak OpenAI's API and batches, a Redis, and a small model."""
    from tests.batch_server import batch_server
    from tests.openai_server import openai_server
    from tests.servers import RedisServer
    from tests.tiny_models import Shape, random_model

    model = random_model(folder / "model", Shape())
    with openai_server() as openai, batch_server() as batches, RedisServer() as redis:
        root = batches.url.removesuffix("/v1")
        yield {"SMOKE_OPENAI": openai.url, "SMOKE_BATCHES": root, "SMOKE_REDIS": redis.url, "SMOKE_MODEL": str(model)}


def tried(built: Built, extra: str, resolution: Resolution, python: str, folder: Path, env: Mapping[str, str]) -> Trial:
    """Install it and run its scripts; what fails is told, not raised."""
    started = time.monotonic()
    place = folder / f"{extra or 'base'}-{resolution}-{python.replace('/', '_')}"
    environment, faults, said = None, [], []
    try:
        environment = installed(built, extra, resolution, place, python)
        for script, *arguments in _scripts(extra, env):
            fault, line = _ran(environment, script, arguments, env)
            faults += fault
            said += line
        if extra in COMPANIONS:
            environment.add(COMPANIONS[extra])
            fault, line = _ran(environment, f"smoke_{extra}", [], env)
            faults += fault
            said += line
    except subprocess.CalledProcessError as error:
        faults.append(f"{' '.join(map(str, error.cmd))}: {error.stderr}")
    return Trial(extra, python, resolution, environment, tuple(faults), tuple(said), time.monotonic() - started)


def _scripts(extra: str, env: Mapping[str, str]) -> Iterator[tuple[str, ...]]:
    yield "missing", env["SMOKE_MODEL"]
    yield from ((f"smoke_{name}",) for name in EXTRAS[extra])


def _ran(
    environment: Environment, script: str, arguments: list[str], env: Mapping[str, str]
) -> tuple[list[str], list[str]]:
    cache = environment.folder / "cache"
    done = environment.run(SMOKE / f"{script}.py", *arguments, env={**env, "COSTOPT_CACHE_DIR": str(cache)})
    if done.returncode:
        return [f"{script}: " + "\n    ".join(done.stderr.strip().splitlines()[-_LINES:])], []
    return [], [f"{script}: {line}" for line in done.stdout.splitlines()]
