"""What holds locks, threads or connections must let go of them around a fork (gunicorn --preload, multiprocessing)."""

from __future__ import annotations

import os
import threading
import weakref
from contextlib import suppress
from typing import Protocol

__all__ = ["ForkAware", "ForkLock", "fork_aware"]


class ForkAware(Protocol):
    """Told around each fork of this process."""

    def before_fork(self) -> None:
        """Let go of what a child must not inherit."""

    def after_fork_in_parent(self) -> None:
        """Go on."""

    def after_fork_in_child(self) -> None:
        """Start anew: threads are gone, and locks that they held stay locked."""


_aware: weakref.WeakSet[ForkAware] = weakref.WeakSet()


def fork_aware(holder: ForkAware) -> None:
    """Tell `holder` of forks, for as long as it lives."""
    _aware.add(holder)


class ForkLock:
    """A lock that is free in a child, whichever thread held it when the process forked.

    Example:
        >>> with ForkLock():
        ...     pass
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        fork_aware(self)

    def before_fork(self) -> None:
        """Nothing to do."""

    def after_fork_in_parent(self) -> None:
        """Nothing to do."""

    def after_fork_in_child(self) -> None:
        """The thread that may hold it is not here."""
        self._lock = threading.Lock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _holders() -> list[ForkAware]:
    while True:
        with suppress(RuntimeError):  # another thread adds one just now
            return list(_aware)


def _before() -> None:
    for holder in _holders():
        holder.before_fork()


def _in_parent() -> None:
    for holder in _holders():
        holder.after_fork_in_parent()


def _in_child() -> None:
    for holder in _holders():
        holder.after_fork_in_child()


if hasattr(os, "register_at_fork"):  # not on Windows, which does not fork
    os.register_at_fork(before=_before, after_in_parent=_in_parent, after_in_child=_in_child)
