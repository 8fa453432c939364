"""A question, the same in other words, and others that it must not be taken for."""

from __future__ import annotations

__all__ = ["PARAPHRASE", "QUESTION", "UNRELATED"]

QUESTION = "How do I reset my password?"
PARAPHRASE = "How can I reset my password?"
UNRELATED = [
    "How do I cancel my subscription?",
    "What are your opening hours?",
    "Which planets have rings?",
    "How do I sort a list in Python?",
    "Where is my parcel?",
]
