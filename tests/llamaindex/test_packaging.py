"""What LlamaHub reads of this package is true."""

from __future__ import annotations

import importlib
import tomllib
from pathlib import Path

import llamaindex_costopt

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text("utf-8"))
HUB = PROJECT["tool"]["llamahub"]


def test_every_class_is_listed_with_its_author_and_where_it_is_imported_from() -> None:
    module = importlib.import_module(HUB["import_path"])
    assert sorted(HUB["class_authors"]) == sorted(llamaindex_costopt.__all__)
    assert all(isinstance(getattr(module, name), type) for name in HUB["class_authors"])
    assert all(HUB["class_authors"].values())


def test_the_wheel_holds_what_is_imported() -> None:
    assert HUB["import_path"] in PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]
    assert HUB["contains_example"] is False
    assert any(
        each.startswith("llama-index-core>=") for each in PROJECT["project"]["optional-dependencies"]["llamaindex"]
    )
