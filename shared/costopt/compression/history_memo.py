"""What a history compressor remembers of its work, so that a growing chat is not worked through again at every turn."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TypeVar

__all__ = ["Memo", "digest"]

T = TypeVar("T")


class Memo:
    """Values by key, of which those that were not asked for lately are forgotten.

    Safe to use from any thread, without a lock that a fork could leave taken: two threads may make one value twice.

    Args:
        most_chars: Characters of the texts that the values were made from, at most and about.
    """

    def __init__(self, most_chars: int) -> None:
        self._most = most_chars // 2
        self._young: dict[bytes, object] = {}
        self._old: dict[bytes, object] = {}
        self._size = 0

    def get(self, key: bytes, chars: int, make: Callable[[], T]) -> T:
        """The value of `key`; made now, from a text of so many `chars`, if it is not known."""
        for kept in (self._young, self._old):
            if key in kept:
                value: T = kept[key]  # type: ignore[assignment]  # a key is of one kind of value
                break
        else:
            value = make()
        if key not in self._young:
            if self._size > self._most:
                self._old, self._young, self._size = self._young, {}, 0
            self._young[key] = value
            self._size += chars
        return value


def digest(*texts: str) -> bytes:
    """A key for these texts, in this order."""
    made = hashlib.blake2b(digest_size=32)
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        made.update(len(data).to_bytes(8, "little") + data)
    return made.digest()
