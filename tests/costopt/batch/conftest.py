"""Both providers, through their real SDKs, against a server on loopback."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.batch_server import BatchServer, batch_server
from tests.costopt.batch.support import Setup, close_clients, provider


@pytest.fixture
def server() -> Iterator[BatchServer]:
    with batch_server() as running:
        yield running
        close_clients()


@pytest.fixture(params=["openai", "anthropic"])
def setup(request: pytest.FixtureRequest, server: BatchServer, tmp_path: Path) -> Setup:
    return Setup(request.param, server, provider(request.param, server.url), tmp_path / "journal.db")
