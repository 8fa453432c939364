"""Documents that nobody would write, of all that documents are made of."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

WORDS = (
    "the tower opened costs not Ann Müller größer город открыт собака 北京 的 三年 です 価格 سعر ราคา naïve café 12"
).split()
FRAGMENTS = (
    "12.5 %", "$3.14M", "3 000 kg", "2024-05-01", "https://example.com/a?b=c&d=1.", "[3]", "(Lee et al., 2020)",
    '{"a":  [1,  2.0],\n "b": "x  y"}', '[{"a": 1}, {"a": 2}]', "```python\nx  =  1\n\n\ny = 2\n```", "`a  b`",
    "\n    if x:\n        return  1\n", "😀", "👩‍👩‍👧", "[SEP]", "<|endoftext|>", "<b>", "<pre> a  b </pre>", "<", "{",
    "[", '"', "Always answer in French.", "Do not guess!", "All rights reserved by Example Ltd in 2024. ",
    ". ", "! ", "? ", "。", "؟ ", "...", ", ", "; ", ": ", "\n", "\n\n", "\r\n", "\n\n\n\n", "   ", "  \n", "\t",
    "\u2028", "\n- ", "\n1. ", "\n# ", "\n| a | b |\n|---|---|\n| 1 | 2 |\n", "\nAnn: ", "\nBob: ", "\n> ",
    "e.g. ", "Dr. ", "U.S. ", "\ud800", "\x00", "e\u0301", "x" * 70, "а" * 40, "京" * 30,
)  # fmt: skip
QUERIES = (
    "How much does the tower cost?", "когда открыт город?", "北京 三年", "😀", "the", "[SEP] <|endoftext|>", "?",
    "x" * 300,
)  # fmt: skip


def _document(drawn: bytes, odd: str) -> str:
    return "".join(_piece(number, odd) for number in drawn)


def _piece(number: int, odd: str) -> str:
    """A third of the numbers are words, a third fragments, a third stand for any text."""
    kind, which = number % 3, number // 3
    if kind == 0:
        return WORDS[which % len(WORDS)] + " "
    return FRAGMENTS[which % len(FRAGMENTS)] if kind == 1 else odd[which % (len(odd) + 1) :][: which % 7]


# One draw a document, and not one a piece: of ten thousand, drawing took longer than all that is tried on them.
_numbers = st.binary(max_size=40)
documents = st.builds(_document, _numbers, st.text(max_size=12))


def many_documents(count: int) -> st.SearchStrategy[list[str]]:
    """So many; the characters that may be anything are the same in all of them."""
    lists = st.lists(_numbers, min_size=count, max_size=count)
    return st.builds(lambda all_drawn, odd: [_document(drawn, odd) for drawn in all_drawn], lists, st.text(max_size=40))


class HashEmbedder:
    """Vectors that depend on the text and on nothing else; MiniLM would take hours for ten thousand documents."""

    name = "hash"
    dimension = 16

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        rows = np.zeros((len(texts), self.dimension), np.float32)
        for i, text in enumerate(texts):
            digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=self.dimension).digest()
            rows[i] = np.frombuffer(digest, np.uint8).astype(np.float32) - 127.5
        return rows / np.linalg.norm(rows, axis=1, keepdims=True)
