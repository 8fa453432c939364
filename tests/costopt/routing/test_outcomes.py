"""Outcomes are read as they are, or refused with the line and the mend; no prompt is on both sides of a split."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from costopt import ConfigError
from costopt.routing import Outcomes, read_outcomes
from costopt.routing.outcomes import check_apart, fingerprints, read_prompts
from tests.costopt.routing.rows import outcomes


def written(path: Path, *rows: Any) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows))
    return path


def row(prompt: str, **scores: Any) -> dict[str, Any]:
    return {"prompt": prompt, "scores": scores}


def test_tiers_are_in_the_order_of_their_mean_scores_or_as_given(tmp_path: Path) -> None:
    file = written(tmp_path / "o.jsonl", row("a", big=1, mid=0.5, small=0), row("b", big=1, mid=1, small=1))
    assert read_outcomes(file).tiers == ("small", "mid", "big")
    assert read_outcomes(file).scores.tolist() == [[0, 0.5, 1], [1, 1, 1]]
    chosen = read_outcomes(file, ["big", "small"])
    assert (chosen.tiers, chosen.scores.tolist()) == (("big", "small"), [[1, 0], [1, 1]])
    assert chosen.gains.tolist() == [-1, 0]


def test_gzip_and_answers_and_true_and_false(tmp_path: Path) -> None:
    rows = [{"prompt": "a", "scores": {"s": False, "b": True}, "answers": {"s": "no", "b": "yes", "x": "?"}}]
    (tmp_path / "o.jsonl.gz").write_bytes(gzip.compress("\n\n".join(map(json.dumps, rows)).encode()))
    found = read_outcomes(tmp_path / "o.jsonl.gz")
    assert (found.tiers, found.scores.tolist()) == (("s", "b"), [[0, 1]])
    assert found.answers == {"s": ("no",), "b": ("yes",)}


def test_rows_that_lack_a_tier_are_left_out_and_counted(tmp_path: Path) -> None:
    file = written(tmp_path / "o.jsonl", row("a", s=0, b=1), row("b", s=0), row("c", s=0, b=None), row("d", s=1, b=1))
    found = read_outcomes(file)
    assert (found.prompts, found.incomplete) == (("a", "d"), 2)


def test_rows_of_one_prompt_become_one_with_the_mean_of_their_scores(tmp_path: Path) -> None:
    file = written(
        tmp_path / "o.jsonl", row("What is it?", s=0, b=1), row("b", s=0, b=0), row("what  is it? ", s=1, b=1)
    )
    found = read_outcomes(file)
    assert (found.prompts, found.merged) == (("What is it?", "b"), 1)
    assert found.scores.tolist() == [[0.5, 1], [0, 0]]


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([], "is empty: give lines of"),
        (["nonsense"], "line 1: not JSON"),
        ([{"scores": {"a": 1}}], "line 1: an outcome is"),
        ([{"prompt": "  ", "scores": {}}], "line 1: an outcome is"),
        ([{"prompt": "a", "scores": [1, 2]}], "line 1: an outcome is"),
        ([row("a", s=0, b=1), row("b", s=0, b=1.5)], r"line 2: the score of 'b' is 1.5: give a number in \[0, 1\]"),
        (['{"prompt": "a", "scores": {"s": NaN, "b": 1}}'], "the score of 's' is nan"),
        (['{"prompt": "a", "scores": {"s": Infinity, "b": 1}}'], "the score of 's' is inf"),
        ([row("a", s="good", b=1)], "the score of 's' is 'good'"),
        ([row("a", s=1)], "two different models at least"),
        ([row("a", s=1), row("b", b=1)], "no row has the scores of all of s, b"),
        ([row("a")], "the tiers are none"),
    ],
)
def test_what_is_wrong_with_a_file_is_named(tmp_path: Path, rows: list[Any], named: str) -> None:
    with pytest.raises(ConfigError, match=named):
        read_outcomes(written(tmp_path / "o.jsonl", *rows))


def test_an_unknown_tier_is_named_with_those_there_are(tmp_path: Path) -> None:
    file = written(tmp_path / "o.jsonl", row("a", s=0, b=1))
    with pytest.raises(ConfigError, match="has no scores of c: it has those of s, b"):
        read_outcomes(file, ["s", "c"])
    with pytest.raises(ConfigError, match="two different models"):
        read_outcomes(file, ["s", "s"])
    with pytest.raises(ConfigError, match="cannot be read"):
        read_outcomes(tmp_path / "absent.jsonl")


def test_a_split_is_by_seed_whole_and_without_a_prompt_on_both_sides() -> None:
    made = outcomes(100)
    drawn, rest = made.split(30, seed=5)
    assert (len(drawn), len(rest)) == (30, 70)
    assert set(drawn.prompts) | set(rest.prompts) == set(made.prompts)
    check_apart(drawn.prompts, rest.prompts)
    assert made.split(30, seed=5)[0].prompts == drawn.prompts != made.split(30, seed=6)[0].prompts
    place = made.prompts.index(drawn.prompts[0])
    assert drawn.scores[0].tolist() == made.scores[place].tolist()
    assert drawn.answers["small-model"][0] == made.answers["small-model"][place]
    assert len(made.split(100)[1]) == 0


@pytest.mark.parametrize("labels", [0, -1, 101])
def test_more_labels_than_there_are_cannot_be_drawn(labels: int) -> None:
    with pytest.raises(ConfigError, match="there are 100 complete rows"):
        outcomes(100).split(labels)


def test_a_prompt_on_both_sides_is_shown() -> None:
    with pytest.raises(ConfigError, match=r"1 of 2 prompts to measure on were trained on, such as 'What is  IT\?'"):
        check_apart(["what is it?", "b"], ["c", "What is  IT?"])


def test_the_digest_tells_data_apart() -> None:
    one, two = outcomes(20), outcomes(20, seed=1)
    assert one.digest == outcomes(20).take(range(20)).digest != two.digest
    turned = Outcomes(one.prompts, one.tiers[::-1], one.scores)
    assert turned.digest != one.digest


def test_fingerprints_take_any_text() -> None:
    found = fingerprints(["\ud800", "", "a" * 1_000_000])
    assert (found.dtype, len(set(found.tolist()))) == (np.uint64, 3)


def test_prompts_are_read_in_order_with_their_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"prompt": "b", "answers": {"s": "x", "t": None}}, {"prompt": "a", "scores": {"s": 9}}, {"prompt": ""}]
    monkeypatch.setattr("sys.stdin", io.StringIO("\n".join(map(json.dumps, lines))))
    assert read_prompts("-") == (["b", "a", ""], [{"s": "x"}, {}, {}])
    for bad, named in (
        ("", "is empty"),
        ('{"text": "a"}', "line 1: a prompt is"),
        ('{"prompt": "a", "answers": 1}', "answers"),
    ):
        with pytest.raises(ConfigError, match=named):
            read_prompts(written(tmp_path / "p.jsonl", bad))
