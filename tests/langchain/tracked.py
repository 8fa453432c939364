"""What the tests of cost trackers share."""

from __future__ import annotations

from typing import Any

from langchain_openai import ChatOpenAI

from costopt.audit import Attempt
from langchain_costopt import CostTracker
from tests.billing import Bill
from tests.openai_server import OpenAIServer


def chat(server: OpenAIServer, **options: Any) -> ChatOpenAI:
    return ChatOpenAI(
        **{"base_url": server.url, "api_key": "sk-none", "max_retries": 0, "model": "gpt-4o-mini", **options}
    )


def rows(tracker: CostTracker) -> list[Attempt]:
    return list(tracker.ledger.attempts())


def assert_billed(tracker: CostTracker, bill: Bill) -> None:
    """To the token and the cent, in the file and in the object."""
    for totals in (tracker.ledger.totals(), tracker.totals()):
        assert {name: getattr(totals, name) for name in bill.tokens} == dict(bill.tokens)
        assert totals.cost == bill.dollars
        assert (totals.unpriced, totals.estimated) == (0, 0)
