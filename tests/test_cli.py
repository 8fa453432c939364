"""The command line, as a user runs it: a process, its two streams and its exit code."""

from __future__ import annotations

import gzip
import importlib.metadata
import json
import re
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import redis
import typer
from typer.testing import CliRunner

from costopt import Answer, LocalStore, RedisStore, SemanticCache, Usage, doctor
from costopt.caching.online import Evidence, encode_evidence
from costopt.caching.policy import default_policy, load_policy
from costopt.cli import app
from costopt.embedding import DEFAULT_SPACE
from tests.command import costopt
from tests.servers import RedisServer

ROOT = Path(__file__).parents[1]
ACCOUNTS = (ROOT / "cookbook" / "deploy" / "redis" / "users.acl.template").read_text("utf-8")
REDIS_PAGE = (ROOT / "docs" / "redis.md").read_text("utf-8")


def pairs(path: Path) -> Path:
    rows = [
        {"a": "How do I reset my password?", "b": "How can I reset my password?", "same": True},
        {"a": "How do I reset my password?", "b": "How do I reset my password?", "same": 1},
        {"a": "Name the top 5 films", "b": "Name the top 10 films", "same": 0},
        {"a": "Where is my parcel?", "b": "Which planets have rings?", "same": False},
        {"a": "What is a llama?", "b": "Tell me everything about the animal", "same": True},
    ]
    text = "\n".join(map(json.dumps, rows)) + "\n\n"
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


@pytest.mark.parametrize("name", ["pairs.jsonl", "pairs.jsonl.gz", "-"])
def test_eval_counts_what_the_cache_would_do(tmp_path: Path, name: str) -> None:
    file = pairs(tmp_path / (name if name != "-" else "piped.jsonl"))
    stdin = file.read_text() if name == "-" else None
    done = costopt("cache", "eval", "-" if name == "-" else file, "--json", folder=tmp_path, stdin=stdin)
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert (found["pairs"], found["same"], found["served"], found["right"], found["exact"]) == (5, 3, 2, 2, 1)
    assert found["precision"] == 1.0
    assert found["vetoed"] == {"guard: number": 1}
    low, high = found["recall_interval"]
    assert found["recall"] == pytest.approx(2 / 3)
    assert low < 2 / 3 < high


def test_eval_without_guards_is_wrong_where_they_would_have_helped(tmp_path: Path) -> None:
    file = pairs(tmp_path / "pairs.jsonl")
    done = costopt("cache", "eval", file, "--no-guards", "--cosine", "0.8", folder=tmp_path)
    assert done.returncode == 0
    assert "0.667" in done.stdout
    assert "kept back" not in done.stdout


def test_eval_serves_the_same_text_only_when_no_error_is_allowed(tmp_path: Path) -> None:
    file = pairs(tmp_path / "pairs.jsonl")
    found = json.loads(costopt("cache", "eval", file, "--max-error", "0", "--json", folder=tmp_path).stdout)
    assert (found["max_error"], found["served"], found["exact"]) == (0, 1, 1)


THINGS = "password phone router invoice address username modem calendar thermostat printer counter keyboard".split()


def asked_in_two_ways(path: Path) -> Path:
    rows = [
        {"a": f"How do I {verb} my {thing}?", "b": f"How can I {verb} my {thing}?", "same": True}
        for verb in ("reset", "change")
        for thing in THINGS
    ]
    path.write_text("\n".join(map(json.dumps, rows)))
    return path


def test_tune_writes_a_policy_that_eval_goes_by(tmp_path: Path) -> None:
    file, policy = asked_in_two_ways(tmp_path / "mine.jsonl"), tmp_path / "policy.json"
    done = costopt("cache", "tune", file, "--max-error", "0.2", "--out", policy, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "24 pairs, 24 of which the judge was asked about" in done.stdout
    assert "coverage   1.000  (95 % interval 0.862 - 1.000)" in done.stdout
    assert "error      0.000  (95 % interval 0.000 - 0.138)" in done.stdout
    assert "for an error of at most 0.2" in done.stdout
    assert f"written to {policy}" in done.stderr.replace("\n", "")
    found = json.loads(costopt("cache", "eval", file, "--policy", policy, "--json", folder=tmp_path).stdout)
    assert (found["max_error"], found["served"], found["precision"]) == (0.2, 24, 1.0)


def reject_all(folder: Path) -> None:
    """Every hit of a cache whose judge believes anything."""
    cache = SemanticCache(LocalStore(folder / "cache.db"), judge=lambda asked, cached: 0.99, time_budget=30.0).warm()
    for number, line in enumerate(asked_in_two_ways(folder / "asked.jsonl").read_text().splitlines()):
        stored, asked = (
            cache.request([{"role": "user", "content": json.loads(line)[side]}], model=f"m{number}") for side in "ab"
        )
        cache.update(stored, Answer(({"kind": "chat", "content": "An answer."},)))
        hit = cache.lookup(asked)
        assert hit is not None
        cache.reject(hit)
    cache.close()


def test_what_was_rejected_is_piped_into_tune_and_makes_it_stricter(tmp_path: Path) -> None:
    reject_all(tmp_path)
    printed = costopt("cache", "pairs", folder=tmp_path)
    assert (printed.returncode, printed.stderr.strip()) == (0, "24 pairs")
    rows = [json.loads(line) for line in printed.stdout.splitlines()]
    assert rows[0] == {
        "a": "How do I reset my password?",
        "b": "How can I reset my password?",
        "same": False,
        "probability": 0.99,
    }
    policy = tmp_path / "policy.json"
    done = costopt("cache", "tune", "-", "--out", policy, "--json", folder=tmp_path, stdin=printed.stdout)
    found = json.loads(done.stdout)
    assert (found["pairs"], found["judged"], found["wrong"]) == (24, 24, found["served"])
    assert found["out"] == str(policy)
    before, after = default_policy(), load_policy(policy)
    assert after.probability(2.0) < before.probability(2.0)
    assert after.threshold(0.05) >= before.threshold(0.05)


def test_pairs_prints_what_no_terminal_can_show(tmp_path: Path) -> None:
    """Half a character, as a client that cuts strings sends it, ended the command with a traceback."""
    store = LocalStore(tmp_path / "cache.db")
    store.bind(*DEFAULT_SPACE)
    store.add_evidence("t", "s", encode_evidence(Evidence("caf\u00e9 \ud83d", "b", same=True, probability=0.9)))
    store.add_evidence("t", "s", b"not ours")
    store.close()
    done = costopt("cache", "pairs", folder=tmp_path, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr.strip()) == (0, "1 pairs")
    assert json.loads(done.stdout)["b"] == "caf\u00e9 \ud83d"


def test_a_policy_that_cannot_be_written_says_where_it_should_be(tmp_path: Path) -> None:
    file = asked_in_two_ways(tmp_path / "mine.jsonl")
    done = costopt("cache", "tune", file, "--out", tmp_path / "missing" / "policy.json", folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert "give another --out" in " ".join(done.stderr.split())


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ("{oops", "line 2: not JSON"),
        ("[1]", "line 2: a JSON object is expected"),
        ('{"a": "x", "b": "y"}', 'line 2: a pair is {"a"'),
        ('{"a": "x", "b": null, "same": true}', "line 2: a pair is"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, says: str) -> None:
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"a": "x", "b": "y", "same": true}\n' + line + "\n")
    done = costopt("cache", "eval", file, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in done.stderr.replace("\n", " ")
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (("cache", "eval", "missing.jsonl"), "missing.jsonl cannot be read: No such file"),
        (("cache", "eval", "empty.jsonl"), "there are no pairs"),
        (("cache", "eval", "empty.jsonl", "--min-similarity", "1.5"), "cosine similarity in [0, 1]"),
        (("cache", "eval", "empty.jsonl", "--cosine", "1.5"), "cosine similarity in [0, 1]"),
        (("cache", "eval", "empty.jsonl", "--cosine", "0.9", "--max-error", "0.1"), "leave out --max-error, --policy"),
        (("cache", "eval", "empty.jsonl", "--max-error", "1"), "give the share of served answers that may be wrong"),
        (("cache", "eval", "empty.jsonl", "--policy", "missing.jsonl"), "`costopt cache tune` writes one"),
        (("cache", "eval", "empty.jsonl", "--policy", "empty.jsonl"), "make one by `costopt cache tune`"),
        (("cache", "tune", "missing.jsonl"), "missing.jsonl cannot be read: No such file"),
        (("cache", "tune", "empty.jsonl"), "0 of 0 pairs can be judged, and 20 are needed: add pairs"),
        (("cache", "tune", "empty.jsonl", "--max-error", "-0.1"), "give the share of served answers"),
        (("cache", "pairs"), "there is no cache at"),
        (("cache", "pairs", "--redis", "redis://h", "--path", "f"), "not both"),
        (("cache", "stats"), "if yours lies elsewhere, give --path or --redis"),
        (("cache", "stats", "--path", "f", "--namespace", "n"), "give --redis, or leave --namespace out"),
        (("cache", "stats", "--redis", "redis://h", "--namespace", "a:b"), "namespace is 'a:b': give a plain word"),
        (("cache", "clear", "--tenant", ""), "--tenant is empty: name a tenant, or leave it out"),
        (("cache", "clear", "--yes", "--model", " "), "--model is empty"),
        (("doctor", "--namespace", "n"), "set COSTOPT_REDIS_URL"),
        (("cache", "stats", "--redis", "localhost:6379"), "is no Redis URL"),
        (("cache", "stats", "--redis", "redis://h", "--path", "f"), "not both"),
        (("demo", "--log", "missing.jsonl"), "cannot be read"),
        (("demo", "--log", "empty.jsonl"), "holds no requests"),
        (("nonsense",), "No such command"),
    ],
)
def test_every_mistake_says_what_would_be_right(tmp_path: Path, args: tuple[str, ...], says: str) -> None:
    (tmp_path / "empty.jsonl").touch()
    placed = [str(tmp_path / arg) if arg.endswith(".jsonl") else arg for arg in args]
    done = costopt(*placed, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert says in " ".join(done.stderr.split())


def test_a_redis_that_is_not_there_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    done = costopt("cache", "stats", "--redis", "redis://127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 1
    assert "Redis failed" in done.stderr
    assert "Traceback" not in done.stderr


def fill(folder: Path) -> None:
    cache = SemanticCache(LocalStore(folder / "cache.db"), tenant="acme", tags=["v1"], exact_only=True)
    for text in ("one", "two"):
        question = cache.request([{"role": "user", "content": text}], model="gpt-4o-mini")
        cache.update(question, Answer(({"kind": "chat", "content": text},), Usage(10, 5)))
        assert cache.lookup(question)
    cache.close()


def test_stats_and_clear(tmp_path: Path) -> None:
    fill(tmp_path)
    facts = json.loads(costopt("cache", "stats", "--json", folder=tmp_path).stdout)
    assert (facts["entries"], facts["lookups"], facts["exact"], facts["saved_tokens"]) == (2, 2, 2, 30)
    assert "hit rate" in costopt("cache", "stats", folder=tmp_path).stdout
    assert costopt("cache", "clear", folder=tmp_path, stdin="n\n").returncode == 1
    assert "0 entries" in costopt("cache", "clear", "--tag", "v2", "--yes", folder=tmp_path).stderr
    assert "2 entries" in costopt("cache", "clear", "--tenant", "acme", "--yes", folder=tmp_path).stderr
    assert json.loads(costopt("cache", "stats", "--json", folder=tmp_path).stdout)["entries"] == 0


def test_doctor_finds_this_installation_sound(tmp_path: Path, redis_url: str) -> None:
    done = costopt("doctor", "--json", folder=tmp_path, COSTOPT_REDIS_URL=redis_url)
    checks = {check["name"]: check for check in json.loads(done.stdout)}
    assert done.returncode == 0, done.stdout
    assert checks["redis"]["state"] == checks["embedder"]["state"] == checks["local store"]["state"] == "ok"
    assert "all-MiniLM-L6-v2" in checks["embedder"]["finding"]
    extras = set(importlib.metadata.metadata("costopt").get_all("Provides-Extra", [])) - {"all"}
    assert extras == {name.removeprefix("extra [")[:-1] for name in checks if name.startswith("extra ")}


def test_doctor_names_the_mend_for_what_is_broken(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    done = costopt("doctor", folder=tmp_path, COSTOPT_REDIS_URL="redis://127.0.0.1:1", COSTOPT_CACHE_DIR=str(file))
    assert done.returncode == 1
    assert "BAD  redis" in done.stdout
    assert "is it running" in done.stdout
    assert f"BAD  local store: NotADirectoryError: {file} is a file" in done.stdout


@pytest.mark.parametrize("namespace", [None, "support-app"])
def test_the_accounts_that_are_deployed_are_told_what_they_may_not_look_at(
    namespace: str | None, tmp_path: Path, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = re.findall(r"`(~support-app\S*)`", REDIS_PAGE)[0]
    more = f" {keys}" if namespace else ""
    setup, app = (
        redis_server.user(name, "secret", re.findall(rf"^user {name} on #\w+ (.*)", ACCOUNTS, re.MULTILINE)[0] + more)
        for name in ("setup", "app")
    )
    named: dict[str, Any] = {"namespace": namespace} if namespace else {}
    monkeypatch.setenv("COSTOPT_REDIS_URL", app)
    found = doctor._redis(namespace)
    assert (found.state, "make the index by an account that may" in found.mend) == ("bad", True), found

    with closing(RedisStore(setup, timeout=5.0, **named)) as store:
        store.open()
        store.add_totals({"lookups": 3})
    found = doctor._redis(namespace)
    assert (found.state, found.finding) == ("ok", "reached, a lookup works; this account may not count the entries")
    args = ("cache", "stats", "--redis", app, *(("--namespace", namespace) if namespace else ()))
    done = costopt(*args, "--json", folder=tmp_path)
    facts = json.loads(done.stdout)
    assert (facts["entries"], facts["lookups"]) == (None, 3)
    assert "entries cannot be counted" in " ".join(done.stderr.split())

    monkeypatch.setenv("COSTOPT_REDIS_URL", setup)
    assert "0 entries" in doctor._redis(namespace).finding


def test_a_namespace_is_looked_at_by_itself(tmp_path: Path, redis_url: str, redis_client: redis.Redis) -> None:
    for namespace in ("costopt", "costopt-two"):
        cache = SemanticCache(RedisStore(redis_url, namespace=namespace, timeout=5.0), time_budget=30, exact_only=True)
        cache.update(
            cache.request([{"role": "user", "content": "?"}], model="m"), Answer(({"kind": "chat", "content": "!"},))
        )
        cache.store.add_evidence("t", "s", encode_evidence(Evidence("a", "b", same=True, probability=0.9)))
        cache.close()
    there = ("--redis", redis_url, "--namespace", "costopt-two")
    assert costopt("cache", "pairs", *there, folder=tmp_path).stderr.strip() == "1 pairs"
    assert "1 entries" in costopt("cache", "clear", "--yes", *there, folder=tmp_path).stderr
    left = [
        json.loads(costopt("cache", "stats", "--json", *args, folder=tmp_path).stdout) for args in (there, there[:2])
    ]
    assert [each["entries"] for each in left] == [0, 1]


def commands(command: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    for name, each in getattr(command, "commands", {}).items():
        yield (*names, name), each
        yield from commands(each, *names, name)


def test_help_shows_all_that_was_written(monkeypatch: pytest.MonkeyPatch) -> None:
    """Rich takes [minilm] for a style, and leaves it out."""
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 400)
    for names, command in commands(typer.main.get_command(app)):
        page = " ".join(CliRunner().invoke(app, [*names, "--help"]).output.replace("│", " ").split())
        written = [command.help or "", *(getattr(each, "help", None) or "" for each in command.params)]
        for text in written:
            for part in re.findall(r"\S*\[.*?\]", text):
                assert part.replace("\\[", "[") in page, (names, part)


def outcome(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    return {row["name"]: row for row in json.loads(done.stdout)}


@pytest.mark.parametrize("where", ["local", "redis"])
def test_the_demo_saves_and_serves_nothing_wrong(tmp_path: Path, where: str, request: pytest.FixtureRequest) -> None:
    args = ["--redis", request.getfixturevalue("redis_url")] if where == "redis" else []
    rows = outcome(costopt("demo", "--json", *args, folder=tmp_path))
    assert rows["no cache"]["calls"] == rows["no cache"]["requests"] == 316
    assert float(rows["costopt"]["usd"]) < float(rows["exact only"]["usd"]) < float(rows["no cache"]["usd"])
    assert rows["costopt"]["hits"]["semantic"] > 0
    assert rows["costopt"]["wrong_hits"] == 0


def test_the_demo_replays_a_log_without_labels(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    rows = [{"messages": [{"role": "user", "content": text}]} for text in ("What is a llama?", "What is a llama?")]
    log.write_text("\n".join(map(json.dumps, rows)))
    done = costopt("demo", "--log", log, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "not labelled" in done.stdout
    assert "SIMULATED" in done.stdout


def test_a_log_line_without_messages_is_named(tmp_path: Path) -> None:
    log = tmp_path / "log.jsonl"
    log.write_text('{"prompt": "hello"}\n')
    done = costopt("demo", "--log", log, folder=tmp_path)
    assert done.returncode == 2
    assert 'line 1: "messages" is missing' in done.stderr.replace("\n", " ")
