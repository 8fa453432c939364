"""Build what would be published, look at it, and try each extra alone in an empty environment.

    python -m cookbook.release [EXTRA ...] [--python 3.12] [--oldest | --newest]

"base" is the install without an extra. Ends with 1 if anything does not work.
"""

from __future__ import annotations

import argparse
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.table import Table

from cookbook.release.artefacts import Built, build, faults_of
from cookbook.release.environments import Resolution
from cookbook.release.trial import EXTRAS, Trial, served, tried

__all__ = ["main"]


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m cookbook.release", description=(__doc__ or "").splitlines()[0])
    names = ["base", *(extra for extra in EXTRAS if extra)]
    parser.add_argument("extras", nargs="*", metavar="EXTRA", help=f"only these of {', '.join(names)}")
    usual = ".".join(platform.python_version_tuple()[:2])
    parser.add_argument("--python", action="append", help=f"a release, or a path to an interpreter (default: {usual})")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--oldest", action="store_const", dest="only", const="oldest", help="only the oldest releases")
    which.add_argument("--newest", action="store_const", dest="only", const="newest", help="only the newest releases")
    given = parser.parse_args()
    if unknown := sorted(set(given.extras) - set(names)):
        parser.error(f"{', '.join(unknown)}: there are {', '.join(names)}")
    extras = ["" if name == "base" else name for name in given.extras or names]
    resolutions: Sequence[Resolution] = [given.only] if given.only else ["newest", "oldest"]
    console = Console()
    with TemporaryDirectory(prefix="costopt-release-") as place:
        built = build(Path(place) / "dist")
        faults = faults_of(built)
        _tell_built(console, built, faults)
        with served(Path(place)) as env:
            for python in given.python or [usual]:
                for extra in extras:
                    for resolution in resolutions:
                        trial = tried(built, extra, resolution, python, Path(place) / "environments", env)
                        _tell(console, trial)
                        faults += trial.faults
    console.print(f"{len(faults)} faults", style="red" if faults else "green")
    return 1 if faults else 0


def _tell_built(console: Console, built: Built, faults: Sequence[str]) -> None:
    table = Table("file", "MB")
    for file in (built.wheel, built.sdist):
        table.add_row(file.name, f"{file.stat().st_size / 1e6:.1f}")
    console.print(table)
    for fault in faults:
        console.print(fault, style="red", markup=False)


def _tell(console: Console, trial: Trial) -> None:
    there = trial.environment
    size = f"{there.packages} packages, {there.bytes / 1e6:.0f} MB, " if there else ""
    style = "red" if trial.faults else "green"
    console.print(f"{trial.called}: {size}{trial.seconds:.0f} s", style=style, markup=False, highlight=False)
    if there:
        console.print("  " + ", ".join(f"{name} {version}" for name, version in there.direct.items()), markup=False)
    for line in (*trial.said, *trial.faults):
        console.print(f"  {line}", markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    sys.exit(main())
