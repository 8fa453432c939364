"""An environment of its own for each extra, with the newest or the oldest releases that pyproject.toml allows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PathDistribution
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from cookbook.release.artefacts import ROOT, Built

__all__ = ["Environment", "Resolution", "extras_of", "installed"]

Resolution = Literal["newest", "oldest"]
_UV = {"newest": "highest", "oldest": "lowest-direct"}


@dataclass(frozen=True, slots=True)
class Environment:
    """A virtual environment with costopt and one extra.

    Attributes:
        folder: Where it lies.
        extra: Its extra; empty: none.
        resolution: Which releases of what it asks for.
        pins: File with the exact releases of everything but costopt.
        direct: What costopt itself asks for with this extra, and in which release.
        packages: How many there are, costopt included.
        bytes: Of all that was installed.
    """

    folder: Path
    extra: str
    resolution: Resolution
    pins: Path
    direct: Mapping[str, str]
    packages: int
    bytes: int

    @property
    def python(self) -> Path:
        """Its interpreter."""
        return self.folder / "bin" / "python"

    def add(self, packages: Sequence[str]) -> None:
        """Install more, without changing what is there."""
        _uv("pip", "install", "--python", self.python, *packages, "--constraint", self.pins)

    def run(self, script: Path, *arguments: object, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
        """Run a script there, with nothing of this process's environment but `env` and the paths of programs."""
        given = {"PATH": f"{self.folder / 'bin'}:{os.defpath}", "HOME": str(self.folder), "TMPDIR": str(self.folder)}
        command = [str(self.python), str(script), *map(str, arguments)]
        return subprocess.run(
            command, capture_output=True, text=True, env={**given, **env}, timeout=300, cwd=self.folder, check=False
        )


def extras_of(built: Built) -> dict[str, list[Requirement]]:
    """What the wheel asks for, by extra; under "" what it always does. Extras of its own are followed."""
    distribution = PathDistribution(_metadata(built))
    extras = ["", *(distribution.metadata.get_all("Provides-Extra") or [])]
    asked = [Requirement(line) for line in distribution.requires or []]
    return {extra: list(_asked(asked, extra)) for extra in extras}


def _metadata(built: Built) -> Path:
    folder = built.wheel.with_suffix(".unpacked")
    if not folder.exists():
        shutil.unpack_archive(built.wheel, folder, "zip")
    return folder / f"costopt-{built.version}.dist-info"


def _asked(asked: Sequence[Requirement], extra: str) -> Iterator[Requirement]:
    for requirement in asked:
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        if canonicalize_name(requirement.name) == "costopt":
            for below in sorted(requirement.extras):
                yield from (each for each in _asked(asked, below) if each.marker)
        elif extra == "" or requirement.marker:
            yield requirement


def installed(built: Built, extra: str, resolution: Resolution, folder: Path, python: str) -> Environment:
    """Make the environment.

    torch is the release of constraints.txt: where there is one for CPUs, that is the one, and plain `torch` would bring
    several GB for GPUs into each environment.

    Raises:
        subprocess.CalledProcessError: If nothing resolves, or it cannot be installed; its `stderr` says why.
    """
    folder.mkdir(parents=True)
    asked = [*extras_of(built)[""], *(extras_of(built)[extra] if extra else [])]
    wanted, torch, pins = folder / "asked.txt", folder / "torch.txt", folder / "pins.txt"
    wanted.write_text("".join(f"{_plain(requirement)}\n" for requirement in asked), "utf-8")
    torch.write_text(next(line for line in (ROOT / "constraints.txt").read_text().splitlines() if "torch==" in line))
    how = ["--resolution", _UV[resolution], "--python", python, "--constraint", torch]
    _uv("pip", "compile", *how, "--no-header", "--output-file", pins, wanted)
    place = folder / "venv"
    _uv("venv", "--python", python, place)
    name = f"costopt[{extra}] @ {built.wheel.as_uri()}" if extra else str(built.wheel)
    _uv("pip", "install", "--python", place, "--constraint", pins, name)
    there = json.loads(_uv("pip", "list", "--python", place, "--format", "json"))
    versions = {canonicalize_name(each["name"]): each["version"] for each in there}
    direct = {each: versions[each] for each in sorted({canonicalize_name(each.name) for each in asked})}
    size = sum(file.stat().st_size for file in place.glob("lib/*/site-packages/**/*") if file.is_file())
    return Environment(place, extra, resolution, pins, direct, len(versions), size)


def _plain(requirement: Requirement) -> Requirement:
    plain = Requirement(str(requirement))
    plain.marker = None
    return plain


def _uv(*arguments: object) -> str:
    """Runs uv, which does not read pip's settings: where a machine keeps wheels of its own, it is told."""
    links = os.environ.get("PIP_FIND_LINKS", "").split()
    env = {**os.environ, "UV_FIND_LINKS": ",".join(links)} if links else dict(os.environ)
    command = [str(Path(sys.executable).with_name("uv")), *map(str, arguments), "--quiet"]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
