"""The cache as an object: what it needs, what it refuses, what it adds up."""

from __future__ import annotations

import errno
import math
import multiprocessing
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from costopt import Answer, ConfigError, LocalStore, RedisStore, SemanticCache, StoreError, Usage
from costopt.caching.flight import Caller
from tests.faults.words import NEAR, Words, found, human, keep

ANSWER = Answer(({"kind": "chat", "content": "Yes."},), Usage(10, 5))


def question(cache: SemanticCache, text: str) -> Any:
    return cache.request([{"role": "user", "content": text}], model="gpt-4o-mini")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"ttl": 0}, "seconds greater than 0, or None"),
        ({"ttl": -1}, "seconds greater than 0"),
        ({"ttl": math.inf}, "seconds greater than 0"),
        ({"ttl": math.nan}, "seconds greater than 0"),
        ({"min_similarity": -0.01}, r"\[0, 1\]"),
        ({"min_similarity": 1.01}, r"\[0, 1\]"),
        ({"min_similarity": math.nan}, r"\[0, 1\]"),
        ({"tenant": ""}, "name whose answers"),
        ({"tenant": "  "}, "name whose answers"),
        ({"tags": "docs"}, "give a list"),
        ({"time_budget": 0}, "seconds greater than 0"),
    ],
)
def test_bad_options_are_refused_with_the_mend(tmp_path: Path, options: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        SemanticCache(LocalStore(tmp_path / "cache.db"), **options)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LocalStore("x", max_bytes=0), "size in bytes"),
        (lambda: RedisStore(), "or a client="),
        (lambda: RedisStore("redis://h", client=object()), "not both"),
        (lambda: RedisStore("http://user:secret@h"), "no Redis URL"),
        (lambda: RedisStore("redis://h", namespace="a:b"), "plain word"),
        (lambda: RedisStore("redis://h", namespace=""), "plain word"),
        (lambda: RedisStore("redis://h", timeout=0), "greater than 0"),
    ],
)
def test_bad_stores_are_refused_with_the_mend(make: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=says) as error:
        make()
    assert "secret" not in str(error.value)


def test_the_environment_chooses_the_store(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("COSTOPT_REDIS_URL", "REDIS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COSTOPT_CACHE_DIR", str(tmp_path / "here"))
    local = SemanticCache().store
    assert isinstance(local, LocalStore)
    assert local.path == tmp_path / "here" / "cache.db"
    monkeypatch.setenv("REDIS_URL", "redis://localhost:1")
    assert isinstance(SemanticCache().store, RedisStore)


def test_exact_only_needs_no_model(tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['torch'] = None; import costopt\n"
        f"cache = costopt.SemanticCache(costopt.LocalStore({str(tmp_path / 'cache.db')!r}), exact_only=True)\n"
        "asked = cache.request([{'role': 'user', 'content': 'Hello?'}], model='m')\n"
        "cache.update(asked, costopt.Answer(({'kind': 'chat', 'content': 'Hi'},)))\n"
        "print(cache.lookup(asked).tier, dict(cache.stats().failures)); cache.close()"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "exact {}", done.stderr


def test_sums_that_could_not_be_written_are_written_later(tmp_path: Path) -> None:
    class Full(LocalStore):
        full = True

        def add_totals(self, totals: Any) -> None:
            if self.full:
                raise StoreError("disk full")
            super().add_totals(totals)

    store = Full(tmp_path / "cache.db")
    cache = SemanticCache(store, exact_only=True)
    cache.update(question(cache, "Hello?"), ANSWER)
    assert cache.lookup(question(cache, "Hello?"))
    cache.close()
    store.full = False
    cache.close()
    cache.close()
    assert dict(store.totals()) == {"lookups": 1, "exact": 1, "stored": 1, "saved_tokens": 15, "unpriced": 1}
    cache.close()


def look_and_leave(path: str) -> None:
    store = LocalStore(path)
    store.size()
    store.close()


def test_a_process_that_looks_and_leaves_takes_nothing_along(tmp_path: Path) -> None:
    """Closing a second descriptor of the file dropped our locks on it; who left last then removed our log."""
    path = tmp_path / "cache.db"
    cache = SemanticCache(LocalStore(path), exact_only=True)
    cache.update(question(cache, "first"), ANSWER)
    cache.lookup(question(cache, "first"))
    other = multiprocessing.get_context("spawn").Process(target=look_and_leave, args=(str(path),))
    other.start()
    other.join()
    for i in range(20):
        cache.update(question(cache, f"question {i}"), ANSWER)
    fresh = LocalStore(path)
    assert fresh.size().entries == 21
    assert cache.stats().failures == {}
    fresh.close()
    cache.close()


def test_any_judge_plugs_in_and_a_failing_one_is_stepped_over(tmp_path: Path) -> None:
    seen = []

    class Yes:
        def judge(self, asked: str, candidates: Any) -> Any:
            seen.append((asked, [text for text, _ in candidates]))
            if asked.endswith("!"):
                raise RuntimeError("no idea")
            return [type("V", (), {"accepted": True, "reason": "because"})() for _ in candidates]

    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), judge=Yes(), min_similarity=0.5, time_budget=10.0).warm()
    assert seen == [], "a judge may cost money"
    cache.update(question(cache, "How do I bake bread?"), ANSWER)
    hit = cache.lookup(question(cache, "How do I bake rye bread?"))
    assert hit is not None
    assert (hit.tier, hit.reason) == ("semantic", "because")
    assert cache.lookup(question(cache, "How do I bake white bread!")) is None
    assert cache.lookup(question(cache, "Which planets have rings?")) is None
    assert [texts for _, texts in seen] == [["How do I bake bread?"]] * 2, "too far is not shown to the judge"
    assert cache.stats().failures == {"judge: RuntimeError": 1}
    cache.close()


def test_a_hit_is_served_though_its_caller_cannot_tell_its_tags(tmp_path: Path) -> None:
    told = [["docs"]]
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), embedder=Words(), judge=NEAR, tags=lambda: told[0])
    keep(cache, "how old is the moon")
    told.clear()
    hit = cache.lookup(human(cache, "the moon is how old"), Caller(sys._getframe()))
    assert hit is not None
    assert (hit.tier, dict(cache.stats().failures)) == ("semantic", {})
    cache.close()


def test_a_function_that_tells_one_tag_means_one_tag(tmp_path: Path) -> None:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), exact_only=True, tags=lambda: "docs-v3")
    keep(cache, "Hello?")
    assert (cache.invalidate(tag="d"), cache.invalidate(tag="docs-v3")) == (0, 1)
    cache.close()


def test_a_full_disk_leaves_nothing_beside_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), embedder=Words(), judge=NEAR)
    keep(cache, "how old is the moon")
    assert found(cache, "the moon is how old") is not None

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    cache.close()
    assert [file.name for file in tmp_path.iterdir() if file.name.startswith(".")] == []


def test_what_an_adapter_cannot_make_anything_of_counts_as_a_miss(tmp_path: Path) -> None:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), exact_only=True)
    cache.update(question(cache, "Hello?"), ANSWER)

    def unable(_: Any) -> None:
        raise KeyError("extra")

    assert cache.served(cache.lookup(question(cache, "Hello?")), lambda hit: hit.tier) == "exact"
    assert cache.served(cache.lookup(question(cache, "Hello?")), unable) is None
    assert cache.served(cache.lookup(question(cache, "Bye?")), unable) is None
    stats = cache.stats()
    assert (stats.lookups, stats.hits, stats.unpriced, stats.saved_tokens) == (3, 1, 1, 15)
    assert (dict(stats.misses), dict(stats.failures)) == ({"unfit": 1, "exact only": 1}, {"entry: KeyError": 1})
    cache.close()
