"""The loop that makes tokens: a little reading, then one token for every row, again and again.

What arrives while others are under way joins them at the next step; no batch is waited for and none is waited out.
"""

from __future__ import annotations

from collections import deque
from contextlib import AbstractContextManager, nullcontext, suppress
from typing import Any

from costopt.local.sampling import Choice, choose
from costopt.local.sequence import Sequence
from costopt.local.slots import Slots, can_batch

__all__ = ["RowBatch"]

# Prompt tokens read between two steps, so that a long prompt does not make those under way wait for all of it.
_READ_AT_ONCE = 512
# A pass more costs about as much as this many tokens more in one: so many may be there to fill up shorter prompts.
_FILLED_UP = 96


class RowBatch:
    """Runs sequences together; for the one thread that owns the model.

    Args:
        model: A causal language model of transformers.
        max_rows: Most sequences at once.
        cache_tokens: Most positions of keys and values.
    """

    def __init__(self, model: Any, max_rows: int, cache_tokens: int) -> None:
        batched = can_batch(model)
        self.max_rows = max_rows if batched else 1
        self._cache_tokens = cache_tokens
        self._slots = Slots(model, batched)
        self._live: list[Sequence] = []  # by row
        self._reading: deque[Sequence] = deque()

    @property
    def sequences(self) -> list[Sequence]:
        """All under way."""
        return [*self._live, *self._reading]

    @property
    def restarts(self) -> int:
        """None: there is no loop of its own that could end."""
        return 0

    @property
    def watched(self) -> bool:
        """No thread of its own."""
        return False

    @property
    def steps(self) -> int:
        """Forward passes so far."""
        return self._slots.passes

    @property
    def cache_bytes(self) -> int:
        """What keys and values take now."""
        return self._slots.bytes

    def takes(self, sequence: Sequence) -> bool:
        """Whether it can run such a one: any."""
        return True

    def still(self) -> AbstractContextManager[None]:
        """Whoever steps another batch holds the model alone already."""
        return nullcontext()

    def has_room(self, sequence: Sequence) -> bool:
        """Whether it can join now. Slots are as long as the longest may become, all of them."""
        rows = self.sequences
        longest = max([sequence.need, *(row.need for row in rows)])
        return len(rows) < self.max_rows and (len(rows) + 1) * longest <= self._cache_tokens

    def add(self, sequence: Sequence) -> None:
        """Join at the next step."""
        self._reading.append(sequence)

    def step(self) -> None:
        """Read some, then make a token for every row; an error ends the sequences that it struck."""
        self._sweep()
        self._read()
        self._sweep()
        self._decode()
        self._sweep()

    def fail(self, error: BaseException) -> None:
        """End all with an error."""
        for sequence in self.sequences:
            sequence.fail(error)
        self._live, self._reading = [], deque()
        self._slots.clear()

    def close(self) -> None:
        """Give the memory back."""
        self._slots.clear()

    def _sweep(self) -> None:
        """Let go of those that are over."""
        if self._reading and self._reading[0].over and self._slots.filled:
            self._slots.forget()
        self._reading = deque(sequence for sequence in self._reading if not sequence.over)
        for row in range(len(self._live) - 1, -1, -1):
            if self._live[row].over:
                self._slots.drop(row)
                self._live[row] = self._live[-1]
                self._live.pop()

    def _read(self) -> None:
        # While most still wait, reading comes first: a step costs nearly the same for few rows as for many.
        budget = _READ_AT_ONCE * (2 if len(self._reading) > len(self._live) else 1)
        while self._reading and budget > 0:
            if self._slots.filled or len(self._reading[0].prompt) > _READ_AT_ONCE or self.max_rows == 1:
                budget -= self._read_part(min(budget, _READ_AT_ONCE))
            else:
                group = self._group(min(budget, _READ_AT_ONCE))
                if not group:
                    return
                budget -= len(group) * max(len(sequence.prompt) for sequence in group)
                self._read_group(group)

    def _read_part(self, budget: int) -> int:
        """Read on in a prompt that is longer than what is read at once; how many tokens that were."""
        sequence = self._reading[0]
        part = sequence.prompt[self._slots.filled : self._slots.filled + budget]
        try:
            scores = self._slots.read(part)
            if self._slots.filled == len(sequence.prompt):
                sequence.accept(choose(scores, [sequence.sampling])[0])
        except Exception as error:
            sequence.fail(error)
        if sequence.over:
            self._slots.forget()
            self._reading.popleft()
        elif sequence.made:
            self._slots.join()
            self._live.append(self._reading.popleft())
        return len(part)

    def _group(self, budget: int) -> list[Sequence]:
        """The first in line, and those behind it that can be read in the same pass with little to fill up."""
        first = len(self._reading[0].prompt)
        group: list[Sequence] = []
        longest = tokens = 0
        for sequence in sorted(self._reading, key=lambda sequence: abs(len(sequence.prompt) - first)):
            length = len(sequence.prompt)
            longest, tokens = max(longest, length), tokens + length
            size = longest * (len(group) + 1)
            if size > budget or size - tokens > max(_FILLED_UP, tokens // 4):
                break
            group.append(sequence)
        return group

    def _read_group(self, group: list[Sequence]) -> None:
        self._reading = deque(sequence for sequence in self._reading if sequence not in group)
        rows = len(self._live)
        try:
            scores = self._slots.read_rows([sequence.prompt for sequence in group])
        except Exception as error:
            del self._slots.lengths[rows:]
            for sequence in group if len(group) > 1 else ():
                self._read_group([sequence])  # alone, to see which it was
            if len(group) == 1:
                group[0].fail(error)
            return
        self._live += group
        self._accept(group, scores)

    def _decode(self) -> None:
        if not self._live:
            return
        try:
            scores = self._slots.decode([sequence.made[-1] for sequence in self._live])
        except Exception as error:
            # The pass was shared: nobody's next token is to be had. Those that wait to be read begin anew.
            for sequence in self._live:
                sequence.fail(error)
            self._live = []
            self._slots.clear()
            return
        self._accept(self._live, scores)

    def _accept(self, rows: list[Sequence], scores: Any) -> None:
        """Draw the next token of each row; what goes wrong with one is its own."""
        choices: list[Choice | None] = [None] * len(rows)
        with suppress(Exception):  # found out below
            choices = [*choose(scores, [sequence.sampling for sequence in rows])]
        for number, (sequence, choice) in enumerate(zip(rows, choices, strict=True)):
            try:
                sequence.accept(choice or choose(scores[number : number + 1], [sequence.sampling])[0])
            except Exception as error:
                sequence.fail(error)
