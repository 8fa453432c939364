"""One index for all scopes: the scope goes into the vector.

A filter on an HNSW index is dear where it matters: a tag that matches everything made one nearest-neighbour
query 3 to 10 times slower, and one that matches little walks the whole graph. So a stored vector is the
embedding, lengthened by a short direction that is drawn from the scope:

    salted = (embedding, w * direction(scope)) / sqrt(1 + w^2)

Within a scope the directions are equal and cosines keep their order; between scopes they are nearly at right
angles, so that even the same text in another scope lies further away than anything in this scope that a
lookup could accept. Neighbours from other scopes may still be returned; the cache compares scopes itself.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

__all__ = ["SALT_DIMENSIONS", "cosine", "salted"]

SALT_DIMENSIONS = 32
# With w^2 = 1.44 the same text in a scope whose direction has cosine 0.75 to ours (one in 10^6 at 32
# dimensions) scores as similarity 0.64 in our own scope would: below any floor worth having.
_WEIGHT = 1.2
_NORM = math.sqrt(1 + _WEIGHT * _WEIGHT)


def salted(vector: NDArray[np.float32], scope: str) -> NDArray[np.float32]:
    """The vector to store or to search by: shape (dimension + `SALT_DIMENSIONS`,), unit length.

    Example:
        >>> unit = np.array([1.0, 0.0], dtype=np.float32)
        >>> salted(unit, "a").shape
        (34,)
        >>> round(cosine(float(salted(unit, "a") @ salted(unit, "a"))), 3)
        1.0
    """
    out = np.empty(vector.shape[0] + SALT_DIMENSIONS, dtype=np.float32)
    out[:-SALT_DIMENSIONS] = vector
    out[-SALT_DIMENSIONS:] = _direction(scope)
    out *= np.float32(1 / _NORM)
    return out


def cosine(salted_cosine: float) -> float:
    """The cosine of two embeddings of one scope, from the cosine of their salted vectors."""
    return salted_cosine * _NORM * _NORM - _WEIGHT * _WEIGHT


def _direction(scope: str) -> NDArray[np.float32]:
    noise = np.frombuffer(hashlib.blake2b(scope.encode("ascii"), digest_size=64).digest(), dtype="<i2")
    direction = noise.astype(np.float32)
    return direction * np.float32(_WEIGHT / math.sqrt(float(direction @ direction)))
