"""Keys and values of several answers under way, side by side: a row may come or go between any two tokens.

Every row begins at position 0 of its own slot. A step writes each row's next key where that row ends, and looks at
the slots up to the longest row; what lies behind a shorter row's end is masked. So nothing is ever shifted or copied
when rows of other lengths join, and a row that leaves only has the last one put in its place.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

__all__ = ["Slots", "can_batch"]

_GRAIN, _ROWS = 256, 4  # buffers grow by at least so many positions, and rows


def can_batch(model: Any) -> bool:
    """Whether rows of this model can share a forward pass: it attends to all of the past, in every layer.

    Sliding windows and recurrent states would need to know where each row ends; such models run one row at a time.
    """
    from transformers.cache_utils import DynamicCache, DynamicLayer

    parameters = inspect.signature(model.forward).parameters
    layers = DynamicCache(config=model.config).layers
    return "position_ids" in parameters and bool(layers) and all(type(layer) is DynamicLayer for layer in layers)


class Slots:
    """The rows under way, and the forward passes that take them on; for one thread.

    Args:
        model: A causal language model of transformers.
        batched: As `can_batch` says; False holds one row at most.
    """

    def __init__(self, model: Any, batched: bool) -> None:
        self._model = model
        self._batched = batched
        self._short = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.lengths: list[int] = []  # of the rows that decode; the one that is being read comes after them
        self.filled = 0
        self.passes = 0
        self._cache: Any = None
        self._layers: list[Any] = []

    @property
    def bytes(self) -> int:
        """What the buffers take now."""
        tensors = [tensor for layer in self._layers for tensor in (layer.keys, layer.values) if tensor is not None]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    def read(self, tokens: Sequence[int]) -> torch.Tensor:
        """Take in the next part of a new row's prompt; the scores of the token after it, shape (1, vocabulary)."""
        import torch

        self._make()
        positions = torch.arange(self.filled, self.filled + len(tokens), device=self._model.device)
        self._place(len(self.lengths), self.filled, None)
        scores = self._forward([list(tokens)], positions[None], None)[:, -1]
        self.filled += len(tokens)
        return scores

    def join(self) -> None:
        """The row that was read decodes from now on, as the last."""
        self.lengths.append(self.filled)
        self.filled = 0

    def read_rows(self, prompts: Sequence[Sequence[int]]) -> torch.Tensor:
        """Take in whole prompts as new rows, the last; the scores of their next tokens, shape (prompts, vocabulary).

        What fills up the shorter ones comes after them, where no token of theirs looks.
        """
        import torch

        self._make()
        lengths = [len(prompt) for prompt in prompts]
        longest, device = max(lengths), self._model.device
        ends = sorted({length - 1 for length in lengths})
        padded = [[*prompt, *[0] * (longest - len(prompt))] for prompt in prompts]
        positions = torch.arange(longest, device=device).expand(len(prompts), longest)
        self._place(len(self.lengths), 0, None)
        scores = self._forward(padded, positions, None, torch.tensor(ends, device=device))
        self.lengths += lengths
        kept = ends if scores.shape[1] == len(ends) else list(range(longest))  # a model may give the scores of all
        places = torch.tensor([kept.index(length - 1) for length in lengths], device=device)
        found: torch.Tensor = scores[torch.arange(len(prompts), device=device), places]
        return found

    def forget(self) -> None:
        """Drop the row that is being read."""
        self.filled = 0
        if not self._batched or not self.lengths:
            self.clear()

    def decode(self, tokens: Sequence[int]) -> torch.Tensor:
        """Append one token to each row; the scores of the next, shape (rows, vocabulary)."""
        import torch

        ends = torch.tensor(self.lengths, device=self._model.device)
        longest = max(self.lengths) + 1
        # A lone row has nothing to mask, and attention is quicker without one.
        alone = len(self.lengths) == 1
        mask = None if alone else torch.arange(longest, device=ends.device)[None] <= ends[:, None]
        self._place(0, longest - 1, ends)
        scores = self._forward([[token] for token in tokens], ends[:, None], mask)[:, -1]
        self.lengths = [length + 1 for length in self.lengths]
        return scores

    def drop(self, row: int) -> None:
        """Take a row out; the last one gets its number."""
        last = len(self.lengths) - 1
        for layer in self._layers if self._batched else ():
            layer.move(last, row)
            if self.filled:
                layer.move(last + 1, last)
        self.lengths[row] = self.lengths[last]
        self.lengths.pop()
        if not self.lengths and not self.filled:
            self.clear()

    def clear(self) -> None:
        """Drop every row, and give the memory back."""
        self.lengths, self.filled = [], 0
        self._cache, self._layers = None, []

    def _make(self) -> None:
        if self._cache is not None:
            return
        from transformers.cache_utils import Cache, DynamicCache

        plain = DynamicCache(config=self._model.config)
        if not self._batched:
            self._cache = plain
            return
        self._layers = [_slot_layer() for _ in plain.layers]
        self._cache = Cache(layers=list(self._layers))

    def _place(self, row: int, start: int, ends: torch.Tensor | None) -> None:
        for layer in self._layers:
            layer.row, layer.start, layer.ends = row, start, ends

    def _forward(
        self,
        tokens: list[list[int]],
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        kept: torch.Tensor | int = 1,
    ) -> torch.Tensor:
        """The scores after the last token, or after those that are `kept`, shape (rows, places, vocabulary)."""
        import torch

        options: dict[str, Any] = {"logits_to_keep": kept} if self._short else {}
        if self._batched:
            options["position_ids"] = positions
        ids = torch.tensor(tokens, device=self._model.device)
        with torch.no_grad():
            found = self._model(
                input_ids=ids, attention_mask=mask, past_key_values=self._cache, use_cache=True, **options
            )
        self.passes += 1
        scores: torch.Tensor = found.logits
        return scores


def _slot_layer() -> Any:
    """One layer's keys and values, shape (rows, heads, positions, dimension)."""
    import torch
    from transformers.cache_utils import DynamicLayer

    class SlotLayer(DynamicLayer):
        row = 0  # where a prompt is read to; rows that decode begin at 0
        start = 0  # how many positions the pass at hand finds there, at most
        ends: torch.Tensor | None = None  # where each row ends, of rows that decode

        def lazy_initialization(self, key_states: torch.Tensor, value_states: torch.Tensor) -> None:
            self.dtype, self.device = key_states.dtype, key_states.device
            self.keys = _grown(key_states, None, 0, 0)
            self.values = _grown(value_states, None, 0, 0)
            self.is_initialized = True

        def update(
            self, key_states: torch.Tensor, value_states: torch.Tensor, *args: Any, **kwargs: Any
        ) -> tuple[torch.Tensor, torch.Tensor]:
            if not self.is_initialized:
                self.lazy_initialization(key_states, value_states)
            rows, length = self.row + key_states.shape[0], self.start + key_states.shape[2]
            self.keys = _grown(key_states, self.keys, rows, length)
            self.values = _grown(value_states, self.values, rows, length)
            if self.ends is None:
                self.keys[self.row : rows, :, self.start : length] = key_states
                self.values[self.row : rows, :, self.start : length] = value_states
            else:
                every = torch.arange(rows, device=key_states.device)
                self.keys[every, :, self.ends] = key_states[:, :, 0]
                self.values[every, :, self.ends] = value_states[:, :, 0]
            return self.keys[self.row : rows, :, :length], self.values[self.row : rows, :, :length]

        def get_seq_length(self, *args: Any) -> int:
            return self.start

        def get_mask_sizes(self, query_length: Any) -> tuple[int, int]:
            asked = query_length if isinstance(query_length, int) else query_length.shape[0]  # positions, once
            return self.start + asked, 0

        def move(self, source: int, target: int) -> None:
            if self.keys is None or self.values is None:
                return
            if source != target and source < self.keys.shape[0]:
                self.keys[target] = self.keys[source]
                self.values[target] = self.values[source]

    return SlotLayer()


def _grown(like: torch.Tensor, kept: torch.Tensor | None, rows: int, length: int) -> torch.Tensor:
    """The buffer, or a larger one that holds the same, if it has too few rows or positions."""
    old_rows, old_length = (0, 0) if kept is None else (kept.shape[0], kept.shape[2])
    if kept is not None and rows <= old_rows and length <= old_length:
        return kept
    if rows > old_rows:
        rows = -(-rows // _ROWS) * _ROWS if old_rows else rows
    if length > old_length:
        length = -(-length // _GRAIN) * _GRAIN
    _, heads, _, dimension = like.shape
    made = like.new_zeros((max(rows, old_rows), heads, max(length, old_length), dimension))
    if kept is not None:
        made[:old_rows, :, :old_length] = kept
    return made
