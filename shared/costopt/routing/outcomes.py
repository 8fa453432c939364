"""What was measured: prompts, and how good the answer of each model was. The reader, its checks, and honest splits."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from costopt.errors import ConfigError
from costopt.jsonl import read_jsonl

__all__ = ["Outcomes", "check_apart", "fingerprints", "read_outcomes", "read_prompts"]

_SHAPE = '{"prompt": "...", "scores": {"model": 0.0 to 1.0, ...}}'


@dataclass(frozen=True, slots=True)
class Outcomes:
    """Prompts with the quality of each tier's answer; every prompt once.

    Attributes:
        prompts: The prompts.
        tiers: Names of the models, cheapest first.
        scores: Quality in [0, 1], shape (prompts, tiers).
        answers: What a model answered to each prompt (None where that is not known), by model; may be empty.
        incomplete: How many rows were left out because a tier had no score there.
        merged: How many rows were merged into another of the same prompt, the scores averaged.
    """

    prompts: tuple[str, ...]
    tiers: tuple[str, ...]
    scores: NDArray[np.float64]
    answers: Mapping[str, tuple[str | None, ...]] = field(default_factory=dict)
    incomplete: int = 0
    merged: int = 0

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def gains(self) -> NDArray[np.float64]:
        """Quality of the strongest tier less that of the cheapest, shape (prompts,)."""
        found: NDArray[np.float64] = self.scores[:, -1] - self.scores[:, 0]
        return found

    @property
    def digest(self) -> str:
        """Hash of prompts, tiers and scores, so that a router can say what it was trained on."""
        state = hashlib.blake2b(repr(self.tiers).encode("utf-8", "replace"), digest_size=16)
        state.update(fingerprints(self.prompts).tobytes())
        state.update(np.ascontiguousarray(self.scores).tobytes())
        return state.hexdigest()

    def take(self, rows: Sequence[int] | NDArray[np.intp]) -> Outcomes:
        """Only these rows, in this order."""
        places = [int(row) for row in rows]
        answers = {model: tuple(texts[i] for i in places) for model, texts in self.answers.items()}
        return Outcomes(tuple(self.prompts[i] for i in places), self.tiers, self.scores[places], answers)

    def split(self, labels: int, seed: int = 0) -> tuple[Outcomes, Outcomes]:
        r"""So many rows drawn at random, and the others; no prompt is in both.

        Raises:
            ConfigError: If there are not so many rows.

        Example:
            >>> from costopt.routing import read_outcomes
            >>> rows = ['{"prompt": "%d?", "scores": {"a": 0, "b": 1}}' % n for n in range(10)]
            >>> _ = (tmp / "outcomes.jsonl").write_text("\n".join(rows))
            >>> drawn, rest = read_outcomes(tmp / "outcomes.jsonl").split(4, seed=1)
            >>> len(drawn), len(rest), set(drawn.prompts) & set(rest.prompts)
            (4, 6, set())
        """
        if not 1 <= labels <= len(self):
            raise ConfigError(
                f"{labels} labels are asked for, and there are {len(self)} complete rows: ask for 1 to that"
            )
        order = np.random.default_rng(seed).permutation(len(self))
        return self.take(order[:labels]), self.take(order[labels:])


def read_outcomes(source: str | Path, tiers: Sequence[str] | None = None) -> Outcomes:
    """Read JSON lines of prompts and scores: a file, a gzip'd file, or "-".

    Rows of the same prompt (but for blanks and case) become one with the mean of their scores, so that none of them can
    be on both sides of a split. Rows that lack the score of a tier are left out, and counted.

    Args:
        source: Lines of `{"prompt", "scores": {model: quality in [0, 1]}}`, perhaps with `"answers": {model: text}`.
        tiers: The models to read, cheapest first; by default all of them, the one that scores least on average first.

    Raises:
        ConfigError: If the file is empty, a line is malformed, a score is no number in [0, 1], a model is unknown,
            there are fewer than two models, or no row has the scores of all.

    Example:
        >>> _ = (tmp / "o.jsonl").write_text('{"prompt": "Why?", "scores": {"big": 1, "small": 0.5}}')
        >>> read_outcomes(tmp / "o.jsonl").tiers
        ('small', 'big')
    """
    rows = [_row(source, number, row) for number, row in read_jsonl(source)]
    if not rows:
        raise ConfigError(f"{source} is empty: give lines of {_SHAPE}")
    known = dict.fromkeys(model for row in rows for model in row.scores)
    chosen = tuple(known) if tiers is None else tuple(tiers)
    _check_tiers(source, chosen, tuple(known))
    complete = [row for row in rows if all(model in row.scores for model in chosen)]
    if not complete:
        raise ConfigError(
            f"{source}: no row has the scores of all of {', '.join(chosen)}: score every prompt with every model, or "
            "name the models that are to be tiers (--tiers cheap,strong)"
        )
    merged = _merged(complete)
    scores = np.array([[row.scores[model] for model in chosen] for row in merged], np.float64)
    if tiers is None:
        order = np.argsort(scores.mean(axis=0), kind="stable")
        scores, chosen = scores[:, order], tuple(chosen[i] for i in order)
    answers = {model: tuple(row.answers.get(model) for row in merged) for model in chosen}
    return Outcomes(
        tuple(row.prompt for row in merged),
        chosen,
        scores,
        {model: texts for model, texts in answers.items() if any(text is not None for text in texts)},
        incomplete=len(rows) - len(complete),
        merged=len(complete) - len(merged),
    )


@dataclass(frozen=True, slots=True)
class _Row:
    prompt: str
    scores: dict[str, float]
    answers: dict[str, str]


def _row(source: str | Path, number: int, row: Mapping[str, Any]) -> _Row:
    prompt, scores, answers = row.get("prompt"), row.get("scores"), row.get("answers") or {}
    if (
        not isinstance(prompt, str)
        or not prompt.strip()
        or not isinstance(scores, dict)
        or not isinstance(answers, dict)
    ):
        raise ConfigError(f"{source}, line {number}: an outcome is {_SHAPE}")
    for model, score in scores.items():
        if score is not None and not _is_score(score):
            raise ConfigError(
                f"{source}, line {number}: the score of {model!r} is {score!r}: give a number in [0, 1], "
                "or leave the model out where it was not scored"
            )
    kept = {model: float(score) for model, score in scores.items() if score is not None}
    return _Row(prompt, kept, {model: text for model, text in answers.items() if isinstance(text, str)})


def _is_score(score: object) -> bool:
    return isinstance(score, bool | int | float) and math.isfinite(score) and 0 <= score <= 1


def _check_tiers(source: str | Path, chosen: tuple[str, ...], known: tuple[str, ...]) -> None:
    unknown = [model for model in chosen if model not in known]
    if unknown:
        raise ConfigError(f"{source} has no scores of {', '.join(unknown)}: it has those of {', '.join(known)}")
    if len(chosen) < 2 or len(set(chosen)) < len(chosen):
        raise ConfigError(
            f"{source}: the tiers are {', '.join(chosen) or 'none'}: two different models at least are needed"
        )


def _merged(rows: Sequence[_Row]) -> list[_Row]:
    """Rows of one prompt as one, where the first of them stands."""
    groups: dict[str, list[_Row]] = {}
    for row in rows:
        groups.setdefault(_bare(row.prompt), []).append(row)
    return [same[0] if len(same) == 1 else _mean(same) for same in groups.values()]


def _mean(same: Sequence[_Row]) -> _Row:
    models = set.intersection(*(set(row.scores) for row in same))
    scores = {model: sum(row.scores[model] for row in same) / len(same) for model in models}
    return _Row(same[0].prompt, scores, same[0].answers)


def _bare(prompt: str) -> str:
    return " ".join(prompt.lower().split())


def fingerprints(prompts: Sequence[str]) -> NDArray[np.uint64]:
    """64 bits of each prompt (but for blanks and case), to know it again without keeping it; shape (prompts,).

    Example:
        >>> bool(fingerprints(["What  is it?"]) == fingerprints(["what is it?"]))
        True
    """
    hashes = (hashlib.blake2b(_bare(prompt).encode("utf-8", "replace"), digest_size=8).digest() for prompt in prompts)
    return np.frombuffer(b"".join(hashes), "<u8").astype(np.uint64)


def check_apart(train: Sequence[str], test: Sequence[str]) -> None:
    """Make sure that no prompt is on both sides of a split.

    Raises:
        ConfigError: If one is; says how many, and shows the first.

    Example:
        >>> check_apart(["What is a llama?"], ["What is an alpaca?"])
    """
    seen = np.isin(fingerprints(test), fingerprints(train))
    if seen.any():
        first = test[int(seen.argmax())]
        raise ConfigError(
            f"{int(seen.sum())} of {len(test)} prompts to measure on were trained on, such as {first[:80]!r}: "
            "take them out of one side (`Outcomes.split` never puts a prompt on both)"
        )


def read_prompts(source: str | Path) -> tuple[list[str], list[Mapping[str, str]]]:
    """Read JSON lines of prompts, in order: (prompts, the models' answers of each, if it carries any).

    A line is `{"prompt": "..."}`; all else but `"answers": {model: text}` is passed over.

    Raises:
        ConfigError: If the file is empty or a line has no prompt.

    Example:
        >>> _ = (tmp / "prompts.jsonl").write_text('{"prompt": "Why?"}')
        >>> read_prompts(tmp / "prompts.jsonl")
        (['Why?'], [{}])
    """
    prompts: list[str] = []
    answers: list[Mapping[str, str]] = []
    for number, row in read_jsonl(source):
        if not isinstance(row.get("prompt"), str):
            raise ConfigError(f'{source}, line {number}: a prompt is {{"prompt": "..."}}')
        given = row.get("answers") or {}
        if not isinstance(given, dict):
            raise ConfigError(f'{source}, line {number}: "answers" is {{"model": "text", ...}}')
        prompts.append(row["prompt"])
        answers.append({model: text for model, text in given.items() if isinstance(text, str)})
    if not prompts:
        raise ConfigError(f'{source} is empty: give lines of {{"prompt": "..."}}')
    return prompts, answers
