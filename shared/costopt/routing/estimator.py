"""Who says how much a stronger model would add: the seam, and the estimator that needs no training."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from costopt.routing.features import Counts, count, readable

__all__ = ["Estimator", "HeuristicEstimator", "Scores", "Vectors"]

Scores = NDArray[np.float64]
Vectors = NDArray[np.float32]

_SHORT, _LONG = 12.0, 600.0  # words
_WORD_PROBLEM = 12  # words; fewer with some figures in them are an amount or a date
# Stems, so that one of them stands for many forms. English, German, French, Spanish, Portuguese, Italian, Dutch,
# Polish, Turkish, Russian, Chinese, Japanese, Korean, Arabic, Hindi.
_PROOF = (
    "prove ", "proof", "theorem", "lemma", "derive ", "show that", "beweis", "herleit", "démontr", "prouve",
    "demuestr", "demostra", "demonstre", "dimostr", "bewijs", "udowodni", "kanıtla", "ispatla", "докаж", "доказ",
    "теорем", "证明", "證明", "推导", "証明", "定理", "증명", "أثبت", "برهن", "सिद्ध",
)  # fmt: skip
_REASONING = (
    "explain", "compar", "analy", "evaluat", "design", "optimi", "why ", "step by step", "implement", "refactor",
    "debug", "algorithm", "complexity", "calculat", "solve", "estimate", "trade-off", "how many", "how much",
    "strategy", "erklär", "vergleich", "entwirf", "warum", "berechne", "löse", "schritt", "wie viel", "pourquoi",
    "expliqu", "calcul", "résou", "étape", "combien", "explica", "por qué", "por que", "resuelv", "paso a paso",
    "cuánt", "spieg", "perché", "risolv", "calcol", "quant", "waarom", "bereken", "wyjaśn", "oblicz", "dlaczego",
    "açıkla", "hesapla", "neden", "объясн", "сравн", "почему", "вычисл", "рассчит", "реши", "сколько", "解释",
    "解釋", "比较", "比較", "分析", "为什么", "計算", "计算", "步骤", "设计", "多少", "説明", "なぜ", "手順",
    "いくつ", "설명", "비교", "계산", "단계", "얼마", "اشرح", "قارن", "لماذا", "احسب", "كم ", "समझा", "तुलना",
    "क्यों", "कितन",
)  # fmt: skip
_CODE = (
    "```",
    "def ",
    "class ",
    "function",
    "import ",
    "select ",
    "#include",
    "};",
    "();",
    "=>",
    "</",
    "python",
    "regex",
    "sql",
)
_STEPS = (
    " then ",
    " and then",
    "finally",
    "first,",
    "dann ",
    "ensuite",
    "luego",
    " poi ",
    "затем",
    "然后",
    "次に",
    "그다음",
)


class Estimator(Protocol):
    """Says how much would be lost by not going beyond a tier. Must be safe to call from any thread.

    It may also have `expected(texts, vectors) -> (len(texts), tiers)`: the quality it expects of each tier.
    """

    @property
    def name(self) -> str:
        """What decisions call it."""

    @property
    def tiers(self) -> tuple[str, ...] | None:
        """Names of the tiers it was trained for, cheapest first; None: any."""

    @property
    def wants_vectors(self) -> bool:
        """Whether `scores` needs embeddings."""

    def scores(self, texts: Sequence[str], vectors: Vectors | None) -> Scores:
        """Column i: what going beyond tier i promises; NaN: no opinion. Shape (len(texts), tiers - 1).

        A heuristic may return one column, which then holds for each step.
        """


class HeuristicEstimator:
    """Length, code, maths and several steps make a prompt hard. No training, no embedding, and no claim to quality.

    It looks at signs and figures first, which are the same in every language, and at the words of some twenty; so with
    a score under 0.3 a prompt is short and plain, and above 0.7 it asks for a proof, a program or much reading. That
    tells plain traffic from hard; within one kind of traffic `make bench` finds it no better than sorting by length.
    Whether a stronger model would do better on a prompt only measured outcomes can tell: see `GainEstimator`.

    Example:
        >>> from costopt.routing import Router
        >>> router = Router(["gpt-4o-mini", "gpt-4o", "o1"], estimator=HeuristicEstimator(), thresholds=(0.3, 0.7))
        >>> asked = ["What is the capital of France?", "Prove that there are infinitely many primes."]
        >>> [router.decide(RouteRequest(text)).chosen for text in asked]
        ['gpt-4o-mini', 'o1']
    """

    name = "heuristic"
    tiers: tuple[str, ...] | None = None
    wants_vectors = False

    def scores(self, texts: Sequence[str], vectors: Vectors | None = None) -> Scores:
        """How hard each prompt looks, in [0, 1]; one column for every step, shape (len(texts), 1)."""
        if not texts:
            return np.zeros((0, 1))
        found = count(texts)
        lowered = [readable(text).lower() for text in texts]
        # A text without blanks is long by its characters.
        length = np.maximum(np.maximum(found.words, found.chars / 10), 1)
        signs = [
            (0.75, np.array([any(cue in text for cue in _PROOF) for text in lowered], np.float64)),
            (0.80, 1 - 0.6 ** np.array([sum(cue in text for cue in _REASONING) for text in lowered])),
            (0.70, _code(found, lowered)),
            (0.60, np.minimum(1, found.maths / 8 + (found.words >= _WORD_PROBLEM) * found.numbers / 6)),
            (0.50, np.minimum(1, np.array([_steps(text) for text in lowered]) / 5)),
            (0.70, np.clip(np.log(length / _SHORT) / np.log(_LONG / _SHORT), 0, 1)),
        ]
        # As if each sign alone made the prompt hard with this probability.
        easy = np.prod([1 - weight * sign for weight, sign in signs], axis=0)
        return np.asarray(1 - easy, np.float64)[:, None]


def _code(found: Counts, lowered: Sequence[str]) -> Scores:
    signs = found.code / np.maximum(found.chars, 1)
    marked = np.array([any(mark in text for mark in _CODE) for text in lowered], np.float64)
    return np.asarray(np.minimum(1, 0.7 * marked + 15 * signs), np.float64)


def _steps(text: str) -> float:
    """How many things are asked for: numbered lines, bullets, further questions."""
    lines = [line.strip()[:2] for line in text.split("\n")]
    listed = sum(line[:1].isdigit() or line[:1] in "-*•" for line in lines if line)
    questions = sum(text.count(mark) for mark in "?？؟")
    return float(listed + max(0, questions - 1) + sum(cue in text for cue in _STEPS))
