"""A budget is never overspent, however many ask at once."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from costopt import Budget, ConfigError

COSTS = st.lists(
    st.tuples(st.integers(1, 1000), st.floats(0, 1)), min_size=200, max_size=200
)  # (reserved, share that it comes to), in thousandths of a dollar


def amounts(costs: list[tuple[int, float]]) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(most) / 1000, (Decimal(most) / 1000 * Decimal(str(round(share, 3))))) for most, share in costs]


@settings(max_examples=10)
@given(COSTS, st.integers(1, 60))
def test_200_threads_never_overspend(costs: list[tuple[int, float]], dollars: int) -> None:
    budget, start = Budget(dollars, 3600), threading.Barrier(200)
    paid: list[Decimal] = []

    def call(most: Decimal, actual: Decimal) -> bool:
        start.wait()
        reservation = budget.reserve(most)
        if reservation is None:
            return False
        assert budget.spent + budget.reserved <= budget.dollars
        paid.append(actual)
        reservation.settle(actual)
        return True

    with ThreadPoolExecutor(200) as pool:
        list(pool.map(lambda pair: call(*pair), amounts(costs)))
    assert budget.spent == sum(paid) <= dollars
    assert budget.reserved == 0


@settings(max_examples=10)
@given(COSTS, st.integers(1, 60))
def test_200_tasks_never_overspend(costs: list[tuple[int, float]], dollars: int) -> None:
    budget = Budget(dollars, 3600)
    paid: list[Decimal] = []

    async def call(most: Decimal, actual: Decimal) -> None:
        reservation = budget.reserve(most)
        await asyncio.sleep(0)
        if reservation is not None:
            paid.append(actual)
            await asyncio.sleep(0)
            reservation.settle(actual)
        assert budget.spent + budget.reserved <= budget.dollars

    async def all_at_once() -> None:
        await asyncio.gather(*(call(*pair) for pair in amounts(costs)))

    asyncio.run(all_at_once())
    assert budget.spent == sum(paid) <= dollars


def test_nothing_is_charged_twice() -> None:
    budget = Budget(1, 60)
    reservation = budget.reserve(Decimal("0.5"))
    assert reservation is not None
    for _ in range(2):
        reservation.settle(Decimal("0.2"))
    assert (budget.spent, budget.reserved, budget.left) == (Decimal("0.2"), 0, Decimal("0.8"))


def test_spending_leaves_the_window() -> None:
    now = [0.0]
    budget = Budget(1, 60, clock=lambda: now[0])
    for second in (0.0, 30.0):
        now[0] = second
        reservation = budget.reserve(Decimal("0.5"))
        assert reservation is not None
        reservation.settle(Decimal("0.5"))
    assert budget.reserve(Decimal("0.1")) is None
    assert 0 < budget.frees_in < 31
    now[0] = 61.0
    assert budget.left == Decimal("0.5")
    now[0] = 100.0
    assert (budget.spent, budget.frees_in) == (0, 0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 400)), max_size=200))
def test_no_window_of_any_place_holds_more_than_the_limit(steps: list[tuple[float, int]]) -> None:
    now = [0.0]
    budget = Budget(1, 10, clock=lambda: now[0])
    spent: list[tuple[float, Decimal]] = []
    for pause, thousandths in steps:
        now[0] += pause
        reservation = budget.reserve(Decimal(thousandths) / 1000)
        if reservation is not None:
            reservation.settle(reservation.amount)
            spent.append((now[0], reservation.amount))
    for end, _ in spent:
        assert sum(amount for when, amount in spent if end - 10 < when <= end) <= 1


@pytest.mark.parametrize(("dollars", "seconds"), [(0, 60), (-1, 60), (1, 0), (float("nan"), 60), ("much", 60)])
def test_a_budget_that_is_none_is_refused(dollars: float | str, seconds: float) -> None:
    with pytest.raises(ConfigError, match="give amounts above 0"):
        Budget(dollars, seconds)
