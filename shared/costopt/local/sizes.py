"""How many bytes things take: weights as bitsandbytes keeps them, and keys and values. Arithmetic only, no torch."""

from __future__ import annotations

from dataclasses import dataclass

from costopt.errors import ConfigError

__all__ = ["QUANTIZATIONS", "CacheLayer", "Matrix", "Stored", "bytes_of_dtype", "shown", "stored", "takes_four_bits"]

QUANTIZATIONS = ("none", "int8", "fp4", "nf4")
"""From the most bytes to the fewest; "none" keeps the weights as they are."""

_DTYPES = {"float32": 4, "float16": 2, "bfloat16": 2}

# bitsandbytes: one scale for 64 weights; with double quantisation 256 of those scales share one of theirs.
_BLOCK, _NESTED_BLOCK = 64, 256
_CODE = 16 * 4  # the 16 values that four bits stand for
_NESTED_CODE, _OFFSET = 256 * 4, 4
# What its CPU kernel can take: rows in groups of 32, whole blocks in a row.
_ROWS, _COLUMNS = 32, _BLOCK


@dataclass(frozen=True, slots=True)
class Stored:
    """Bytes of a matrix in memory.

    Attributes:
        weights: Of the weights themselves.
        state: Of what is needed to read them: scales, their scales, the code.
    """

    weights: int
    state: int = 0


@dataclass(frozen=True, slots=True)
class Matrix:
    """The weight of a linear layer, and how often the model has one like it.

    Attributes:
        rows: Its outputs.
        columns: Its inputs.
        kept: Why it is not quantised, e.g. "output layer"; empty if it is.
        count: How many there are.
    """

    rows: int
    columns: int
    kept: str = ""
    count: int = 1

    @property
    def elements(self) -> int:
        """Of all of them."""
        return self.rows * self.columns * self.count


@dataclass(frozen=True, slots=True)
class CacheLayer:
    """What layers of one kind keep of a sequence.

    Attributes:
        token_bytes: For each token.
        window: Most tokens that are kept; None: all.
        fixed_bytes: For each sequence, however long: the state of a linear attention.
        count: How many there are.
    """

    token_bytes: int
    window: int | None = None
    fixed_bytes: int = 0
    count: int = 1

    def bytes_for(self, context: int) -> int:
        """For one sequence of `context` tokens.

        Example:
            >>> CacheLayer(token_bytes=512, window=1_024, count=2).bytes_for(4_096)
            1048576
        """
        kept = context if self.window is None else min(context, self.window)
        return (kept * self.token_bytes + self.fixed_bytes) * self.count


def takes_four_bits(rows: int, columns: int) -> bool:
    """Whether bitsandbytes can multiply by a matrix of this shape in four bits, on every device.

    Example:
        >>> takes_four_bits(4_096, 4_096), takes_four_bits(100, 4_096)
        (True, False)
    """
    return rows % _ROWS == 0 and columns % _COLUMNS == 0


def stored(
    matrix: Matrix, quantization: str, *, element_bytes: int = 2, double_quant: bool = True, repacked: bool = False
) -> Stored:
    """What these matrices take.

    Args:
        matrix: Their shape; one with `kept`, or of a shape that cannot be quantised so, is counted as it is.
        quantization: One of `QUANTIZATIONS`.
        element_bytes: Of a weight that is not quantised.
        double_quant: Whether the scales of four-bit weights are quantised, too.
        repacked: Whether they lie as the CPU kernel for AVX512-BF16 has them: with plain 16-bit scales.

    Example:
        >>> stored(Matrix(4_096, 4_096), "nf4")
        Stored(weights=8388608, state=267332)
    """
    if quantization not in QUANTIZATIONS:
        raise ConfigError(f"quantization={quantization!r}: use one of {', '.join(map(repr, QUANTIZATIONS))}")
    if quantization == "none" or matrix.kept:
        return Stored(matrix.elements * element_bytes)
    if quantization == "int8":
        return Stored(matrix.elements, matrix.rows * 4 * matrix.count)
    if not takes_four_bits(matrix.rows, matrix.columns):
        return Stored(matrix.elements * element_bytes)
    blocks = matrix.rows * matrix.columns // _BLOCK
    if repacked:
        state = 2 * blocks + (_OFFSET if double_quant else 0)
    elif double_quant:
        state = blocks + 4 * -(-blocks // _NESTED_BLOCK) + _NESTED_CODE + _OFFSET
    else:
        state = 4 * blocks
    return Stored(matrix.elements // 2, (state + _CODE) * matrix.count)


def bytes_of_dtype(dtype: str) -> int:
    """Bytes of one number.

    Example:
        >>> bytes_of_dtype("bfloat16")
        2
    """
    if dtype not in _DTYPES:
        raise ConfigError(f"dtype={dtype!r}: use one of {', '.join(map(repr, _DTYPES))}")
    return _DTYPES[dtype]


def shown(size: int) -> str:
    """A number of bytes for people.

    Example:
        >>> shown(5_637_144_576), shown(2_000_000)
        ('5.25 GiB', '1.91 MiB')
    """
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size) >= scale:
            return f"{size / scale:,.2f} {unit}"
    return f"{size} B"
