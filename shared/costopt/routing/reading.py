"""What an estimator reads of a request: the question, and not the documents that come with it."""

from __future__ import annotations

import logging
from dataclasses import replace

from costopt.prompts import Split, checked_split, parted
from costopt.routing.request import RouteRequest
from costopt.tokens import count_tokens

__all__ = ["Reading"]

_log = logging.getLogger("costopt.routing")


class Reading:
    """Takes the question out of prompts. What cannot be parted is read as a whole, and logged once.

    Args:
        split: How to part a prompt into (context, question); None: it is all question.

    Raises:
        ConfigError: If it is neither a marker nor a function.

    Example:
        >>> reading = Reading("Question: ")
        >>> request = RouteRequest("Rain is wet. Question: Is it?")
        >>> reading(request).text, reading(request).size == request.size
        ('Is it?', True)
    """

    def __init__(self, split: Split | None) -> None:
        self._split = checked_split(split)
        self._mute = False

    def __call__(self, request: RouteRequest) -> RouteRequest:
        """The same request, as large as it was, with the question as its text."""
        question = self.question(request.text)
        if question == request.text:
            return request
        count = request.count or (lambda model: count_tokens(request.text, model))
        return replace(request, text=question, count=count)

    def question(self, text: str) -> str:
        """The question in a prompt."""
        if self._split is None:
            return text
        try:
            return str(parted(self._split, text)[1])
        except Exception as error:  # a function of the user's
            if not self._mute:
                _log.warning("costopt: split= failed, and the router reads whole prompts: %r", error)
                self._mute = True
            return text
