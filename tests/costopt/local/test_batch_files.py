"""The files of a batch: what a row is known by, what is kept when a write was cut off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.errors import ConfigError
from costopt.local.batch_files import AnswerFile, read_rows, row_id
from tests.costopt.local.batch_rows import row, written


def test_two_runs_do_not_write_one_file(tmp_path: Path) -> None:
    pytest.importorskip("fcntl")
    with AnswerFile(tmp_path / "out.jsonl"), pytest.raises(ConfigError, match="being written by another run"):
        AnswerFile(tmp_path / "out.jsonl")
    AnswerFile(tmp_path / "out.jsonl").close()


def test_a_file_of_something_else_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.jsonl"
    path.write_text('{"id": "a"}\nremember the milk\n')
    with pytest.raises(ConfigError, match="line 2: this is no file of answers"):
        AnswerFile(path)
    assert path.read_text().endswith("milk\n")


def test_rows_of_a_file_keep_their_order(tmp_path: Path) -> None:
    asked = written(tmp_path / "asked.jsonl", [row(i) for i in range(4)])
    assert [each.custom_id for each in read_rows(asked)] == [f"row-{i}" for i in range(4)]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
BODIES = st.dictionaries(st.text(), JSON, max_size=4)


@given(st.none() | st.text(), BODIES)
def test_an_id_is_of_what_a_row_says(custom_id: str | None, body: dict[str, Any]) -> None:
    turned = dict(reversed(body.items()))
    assert row_id(custom_id, body) == row_id(custom_id, turned) == row_id(custom_id, json.loads(json.dumps(body)))
    assert row_id(custom_id, body) != row_id(f"{custom_id}x", body)
    assert row_id(custom_id, body) != row_id(custom_id, {**body, "more": 1})


@given(st.lists(st.text(max_size=20), max_size=8), st.integers(0, 40))
def test_whatever_was_cut_off_only_the_torn_line_is_lost(
    tmp_path_factory: pytest.TempPathFactory, texts: list[str], cut: int
) -> None:
    path = tmp_path_factory.mktemp("cut") / "out.jsonl"
    with AnswerFile(path) as file:
        for i, text in enumerate(texts):
            file.append({"id": str(i), "text": text})
    data = path.read_bytes()
    kept = data[: max(0, len(data) - cut)]
    path.write_bytes(kept)
    with AnswerFile(path) as file:
        assert file.done == {str(i) for i in range(kept.count(b"\n"))}
        file.append({"id": "last"})
    assert [json.loads(line)["id"] for line in path.read_bytes().splitlines()][-1] == "last"
