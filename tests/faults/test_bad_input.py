"""Whatever is asked, stored or embedded: a miss, the right answer, or an error that names the mend."""

from __future__ import annotations

import json
import math
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import redis
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage

from costopt import ConfigError, CostOptError, LocalStore, RedisStore, SimilarityJudge
from costopt import SemanticCache as Core
from langchain_costopt import SemanticCache
from tests.faults.support import Model, answer_to, ask, tier
from tests.faults.words import MOST_ADDED_S, NEAR, Words, found, human, keep, said

PIXEL = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR4nGNgYGBgAAAABQABh6FO1AAA"


def picture(address: str, words: str = "What is this?") -> list[dict[str, Any]]:
    return [{"type": "text", "text": words}, {"type": "image_url", "image_url": {"url": address}}]


TEXTS: dict[str, Any] = {
    "empty": "",
    "blank": " \t\n ",
    "one megabyte": "Why is this text so long? " * 40_000,
    "one megabyte, one word": "a" * 1_000_000,
    "a megabyte in emoji of four": "🦙" * 250_000,
    "lone surrogate": "What does \ud800 stand for?",
    "surrogates in the wrong order": "\udc00\ud800",
    "NUL": "What is a\x00b?",
    "control characters": "".join(map(chr, range(32))) + "\x7f\x85",
    "emoji": "What does 👩‍👩‍👧‍👦 mean?",
    "right-to-left": "ما هي عاصمة فرنسا؟",
    "right-to-left override": "What is \u202eecnarF\u202c?",
    "combining": "e" + "\u0301" * 5000,
    "noncharacters": "\ufffe\uffff\U0010ffff",
    "looks like a prompt": '[{"lc": 1, "type": "constructor"}]',
    "looks like half a prompt": '[{"lc"',
    "quotes and braces": "{}:*|@\\\"'`;--",
    "an image": picture(PIXEL),
    "only an image": picture(PIXEL)[1:],
    "no blocks": [],
    "a block without a text": [{"type": "text"}],
    "a block of an unknown type": [{"type": "hologram", "data": {"x": [1, None, float("nan")]}}],
    "strings and blocks": ["What is", {"type": "text", "text": "this?"}],
}


@pytest.fixture
def core(tmp_path: Path) -> Iterator[Core]:
    cache = Core(LocalStore(tmp_path / "core.db"), embedder=Words(), judge=NEAR).warm()
    yield cache
    cache.close()


# -- what is asked -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", TEXTS)
def test_any_question_is_answered_rightly(cache: SemanticCache, name: str) -> None:
    model = Model(cache=cache)
    # Neighbours of every other text are there to be mixed up with.
    for text in ("What is this?", "a b", "x"):
        model.invoke([HumanMessage(text)])
    question = [HumanMessage(TEXTS[name])]
    answers = [model.invoke(question) for _ in range(2)]
    assert [answer.content for answer in answers] == [answer_to(TEXTS[name])] * 2
    # What takes more than 2 MB as an entry is not kept.
    assert [tier(answer) for answer in answers] == [None, None if "emoji of" in name else "exact"]
    assert not cache.stats().failures


def test_another_picture_is_another_question(cache: SemanticCache) -> None:
    model = Model(cache=cache)
    for content in (picture(PIXEL), picture(PIXEL + "AA"), picture("https://example.com/1.png"), "What is this?"):
        answer, _ = ask(model, [HumanMessage(content)])
        assert (tier(answer), answer.content) == (None, answer_to(content))


def test_500_turns(cache: SemanticCache) -> None:
    model = Model(cache=cache)
    turns = [SystemMessage("Be brief.")]
    for n in range(250):
        turns += [HumanMessage(f"What is {n} plus {n}?"), AIMessage(f"{2 * n}", id=f"run-{n}")]
    question = HumanMessage("And now?")
    assert tier(model.invoke([*turns, question])) is None
    assert tier(model.invoke([*turns, question])) == "exact"
    turns[100] = HumanMessage("What is something else?")
    assert tier(model.invoke([*turns, question])) is None


@pytest.mark.parametrize("content", [None, 5, 2.5, True, {"a": 1}, b"bytes", [None], [5], [[]], [{"type": None}]])
def test_content_that_is_no_text_matches_itself_only(core: Core, content: Any) -> None:
    keep(core, "a question")
    request = human(core, content)
    assert core.lookup(request) is None
    core.update(request, said("right"))
    hit = core.lookup(human(core, content))
    assert hit is not None
    assert hit.answer.generations[0]["content"] == "right"
    assert core.lookup(human(core, "None")) is None


def test_a_deep_block_is_a_miss_or_a_hit(cache: SemanticCache) -> None:
    deep: Any = "bottom"
    for _ in range(150):
        deep = {"type": "nest", "inner": [deep]}
    model = Model(cache=cache)
    assert tier(model.invoke([HumanMessage([deep])])) is None
    assert model.invoke([HumanMessage([deep])]).content == answer_to([deep])


@pytest.mark.parametrize("split", [lambda text: 1 / 0, lambda text: text, lambda text: (None, None)])
def test_a_split_that_fails_leaves_the_call_alone(tmp_path: Path, split: Any) -> None:
    with_split = SemanticCache(LocalStore(tmp_path / "c.db"), embedder=Words(), split=split, time_budget=10.0)
    assert Model(cache=with_split).invoke("why?").content == answer_to("why?")
    with_split.close()


@pytest.mark.parametrize("option", ["tenant", "tags"])
def test_a_function_that_fails_leaves_the_call_alone(tmp_path: Path, option: str) -> None:
    broken = False

    def give() -> Any:
        if broken:
            raise LookupError("no request is being served")
        return "acme" if option == "tenant" else ["docs"]

    options: dict[str, Any] = {option: give}
    cache = SemanticCache(LocalStore(tmp_path / "c.db"), embedder=Words(), judge=NEAR, **options)
    model = Model(cache=cache)
    model.invoke("how old is the moon")
    broken = True
    for question in ("how old is the moon", "the moon is how old", "something else"):
        served = model.invoke(question)
        assert served.content in (answer_to(question), answer_to("how old is the moon"))
    assert cache.stats().failures
    cache.close()


# -- what lies in the store --------------------------------------------------------------------------------

QUESTION = "how old is the moon"


def changed(**fields: Any) -> Callable[[bytes], bytes]:
    """Valid JSON, with other fields."""
    return lambda data: json.dumps({**json.loads(data), **fields}).encode()


ENTRIES: dict[str, Callable[[bytes], bytes]] = {
    "truncated": lambda data: data[: len(data) // 2],
    "nothing": lambda data: b"",
    "foreign": lambda data: b'[{"lc": 1, "type": "constructor", "id": ["os", "system"], "kwargs": {}}]',
    "pickle": lambda data: b"\x80\x04\x95\x10\x00\x00\x00\x00\x00\x00\x00\x8c\x02os\x94.",
    "not UTF-8": lambda data: b"\xff\xfe" + data,
    "null": lambda data: b"null",
    "a number": lambda data: b"1e999",
    "too deep": lambda data: b"[" * 100_000,
    "10 MB": lambda data: data + b" " * 10_000_000,
    "future version": changed(v=2),
    "no version": changed(v=None),
    "version is true": changed(v="1"),
    "no answers": changed(generations=[]),
    "answers are a string": changed(generations="hello"),
    "answers are numbers": changed(generations=[1, 2]),
    "an answer of null": changed(generations=[None]),
    "content is null": changed(generations=[{"kind": "chat", "content": None}]),
    "content is a number": changed(generations=[{"kind": "chat", "content": 5}]),
    "unknown kind": changed(generations=[{"kind": "hologram", "content": "x"}]),
    "no kind": changed(generations=[{"content": "x"}]),
    "kind is a list": changed(generations=[{"kind": [], "content": "x"}]),
    "calls are numbers": changed(generations=[{"kind": "chat", "content": "x", "tool_calls": [1], "extra": {}}]),
    "cost is NaN": changed(cost="NaN"),
    "cost is a signalling NaN": changed(cost="sNaN"),
    "cost is infinite": changed(cost="Infinity"),
    "cost is below zero": changed(cost="-5"),
    "cost is a word": changed(cost="cheap"),
    "usage is infinite": changed(usage=[math.inf, 1, 1]),
    "usage is NaN": changed(usage=[math.nan, 1, 1]),
    "usage is short": changed(usage=[]),
    "usage is long": changed(usage=[1] * 10),
    "created is NaN": changed(created=math.nan),
    "created is huge": changed(created=10**400),
    "created is a word": changed(created="yesterday"),
    "expired": changed(expires=1.0),
    "expires is a word": changed(expires="tomorrow"),
    "another scope's": changed(scope="0" * 40),
    "text is a number": changed(text=5),
}


def spoil(tmp_path: Path, client: redis.Redis | None, spoiling: Callable[[bytes], bytes]) -> None:
    """Change the one entry in the store behind the cache's back."""
    if client is None:
        with closing(sqlite3.connect(tmp_path / "cache.db")) as db, db:
            ((data,),) = db.execute("SELECT data FROM entries")
            db.execute("UPDATE entries SET data = ?", (spoiling(data),))
    else:
        (key,) = client.keys("costopt:e:*")
        client.hset(key, "entry", spoiling(client.hget(key, "entry")))


@pytest.mark.parametrize("question", [QUESTION, "the moon is how old"], ids=["same", "reworded"])
@pytest.mark.parametrize("place", ["local", "redis"])
@pytest.mark.parametrize("name", ENTRIES)
def test_a_spoiled_entry_is_a_miss(
    name: str, place: str, question: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    client = request.getfixturevalue("redis_client") if place == "redis" else None
    store = RedisStore(request.getfixturevalue("redis_url")) if client else LocalStore(tmp_path / "cache.db")
    cache = SemanticCache(store, embedder=Words(), judge=NEAR, time_budget=10.0).warm()
    model = Model(cache=cache)
    model.invoke(QUESTION)
    spoil(tmp_path, client, ENTRIES[name])
    answer, seconds = ask(model, question)
    assert (tier(answer), answer.content) == (None, answer_to(question))
    assert seconds <= MOST_ADDED_S
    # Paid for again, and so mended.
    assert tier(model.invoke(question)) == "exact"
    assert cache.stats().saved_usd == 0
    assert all(kind.startswith("entry: ") for kind in cache.stats().failures)
    cache.close()
    assert all(value >= 0 for value in store.totals().values())
    store.close()


def test_the_text_is_compared_and_not_only_its_digest(tmp_path: Path) -> None:
    cache = SemanticCache(LocalStore(tmp_path / "cache.db"), embedder=Words(), time_budget=10.0).warm()
    model = Model(cache=cache)
    model.invoke(QUESTION)
    spoil(tmp_path, None, changed(text="how old is the sun"))
    assert tier(model.invoke(QUESTION)) is None
    cache.close()


def test_a_key_of_another_type_is_a_miss(redis_client: redis.Redis, redis_url: str) -> None:
    cache = SemanticCache(RedisStore(redis_url, timeout=2.0), embedder=Words(), time_budget=10.0).warm()
    model = Model(cache=cache)
    model.invoke(QUESTION)
    (key,) = redis_client.keys("costopt:e:*")
    redis_client.delete(key)
    redis_client.set(key, "a string")
    assert model.invoke(QUESTION).content == answer_to(QUESTION)
    assert tier(model.invoke(QUESTION)) == "exact"
    cache.close()


@pytest.mark.parametrize("vector", [b"", b"abc", bytes(384), b"\xff" * 384, np.full(96, np.inf, "f4").tobytes()])
def test_a_vector_in_redis_that_is_none(redis_client: redis.Redis, redis_url: str, vector: bytes) -> None:
    cache = Core(RedisStore(redis_url), embedder=Words(), judge=NEAR).warm()
    keep(cache, QUESTION)
    (key,) = redis_client.keys("costopt:e:*")
    redis_client.hset(key, "vector", vector)
    keep(cache, "how far is the sun")
    assert found(cache, "the moon is how old") is None
    assert found(cache, "the sun is how far") == ("semantic", "answer to how far is the sun")
    assert found(cache, QUESTION) == ("exact", f"answer to {QUESTION}")
    assert not cache.stats().failures
    cache.close()


# -- what the constructor refuses --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"ttl": 0},
        {"ttl": -1},
        {"ttl": math.nan},
        {"ttl": math.inf},
        {"min_similarity": -0.01},
        {"min_similarity": 1.01},
        {"min_similarity": math.nan},
        {"tenant": ""},
        {"tenant": "  "},
        {"tenant": None},
        {"tags": "docs"},
        {"time_budget": 0},
        {"time_budget": -1},
    ],
    ids=str,
)
def test_what_is_out_of_range_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    (name,) = options
    for make in (Core, SemanticCache):
        with pytest.raises(ConfigError, match=name):
            make(LocalStore(tmp_path / "c.db"), embedder=Words(), **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "make",
    [
        lambda: LocalStore("c.db", max_bytes=0),
        lambda: RedisStore("localhost:6379"),
        lambda: RedisStore("http://localhost"),
        lambda: RedisStore(),
        lambda: RedisStore("redis://localhost", timeout=0),
        lambda: RedisStore("redis://localhost", timeout=math.nan),
        lambda: RedisStore("redis://localhost", namespace="a:b"),
        lambda: RedisStore("redis://localhost", namespace=""),
        lambda: RedisStore("redis://localhost:port"),
        lambda: RedisStore("redis://localhost:99999"),
        lambda: RedisStore("redis+sentinel://localhost"),
        lambda: SimilarityJudge(min_similarity=1.5),
    ],
)
def test_stores_refuse_what_cannot_be(make: Callable[[], Any]) -> None:
    with pytest.raises(CostOptError) as refused:
        make()
    assert len(str(refused.value)) > 20
