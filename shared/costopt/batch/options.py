"""The options of a batch runner as the adapters take them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TypedDict

from costopt.batch.journal import Journal
from costopt.batch.pace import Backoff
from costopt.pricing import Price

__all__ = ["BatchOptions"]


class BatchOptions(TypedDict, total=False):
    """The options of `costopt.batch.BatchRunner`; the provider is the model's, and so is the cache."""

    journal: Journal | str | os.PathLike[str] | None
    backoff: Backoff | None
    tries: int
    settle: float
    keep: float
    prices: Mapping[str, Price] | None
