"""Files of a batch: what is asked, written and read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["read", "row", "written"]


def row(i: int, **body: Any) -> dict[str, Any]:
    asked = {"model": "m", "messages": [{"role": "user", "content": f"question {i}"}], **body}
    return {"custom_id": f"row-{i}", "method": "POST", "url": "/v1/chat/completions", "body": asked}


def written(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((each if isinstance(each, str) else json.dumps(each)) + "\n" for each in rows))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
