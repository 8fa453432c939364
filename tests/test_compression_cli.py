"""`costopt compress`, as a user runs it: a process, its two streams and its exit code."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import pytest

from costopt.compression import Counter
from tests.command import costopt

TEXT = "The museum opened in 1931.\nIt is built of brick.\nTickets cost 12 EUR.\nDogs must stay outside.\n"
COUNT = Counter("gpt-4o")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "museum.txt"
    path.write_text(TEXT, "utf-8")
    return path


def test_what_a_question_needs_is_printed(file: Path, tmp_path: Path) -> None:
    done = costopt("compress", "--query", "How much is a ticket?", "--ratio", "0.3", file, folder=tmp_path)
    assert (done.returncode, done.stdout) == (0, "Tickets cost 12 EUR.")
    before, after = COUNT(TEXT), COUNT(done.stdout)
    assert f"{after} of {before} tokens kept ({after / before:.1%}), counted by o200k_base" in done.stderr


def test_the_view_shows_what_stays_and_what_goes(file: Path, tmp_path: Path) -> None:
    done = costopt("compress", "--query", "How much is a ticket?", "--tokens", "8", "--show", file, folder=tmp_path)
    assert done.stdout.splitlines() == [
        "- The museum opened in 1931.",
        "- It is built of brick.  [not needed, 14 tokens]",
        "  Tickets cost 12 EUR.",
        "- Dogs must stay outside.  [not needed, 5 tokens]",
    ]


def test_json_for_machines(file: Path, tmp_path: Path) -> None:
    done = costopt("compress", "--query", "Are dogs allowed?", "--ratio", "0.3", "--json", file, folder=tmp_path)
    facts = json.loads(done.stdout)
    assert facts["text"] == "Dogs must stay outside."
    assert "".join(TEXT[start:end] for start, end in facts["kept"]) == facts["text"]
    assert facts["tokens_after"] == COUNT(facts["text"])
    assert (facts["exact"], facts["counted_by"]) == (True, "o200k_base")
    assert facts["dropped"][0][2] == "not needed"


def test_stdin_and_gzip_without_a_question(tmp_path: Path) -> None:
    done = costopt("compress", "-", folder=tmp_path, stdin='{"a":  1}\n')
    assert (done.returncode, done.stdout) == (0, '{"a":1}\n')
    assert "only what loses nothing" in done.stderr
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"a":  1}'))
    assert costopt("compress", tmp_path / "a.json.gz", folder=tmp_path).stdout == '{"a":1}'


def test_what_is_to_be_kept_is_kept(file: Path, tmp_path: Path) -> None:
    done = costopt("compress", "--query", "tickets?", "--tokens", "12", "--protect", "Dogs", file, folder=tmp_path)
    assert "Dogs must stay outside." in done.stdout
    done = costopt("compress", "--model", "claude-haiku-4-5", file, folder=tmp_path)
    assert "counted by estimate (an estimate)" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--ratio", "1.5", "museum.txt"], "above 0 and at most 1"),
        (["--ratio", "0.5", "--tokens", "5", "museum.txt"], "not both"),
        (["absent.txt"], "absent.txt cannot be read"),
        (["binary.txt"], "is not UTF-8 text"),
        (["broken.gz"], "cannot be read"),
    ],
)
def test_what_was_used_wrongly_is_named(file: Path, tmp_path: Path, arguments: list[str], named: str) -> None:
    (tmp_path / "binary.txt").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "broken.gz").write_bytes(b"no gzip")
    place = [str(tmp_path / each) if each.endswith((".txt", ".gz")) else each for each in arguments]
    done = costopt("compress", *place, folder=tmp_path)
    assert done.returncode == 2
    assert named in done.stderr
    assert "Traceback" not in done.stderr
