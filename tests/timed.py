"""A mark for tests that claim how long something takes; `make test` runs them by themselves, after all others."""

from __future__ import annotations

import pytest

__all__ = ["timed"]

# A busy machine only ever adds time, so a bound that is kept in one of three runs is kept by the code.
timed = pytest.mark.flaky(reruns=2)
