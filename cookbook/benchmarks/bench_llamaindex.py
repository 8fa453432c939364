"""LlamaIndex: what all levers together add to a call that none of them saves, and what importing them adds."""

from __future__ import annotations

import json
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cookbook.benchmarks.findings import at_most, table
from cookbook.benchmarks.material import Options, questions, read_rows
from cookbook.benchmarks.timing import Timings, interleave
from costopt import LocalStore, SemanticCache, SharedEmbedder, Tier
from costopt.embedding import default_model

if TYPE_CHECKING:
    from llama_index.core.llms import LLM
    from llama_index.core.schema import NodeWithScore

__all__ = ["run"]

_CALLS, _NODES, _FOUND, _SENTENCES = 15, 24, 4, 10
_MOST_MS, _MOST_S = 5.0, 0.3
_TIERS = ("gpt-4o-mini", "gpt-4o")
_ALONE, _EMBED = "the model alone", "one embedding"
_LLMS, _ALL = "CachedLLM(RouterLLM) under CostTracker", "the same after CompressorPostprocessor"
_BASE = "import llamaindex_costopt"
_FIRST_USE = {
    "CachedLLM": "CachedLLM(MockLLM(), cache=SemanticCache(LocalStore(folder + '/cache.db')))",
    "RouterLLM": "RouterLLM(tiers=[Tier(MockLLM(), name='gpt-4o-mini'), Tier(MockLLM(), name='gpt-4o')])",
    "QuantizedLLM": "QuantizedLLM(model='m', base_url='http://127.0.0.1:1/v1')",
    "CompressorPostprocessor": "CompressorPostprocessor(target_ratio=0.5)",
    "CostTracker": "CostTracker(folder + '/ledger.db')",
}
# A fork has LlamaIndex imported and nothing of ours, as often as one likes: importing it anew takes seconds.
_CHILD = """
import json, os, sys, time
started = time.perf_counter()
import llama_index.core
base = time.perf_counter() - started
from llama_index.core.llms import MockLLM
statements, rounds, folder = json.loads(sys.argv[1])
found = {each: [] for each in statements}
for _ in range(rounds):
    for each in statements:
        ours, theirs = os.pipe()
        if not (child := os.fork()):
            started = time.perf_counter()
            exec(each)
            os.write(theirs, str(time.perf_counter() - started).encode())
            os._exit(0)
        os.close(theirs)
        with open(ours, "rb") as told:
            found[each].append(float(told.read()))
        os.waitpid(child, 0)
print(json.dumps([base, found]))
"""
_NOTES = (
    (
        f"A question that is new each time, over {_FOUND} of {_NODES} retrieved nodes of {_SENTENCES} sentences that "
        "were retrieved before, as the nodes of an index are: their sentences are in the embedder's memo, and the "
        "question is embedded once for postprocessor and cache. What is kept is the system prompt, the question the "
        "user's turn. The model answers at once, so that what is left is what the levers take; the bars are on the "
        "median of that less the model alone less one embedding, round by round."
    ),
    (
        "Imports are timed in forks of a process that has imported `llama_index.core`: what comes on top. Making "
        "one includes the import, and all that its class needs of this package, numpy and prices, too; a fork has "
        "nothing of it at hand from another."
    ),
)


def run(options: Options) -> dict[str, Any]:
    """Imports first: processes of their own."""
    bars, imports = _imports(options)
    with tempfile.TemporaryDirectory() as folder, _Stage(Path(folder), options) as stage:
        timed, served = stage.timed(3 if options.quick else 11), stage.served()
    bars += [
        at_most(f"what a miss takes beside one embedding, {side}", _beside(timed, side), _MOST_MS, " ms")
        for side in (_LLMS, _ALL)
    ]
    rows = [[side, timed.show(side), _added(timed, side)] for side in timed.seconds]
    rows.append(["questions that a cache answered all the same: lookups, hits", *map(str, served)])
    calls = table("A miss", ["", "ms", "more than the model alone, ms"], rows)
    return {"bars": bars, "tables": [calls, imports], "notes": list(_NOTES)}


def _beside(timed: Timings, side: str) -> float:
    """Milliseconds more than the model alone and one embedding: the median over the rounds."""
    rounds = zip(*(timed.seconds[each] for each in (side, _ALONE, _EMBED)), strict=True)
    return statistics.median((own - alone - embed) * 1e3 for own, alone, embed in rounds)


def _added(timed: Timings, side: str) -> str:
    pairs = zip(timed.seconds[side], timed.seconds[_ALONE], strict=True)
    more = statistics.median(own - alone for own, alone in pairs) * 1e3
    return "–" if side in (_ALONE, _EMBED) else f"{more:.2f}"


# -- calls ----------------------------------------------------------------------------------------------


class _Stage:
    """The levers, one by one and together, each with a store, a ledger and a memo of its own."""

    def __init__(self, folder: Path, options: Options) -> None:
        self._folder = folder
        self._open = ExitStack()
        rows = read_rows(options, "caching/question_pairs.jsonl.gz") or []
        # One side only: the other one asks the same, or nearly.
        texts = list(dict.fromkeys(row["a"] for row in rows if 20 <= len(row["a"]) <= 200))[:4_000]
        texts = texts or questions(options, 4_000)[0]
        random.Random(5).shuffle(texts)
        self._asked = iter(texts[_NODES * _SENTENCES :])
        self._nodes = _nodes(texts[: _NODES * _SENTENCES])
        self._chosen = random.Random(3)
        self._caches: list[SemanticCache] = []

    def __enter__(self) -> _Stage:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def timed(self, rounds: int) -> Timings:
        """Every side on the same new questions, in turn."""
        default_model().load()
        sides = self._sides()
        for question in self._fresh():  # every node was retrieved before
            for side in sides.values():
                for start in range(0, _NODES, _FOUND):
                    side((question, self._nodes[start : start + _FOUND]))
        return interleave(sides, lambda _: [(text, self._found()) for text in self._fresh(_CALLS)], rounds)

    def served(self) -> tuple[int, int]:
        """Lookups, and hits among them: a question may be close to one before it."""
        stats = [cache.stats() for cache in self._caches]
        return sum(each.lookups for each in stats), sum(each.hits for each in stats)

    def _fresh(self, count: int = 1) -> list[str]:
        return [next(self._asked) for _ in range(count)]

    def _found(self) -> list[NodeWithScore]:
        return self._chosen.sample(self._nodes, _FOUND)

    def _sides(self) -> dict[str, Callable[[Any], object]]:
        shared, apart = self._memo(), self._memo()
        return {
            _ALONE: _asking(_instant()),
            "CachedLLM": _asking(self._cached(_instant(), self._memo())),
            "RouterLLM": _asking(_routed()),
            "CompressorPostprocessor": _asking(_instant(), _shortening(self._memo())),
            "CostTracker": self._tracked(_asking(_instant())),
            _LLMS: self._tracked(_asking(self._cached(_routed(), apart))),
            _ALL: self._tracked(_asking(self._cached(_routed(), shared), _shortening(shared))),
            _EMBED: lambda item: default_model().embed([item[0]]),
        }

    def _memo(self) -> SharedEmbedder:
        return SharedEmbedder(default_model())

    def _cached(self, llm: LLM, embedder: SharedEmbedder) -> LLM:
        from llamaindex_costopt import CachedLLM

        cache = SemanticCache(LocalStore(self._folder / f"{id(embedder)}.db"), embedder=embedder)
        self._open.callback(cache.close)
        self._caches.append(cache)
        return CachedLLM(llm, cache=cache.warm())

    def _tracked(self, side: Callable[[Any], object]) -> Callable[[Any], object]:
        from llamaindex_costopt import CostTracker

        tracker = CostTracker(self._folder / f"ledger-{id(side)}.db")
        self._open.callback(tracker.ledger.close)

        def asked(item: Any) -> object:
            with tracker.installed():
                return side(item)

        return asked


def _asking(llm: LLM, *postprocessors: Any) -> Callable[[Any], object]:
    """A chat over what was found, as LlamaIndex's `ContextChatEngine` makes it."""
    from llama_index.core.llms import ChatMessage
    from llama_index.core.schema import QueryBundle

    def asked(item: tuple[str, Sequence[NodeWithScore]]) -> object:
        question, nodes = item
        for each in postprocessors:
            nodes = each.postprocess_nodes(list(nodes), QueryBundle(question))
        context = "\n\n".join(node.node.get_content() for node in nodes)
        system = ChatMessage(role="system", content=f"Answer from these notes.\n\n{context}")
        return llm.chat([system, ChatMessage(role="user", content=question)])

    return asked


def _shortening(embedder: SharedEmbedder) -> Any:
    from llamaindex_costopt import CompressorPostprocessor

    return CompressorPostprocessor(target_ratio=0.5, embedder=embedder)


def _routed() -> LLM:
    from llamaindex_costopt import RouterLLM

    return RouterLLM(tiers=[Tier(_instant(), name=name) for name in _TIERS])


def _instant() -> LLM:
    """A model that answers at once, and says what it used."""
    from llama_index.core.base.llms.types import ChatMessage, ChatResponse, LLMMetadata
    from llama_index.core.llms import MockLLM
    from llama_index.core.llms.callbacks import llm_chat_callback

    usage = {"prompt_tokens": 300, "completion_tokens": 10, "total_tokens": 310}

    class Instant(MockLLM):
        @property
        def metadata(self) -> LLMMetadata:
            return LLMMetadata(context_window=128_000, is_chat_model=True, model_name=_TIERS[0])

        @llm_chat_callback()
        def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
            message = ChatMessage(role="assistant", content="It is as the notes say.")
            raw = {"model": _TIERS[0], "usage": usage, "choices": [{"finish_reason": "stop"}]}
            return ChatResponse(message=message, raw=raw)

    return Instant()


def _nodes(sentences: Sequence[str]) -> list[NodeWithScore]:
    from llama_index.core.schema import NodeWithScore, TextNode

    texts = [" ".join(sentences[i : i + _SENTENCES]) for i in range(0, len(sentences), _SENTENCES)]
    return [NodeWithScore(node=TextNode(text=text), score=0.5) for text in texts]


# -- imports --------------------------------------------------------------------------------------------


def _imports(options: Options) -> tuple[list[Any], Any]:
    imported = {name: f"from llamaindex_costopt import {name}" for name in _FIRST_USE}
    core = "from costopt import LocalStore, SemanticCache, Tier"
    made = {name: f"{imported[name]}\n{core}\n{use}" for name, use in _FIRST_USE.items()}
    statements, processes = [_BASE, *imported.values(), *made.values()], 1 if options.quick else 5
    bases, found = [], {each: [] for each in statements}
    for _ in range(processes):
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-W", "ignore", "-c", _CHILD, json.dumps([statements, 3, folder])]
            base, told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        bases.append(base)
        for each, seconds in told.items():
            found[each] += seconds
    medians = {each: statistics.median(seconds) for each, seconds in found.items()}
    bars = [at_most("`import llamaindex_costopt` on top of `import llama_index.core`", medians[_BASE], _MOST_S, " s")]
    rows = [["`import llama_index.core`", f"{statistics.median(bases) * 1e3:,.0f}", "–"]]
    rows += [[f"… and `{_BASE}`", f"{medians[_BASE] * 1e3:.1f}", "–"]]
    rows += [
        [f"… and `{imported[name]}`", f"{medians[imported[name]] * 1e3:.1f}", f"{medians[made[name]] * 1e3:.1f}"]
        for name in made
    ]
    return bars, table("Imports", ["", "ms", "and making one, ms"], rows)
