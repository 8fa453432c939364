"""Chats that grow: what a provider with a prompt cache charges, and what is left of old tool results."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping, Sequence
from functools import cache, lru_cache
from typing import Any

from cookbook.benchmarks.findings import at_least, at_most, share, table
from cookbook.benchmarks.material import Options, read_rows
from costopt import Price
from costopt.compression import Compressor, HistoryCompressor
from costopt.compression.lexical import Postings, bm25, terms
from costopt.tokens import count_tokens

__all__ = ["run"]

_QUESTIONS, _FOUND, _KEPT_TOKENS, _KEEP_LAST = 24, 10, 300, 6
_SHARES = {1.0: "no prompt cache", 0.5: "cached at 50 %", 0.25: "cached at 25 %", 0.1: "cached at 10 %"}
_MODEL = "gpt-4o"

_ROWS = (
    "Cached is what begins exactly as the call before; writing to the cache costs nothing extra here. The rows: old "
    "results shortened by the question of the moment, so that old text changes at every call; all results but the last "
    "three emptied, as LangChain's ClearToolUsesEdit does; shortened once, as soon as it is old; and ours, which waits "
    "until that pays."
)

Message = Mapping[str, Any]
Way = Callable[[Sequence[Message]], Sequence[Message]]


def run(options: Options) -> dict[str, Any]:
    """Agents that search and answer, with and without compression of what they found before."""
    rows = read_rows(options, "compression/nq_passages.jsonl.gz")
    if rows is None:
        return {"bars": [], "tables": [], "notes": ["Left out: nq_passages is not there."]}
    chats = _chats(rows, 2 if options.quick else 12)
    billed = chats[: 1 if options.quick else 4]
    charged = {name: [_charged(billed, _ways(part)[name], part) for part in _SHARES] for name in _ways(1.0)}
    plain = charged["as it is"]
    parts = {name: [mine / whole for mine, whole in zip(sums, plain, strict=True)] for name, sums in charged.items()}
    ours, careful = parts["HistoryCompressor"], parts["HistoryCompressor(payback_calls=1)"]
    kept, whole, ratio = _survival(chats)
    cold, warm = _seconds(chats[-1])
    title = (
        f"{len(billed)} chats of {_QUESTIONS} questions, each with a tool result of {_FOUND} passages: what the input "
        "of all calls costs, of what it costs as it is"
    )
    figures = (
        f"A tool result has {_KEPT_TOKENS} tokens at most once it is old ({ratio:.2f} of what it had): "
        f"{share(kept, whole)} of the answers that were in it still are. Compressing one chat at each of its calls "
        f"takes {cold:.1f} CPU seconds in all, and {warm * 1e3:.0f} ms a call once its texts are known."
    )
    return {
        "bars": [
            at_most("bill of a long agent chat without a prompt cache, of what it was", ours[0], 0.5),
            at_most("… with cached tokens at 10 % of the price", ours[-1], 0.9),
            at_most("the dearest that payback_calls=1 made any of these", max(careful), 1.0),
            at_least("answers that were in a tool result and are in the shortened one", kept / whole, 0.95),
        ],
        "tables": [
            table(
                title,
                ["what is sent", *_SHARES.values()],
                [[name, *(f"{part:.3f}" for part in ratios)] for name, ratios in parts.items()],
            )
        ],
        "notes": [figures, _ROWS],
    }


def _ways(part: float) -> dict[str, Way]:
    price = Price(1, 1, part)
    made = {
        "shortened once, at once": _compressor(prompt_cache=False),
        "HistoryCompressor(payback_calls=1)": _compressor(price=price, payback_calls=1),
        "HistoryCompressor": _compressor(price=price),
    }
    plain: dict[str, Way] = {"as it is": list, "shortened anew at every call": _anew, "emptied": _emptied}
    return plain | {name: _messages(compressor) for name, compressor in made.items()}


def _messages(compressor: HistoryCompressor) -> Way:
    return lambda chat: compressor.compress(chat).messages


@lru_cache
def _compressor(**options: Any) -> HistoryCompressor:
    return HistoryCompressor(model=_MODEL, max_tool_tokens=_KEPT_TOKENS, keep_last=_KEEP_LAST, **options)


def _anew(chat: Sequence[Message]) -> list[Message]:
    """As a compressor does that looks at the question of the moment."""
    asked = next(str(message["content"]) for message in reversed(chat) if message["role"] == "user")
    results = [i for i, message in enumerate(chat) if message["role"] == "tool"][:-2]
    return [
        {**message, "content": _shortened(message["content"], asked)} if i in results else message
        for i, message in enumerate(chat)
    ]


@cache
def _shortened(text: str, asked: str) -> str:
    return _plain().compress(text, asked, target_tokens=_KEPT_TOKENS).text


@lru_cache
def _plain() -> Compressor:
    return Compressor(model=_MODEL)


def _emptied(chat: Sequence[Message]) -> list[Message]:
    results = [i for i, message in enumerate(chat) if message["role"] == "tool"][:-3]
    return [{**message, "content": "[cleared]"} if i in results else message for i, message in enumerate(chat)]


def _chats(rows: Sequence[Mapping[str, Any]], count: int) -> list[list[Message]]:
    """Agents that are asked, search, and answer; a search finds the passage that is needed and those most like it."""
    texts = [str(row["passage"]) for row in rows]
    postings = [Postings.of([terms(text) for text in texts])]
    chats = []
    for number in range(count):
        chat: list[Message] = [{"role": "system", "content": "Answer from what the search finds."}]
        for i in range(number * _QUESTIONS, (number + 1) * _QUESTIONS):
            question, answers = str(rows[i]["question"]), rows[i]["answers"]
            near = bm25(terms(question), postings).argsort()[::-1][: _FOUND - 1].tolist()
            found = sorted({i, *near}, key=lambda place: (place * 7919 + i) % 1_009)
            function = {"name": "search", "arguments": f'{{"query": {question!r}}}'.replace("'", '"')}
            chat += [
                {"role": "user", "content": question},
                {"role": "assistant", "content": None, "tool_calls": [{"id": f"c{i}", "function": function}]},
                {"role": "tool", "tool_call_id": f"c{i}", "content": "\n\n".join(texts[place] for place in found)},
                {"role": "assistant", "content": f"{answers[0]}."},
            ]
        chats.append(chat)
    return chats


def _charged(chats: Sequence[Sequence[Message]], way: Way, part: float) -> float:
    """Input of all calls in tokens at full price, where what begins as the call before costs `part` of it."""
    total = 0.0
    for chat in chats:
        before: list[Message] = []
        for end in (i for i, message in enumerate(chat) if message["role"] == "assistant"):
            sent = list(way(chat[:end]))
            same = next((i for i, (a, b) in enumerate(zip(before, sent, strict=False)) if a != b), len(before))
            total += part * sum(map(_tokens, sent[:same])) + sum(map(_tokens, sent[same:]))
            before = sent
    return total


def _tokens(message: Message) -> int:
    return _counted(str(message["content"] or message.get("tool_calls")))


@lru_cache(maxsize=20_000)
def _counted(text: str) -> int:
    return count_tokens(text, _MODEL).tokens


def _survival(chats: Sequence[Sequence[Message]]) -> tuple[int, int, float]:
    """How many answers are left, of how many that were there, and at what ratio."""
    kept = whole = before = after = 0
    for chat in chats:
        found = _compressor(prompt_cache=False).compress(chat)
        for each in found.shortened:
            answer = _normal(str(chat[each.message + 1]["content"]))
            there = answer in _normal(each.result.restore()[0])
            whole += there
            kept += there and answer in _normal(each.result.text)
            before, after = before + each.result.tokens_before, after + each.result.tokens_after
    return kept, whole, after / before


def _normal(text: str) -> str:
    words = re.sub(r"[^\w\s]", " ", text.lower()).split()
    return " ".join(word for word in words if word not in ("a", "an", "the"))


def _seconds(chat: Sequence[Message]) -> tuple[float, float]:
    """CPU seconds for all calls of a chat, cold; and of one call, warm."""
    compressor = HistoryCompressor(model=_MODEL, max_tool_tokens=_KEPT_TOKENS)
    ends = [i for i, message in enumerate(chat) if message["role"] == "assistant"]
    laps = []
    for _ in range(2):
        started = time.process_time()
        for end in ends:
            compressor.compress(chat[:end])
        laps.append(time.process_time() - started)
    return laps[0], laps[1] / len(ends)
