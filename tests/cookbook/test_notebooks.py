"""The notebooks of the cookbook, run by a kernel; what they say they saved is what the provider counted."""

from __future__ import annotations

import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from cookbook.stand_in import stand_in
from costopt.audit import audit
from langchain_costopt.demo import sample_log
from tests.cookbook.recipes import SAVED, patient

NOTEBOOKS = sorted((Path(__file__).parents[2] / "cookbook" / "notebooks").glob("*.ipynb"))

# The machinery of kernels, and not what runs in them.
OF_KERNELS = ("DeprecationWarning", "RuntimeWarning", "ResourceWarning")
pytestmark = [pytest.mark.filterwarnings(f"ignore::{each}") for each in OF_KERNELS]


def run(name: str, folder: Path, **env: str) -> str:
    """What the cells of a notebook print; a cell that fails raises."""
    notebook = nbformat.read(NOTEBOOKS[0].parent / f"{name}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = patient(cell.source)
    clean = {each: value for each, value in os.environ.items() if "REDIS" not in each}
    given = clean | {"COSTOPT_CACHE_DIR": str(folder), "COSTOPT_LEDGER": str(folder / "ledger.db")} | env
    client = NotebookClient(notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}})
    client.execute(env=given)
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output.get("name") == "stderr"]
    return "".join(output["text"] for output in outputs if output["output_type"] == "stream")


def test_the_cache(tmp_path: Path) -> None:
    with stand_in() as server:
        said = run("langchain_cache", tmp_path, OPENAI_API_KEY="sk-none", OPENAI_BASE_URL=server.url)
    # Four different questions, an order being no other one, and the one whose answer was rejected.
    assert len(server.bill) == said.count("paid") == 5
    assert said.count("served: asked as 'How do I reset my password?'") == 2
    [(saved, of, _)] = SAVED.findall(said)
    assert float(of) - float(saved) == pytest.approx(float(server.dollars()), abs=2e-6)
    served = 2 * server.dollars(0, 1) + server.dollars(1, 2)
    assert float(saved) == pytest.approx(float(served), abs=1e-6)


def test_the_audit(tmp_path: Path) -> None:
    said = run("audit_log", tmp_path)
    [(saved, of, _)] = SAVED.findall(said)
    to_the_letter = audit(sample_log()).together
    assert of == str(to_the_letter["before"])
    # What the judge let pass comes on top.
    assert to_the_letter["saves"] < Decimal(saved) < to_the_letter["before"]
    levers = {name: Decimal(amount) for name, amount in re.findall(r"^(\w+ cache) +\$ *([\d.]+)", said, re.MULTILINE)}
    assert levers["exact cache"] == to_the_letter["saves"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_it_is_kept_without_what_it_printed(path: Path) -> None:
    notebook: Any = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not [cell for cell in code if cell.outputs or cell.execution_count]
    assert set(notebook.metadata) == {"kernelspec", "language_info"}
    # Text stands before every piece of code.
    kinds = [cell.cell_type for cell in notebook.cells]
    assert kinds == ["markdown", "code"] * len(code)
    assert 'print(f"saved $' in code[-1].source
