"""The ledger's sums equal the servers' own, to the token and the cent, over calls of every kind."""

from __future__ import annotations

from pathlib import Path

from tests.mixed_calls import mixed

CALLS = 240  # `make bench` makes 10,000


def test_accounting_equals_what_the_servers_billed(tmp_path: Path) -> None:
    with mixed(tmp_path, seed=4) as made:
        made.run(CALLS)
        totals = made.ledger.totals()
        assert made.counted == made.tokens
        assert totals.cost == made.dollars
        assert (totals.estimated, totals.unpriced) == (0, 0)
        assert totals.failed > 0
        assert totals.batched == CALLS // 8
        assert totals.cache_hits > 0
        assert len(made.calls) == 23, "every kind of call was made"
        stats = made.ledger.stats()
        assert (stats.dropped, stats.failures) == (0, 0)
