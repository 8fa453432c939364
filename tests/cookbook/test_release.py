"""What `make release-check` goes by; the check itself installs two dozen environments and is no test of the suite."""

from __future__ import annotations

import tomllib
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from cookbook.release.artefacts import PACKAGES, ROOT, faults_of_wheel
from cookbook.release.trial import COMPANIONS, EXTRAS, SMOKE
from costopt import __version__

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]


def test_every_extra_is_tried() -> None:
    assert set(EXTRAS) - {""} == set(PROJECT["optional-dependencies"])
    assert set(COMPANIONS) <= set(EXTRAS)
    assert all((SMOKE / f"smoke_{name}.py").is_file() for names in EXTRAS.values() for name in names)


def test_every_dependency_says_its_oldest_release() -> None:
    """Or there were no oldest ones to try."""
    asked = [*PROJECT["dependencies"], *(line for lines in PROJECT["optional-dependencies"].values() for line in lines)]
    bounded = [Requirement(line) for line in asked]
    assert all(
        any(bound.operator == ">=" for bound in requirement.specifier)
        for requirement in bounded
        if requirement.name != "costopt"
    )


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    """All that belongs into one, put together by hand."""
    made, info = tmp_path / f"costopt-{__version__}-py3-none-any.whl", f"costopt-{__version__}.dist-info"
    with zipfile.ZipFile(made, "w") as archive:
        for package, folder in PACKAGES.items():
            for file in folder.rglob("*"):
                if file.is_file() and "__pycache__" not in file.parts:
                    archive.write(file, f"{package}/{file.relative_to(folder)}")
        archive.writestr("langchain_costopt/data/requests.jsonl", "")
        archive.writestr(f"{info}/entry_points.txt", "")
        archive.writestr(f"{info}/licenses/LICENSE", "")
        archive.writestr(f"{info}/METADATA", "Name: costopt\nRequires-Dist: numpy>=1.26\n\n")
    return made


def test_a_whole_wheel_has_no_fault(wheel: Path) -> None:
    assert faults_of_wheel(wheel) == []


def test_what_does_not_belong_into_a_wheel_and_what_is_missing_are_told(wheel: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    other = tmp_path / "other" / wheel.name
    with zipfile.ZipFile(wheel) as archive, zipfile.ZipFile(other, "w") as changed:
        for name in archive.namelist():
            if name != "costopt/py.typed":
                changed.writestr(name, archive.read(name))
        changed.writestr("tests/test_cli.py", "")
    assert faults_of_wheel(other) == [
        "the wheel lacks costopt/py.typed",
        "the wheel holds tests/test_cli.py",
    ]
