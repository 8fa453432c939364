"""The token-level backend beside llmlingua 0.2.2 on one model of the size of BERT-base: time, words, budget."""

from __future__ import annotations

import os
import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from cookbook.benchmarks.findings import at_least, at_most, table
from cookbook.benchmarks.material import Options, questions, read_rows
from cookbook.benchmarks.timing import Timings, interleave
from cookbook.benchmarks.token_classifier import base_size
from costopt.compression import Counter, LLMLingua2
from costopt.tokens import _folders

__all__ = ["llmlingua", "run", "their_words"]

_CHUNKS, _SHORTEST, _LONGEST, _ONE_TEXT = 60, 50, 200, 2_000
_COMPARED = 12  # chunks of which words are compared
_RATE = 0.5
_RATES = (0.2, 0.33, 0.5)
_CHUNKS_BAR, _TEXT_BAR, _USED_BAR = 2.5, 1.3, 0.97
_NOTES = (
    (
        f"{_CHUNKS} chunks of {_SHORTEST} to {_LONGEST} tokens in one call, and one text of {_ONE_TEXT:,}, tokens "
        "counted as gpt-4o does; half of them are kept. The model has the size and the vocabulary of BERT-base and "
        "random weights: what it says means nothing, what it costs does. Both sides use as many threads as torch does "
        "by itself."
    ),
    (
        '"default" takes bfloat16 where the CPU multiplies it natively, and one threshold for the whole call; "compat" '
        "is float32 and makes the choice of llmlingua; their words are compared one by one at rates of "
        f"{', '.join(map(str, _RATES))}, in {_COMPARED} of the chunks and the text."
    ),
)


def run(options: Options) -> dict[str, Any]:
    """Time, words and budget."""
    chunks, text = _material(options)
    with tempfile.TemporaryDirectory() as folder, llmlingua(base_size(Path(folder))) as theirs:
        path = theirs.model_name
        ours = {
            "default": LLMLingua2(path),
            "float32": LLMLingua2(path, dtype="float32"),
            "compat": LLMLingua2(path, compat=True),
        }
        sides: dict[str, Callable[[list[str]], object]] = {
            "llmlingua": lambda texts: theirs.compress_prompt_llmlingua2(texts, rate=_RATE)
        }
        sides |= {name: _compressing(dropper) for name, dropper in ours.items()}
        rounds = 1 if options.quick else 3
        # A small one to warm up.
        many = interleave(sides, lambda _: [chunks[:2], chunks], rounds)
        one = interleave(sides, lambda _: [chunks[:2], [text]], rounds)
        same, of = _same_words(theirs, ours["compat"], [*chunks[:_COMPARED], text])
        used = [_used(ours["default"], texts, rate) for texts in (chunks, [text]) for rate in _RATES]
    speedups = [timings.ratio("llmlingua", "default") for timings in (many, one)]
    return {
        "bars": [
            at_least(f"{_CHUNKS} chunks: times as fast as llmlingua", speedups[0], _CHUNKS_BAR, "×"),
            at_least(f"one text of {_ONE_TEXT:,} tokens: likewise", speedups[1], _TEXT_BAR, "×"),
            at_least("words chosen as llmlingua does, compat", same / of, 1.0),
            at_most("most of the target that is used, default", max(used), 1.0),
            at_least("least of the target that is used, default", min(used), _USED_BAR),
        ],
        "tables": [_times(sides, many, one)],
        "notes": [*_NOTES, f"{same:,} of {of:,} words have the same label."],
    }


def _times(sides: Sequence[str] | dict[str, Any], many: Timings, one: Timings) -> dict[str, Any]:
    columns = ["", f"{_CHUNKS} chunks, ms", "speed", f"one text of {_ONE_TEXT:,} tokens, ms", "speed"]
    rows = []
    for side in sides:
        cells = [(timings.show(side), f"{timings.ratio('llmlingua', side):.2f}×") for timings in (many, one)]
        rows.append([side, *cells[0], *cells[1]])
    return table("Dropping half of the tokens, side by side", columns, rows)


@contextmanager
def llmlingua(folder: Path) -> Iterator[Any]:
    """Its compressor on this model. It counts with tiktoken, which finds its vocabulary on this machine."""
    from llmlingua import PromptCompressor

    vocabularies = str(next(each for each in _folders() if each.is_dir()))
    with mock.patch.dict(os.environ, {"TIKTOKEN_CACHE_DIR": vocabularies}):  # it sets others, which are put back
        yield PromptCompressor(
            str(folder), device_map="cpu", use_llmlingua2=True, model_config={"trust_remote_code": False}
        )


def their_words(theirs: Any, text: str, rate: float) -> list[tuple[str, bool]]:
    """The words that it sees in a text, and whether it keeps them."""
    done = theirs.compress_prompt_llmlingua2(text, rate=rate, return_word_label=True, word_sep="\x01", label_sep="\x02")
    found = (each.split("\x02") for each in done["fn_labeled_original_prompt"].split("\x01"))
    return [(word, label == "1") for word, label in found]


def _same_words(theirs: Any, ours: LLMLingua2, texts: Sequence[str]) -> tuple[int, int]:
    """How many words have the same label, of how many."""
    same = of = 0
    for text in texts:
        for rate in _RATES:
            expected = their_words(theirs, text, rate)
            found = [(text[word.start : word.end].lower(), word.kept) for word in ours.words(text, target_ratio=rate)]
            of += max(len(expected), len(found))
            same += sum(a == b for a, b in zip(expected, found, strict=False))
    return same, of


def _compressing(dropper: LLMLingua2) -> Callable[[list[str]], object]:
    return lambda texts: dropper.compress(texts, target_ratio=_RATE)


def _used(dropper: LLMLingua2, texts: Sequence[str], ratio: float) -> float:
    result = dropper.compress(texts, target_ratio=ratio)
    return result.tokens_after / int(round(ratio * result.tokens_before, 6))


def _material(options: Options) -> tuple[list[str], str]:
    rows = read_rows(options, "compression/nq_passages.jsonl.gz")
    found = [row["passage"] for row in rows] if rows else questions(options, 4_000)[0]
    words = " ".join(found).encode("ascii", "ignore").decode().split()  # as the words are compared in lower case
    draw, count, at = random.Random(3), Counter("gpt-4o"), 0

    def cut(tokens: int) -> str:
        nonlocal at
        step = tokens // 2
        while count(" ".join(words[at : at + step + 1])) <= tokens:
            step += 1
        at += step
        return " ".join(words[at - step : at])

    chunks = [cut(draw.randint(_SHORTEST, _LONGEST)) for _ in range(_CHUNKS)]
    return chunks, cut(_ONE_TEXT)
