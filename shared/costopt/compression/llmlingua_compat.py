"""The words that the package llmlingua 0.2.2 would choose with the same model, its quirks included.

This is how the backend is verified, and for who must not change what an application sends today. What differs from the
default: a threshold for each chunk and not for the whole prompt; chunks that are written out and read again, the end of
which may be cut off; unknown words and special tokens are lost; words end at every sign; the target is not met exactly.
"""

from __future__ import annotations

import string
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from costopt.compression.classifier import Encoded, TokenClassifier
from costopt.compression.counting import Counter
from costopt.compression.result import Span
from costopt.compression.words import Tokens, Word, would_merge
from costopt.errors import ConfigError

__all__ = ["choose_words", "rate_of", "with_blanks"]

_COUNTED_AS = "gpt-3.5-turbo"  # words weigh as many times as they have tokens of this model
_CHUNK_TOKENS = 510
_CHUNK_ENDS = (".", "\n")
_BERT, _XLM_R = "##", "▁"
_MARKS = {"WordPiece": _BERT, "Unigram": _XLM_R}


class _Chunk(NamedTuple):
    """A sequence for the model; `written[i]` and `spans[i]` belong to `ids[i + 1]`: a special token goes first."""

    document: int
    ids: list[int]
    written: list[str]
    spans: list[Span]


@dataclass(slots=True)
class _Group:
    """A word that is being put together."""

    written: str
    start: int
    end: int
    values: list[np.float32]
    forced: bool = False


def rate_of(texts: Sequence[str], target_tokens: int) -> float:
    """The rate that llmlingua makes of a number of tokens."""
    before = sum(map(_count(), texts))
    return min(target_tokens / before, 1.0) if before else 1.0


def choose_words(
    classifier: TokenClassifier, texts: Sequence[str], rate: float, forced: Sequence[Sequence[Span]]
) -> list[list[Word]]:
    """The words of each text as llmlingua sees them, and which of them it keeps.

    Args:
        classifier: The model.
        texts: Each is cut into chunks by itself.
        rate: Share to keep, above 0; from 1 on everything is kept.
        forced: For each text the spans whose words are kept: they count as certain, as those of `force_tokens` do.
    """
    if rate >= 1:
        return [[Word(0, len(text), 1.0, True)] if text else [] for text in texts]
    mark = _mark(classifier)
    chunks = [chunk for document, text in enumerate(texts) for chunk in _chunks(classifier, document, text, mark)]
    # Of BERT's vocabulary alone: with another llmlingua looks for a token that is not in it.
    unseen = classifier.pad_id if mark == _BERT else None
    found = classifier.probabilities([chunk.ids for chunk in chunks], unseen=unseen)
    words: list[list[Word]] = [[] for _ in texts]
    for chunk, values in zip(chunks, found, strict=True):
        groups = _groups(classifier, chunk, list(values[1:]), forced[chunk.document], mark)
        # Of a chunk in which it knows no word llmlingua makes an exception, or nothing.
        known = any(group.written != _XLM_R for group in groups)
        words[chunk.document].extend(_kept(groups, rate) if known else _all(chunk))
    return words


def with_blanks(
    texts: Sequence[str], words: Sequence[Sequence[Word]]
) -> tuple[list[list[Span]], dict[tuple[int, Span], str]]:
    """Spans of the words that are kept, and the blanks that keep some of them apart, as `assemble` takes them.

    Where of "3.14" the stop is left out, llmlingua writes "3 14".
    """
    kept: list[list[Span]] = []
    blanks: dict[tuple[int, Span], str] = {}
    for document, (text, own) in enumerate(zip(texts, words, strict=True)):
        spans: list[Span] = []
        for word in own:
            if not word.kept:
                continue
            gap = (spans[-1][1], word.start) if spans else (0, 0)
            if gap[0] < gap[1] and would_merge(text, *gap):
                blanks[document, gap] = " "
                spans.append(gap)
            spans.append((word.start, word.end))
        kept.append(spans)
    return kept, blanks


def _mark(classifier: TokenClassifier) -> str:
    """How this tokenizer marks the pieces of a word.

    Raises:
        ConfigError: It is of neither kind that llmlingua knows, or its way to count is not at hand.
    """
    classifier.load()
    mark = _MARKS.get(type(classifier.backend.model).__name__)
    if mark is None or classifier.backend.decoder is None or len(classifier.prefix) != 1:
        raise ConfigError(f"{classifier.name!r}: compat=True is for models with the tokenizer of mBERT or XLM-R only")
    if not _count().exact:
        raise ConfigError(
            "compat=True weighs words by tokens of cl100k_base: pip install tiktoken, and set TIKTOKEN_CACHE_DIR to a "
            "folder that has this vocabulary"
        )
    return mark


def _chunks(classifier: TokenClassifier, document: int, text: str, mark: str) -> Iterator[_Chunk]:
    found = classifier.encode(text, special=True)
    if mark == _BERT:
        first, last = classifier.prefix[0], classifier.suffix
    else:  # it puts BERT's special tokens there, which this vocabulary does not have
        assert classifier.unknown_id is not None
        first, last = classifier.unknown_id, [classifier.unknown_id]
    for start, end in _cuts(found.written):
        part = _read_again(classifier, text, found, start, end, mark)
        room = _CHUNK_TOKENS + 1  # what is more is cut off, and the special token at the end goes first
        ids = [first, *part.tokens.ids[:room], *last][: _CHUNK_TOKENS + 2]
        written = [str(classifier.backend.id_to_token(token)) for token in part.tokens.ids[:room]]
        yield _Chunk(document, ids, written, list(zip(part.tokens.starts, part.tokens.ends, strict=True))[:room])


def _cuts(written: Sequence[str]) -> Iterator[Span]:
    """Up to 511 tokens each, cut after the last stop where there is one."""
    start = 0
    while start + _CHUNK_TOKENS <= len(written) - 1:
        end = start + _CHUNK_TOKENS
        stop = next((at for at in range(end, start, -1) if written[at] in _CHUNK_ENDS), end)
        yield start, stop + 1
        start = stop + 1
    if start < len(written):
        yield start, len(written)


def _read_again(classifier: TokenClassifier, text: str, found: Encoded, start: int, end: int, mark: str) -> Encoded:
    """The tokens of a chunk once it has been written as text: now and then others than those it was cut from."""
    decode: Callable[[list[str]], str] = classifier.backend.decoder.decode
    written = list(found.written[start:end])
    chunk = decode(written)
    again = classifier.encode(chunk, special=True)
    tokens = Tokens(found.tokens.ids[start:end], found.tokens.starts[start:end], found.tokens.ends[start:end])
    if list(again.tokens.ids) == list(tokens.ids):
        return Encoded(tokens, written)
    places = _places(text, tokens, [decode(["a" if mark == _BERT else "▁a", token])[1:] for token in written], chunk)
    starts, ends = [], []
    for left, right in zip(again.tokens.starts, again.tokens.ends, strict=True):
        starts.append(places[left][0] if left < right else 0)
        ends.append(places[right - 1][1] if left < right else 0)
    return Encoded(Tokens(again.tokens.ids, starts, ends), again.written)


def _places(text: str, tokens: Tokens, parts: list[str], chunk: str) -> list[Span]:
    """For each character of the chunk the span of the text that it stands for."""
    parts[0] = chunk[: len(chunk) - sum(map(len, parts[1:]))]  # the first is written otherwise than in the middle
    places: list[Span] = []
    for part, start, end in zip(parts, tokens.starts, tokens.ends, strict=True):
        bare = len(part.lstrip(" "))
        places += [(start, start)] * (len(part) - bare)
        places += [(start + i, start + i + 1) if bare == end - start else (start, end) for i in range(bare)]
    places += [(len(text), len(text))] * (len(chunk) - len(places))
    return places


def _groups(
    classifier: TokenClassifier, chunk: _Chunk, values: Sequence[np.float32], forced: Sequence[Span], mark: str
) -> list[_Group]:
    """Tokens put together as words."""
    groups: list[_Group] = []
    for written, (start, end), value in zip(chunk.written, chunk.spans, values, strict=False):
        if written in classifier.special:
            continue
        if not groups or _begins_word(written, mark):
            groups.append(_Group(written, start, end, [value]))
        else:
            groups[-1].written += written.lstrip(mark)
            groups[-1].values.append(value)
            if start < end:
                if groups[-1].start == groups[-1].end:  # so far it stood for nothing
                    groups[-1].start = start
                groups[-1].end = end
        groups[-1].forced |= any(left < end and start < right for left, right in forced)
    return groups


def _begins_word(written: str, mark: str) -> bool:
    if mark == _BERT:
        return not written.startswith(mark)
    return written in string.punctuation or written.startswith(mark)


def _kept(groups: Sequence[_Group], rate: float) -> Iterator[Word]:
    # In the same precision and order as there: what lies at the threshold is decided by the last bit.
    means: list[Any] = [1.0 if group.forced else sum(group.values) / len(group.values) for group in groups]
    count = _count()
    weighted = [mean for group, mean in zip(groups, means, strict=True) for _ in range(count(group.written))]
    threshold = np.percentile(weighted, min(100, int(100 * max(0, 1 - rate) + 1)))
    for group, mean in zip(groups, means, strict=True):
        kept = bool(mean > threshold or (threshold == 1.0 and mean == threshold))
        if group.start < group.end and group.written != _XLM_R:  # the mark alone stands for no sign of the text
            yield Word(group.start, group.end, float(mean), kept)


def _all(chunk: _Chunk) -> Iterator[Word]:
    real = [(start, end) for start, end in chunk.spans if start < end]
    if real:
        yield Word(real[0][0], real[-1][1], 0.0, True)


_counter: list[Counter] = []


def _count() -> Counter:
    if not _counter:
        _counter.append(Counter(_COUNTED_AS))
    return _counter[0]
