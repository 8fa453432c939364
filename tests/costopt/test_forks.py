"""What is told of forks, while other threads make more of it."""

from __future__ import annotations

from collections.abc import Iterator
from weakref import WeakSet

import pytest

from costopt import forks
from costopt.forks import ForkAware, ForkLock


class Growing(WeakSet[ForkAware]):
    """Gets one more while it is looked through for the first time, as another thread might add it."""

    more: ForkLock | None = None

    def __iter__(self) -> Iterator[ForkAware]:
        for holder in super().__iter__():
            if self.more is None:
                self.more = ForkLock()
                self.add(self.more)
            yield holder


def test_a_lock_that_is_made_while_the_process_forks_is_told_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    locks = [ForkLock() for _ in range(3)]
    growing = Growing(locks)
    monkeypatch.setattr(forks, "_aware", growing)
    assert set(forks._holders()) == {*locks, growing.more}
