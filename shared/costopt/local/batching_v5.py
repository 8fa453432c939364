"""transformers' continuous batching, behind the same seam as our rows: the one file that knows its API.

That API changed with nearly every release, so that it is used with the releases that this file was tested with. What
it does not do is done here: a request is admitted only if its keys and values are sure to fit (one that does not
ends the loop for all), stop texts end a request, a cancelled one is forgotten, and a loop that ended is started anew.
"""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from costopt.errors import EngineError
from costopt.local.sampling import Choice
from costopt.local.sequence import Sequence

__all__ = ["ContinuousBatch", "missing"]

_log = logging.getLogger("costopt.local")

_TESTED = ((5, 23), (5, 24))  # from, and before
_PAGE = 64  # positions of keys and values that are handed out together
_READ_AT_ONCE = 512  # most tokens in one forward pass
_WAIT_S = 0.05
_STOP_S = 5.0


def missing(model: Any) -> str:
    """Why this model cannot be run so; empty if it can."""
    digits = re.match(r"(\d+)\.(\d+)", version("transformers"))
    if digits is None or not _TESTED[0] <= (int(digits[1]), int(digits[2])) < _TESTED[1]:
        return f"transformers {version('transformers')} is not one of those that it was tested with"
    if not hasattr(model, "init_continuous_batching"):
        return f"{type(model).__name__} has no continuous batching"
    attention = model.config._attn_implementation
    if attention != "sdpa" and not attention.startswith("flash_attention"):
        return f"it needs other attention than {attention!r}"
    return ""


class ContinuousBatch:
    """Hands sequences to transformers' loop, which has a thread of its own, and its tokens back.

    It draws the likeliest token only: what asks for anything else is run in rows.

    Args:
        model: A causal language model of transformers.
        max_rows: Most sequences at once.
        cache_tokens: Positions of keys and values, all set apart when the first sequence comes.
    """

    def __init__(self, model: Any, max_rows: int, cache_tokens: int) -> None:
        self._model = model
        self._max_rows = max_rows
        self._pages = -(-cache_tokens // _PAGE)
        self._manager: Any = None
        self._running: dict[str, Sequence] = {}
        self._number = 0
        self._earlier = 0  # steps of loops that have ended
        self.restarts = 0

    @property
    def sequences(self) -> list[Sequence]:
        """All under way."""
        return list(self._running.values())

    @property
    def steps(self) -> int:
        """Forward passes so far."""
        return self._earlier + int(getattr(self._manager, "current_batch", 0))

    @property
    def watched(self) -> bool:
        """Whether its loop runs, which would keep the interpreter from ending."""
        return self._manager is not None

    @property
    def cache_bytes(self) -> int:
        """What is set apart for keys and values."""
        processor = getattr(self._manager, "batch_processor", None)
        return 0 if processor is None else int(processor.cache.cache_tensor.nbytes)

    def takes(self, sequence: Sequence) -> bool:
        """Whether it can run such a one."""
        return sequence.sampling.plain and _pages(sequence) <= self._pages

    def has_room(self, sequence: Sequence) -> bool:
        """Whether it can join now, and get as long as it may without pushing another out."""
        taken = sum(map(_pages, self._running.values()))
        return len(self._running) < self._max_rows and taken + _pages(sequence) <= self._pages

    def add(self, sequence: Sequence) -> None:
        """Join at the next step."""
        manager = self._started()
        self._number += 1
        name = str(self._number)
        self._running[name] = sequence
        manager.add_request(
            sequence.prompt,
            request_id=name,
            max_new_tokens=sequence.max_tokens,
            streaming=True,
            eos_token_id=sorted(sequence.ends) or -1,
        )

    def step(self) -> None:
        """Pass on the tokens that were made, waiting for some; notice a loop that has ended."""
        for name in [name for name, sequence in self._running.items() if sequence.over]:
            self._forget(name)
        if not self._running:
            return
        output = self._manager.get_result(timeout=_WAIT_S)
        if output is None and not self._healthy():
            self._crashed()
        while output is not None:
            self._take(output)
            output = self._manager.get_result(timeout=0.0)

    @contextlib.contextmanager
    def still(self) -> Iterator[None]:
        """Hold the loop between two passes, so that another may use the model."""
        if not self._running or not self._healthy():
            yield
            return
        with self._manager.pause():
            yield

    def fail(self, error: BaseException) -> None:
        """End all with an error, and the loop with them."""
        for sequence in self._running.values():
            sequence.fail(error)
        self._running.clear()
        self.close()

    def close(self) -> None:
        """End the loop, and give the memory back."""
        manager, self._manager = self._manager, None
        if manager is None:
            return
        self._earlier += int(getattr(manager, "current_batch", 0))
        with contextlib.suppress(Exception):  # it may have ended by itself
            manager.stop(block=True, timeout=_STOP_S, hard_stop=True)
            manager.destroy()

    def _started(self) -> Any:
        if self._manager is not None and not self._healthy():
            self._crashed()
        if self._manager is None:
            from transformers import ContinuousBatchingConfig, GenerationConfig

            config = ContinuousBatchingConfig(
                page_size=_PAGE,
                num_blocks=self._pages,
                max_batch_tokens=max(_READ_AT_ONCE, self._max_rows),
                max_requests_per_batch=self._max_rows,
                safety_margin=0.0,  # what is admitted fits
                auto_switch_to_flash=False,  # it might fetch a kernel
            )
            greedy = GenerationConfig(do_sample=False, eos_token_id=-1)
            self._manager = self._model.init_continuous_batching(
                generation_config=greedy, continuous_batching_config=config
            )
            self._manager.start()
        return self._manager

    def _healthy(self) -> bool:
        return bool(self._manager.is_running()) and self._manager.background_thread_status.fatal_error is None

    def _crashed(self) -> None:
        """The loop has ended: so have its sequences; the next one gets a new loop."""
        cause = self._manager.background_thread_status.fatal_error
        _log.warning("costopt: transformers' batching loop ended and is started again: %r", cause)
        self.restarts += 1
        self.fail(cause or EngineError("the loop that runs the model ended"))

    def _take(self, output: Any) -> None:
        sequence = self._running.get(output.request_id)
        if sequence is None:
            return  # given up meanwhile
        for token in output.generated_tokens[len(sequence.made) :]:
            if not sequence.over:
                sequence.accept(Choice(int(token)))
        if output.error is not None:
            sequence.fail(EngineError(f"the model failed: {output.error}"))
        if output.is_finished():
            del self._running[output.request_id]
            if not sequence.over:
                sequence.fail(EngineError("the loop that runs the model ended the request too early"))
        elif sequence.over:
            self._forget(output.request_id)

    def _forget(self, name: str) -> None:
        """A cancelled request gets no last event: nothing is waited for."""
        del self._running[name]
        self._manager.cancel_request(name)


def _pages(sequence: Sequence) -> int:
    # One more than its tokens: the loop sets a place apart for the token to come.
    return -(-(sequence.need + 1) // _PAGE)
