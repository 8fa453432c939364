"""What the scripts beside this one share: an embedder that needs nothing, and models' addresses."""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

__all__ = ["ASKED", "FOLDER", "REWORDED", "Words", "address"]

ASKED = "How do I reset my password?"
REWORDED = "How can I reset my password?"
FOLDER = Path(tempfile.mkdtemp())


class Words:
    """Embeds a text by the words in it: enough to see that what is reworded is found."""

    name, dimension = "words", 64

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """One row a text."""
        rows = np.zeros((len(texts), self.dimension), dtype=np.float32)
        for row, text in zip(rows, texts, strict=True):
            for word in re.findall(r"\w+", text.lower()):
                row[crc32(word.encode()) % self.dimension] += 1
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)


def address(of: str) -> str:
    """Where the check serves "openai", "batches", "redis" or keeps "model"."""
    return os.environ[f"SMOKE_{of.upper()}"]
