"""What griffe, which reads the docstrings for the reference, is told beside mkdocs.yml."""

from __future__ import annotations

from typing import Any

import griffe

__all__ = ["OneExample"]


class OneExample(griffe.Extension):
    """Reads the section `Example:` as griffe reads `Examples:`, or its lines would not be code."""

    def on_instance(self, *, obj: griffe.Object, **_: Any) -> None:
        """Change what griffe has read, not the source."""
        if obj.docstring is not None:
            obj.docstring.value = obj.docstring.value.replace("\nExample:\n", "\nExamples:\n")
