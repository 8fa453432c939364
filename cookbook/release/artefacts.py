"""Builds the wheel and the source distribution, and looks at what is in them."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

__all__ = ["PACKAGES", "Built", "build", "faults_of", "faults_of_wheel"]

ROOT = Path(__file__).parents[2]
# Where each package of the wheel lies in the repository.
PACKAGES = {name: ROOT / name for name in ("langchain_costopt", "llamaindex_costopt")} | {
    "costopt": ROOT / "shared" / "costopt"
}
# In a package of the wheel, but elsewhere in the repository.
_ELSEWHERE = {"langchain_costopt/data/requests.jsonl"}
_IN_SDIST = {
    *("shared", "langchain_costopt", "llamaindex_costopt", "cookbook"),
    *("README.md", "CHANGELOG.md", "LICENSE", "pyproject.toml", "PKG-INFO", ".gitignore"),
}


@dataclass(frozen=True, slots=True)
class Built:
    """A wheel and a source distribution of one version.

    Attributes:
        wheel: Built from the repository.
        rebuilt: The wheel built from the source distribution.
        sdist: The source distribution.
    """

    wheel: Path
    rebuilt: Path
    sdist: Path

    @property
    def version(self) -> str:
        """As the wheel's name says it."""
        return self.wheel.name.split("-")[1]


def build(folder: Path) -> Built:
    """Build both into a folder."""
    _uv("build", "--quiet", "--sdist", "--wheel", "--out-dir", folder, ROOT)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    _uv("build", "--quiet", "--wheel", "--out-dir", folder / "rebuilt", sdist)
    return Built(wheel, next((folder / "rebuilt").glob("*.whl")), sdist)


def faults_of(built: Built) -> list[str]:
    """What is wrong with them; nothing, if all is well."""
    done = subprocess.run(
        [sys.executable, "-m", "twine", "check", "--strict", built.wheel, built.sdist], capture_output=True, text=True
    )
    faults = [] if done.returncode == 0 else [f"twine: {done.stdout}{done.stderr}"]
    ours, theirs = _contents(built.wheel), _contents(built.rebuilt)
    different = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
    if different:
        faults.append(f"the wheel built from the source distribution has other files: {', '.join(different)}")
    with tarfile.open(built.sdist) as archive:
        strangers = {Path(name).parts[1] for name in archive.getnames() if len(Path(name).parts) > 1} - _IN_SDIST
    faults += [f"the source distribution holds {name}" for name in sorted(strangers)]
    return faults + faults_of_wheel(built.wheel)


def faults_of_wheel(wheel: Path) -> list[str]:
    """What is in a wheel and should not be, and the other way round."""
    names = set(_contents(wheel))
    info = f"costopt-{wheel.name.split('-')[1]}.dist-info"
    packed = {name for name in names if not name.startswith(info)}
    wanted = _ELSEWHERE | {
        f"{package}/{file.relative_to(folder).as_posix()}"
        for package, folder in PACKAGES.items()
        for file in _files(folder)
    }
    faults = [f"the wheel lacks {name}" for name in sorted(wanted - packed)]
    faults += [f"the wheel holds {name}" for name in sorted(packed - wanted)]
    needed = {f"{info}/entry_points.txt", f"{info}/licenses/LICENSE", *(f"{package}/py.typed" for package in PACKAGES)}
    faults += [f"the wheel lacks {name}" for name in sorted(needed - wanted - names)]
    with zipfile.ZipFile(wheel) as archive:
        about = HeaderParser().parsestr(archive.read(f"{info}/METADATA").decode())
    direct = [line for line in about.get_all("Requires-Dist", []) if "@" in line]
    return faults + [f"a dependency is an address, which no index takes: {line}" for line in direct]


def _files(folder: Path) -> Iterable[Path]:
    return (
        file
        for file in folder.rglob("*")
        if file.is_file() and "__pycache__" not in file.parts and not file.name.startswith(".")
    )


def _contents(wheel: Path) -> dict[str, str]:
    """Hashes of all that is in it; the list of them is in the order of packing, and left out."""
    with zipfile.ZipFile(wheel) as archive:
        names = (name for name in archive.namelist() if not name.endswith(".dist-info/RECORD"))
        return {name: hashlib.sha256(archive.read(name)).hexdigest() for name in names}


def _uv(*arguments: object) -> None:
    subprocess.run([Path(sys.executable).with_name("uv"), *map(str, arguments)], check=True)
