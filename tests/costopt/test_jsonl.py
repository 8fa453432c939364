"""Reading JSON lines."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path

import pytest

from costopt.jsonl import read_jsonl


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.jsonl.gz", "-"])
def test_a_byte_order_mark_is_no_part_of_the_first_line(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PowerShell begins files, and what it pipes, with one; inside a text it stays."""
    rows = [{"a": "\ufeffone"}, {"a": "two"}]
    text = "\ufeff" + "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    data = text.encode()
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
    assert [row for _, row in read_jsonl("-" if name == "-" else tmp_path / name)] == rows
