"""`costopt router`, as a user runs it: a process, its two streams and its exit code."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from costopt.routing import GainEstimator, Outcomes
from tests.command import costopt
from tests.costopt.routing.rows import outcomes


def written(path: Path, rows: Outcomes, *, answers: bool = True) -> Path:
    lines = []
    for i, prompt in enumerate(rows.prompts):
        line: dict[str, Any] = {"prompt": prompt, "scores": dict(zip(rows.tiers, rows.scores[i].tolist(), strict=True))}
        if answers:
            line["answers"] = {model: texts[i] for model, texts in rows.answers.items()}
        lines.append(json.dumps(line))
    text = "\n".join(lines).encode()
    path.write_bytes(gzip.compress(text) if path.suffix == ".gz" else text)
    return path


def router(*args: object, folder: Path, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
    return costopt("router", *args, folder=folder, stdin=stdin)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with outcomes and a router that was trained on 350 of them."""
    folder = tmp_path_factory.mktemp("router")
    written(folder / "outcomes.jsonl.gz", outcomes(800))
    written(folder / "prompts.jsonl", outcomes(800).take(range(600, 800)))
    done = router("train", folder / "outcomes.jsonl.gz", "--out", folder / "r", "--labels", 350, folder=folder)
    assert done.returncode == 0, done.stderr
    (folder / "trained.txt").write_text(done.stdout)
    return folder


def test_train_says_what_it_made_and_what_to_do_next(place: Path) -> None:
    said = (place / "trained.txt").read_text()
    assert "mode       route: 350 labelled prompts; from 100 labels a router shadows, from 300 it routes" in said
    assert "APGR " in said
    assert "over length +" in said
    assert f'costopt router calibrate PROMPTS --router "{place / "r"}" --strong-share 0.3' in said
    assert sorted(path.name for path in place.glob("r.*")) == ["r.json", "r.npz"]


@pytest.mark.parametrize(("labels", "mode"), [(60, "off"), (120, "shadow")])
def test_few_labels_are_said_to_be_few(place: Path, tmp_path: Path, labels: int, mode: str) -> None:
    args = ["train", place / "outcomes.jsonl.gz", "--out", tmp_path / "few", "--labels", labels, "--seed", 7]
    done = router(*args, folder=tmp_path)
    assert f"mode       {mode}: {labels} labelled prompts" in done.stdout
    found = json.loads(router(*args, "--json", folder=tmp_path).stdout)
    assert (found["mode"], found["rows"]) == (mode, labels)
    assert json.loads((tmp_path / "few.json").read_text())["mode"] == mode
    assert GainEstimator.load(tmp_path / "few").mode == mode
    lines = router("score", place / "prompts.jsonl", "--router", tmp_path / "few", folder=tmp_path)
    scores = {json.loads(line)["score"] for line in lines.stdout.splitlines()}
    assert (len(scores) == 1) == (mode == "off")
    assert ("this router is off" in lines.stderr) == (mode == "off")
    calibrated = router(
        "calibrate", place / "prompts.jsonl", "--router", tmp_path / "few", "--strong-share", 0.3, folder=tmp_path
    )
    assert (calibrated.returncode, "needs 100 to shadow" in calibrated.stderr) == (
        (2, True) if mode == "off" else (0, False)
    )


def test_eval_measures_only_what_was_not_trained_on(place: Path, tmp_path: Path) -> None:
    picture = tmp_path / "curve.svg"
    args = ["eval", place / "outcomes.jsonl.gz", "--router", place / "r.npz", "--resamples", 200]
    done = router(*args, "--json", "--plot", picture, folder=tmp_path)
    found = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert (found["prompts"], found["trained_on"]) == (450, 350)
    assert "350 prompts on which the router was trained were left out" in done.stderr
    assert set(found["controls"]) == {"random", "length", "shuffled", "oracle"}
    for each in (found, found["cascade"], *found["controls"].values()):
        for name in ("apgr", "cpt50", "cpt80", "share_at_95"):
            low, high = each["intervals"][name]
            assert low <= each[name] <= high
    assert found["over_length"]["apgr"]["interval"][0] > 0
    assert found["cascade"]["apgr"] > found["apgr"]
    assert [point["share"] for point in found["points"]] == pytest.approx([i / 10 for i in range(11)])
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
    shown = router(*args, folder=tmp_path).stdout
    assert f"APGR           {found['apgr']:.3f}" in shown
    assert "small-model scores" in shown


def test_eval_of_the_heuristic_needs_no_training(place: Path, tmp_path: Path) -> None:
    done = router(
        "eval", place / "outcomes.jsonl.gz", "--router", "heuristic", "--resamples", 50, "--json", folder=tmp_path
    )
    found = json.loads(done.stdout)
    assert (found["prompts"], found["trained_on"], found["cascade"]) == (800, 0, None)


def test_score_prints_one_line_a_prompt_in_order(place: Path, tmp_path: Path) -> None:
    hard, easy = "Find the integral of x^3 * e^(7x) from 0 to 9, step by step.", "What is the currency of Peru?"
    prompts = [hard, easy, hard, "Ein Gedicht über den Herbst, bitte ohne Adjektive und ohne Reime!"]
    stdin = "\n".join(json.dumps({"prompt": prompt}) for prompt in prompts)
    done = router("score", "-", "--router", place / "r", folder=tmp_path, stdin=stdin)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 4
    assert found[0]["score"] == found[2]["score"] > found[1]["score"] + 0.2
    assert [line["novel"] for line in found] == [False, False, False, True]
    assert {line["by"] for line in found} == {"prompt"}
    assert done.stderr == ""


def test_the_question_alone_is_read_where_a_marker_stands_before_it(place: Path, tmp_path: Path) -> None:
    question = "What is the currency of Peru?"
    stdin = json.dumps({"prompt": f"{'Find the integral of x^3. ' * 40}Question: {question}"})
    args = ("score", "-", "--router", place / "r")
    parted = router(*args, "--split", "Question: ", folder=tmp_path, stdin=stdin)
    bare = router(*args, folder=tmp_path, stdin=json.dumps({"prompt": question}))
    assert parted.stdout == bare.stdout != router(*args, folder=tmp_path, stdin=stdin).stdout


def test_score_reads_the_cheap_answer_where_there_is_one(place: Path, tmp_path: Path) -> None:
    prompt = "A shop in Peru sells 4 boxes at $7 each and takes 5 % off. How much is left after tax?"
    answers = ["First, 4 + 7 = 11. So the answer is 11.", "First, 4 + 7 = 18, so", None]
    lines = [{"prompt": prompt, "answers": {"small-model": answer, "large-model": "12"}} for answer in answers]
    stdin = "\n".join(map(json.dumps, lines))
    done = router("score", "-", "--router", place / "r", folder=tmp_path, stdin=stdin)
    right, wrong, unread = (json.loads(line) for line in done.stdout.splitlines())
    assert [line["by"] for line in (right, wrong, unread)] == ["answer", "answer", "prompt"]
    assert right["score"] < unread["score"] < wrong["score"]


def calibrated(place: Path, folder: Path, *target: object) -> Any:
    for suffix in (".npz", ".json"):
        (folder / f"r{suffix}").write_bytes((place / f"r{suffix}").read_bytes())
    return router("calibrate", place / "prompts.jsonl", "--router", folder / "r", *target, folder=folder)


def test_calibrate_writes_the_thresholds_and_prints_what_to_paste(place: Path, tmp_path: Path) -> None:
    done = calibrated(place, tmp_path, "--strong-share", 0.3)
    loaded = GainEstimator.load(tmp_path / "r")
    assert done.returncode == 0, done.stderr
    assert loaded.thresholds is not None
    assert f"thresholds  {loaded.thresholds[0]:.4f}" in done.stdout
    pasted = f'router = Router(["small-model", "large-model"], estimator=GainEstimator.load("{tmp_path / "r"}"))'
    assert pasted in done.stdout
    assert f"Cascade(estimator=router.estimator.for_answers(), threshold={loaded.cascade_threshold:.4f})" in done.stdout
    assert loaded.about["calibration"] == {"policy": "StrongShare(share=0.3)", "prompts": 200}


def test_calibrate_keeps_to_each_target(place: Path, tmp_path: Path) -> None:
    prices = ["--price", "small-model=0.1/0.2", "--price", "large-model=3/12"]
    share = json.loads(calibrated(place, tmp_path, "--strong-share", 0.25, "--json").stdout)
    assert share["shares"]["large-model"] == pytest.approx(0.25, abs=0.01)
    assert share["dollars_per_1000"] is None
    quality = json.loads(calibrated(place, tmp_path, "--quality", 0.9, "--json").stdout)
    assert 0.9 <= quality["quality"] < 0.93
    dollars = json.loads(calibrated(place, tmp_path, "--dollars", "1.50", *prices, "--json").stdout)
    assert 1.4 < dollars["dollars_per_1000"] <= 1.5 < dollars["dollars_per_1000_strong"]


@pytest.mark.parametrize(
    ("target", "named"),
    [
        ([], "give one target"),
        (["--strong-share", 0.3, "--quality", 0.9], "give one target"),
        (["--strong-share", 1.5], "give a share in"),
        (["--dollars", "much"], "no amount of dollars"),
        (["--dollars", "2"], "has no price"),
        (["--dollars", "2", "--price", "small-model"], "MODEL=INPUT/OUTPUT"),
        (["--dollars", "0.000001", "--price", "small-model=1/2", "--price", "large-model=3/12"], "cannot be met"),
    ],
)
def test_a_target_that_cannot_be_is_named(place: Path, tmp_path: Path, target: Sequence[object], named: str) -> None:
    done = calibrated(place, tmp_path, *target)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert GainEstimator.load(tmp_path / "r").thresholds is None


def _one_class(folder: Path) -> list[object]:
    rows = [{"prompt": f"What is {n}?", "scores": {"a": 0, "b": 1}} for n in range(40)]
    (folder / "o.jsonl").write_text("\n".join(map(json.dumps, rows)))
    return ["train", folder / "o.jsonl", "--out", folder / "x"]


def _scores_out_of_range(folder: Path) -> list[object]:
    (folder / "o.jsonl").write_text('{"prompt": "a", "scores": {"a": 0, "b": 7}}')
    return ["train", folder / "o.jsonl", "--out", folder / "x"]


def _empty(folder: Path) -> list[object]:
    (folder / "o.jsonl").write_text("")
    return ["train", folder / "o.jsonl", "--out", folder / "x"]


@pytest.mark.parametrize(
    ("command", "named"),
    [
        (_one_class, "one class only"),
        (_scores_out_of_range, "give a number in [0, 1]"),
        (_empty, "is empty"),
        (
            lambda folder: ["train", "{place}/outcomes.jsonl.gz", "--out", folder / "x", "--labels", 9_000],
            "there are 800",
        ),
        (
            lambda folder: ["train", "{place}/outcomes.jsonl.gz", "--out", folder / "x", "--tiers", "a,b"],
            "has no scores of a",
        ),
        (lambda folder: ["train", "{place}/outcomes.jsonl.gz", "--out", folder / "none" / "x"], "cannot be written"),
        (lambda folder: ["eval", "{place}/outcomes.jsonl.gz", "--router", folder / "absent"], "costopt router train"),
        (lambda folder: ["eval", folder / "absent.jsonl", "--router", "{place}/r"], "cannot be read"),
        (lambda folder: ["score", "{place}/outcomes.jsonl.gz", "--router", folder / "absent"], "there is no router"),
    ],
)
def test_what_is_wrong_is_named_and_exits_with_2(place: Path, tmp_path: Path, command: Any, named: str) -> None:
    args = [str(arg).replace("{place}", str(place)) for arg in command(tmp_path)]
    done = router(*args, folder=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.glob("x.*"))


def test_rows_that_are_left_out_or_merged_are_counted(tmp_path: Path) -> None:
    rows = outcomes(150)
    file = written(tmp_path / "o.jsonl", rows, answers=False)
    extra = [{"prompt": rows.prompts[0].upper(), "scores": {"small-model": 1, "large-model": 1}}]
    extra += [{"prompt": f"only {n}", "scores": {"small-model": 1}} for n in range(3)]
    file.write_text(file.read_text() + "\n" + "\n".join(map(json.dumps, extra)))
    done = router("train", file, "--out", tmp_path / "r", folder=tmp_path)
    assert "3 rows without the scores of all tiers were left out" in done.stderr
    assert "1 rows had a prompt that was there before" in done.stderr
    assert "150 labelled prompts" in done.stdout


def test_a_router_that_has_seen_everything_cannot_be_measured(tmp_path: Path) -> None:
    file = written(tmp_path / "o.jsonl", outcomes(150), answers=False)
    assert router("train", file, "--out", tmp_path / "r", folder=tmp_path).returncode == 0
    done = router("eval", file, "--router", tmp_path / "r", folder=tmp_path)
    assert done.returncode == 2
    assert "trained on all 150 prompts" in done.stderr
