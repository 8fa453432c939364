"""Tokens into text as they come: never half a character, nothing of a stop text."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

__all__ = ["StopFinder", "TextStream"]

_UNFINISHED = "\ufffd"
_WINDOW = 64


class StopFinder:
    """Lets text through up to the first of `stops`, and holds back what may yet become one.

    Example:
        >>> finder = StopFinder(("END",))
        >>> finder.add("some E"), finder.add("N"), finder.add("D more"), finder.stopped
        ('some ', '', '', True)
    """

    def __init__(self, stops: Iterable[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""
        self.stopped = False

    def add(self, text: str) -> str:
        """What of the text so far may be shown now, and was not yet."""
        if self.stopped:
            return ""
        held = self._held + text
        found = [place for place in map(held.find, self._stops) if place >= 0]
        if found:
            self.stopped, self._held = True, ""
            return held[: min(found)]
        keep = max((_overlap(held, stop) for stop in self._stops), default=0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def rest(self) -> str:
        """What was held back, once nothing more comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` that `stop` begins with."""
    return next((n for n in range(min(len(text), len(stop) - 1), 0, -1) if stop.startswith(text[-n:])), 0)


class TextStream:
    """Decodes token by token, so that the pieces joined are what decoding all at once gives.

    A byte-level token may hold a part of a character, and some tokenizers write a token differently at the start of
    a text: so each is decoded together with the few before it, and shown once its last character is whole.

    Args:
        tokenizer: Of transformers.
        special: Whether special tokens are shown.
    """

    def __init__(self, tokenizer: Any, *, special: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skip = not special
        self._window: list[int] = []  # what is decoded together
        self._shown = 0  # how many tokens of the window are shown already
        self._shown_text = ""  # and as what

    def add(self, token: int) -> str:
        """The text that this token completes; empty while a character is not whole."""
        self._window.append(token)
        text = self._decode(self._window)
        if text.endswith(_UNFINISHED) or len(text) <= len(self._shown_text):
            if text == self._shown_text and len(self._window) > _WINDOW:
                self._window.pop()  # tokens that show nothing, e.g. special ones, are not decoded for ever
            return ""
        piece = text[len(self._shown_text) :]
        self._window = self._window[self._shown :]
        self._shown, self._shown_text = len(self._window), self._decode(self._window)
        return piece

    def rest(self) -> str:
        """What was held back because its last character was not whole."""
        return self._decode(self._window)[len(self._shown_text) :]

    def _decode(self, tokens: Sequence[int]) -> str:
        text: str = self._tokenizer.decode(tokens, skip_special_tokens=self._skip, clean_up_tokenization_spaces=False)
        return text
