"""Choosing units by their scores, to an exact number of tokens."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["choose"]

Floats = NDArray[np.float64]
Sizes = NDArray[np.int64]

_USED = 0.98  # of the target: with that much of it in use, the search for a better filling ends
_CANDIDATES = 64  # units among which a filling is looked for
_ROOM = 1_000  # tokens for which one is looked for
_GIVEN_UP = 4  # chosen units, the last in rank, that may be given up for a better filling: of every third one at most
_CORRECTIONS = 3
_NEAR = 1.2


def choose(
    scores: Floats,
    sizes: Sizes,
    target: int,
    measure: Callable[[Collection[int]], int],
    forced: Collection[int] = (),
    barred: Collection[int] = (),
) -> set[int]:
    """Take units in the order of their scores while they fit; then fill the room that is left.

    Args:
        scores: Of each unit; the higher, the sooner it is taken.
        sizes: About how many tokens each adds.
        target: The most tokens that the chosen may have.
        measure: How many tokens some units have when they are put together.
        forced: Units that are taken in any case.
        barred: Units that are not taken, unless forced.

    Returns:
        The chosen ones. `measure` of them is within the target, unless the forced ones alone are beyond it.

    Example:
        >>> sizes = np.array([5, 9, 4, 3])
        >>> sorted(choose(np.array([4.0, 3.0, 2.0, 1.0]), sizes, 13, lambda chosen: sum(sizes[i] for i in chosen)))
        [0, 2, 3]
    """
    out = {*forced, *barred}
    order = [int(i) for i in np.argsort(-scores, kind="stable") if int(i) not in out]
    fixed = set(forced)
    # The sizes only come near: what fits is all taken, whatever they say.
    if sizes.sum() <= _NEAR * target and measure({*fixed, *order}) <= target:
        return {*fixed, *order}
    room = target - measure(fixed)
    if room <= 0:
        return fixed
    taken = _take(order, sizes, room)
    used = measure({*fixed, *taken})
    while used > target:  # the sizes were too low
        excess = used - target
        while taken and excess > 0:
            excess -= int(sizes[taken.pop()])
        used = measure({*fixed, *taken})
    return fixed | _filled(order, scores, sizes, target, lambda chosen: measure({*fixed, *chosen}), taken, used)


def _take(order: Sequence[int], sizes: Sizes, room: int) -> list[int]:
    taken = []
    for i in order:
        if sizes[i] <= room:
            taken.append(i)
            room -= int(sizes[i])
    return taken


def _filled(
    order: Sequence[int],
    scores: Floats,
    sizes: Sizes,
    target: int,
    measure: Callable[[Collection[int]], int],
    taken: Sequence[int],
    used: int,
) -> set[int]:
    """`taken`, with its last few exchanged for others if that uses more of the target."""
    best = set(taken)
    for given_up in range(min(_GIVEN_UP, len(taken) // 3) + 1):
        if used >= _USED * target:
            break
        base = set(taken[: len(taken) - given_up])
        room = target - measure(base)
        others = [i for i in order if i not in base][:_CANDIDATES]
        for _ in range(_CORRECTIONS):
            filling = _filling(others, scores, sizes, room, (1 - _USED) * target)
            found = measure(base | filling)
            if used < found <= target:
                best, used = base | filling, found
            if found <= target:
                break
            room -= found - target
    return best


def _filling(others: Sequence[int], scores: Floats, sizes: Sizes, room: int, slack: float) -> set[int]:
    """Those that fill the room but for `slack`, of the greatest sum of scores; or else that fill it best."""
    fitting = [i for i in others if 0 < sizes[i] <= room]
    if not fitting or not 0 < room <= _ROOM:
        return set()
    lowest = min(scores[i] for i in fitting)
    worth = np.full(room + 1, -np.inf)  # by the tokens that are used
    worth[0] = 0.0
    used = np.zeros((len(fitting), room + 1), bool)
    for k, i in enumerate(fitting):
        size = int(sizes[i])
        added = worth[: room + 1 - size] + (scores[i] - lowest + 0.01)
        used[k, size:] = added > worth[size:]
        worth[size:] = np.maximum(worth[size:], added)
    reached = np.flatnonzero(worth > -np.inf)
    near = reached[reached >= room - slack]
    at = int(near[np.argmax(worth[near])]) if len(near) else int(reached[-1])
    filling = set()
    for k in range(len(fitting) - 1, -1, -1):
        if used[k, at]:
            filling.add(fitting[k])
            at -= int(sizes[fitting[k]])
    return filling
