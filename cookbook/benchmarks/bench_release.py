"""What would be published, in empty environments: what works there, how large it is, what importing it costs."""

from __future__ import annotations

import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import costopt
import langchain_costopt
import llamaindex_costopt
from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options
from cookbook.release.artefacts import Built, build, faults_of
from cookbook.release.environments import Environment, Resolution
from cookbook.release.trial import EXTRAS, Trial, served, tried

__all__ = ["run"]

_PYTHON = "3.11"
_ROUNDS = 5
_MB = 1e6
# What an application has imported already, by the extra in whose environment the classes are imported.
_BEFORE = {
    "": "pass",
    "langchain": "import langchain.agents.middleware, langchain_core.language_models",
    "llamaindex": "import llama_index.core.llms.llm",
}
_CLOCK = "import time; begun = time.process_time(); {then}; print(time.process_time() - begun)"
_CORE = "SemanticCache Router Compressor Ledger Optimizer TransformersEngine".split()


def run(options: Options) -> dict[str, Any]:
    """Every extra, newest and oldest; with `--quick` those without torch, newest."""
    with TemporaryDirectory(prefix="costopt-release-") as place:
        built = build(Path(place) / "dist")
        faults = faults_of(built)
        trials = _trials(built, Path(place), options.quick)
        faults += [f"{trial.called}, {fault}" for trial in trials for fault in trial.faults]
        there = {
            trial.extra: trial.environment for trial in trials if trial.environment and trial.resolution == "newest"
        }
        imports = _imports({extra: there[extra] for extra in _BEFORE if extra in there})
        sizes = {file.name: file.stat().st_size for file in (built.wheel, built.sdist)}
    print(*faults, sep="\n", file=sys.stderr)
    own = next(float(row[2]) for row in imports if row[1] == "import costopt")
    return {
        "bars": [
            at_most(f"what does not work, of wheel, source distribution and {len(trials)} installs", len(faults), 0),
            at_most("`import costopt`, CPU", own, 50, " ms"),
        ],
        "tables": [
            table(f"Each extra alone in an empty environment, Python {_PYTHON}", _COLUMNS, _rows(trials)),
            table("CPU of importing, on top of what an application has imported already, ms", _IMPORTED, imports),
        ],
        "notes": [
            "; ".join(f"{name}: {size / _MB:.1f} MB" for name, size in sizes.items()) + ".",
            _ABOUT,
            *(f"Does not work: {fault.splitlines()[0].split(': ')[0]}." for fault in faults),
        ],
    }


_ABOUT = (
    "Oldest: the lower bounds of pyproject.toml for what costopt itself asks for. torch is the release of "
    "constraints.txt in both. In every environment what is not installed was asked for, "
    "too, and named the command that installs it."
)
_COLUMNS = ["extra", "releases", "packages", "MB", "on top of the base, MB", "works", "with"]
_IMPORTED = ["before", "import", "ms (median)", "rounds"]


def _trials(built: Built, place: Path, quick: bool) -> list[Trial]:
    resolutions: Sequence[Resolution] = ["newest"] if quick else ["newest", "oldest"]
    chosen = [extra for extra in EXTRAS if not quick or extra in _BEFORE]
    with served(place) as env:
        return [
            tried(built, extra, resolution, _PYTHON, place / "environments", env)
            for extra in chosen
            for resolution in resolutions
        ]


def _rows(trials: Sequence[Trial]) -> list[list[str]]:
    base = {trial.resolution: trial.environment for trial in trials if not trial.extra}
    return [_row(trial, base[trial.resolution]) for trial in trials]


def _row(trial: Trial, base: Environment | None) -> list[str]:
    there, works = trial.environment, "**no**" if trial.faults else "yes"
    if there is None:
        return [trial.extra or "none", trial.resolution, "–", "–", "–", works, "–"]
    more = "–" if base is None or not trial.extra else f"{(there.bytes - base.bytes) / _MB:,.0f}"
    usual = set(base.direct) if base is not None and trial.extra else set()
    versions = ", ".join(f"{name} {version}" for name, version in there.direct.items() if name not in usual)
    size = [f"{there.packages}", f"{there.bytes / _MB:,.0f}"]
    return [trial.extra or "none", trial.resolution, *size, more, works, versions]


def _imports(there: Mapping[str, Environment]) -> list[list[str]]:
    rows = []
    for extra, environment in there.items():
        for then in _statements(extra):
            _seconds(environment, extra, then)  # compiles what is not compiled yet
            taken = [_seconds(environment, extra, then) for _ in range(_ROUNDS)]
            rows.append([_BEFORE[extra], then, f"{statistics.median(taken) * 1000:.0f}", f"{_ROUNDS}"])
    return rows


def _statements(extra: str) -> list[str]:
    if not extra:
        return ["import costopt", *(f"from costopt import {name}" for name in _CORE if name in costopt.__all__)]
    package: Any = langchain_costopt if extra == "langchain" else llamaindex_costopt
    name = package.__name__
    return [f"import {name}", *(f"from {name} import {each}" for each in package.__all__)]


def _seconds(environment: Environment, extra: str, then: str) -> float:
    script = environment.folder / "import.py"
    script.write_text(f"{_BEFORE[extra]}\n{_CLOCK.format(then=then)}\n", "utf-8")
    done = environment.run(script, env={})
    done.check_returncode()
    return float(done.stdout)
