"""The table: what each lever saves and what it costs in quality, beside what is promised and what peers do."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cookbook.benchmarks.claims import CLAIMS, verdict
from cookbook.benchmarks.findings import percent, table
from cookbook.benchmarks.recorded import Record, cells, exactly, names, number, share_of, titles
from cookbook.benchmarks.resample import Measured

__all__ = ["Line", "Peer", "lines", "savings"]

RATIOS = (0.5, 0.33, 0.2)
_UNSEEN = "Of these, the requests whose questions were used neither"
_AS_IT_IS = "costopt as it is"
_PUBLISHED = "NF4, double quantisation"
_STREAM_PEERS = ("langchain-redis", "cosine ≥ 0.95, no guards")
_WORDS = "LLMLingua-2 style: rare words"
_OURS, _LLAMA = "Compressor, with a question", "LlamaIndex SentenceEmbeddingOptimizer"
_TOGETHER = {
    "cache and router": "cache, then router",
    "cache, router and compression": "… then compression",
    "cache, router, compression and batch": "… then batch for a third of the requests",
}


@dataclass(frozen=True, slots=True)
class Peer:
    """Somebody else who does the same job; what is None was not measured."""

    name: str
    saved: Measured | None
    change: Measured | None


@dataclass(frozen=True, slots=True)
class Line:
    """One lever on one data set.

    Attributes:
        lever: A key of `CLAIMS`, or something that nothing is promised of.
        data: What it was measured on.
        of: What the saving is a share of.
        saved: The share.
        quality: What the change is in.
        change: The change, as a share of what it was.
        section: Which section measured it.
        peers: Others on the same data.
    """

    lever: str
    data: str
    of: str
    saved: Measured
    quality: str
    change: Measured
    section: str
    peers: tuple[Peer, ...] = ()


def lines(records: Mapping[str, Record]) -> list[Line]:
    """Whatever these sections have measured, lever by lever."""
    found = [line for name, read in _READERS if name in records for line in read(records[name])]
    order = [*CLAIMS, _ALL]
    return sorted(found, key=lambda line: order.index(line.lever))


def savings(records: Mapping[str, Record]) -> dict[str, Any] | None:
    """The table, as a section would give it; None if there is nothing to put in it."""
    found = lines(records)
    if not found:
        return None
    rows = [
        [
            line.lever,
            line.data,
            CLAIMS[line.lever].words if line.lever in CLAIMS else "the most",
            f"{percent(line.saved)} of {line.of}",
            f"{percent(line.change, sign=True)} {line.quality}",
            verdict(CLAIMS.get(line.lever), line.saved, line.change),
            "; ".join(map(_peer, line.peers)) or "–",
            records[line.section]["title"],
        ]
        for line in found
    ]
    columns = ["lever", "data", "claimed", "saved", "quality", "the claim, here", "peers: saved, quality", "section"]
    return {**table("Measured, with 95 % intervals", columns, rows), "notes": _NOTES}


def _peer(peer: Peer) -> str:
    saved = "?" if peer.saved is None else percent(peer.saved)
    return f"{peer.name}: {saved}, {'not measured' if peer.change is None else percent(peer.change, sign=True)}"


def _lost(share: Measured) -> Measured:
    """A share that is lost, as a change."""
    return Measured(-share.value or 0.0, -share.high or 0.0, -share.low or 0.0)


def _routing(record: Record) -> Iterator[Line]:
    for name, about in record["found"].get("figures", {}).get("saved_at_95", {}).items():
        kept = exactly(-0.05)
        peers = tuple(Peer(title, Measured(*about["sides"][title]), kept) for title in about["controls"])
        for title in about["ours"]:
            saved = Measured(*about["sides"][title])
            data = f"{name}, {title}"
            yield Line("routing", data, "the bill", saved, "right answers, set so", kept, "routing", peers)


def _stream(record: Record) -> Iterator[Line]:
    def side(row: str) -> tuple[Measured, Measured]:
        found = cells(record, _UNSEEN, row)
        asked, wrong = number(found["requests"]), number(found["wrong hits"])
        hits = number(found["exact hits"]) + number(found["semantic hits"])
        return share_of(hits, asked), _lost(share_of(wrong, asked))

    if not cells(record, _UNSEEN, _AS_IT_IS):
        return
    saved, change = side(_AS_IT_IS)
    peers = tuple(Peer(name, *side(name)) for name in _STREAM_PEERS)
    asked = cells(record, _UNSEEN, _AS_IT_IS)["requests"]
    about = f"question pairs, {asked} requests of a stream, none trained on"
    yield Line("semantic caching", about, "the calls", saved, "right answers", change, "stream", peers)


def _compression(record: Record) -> Iterator[Line]:
    for title in titles(record, "Answers that survive"):
        name, count = title.split(": ", 1)[1].rsplit(", ", 1)
        for ratio in RATIOS:
            column = f"{ratio:g} of the tokens"
            ours, llama = (cells(record, title, row).get(column) for row in (_OURS, _LLAMA))
            if ours is None:
                continue
            peers = []
            if llama is not None and " with " in llama:
                left = exactly(1 - number(llama.split(" with ", 1)[1]))
                peers.append(Peer("LlamaIndex's SentenceEmbeddingOptimizer", left, _survived(llama, count)))
            for row in names(record, title, _WORDS):
                change = _survived(cells(record, title, row)[column], row.rsplit("(", 1)[-1])
                peers.append(Peer("LLMLingua-2 style, a model made here", exactly(1 - ratio), change))
            yield Line(
                "compression", f"{name}, {ratio:g} kept", "the passages' tokens", exactly(1 - ratio),
                "answers that survive", _survived(ours, count), "compression", tuple(peers),
            )  # fmt: skip


def _survived(cell: str, count: str) -> Measured:
    asked = number(count)
    return _lost(share_of(asked - round(number(cell) * asked), asked))


def _history(record: Record) -> Iterator[Line]:
    note = next((each for each in record["found"]["notes"] if "of the answers that were in it" in each), None)
    if note is None:
        return
    kept = note.split("): ", 1)[1]
    value, low, high = (float(part) for part in kept.split(")", 1)[0].replace("(", "").replace("–", " ").split())
    change = Measured(value - 1, low - 1, high - 1)
    for column, words in (("no prompt cache", "no prompt cache"), ("cached at 10 %", "cached tokens at 10 %")):
        ours, emptied = (number(cells(record, "", row)[column]) for row in ("HistoryCompressor", "emptied"))
        yield Line(
            "compression", f"long chats with tool results, {words}", "the input's bill",
            exactly(1 - ours), "answers left in old results", change, "history",
            (Peer("LangChain's ClearToolUsesEdit", exactly(1 - emptied), None),),
        )  # fmt: skip


def _quantised(record: Record) -> Iterator[Line]:
    title = next(iter(titles(record, "2.2M parameters")), "")
    plain, ours = (cells(record, title, row) for row in ("bfloat16", "nf4"))
    if not ours:
        return
    value, low, high = (
        float(part) for part in ours["to bfloat16"].replace("(", "").replace(")", "").replace("–", " ").split()
    )
    saved = exactly(1 - number(ours["weights"]) / number(plain["weights"]))
    # More perplexity is less quality.
    change = Measured(1 - value, 1 - high, 1 - low)
    about = "2.2M parameters, Python's standard library, NF4 beside bfloat16"
    large = [cells(record, "Published, not measured", row).get("mean") for row in ("bfloat16", _PUBLISHED)]
    before, after = (number(cell or "0") for cell in large)
    peers = (Peer("published for LLaMA of 7B to 65B, MMLU", None, exactly(after / before - 1)),) if before else ()
    yield Line("4-bit", about, "the weights' memory", saved, "perplexity", change, "quantised", peers)
    title = next(iter(titles(record, "200 facts")), "")
    facts = cells(record, title, "200")
    if facts:
        right, asked = (number(facts[row]) for row in ("nf4", "bfloat16"))
        about = f"{asked:.0f} facts that a small model knows, NF4 beside bfloat16"
        change = _lost(share_of(asked - right, asked))
        yield Line("4-bit", about, "the weights' memory", saved, "exact answers", change, "quantised")


def _throughput(record: Record) -> Iterator[Line]:
    ours, peer, loop = (
        cells(record, "32 requests", row) for row in ("ChatQuantized.batch, rows", "ChatHuggingFace.batch", "a loop")
    )
    if not ours or not loop:
        return
    spent = [1 / number(each["tokens a CPU second"]) for each in (ours, peer, loop)]
    alike = next(bar for bar in record["found"]["bars"] if bar["demand"].startswith("greedy answers in fp32"))
    of = number(alike["demand"].rsplit(" ", 1)[1])
    yield Line(
        "batch", "32 requests to a local model at once, beside one by one", "the CPU time",
        exactly(1 - spent[0] / spent[2]), "answers that are the same", _lost(share_of(of - alike["figure"], of)),
        "local_throughput", (Peer("ChatHuggingFace.batch", exactly(1 - spent[1] / spent[2]), None),),
    )  # fmt: skip


def _combined(record: Record) -> Iterator[Line]:
    figures = record["found"].get("figures")
    if not figures:
        return
    counts = figures["requests"]

    def side(name: str, place: str) -> tuple[Measured, Measured]:
        found = figures["sides"][name][place]
        return Measured(*found["saved"]), Measured(*found["change"])

    for lever, name, place, about, others in _ALONE:
        saved, change = side(name, place)
        peers = tuple(Peer(words, *side(other, place)) for other, words in others)
        data = f"{about}: {counts[place]:,} requests"
        yield Line(lever, data, "the bill", saved, "right answers", change, "combined", peers)
    for name, words in _TOGETHER.items():
        saved, change = side(name, "all")
        data = f"one stream of {counts['all']:,} requests: {words}"
        yield Line(_ALL, data, "the bill", saved, "right answers", change, "combined")


_ALL = "together"
_NOTES = [
    (
        "In brackets 95 % intervals, of shares by Wilson, of bills and paired changes by resampling; the section says "
        "over what. A figure without one is counted, or was set. What is claimed is a textbook's word, which names no "
        "data. A claim holds here if the whole interval is within it, does not hold if the whole interval is outside, "
        "and cannot be told otherwise; of a loss of 0 % no sample can be sure."
    ),
    (
        "How much caches and batches save is above all a matter of how often questions come again and how many can "
        "wait. In these streams that was chosen; what a lever finds of it, and what that costs, was measured."
    ),
    (
        "Four bits are measured on models that are small enough to be trained here, which flatters them; see that "
        "section before you trust a large one."
    ),
    (
        "Quality is a change against the same requests without the lever. Compression counts an answer as lost when it "
        "is no longer in what is sent, whether or not a model would have found it."
    ),
]
# Lever, row of the section, part of the stream, what that is, and the rows of peers.
_ALONE: tuple[tuple[str, str, str, str, Sequence[tuple[str, str]]], ...] = (
    (
        "routing", "router", "exam", "MMLU and GSM8K in an application",
        (("the longest to the dear model", "by length"), ("some by chance to the dear model", "by lot")),
    ),
    (
        "semantic caching", "cache", "triage", "messages to a bank, intents by a Zipf law",
        (("langchain-redis for the cache", "langchain-redis"),),
    ),
    (
        "compression", "compression", "library", "questions over 20 passages, 0.33 kept",
        (("LlamaIndex's sentence optimiser for the compressor", "LlamaIndex's SentenceEmbeddingOptimizer"),),
    ),
    ("batch", "batch", "waiting", "what may wait of one stream, equal requests sent once", ()),
)  # fmt: skip

_READERS: tuple[tuple[str, Callable[[Record], Iterator[Line]]], ...] = (
    ("routing", _routing),
    ("stream", _stream),
    ("compression", _compression),
    ("history", _history),
    ("quantised", _quantised),
    ("local_throughput", _throughput),
    ("combined", _combined),
)
