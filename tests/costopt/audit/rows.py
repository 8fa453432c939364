"""Rows of logs, as short as can be."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from costopt.audit.columns import Columns, Log
from costopt.audit.record import Record

DAY_S = 86_400.0
START = 1_795_161_600.0


def record(text: str = "Why?", at: float | None = START, model: str = "gpt-4o", **more: Any) -> Record:
    """A question."""
    given = {"input_tokens": 1_000, "output_tokens": 100, "messages": [{"role": "user", "content": text}]}
    return Record(at, model, **{**given, **more})


def log_of(records: Iterable[Record]) -> Log:
    columns = Columns()
    for each in records:
        columns.add(each)
    return columns.log()


def write(path: Path, rows: Iterable[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def asked(text: str, at: float = START, **more: Any) -> dict[str, Any]:
    """A row of a log in OpenAI's format."""
    usage = {"prompt_tokens": 1_000, "completion_tokens": 100, "prompt_tokens_details": {"cached_tokens": 0}}
    messages = [{"role": "user", "content": text}]
    return {"timestamp": at, "model": "gpt-4o", "messages": messages, "usage": usage, "answer": "So.", **more}
