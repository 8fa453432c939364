"""Compression: fewer tokens, the same answers. See `Compressor`."""

from costopt.compression.books import CompressionStats
from costopt.compression.compressor import Compressor
from costopt.compression.counting import Counter
from costopt.compression.dropper import TokenDropper
from costopt.compression.duplicates import Duplicate, near_duplicates
from costopt.compression.history import HistoryCompressor, HistoryResult, compress_history
from costopt.compression.llmlingua import LLMLingua2
from costopt.compression.protect import DEFAULT_KINDS, Protect, protected_spans
from costopt.compression.result import CompressionResult, Dropped, Piece, Span, assemble
from costopt.compression.score import Mix

__all__ = [
    "DEFAULT_KINDS",
    "CompressionResult",
    "CompressionStats",
    "Compressor",
    "Counter",
    "Dropped",
    "Duplicate",
    "HistoryCompressor",
    "HistoryResult",
    "LLMLingua2",
    "Mix",
    "Piece",
    "Protect",
    "Span",
    "TokenDropper",
    "assemble",
    "compress_history",
    "near_duplicates",
    "protected_spans",
]
