"""Outcomes for the tests: everyday prompts that both models answer, and hard ones that only the strong one does."""

from __future__ import annotations

import random
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from costopt import default_embedder
from costopt.routing import Outcomes

CHEAP, STRONG = "small-model", "large-model"

_EASY = (
    "What is the capital of {place}?", "Which language do people speak in {place}?", "Name a famous dish of {place}.",
    "Who is the head of state of {place}?", "Is {place} in Europe?", "What is the currency of {place}?",
)  # fmt: skip
_HARD = (
    "A train leaves {place} at {a} km/h and another at {b} km/h, {c} minutes later. How many hours until they meet?",
    "Find the integral of x^{a} * e^({b}x) from 0 to {c}, step by step.",
    "A shop in {place} sells {a} boxes at ${b} each and takes {c} % off. How much is left after tax?",
    "Prove that {a}n^2 + {b}n + {c} is never a perfect square.",
)  # fmt: skip
_PLACES = (
    "France Peru Japan Kenya Chile India Norway Egypt Brazil Greece Poland Canada Mexico Spain Italy Ghana Nepal Cuba "
    "Iran Fiji Malta Qatar Samoa Sudan Syria Tonga Yemen Laos Mali Oman"
).split()


@lru_cache
def outcomes(count: int, seed: int = 0) -> Outcomes:
    """So many different prompts; the cheap model's answers to the hard ones are often cut short or wrong."""
    chosen = random.Random(seed)
    prompts: dict[str, tuple[float, float, str]] = {}
    while len(prompts) < count:
        hard = chosen.random() < 0.5
        a, b, c = (chosen.randint(2, 99) for _ in range(3))
        text = chosen.choice(_HARD if hard else _EASY).format(place=chosen.choice(_PLACES), a=a, b=b, c=c)
        if not hard and chosen.random() < 0.7:  # else the length of a prompt would tell all
            text = f"I am preparing the quiz night of our club, team {a}, and need help with question {b}. {text}"
        cheap = float(chosen.random() < (0.35 if hard else 0.9))
        prompts[text] = cheap, float(chosen.random() < 0.9), _answer(chosen, cheap, a, b)
    scores = np.array([row[:2] for row in prompts.values()])
    return Outcomes(tuple(prompts), (CHEAP, STRONG), scores, {CHEAP: tuple(row[2] for row in prompts.values())})


def _answer(chosen: random.Random, right: float, a: int, b: int) -> str:
    if right or chosen.random() < 0.2:
        return f"First, {a} + {b} = {a + b}. So the answer is {a + b}."
    return f"First, {a} + {b} = {a + b + 7}, so" if chosen.random() < 0.7 else "I'm sorry, but I can't tell."


@lru_cache
def vectors(prompts: tuple[str, ...]) -> NDArray[np.float32]:
    """Embeddings by the real embedder."""
    return default_embedder().embed(prompts)
