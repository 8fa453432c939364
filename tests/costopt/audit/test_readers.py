"""Each format from a sample written by hand after its documentation; and files that are none of them."""

from __future__ import annotations

import gzip
import io
import json
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from costopt.audit import Attempt, Ledger
from costopt.audit.attempt import PromptShape
from costopt.audit.readers import FORMATS, LogReader
from costopt.audit.readers.fields import messages_of, moment, put_usage
from costopt.audit.record import Record
from costopt.errors import ConfigError, CostOptError
from costopt.pricing import Usage
from costopt.usage import usage_of

SAMPLES = Path(__file__).parent / "samples"


def read(name: str) -> tuple[list[Record], LogReader]:
    reader = LogReader(SAMPLES / f"{name}.jsonl")
    return list(reader), reader


def test_openai_requests_in_the_ways_in_which_people_log_them() -> None:
    (chat, tools, row, failed_row, anthropic, responses, estimated, failed), reader = read("openai")
    assert reader.format == "openai"
    assert (chat.input_tokens, chat.cached_tokens, chat.tells_cached, chat.latency_s) == (120, 100, True, 0.85)
    assert chat.messages is not None
    assert [message["role"] for message in chat.messages] == ["system", "user"]
    assert (chat.answer, chat.tags, chat.params) == ("Yes, in black.", ("shop",), {"temperature": 0})
    assert (tools.called, tools.session, tools.started) == (("look_up",), "s1", 1795161700.0)
    assert (row.batch, row.ok, failed_row.ok, row.answer) == (True, True, False, "positive")
    # Anthropic's own count leaves out what a cache had to do with; ours never does.
    assert (anthropic.input_tokens, anthropic.cached_tokens, anthropic.cache_write_tokens) == (2114, 2000, 100)
    assert anthropic.messages is not None
    assert anthropic.messages[0] == {"role": "system", "content": "Be brief."}
    assert (responses.input_tokens, responses.output_tokens, responses.answer) == (20, 70, "No.")
    assert (estimated.input_tokens, estimated.answer) == (-1, "Indeed.")
    assert (failed.ok, failed.input_tokens) == (False, -1)


def test_langsmith_runs() -> None:
    (agent, claude, failed), reader = read("langsmith")
    assert (reader.format, reader.others) == ("langsmith", 1)
    assert (agent.model, agent.provider, agent.latency_s) == ("gpt-4o", "openai", 1.5)
    assert (agent.input_tokens, agent.cached_tokens, agent.cost) == (400, 256, 0.00093)
    assert (agent.called, agent.session, agent.params) == (("search",), "t-1", {"temperature": 0.2})
    assert agent.messages == [
        {"role": "system", "content": "You are a librarian."},
        {"role": "user", "content": "Which book first?"},
    ]
    assert (claude.started, claude.answer, claude.input_tokens) == (1795161605.0, "Hi", 8)
    assert (failed.ok, failed.input_tokens) == (False, -1), "0 tokens are what a run without usage has"


def test_langfuse_observations_whose_kinds_of_tokens_exclude_each_other() -> None:
    (shoes, claude, failed), reader = read("langfuse")
    assert (reader.format, reader.others) == ("langfuse", 1)
    # The figures of the example in its documentation.
    assert (shoes.input_tokens, shoes.cached_tokens, shoes.output_tokens) == (17_903, 17_817, 188)
    assert (shoes.name, shoes.session, shoes.tenant, shoes.stream) == ("shoes", "s1", "acme", True)
    assert shoes.tools is not None
    assert shoes.params == {"temperature": 0.7}
    assert (claude.input_tokens, claude.cached_tokens, claude.cache_write_tokens) == (2060, 2000, 50)
    assert claude.cost is None, "without a price it writes 0"
    assert (failed.ok, failed.input_tokens) == (False, 7)


def test_litellm_payloads_and_spend_logs() -> None:
    (chat, hit, failed), reader = read("litellm")
    assert (reader.format, reader.others) == ("litellm", 1), "embeddings are no answers"
    assert (chat.input_tokens, chat.cached_tokens, chat.cost, chat.stream) == (120, 100, 0.000405, True)
    assert (chat.tenant, chat.session, chat.latency_s) == ("team-1", "tr-1", 1.25)
    assert (hit.hit, hit.cost, hit.tags, hit.tenant) == (True, 0.0, ("shop", "night"), "team-2")
    assert (failed.ok, failed.cost) == (False, None)


@pytest.mark.parametrize(
    ("name", "unknown", "skipped"),
    [
        ("openai", "shoe", [9, 10, 11]),
        ("langsmith", "verdict", [5]),
        ("langfuse", "colour", [5]),
        ("litellm", "weather", [5]),
    ],
)
def test_unknown_fields_are_named_and_bad_lines_told_by_number(name: str, unknown: str, skipped: list[int]) -> None:
    _, reader = read(name)
    assert reader.unknown == {unknown: 1}
    assert sorted(line for line, _ in reader.skipped.first) == skipped
    assert reader.skipped.count == len(skipped)


def test_a_ledger_is_read_without_being_written_to(tmp_path: Path) -> None:
    path = tmp_path / "ledger.db"
    ledger = Ledger(path)
    shape = PromptShape(system=400, question=40, system_hash="aa")
    attempts = [
        Attempt(
            "gpt-4o", started=100.0 + i, usage=Usage(110, 10, 100), cost=Decimal("0.01"), prompt_hash="h", shape=shape
        )
        for i in range(3)
    ]
    attempts.append(Attempt("gpt-4o", started=200.0, cache="exact", avoided_usage=Usage(110, 10), prompt_hash="h"))
    ledger.record_all(attempts)
    ledger.close()
    path.chmod(0o400)
    reader = LogReader(path)
    first, *_, hit = list(reader)
    assert reader.format == "ledger"
    assert (first.input_tokens, first.cached_tokens, first.cost, first.prompt_hash) == (110, 100, 0.01, "h")
    assert (hit.hit, hit.input_tokens, hit.cost) == (True, 110, None)
    assert first.shape == shape


@pytest.mark.parametrize("ending", [".jsonl", ".jsonl.gz", ".json", "page.json", "-"])
def test_the_same_rows_come_out_of_every_kind_of_file(
    tmp_path: Path, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [{"model": "gpt-4o", "messages": [{"role": "user", "content": f"What is {i}?"}]} for i in range(5)]
    data = "\n".join(map(json.dumps, rows)).encode()
    if ending == ".json":
        data = json.dumps(rows, indent=1).encode()
    elif ending == "page.json":
        data = json.dumps({"data": rows, "meta": {"page": 1}}).encode().replace(b'"messages"', b'"input"')
        data = data.replace(b'"model": "gpt-4o"', b'"type": "GENERATION", "traceId": "t", "model": "gpt-4o"')
    path = tmp_path / f"log{ending}"
    if ending == "-":
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xef\xbb\xbf" + data)))
    else:
        path.write_bytes(gzip.compress(data) if ending.endswith("gz") else data)
    records = list(LogReader("-" if ending == "-" else path))
    assert [record.messages[0]["content"] for record in records if record.messages] == [
        f"What is {i}?" for i in range(5)
    ]


def binary(path: Path) -> None:
    path.write_bytes(bytes(range(256)) * 100)


def long_line(path: Path, size: int) -> None:
    """A line of which the disk has no more than the ends; `make bench` has one of 5 GB."""
    with path.open("wb") as file:
        file.write(b'{"a": "' + b"x" * (2 << 20))
        file.seek(size)
        file.write(b'"}\n')


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda path: path.write_bytes(b""), "is empty"),
        (lambda path: path.write_bytes(b" \n\n "), "is empty"),
        (binary, "is no text"),
        (lambda path: path.write_bytes(b"PK\x03\x04rest"), "zip archive"),
        (lambda path: path.write_bytes(gzip.compress(b"{}")), "give it the ending .gz"),
        (lambda path: path.write_text("hello\nworld"), "line 1: not JSON"),
        (lambda path: path.write_text('{"a": 1}'), "of no format that is known; its first row has a"),
        (lambda path: path.write_text("[1, 2"), "begins like a JSON array"),
        (lambda path: path.write_bytes(b"SQLite format 3\0" + b"\0" * 2000), "is no ledger"),
        (lambda path: path.write_bytes(b'{"model": "\xff\xfe"}'), "not JSON"),
        (lambda path: path.mkdir(), "cannot be read"),
        (lambda path: None, "cannot be read"),
    ],
)
def test_what_is_no_log_says_so(tmp_path: Path, make: Callable[[Path], Any], says: str) -> None:
    make(tmp_path / "log.jsonl")
    with pytest.raises(ConfigError, match=says):
        list(LogReader(tmp_path / "log.jsonl"))


def test_a_broken_gzip_says_so(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl.gz"
    path.write_bytes(gzip.compress(random.Random(1).randbytes(100_000).hex().encode())[:-50_000])
    with pytest.raises(ConfigError, match="cannot be read to its end"):
        list(LogReader(path))


def test_a_line_that_is_too_long_is_passed_over_and_never_held(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    good = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "Why?"}]})
    path.write_text(f'{good}\n{{"a": "{"x" * 300_000}"}}\n{good}\n')
    reader = LogReader(path, max_line=100_000)
    assert len(list(reader)) == 2
    assert reader.skipped.first == [(2, "longer than 0 MiB")]


def test_a_line_without_end_is_an_error_and_takes_no_memory(tmp_path: Path) -> None:
    import resource

    long_line(tmp_path / "log.jsonl", 400 << 20)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ConfigError, match="line 1: longer than 1 MiB"):
        list(LogReader(tmp_path / "log.jsonl", max_line=1 << 20, format="openai"))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200 * 1024


def test_an_unknown_format_is_refused() -> None:
    with pytest.raises(ConfigError, match="give one of langsmith, langfuse, litellm, openai, ledger"):
        LogReader("x", format="csv")


@pytest.mark.parametrize("text", ["1795341600", 1795341600, 1795341600000, "2026-11-22T10:00:00+00:00",
                                  "2026-11-22 10:00:00.000", "2026-11-22T11:00:00+01:00"])  # fmt: skip
def test_moments_in_all_ways_are_one(text: Any) -> None:
    assert moment(text) == 1795341600.0


@pytest.mark.parametrize("value", [None, True, "", "soon", -5, float("nan"), float("inf"), "9" * 400, [], 10**30])
def test_what_is_no_moment_is_none(value: Any) -> None:
    assert moment(value) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(
    name=st.sampled_from(sorted(FORMATS)),
    place=st.integers(0, 2),
    changes=st.dictionaries(st.integers(0, 40), JSON, max_size=6),
    removed=st.sets(st.integers(0, 40), max_size=6),
)
def test_whatever_stands_in_a_field_a_row_is_read_or_skipped(
    name: str, place: int, changes: dict[int, Any], removed: set[int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    rows = [json.loads(line) for line in (SAMPLES / f"{name}.jsonl").read_text().splitlines()[:3]]
    row = rows[place % len(rows)]
    for number, field in enumerate(list(row)):
        if number in changes:
            row[field] = changes[number]
        elif number in removed:
            del row[field]
    path = tmp_path_factory.mktemp("fuzz") / "log.jsonl"
    path.write_text(json.dumps(row) + "\n")
    reader = LogReader(path, format=name)
    records = list(reader)
    assert len(records) + reader.others + reader.skipped.count == 1
    for record in records:
        assert record.input_tokens >= -1
        assert record.output_tokens >= -1


@given(data=st.binary(max_size=300))
def test_bytes_at_random_are_never_a_surprise(data: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("fuzz") / "log.jsonl"
    path.write_bytes(data)
    with suppress(CostOptError):
        list(LogReader(path))


COUNTS = st.integers(0, 10_000)


@given(
    read=COUNTS,
    written=COUNTS,
    cached=st.none() | COUNTS,
    extra=st.sampled_from([{}, {"total_tokens": 3}, {"completion_tokens_details": {"reasoning_tokens": 2}},
                           {"cache_read_input_tokens": 7}, {"cost": 0.1}]),
)  # fmt: skip
def test_the_short_way_to_usage_counts_as_the_long_one(
    read: int, written: int, cached: int | None, extra: dict[str, Any]
) -> None:
    said = {"prompt_tokens": read, "completion_tokens": written, **extra}
    if cached is not None:
        said["prompt_tokens_details"] = {"cached_tokens": cached}
    record = Record(None, "gpt-4o")
    put_usage(record, said)
    found = usage_of(said)
    assert found is not None
    assert (record.input_tokens, record.output_tokens, record.cached_tokens, record.cache_write_tokens) == (
        found.input_tokens,
        found.output_tokens,
        found.cached_tokens,
        found.cache_write_tokens,
    )


def test_messages_of_every_framework_are_the_same() -> None:
    plain = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Why?"}]
    shapes = [
        plain,
        json.dumps(plain),
        {"messages": plain},
        [["system", "Be brief."], ["human", "Why?"]],
        [{"type": "system", "content": "Be brief."}, {"type": "human", "content": "Why?"}],
        [{"type": "system", "data": {"content": "Be brief."}}, {"type": "human", "data": {"content": "Why?"}}],
        [{"role": "developer", "content": "Be brief."}, {"role": "user", "content": "Why?"}],
    ]
    for shape in shapes:
        assert messages_of(shape) == plain
