"""What an answer gives away about itself: cut short, refused, unsure, or sums in it that do not add up."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from math import log1p

import numpy as np
from numpy.typing import NDArray

from costopt.routing.arithmetic import Equation, equations, numbers

__all__ = ["ANSWER_FEATURES", "answer_features", "is_cut_short", "is_refusal"]

Numbers = NDArray[np.float64]

_MOST_CHARS = 20_000
_REFUSAL = re.compile(
    r"\b(?:I(?:'m| am) (?:sorry|unable|not able)|I (?:cannot|can't|can not|won't|don't know|do not know)|as an AI\b"
    r"|no valid|not (?:possible|enough information)|cannot be determined|impossible to (?:say|tell|determine)"
    r"|es tut mir leid|ich kann (?:das |dir |Ihnen )?nicht|je ne peux pas|désolée?|lo siento|no puedo|non posso)\b"
    r"|抱歉|对不起|无法|不能回答|申し訳|できません|죄송|извините|не могу|عذر|لا أستطيع",
    re.IGNORECASE,
)
_HEDGE = re.compile(
    r"\b(?:perhaps|maybe|might|possibly|probably|likely|approximately|about|around|roughly|assum\w+|suppos\w+|seems?"
    r"|appears?|unclear|not sure|unsure|guess|I think|I believe|depends|vielleicht|vermutlich|wahrscheinlich|ungefähr"
    r"|peut-être|environ|probablement|quizás?|tal vez|probablemente|forse)\b"
    r"|可能|也许|大概|たぶん|おそらく|возможно|ربما",
    re.IGNORECASE,
)
_TURN = re.compile(
    r"\b(?:however|but|wait|actually|mistake|correct(?:ion|ed)?|instead|otherwise|unless|aber|cependant|mais|pero)\b|但是|しかし",
    re.IGNORECASE,
)
_SETTLES = re.compile(r"\b(?:therefore|so|thus|hence|in total|altogether|final|answer)\b|####|\\boxed", re.IGNORECASE)
_ENDS = re.compile(r"(?:[.!?。！？…؟।:)\]}\"'”’»`*|~>]|####[^\n]*|\b\w{1,12}:[^\n]{1,40})\s*$")
_MARKS = ("(", ")"), ("[", "]"), ("{", "}"), ("<<", ">>")

ANSWER_FEATURES = (
    "log chars", "log words", "log lines", "log chars to the prompt's", "log chars less the prompt's",
    "cut short", "open marks", "empty", "refusals", "hedges", "turns", "settles", "questions", "repeated lines",
    "log figures", "log sums", "sums wrong", "share wrong", "last sum wrong", "sums to figures asked", "fractions",
    "ends in a figure", "log last figure", "last is whole", "last is a sum's", "last was asked", "last is negative",
    "asked figures used", "figures from nowhere", "unknowns", "marked result",
)  # fmt: skip
"""Names of the columns of `answer_features`."""


def answer_features(prompts: Sequence[str], answers: Sequence[str]) -> Numbers:
    """Read off each answer, beside its prompt, what `ANSWER_FEATURES` names, shape (answers, features).

    Example:
        >>> read = answer_features(["What is 2 + 2?"] * 2, ["2 + 2 = 4.", "2 + 2 = 5, so the"])
        >>> [read[:, ANSWER_FEATURES.index(name)].tolist() for name in ("share wrong", "cut short")]
        [[0.0, 1.0], [0.0, 1.0]]
    """
    rows = [
        [*_form(prompt, answer[:_MOST_CHARS]), *_figures(prompt, answer[:_MOST_CHARS])]
        for prompt, answer in zip(prompts, answers, strict=True)
    ]
    return np.array(rows, np.float64).reshape(len(rows), len(ANSWER_FEATURES))


def is_cut_short(answer: str) -> bool:
    """Whether an answer seems to stop in the middle: no end of a sentence, or something left open.

    Example:
        >>> is_cut_short("So that makes 15 + 1"), is_cut_short("So that makes 16.")
        (True, False)
    """
    text = answer.rstrip()
    if not text:
        return False
    unfinished = " " in text and not _ENDS.search(text[-200:])
    return unfinished or text.count("```") % 2 == 1 or text.count("<<") > text.count(">>")


def is_refusal(answer: str) -> bool:
    """Whether an answer seems to say, in its first or last words, that there will be none.

    Example:
        >>> is_refusal("I'm sorry, but I can't help with that."), is_refusal("It is 4.")
        (True, False)
    """
    return bool(_REFUSAL.search(answer[:200]) or _REFUSAL.search(answer[-200:]))


def _form(prompt: str, answer: str) -> list[float]:
    lines = [line.strip() for line in answer.split("\n") if line.strip()]
    repeated = sum(count - 1 for count in Counter(lines).values())
    open_marks = sum(max(0, answer.count(left) - answer.count(right)) for left, right in _MARKS)
    asked, said = log1p(len(prompt)), log1p(len(answer))
    return [
        said, log1p(len(answer.split())), log1p(len(lines)), said - asked, log1p(max(0, len(answer) - len(prompt))),
        float(is_cut_short(answer)), log1p(open_marks), float(not lines), log1p(len(_REFUSAL.findall(answer))),
        log1p(len(_HEDGE.findall(answer))), log1p(len(_TURN.findall(answer))), log1p(len(_SETTLES.findall(answer))),
        log1p(answer.count("?")), log1p(repeated),
    ]  # fmt: skip


def _figures(prompt: str, answer: str) -> list[float]:
    sums, said, asked = equations(answer), numbers(answer), set(numbers(prompt))
    wrong = [each.wrong for each in sums]
    last = said[-1] if said else 0.0
    # Results of sums, and figures that are in everything.
    known = asked | {each.claimed for each in sums} | {0.0, 1.0, 2.0, 3.0, 10.0, 12.0, 60.0, 100.0}
    from_nowhere = sum(figure not in known for figure in dict.fromkeys(said))
    used = len(asked & set(said)) / len(asked) if asked else 1.0
    return [
        log1p(len(said)), log1p(len(sums)), log1p(sum(wrong)), sum(wrong) / max(1, len(sums)),
        float(bool(wrong) and wrong[-1]), log1p(len(sums)) - log1p(len(asked)),
        log1p(sum(not float(figure).is_integer() for figure in said)), *_last(answer, said, sums),
        float(last in asked), float(bool(sums) and sums[-1].claimed < 0), used, log1p(from_nowhere),
        log1p(len(re.findall(r"\b[a-zA-Z] ?=|\b\d+[xyzn]\b", answer))), float("####" in answer or "boxed" in answer),
    ]  # fmt: skip


def _last(answer: str, said: list[float], sums: list[Equation]) -> list[float]:
    last = said[-1] if said else 0.0
    tail = answer.rstrip()[-40:]
    return [
        float(any(map(str.isdigit, tail))), log1p(abs(last)) if said else 0.0, float(last.is_integer()),
        float(any(abs(each.claimed - last) < 0.01 for each in sums[-2:])),
    ]  # fmt: skip
