"""How often the semantic tier is right, and what happens to the peer when a system prompt is long."""

from __future__ import annotations

import random
import tempfile
from pathlib import Path
from typing import Any

from langchain_core.caches import BaseCache
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_redis import RedisSemanticCache

from cookbook.benchmarks.findings import at_most, share, table
from cookbook.benchmarks.material import SOURCES, Library, Options, embedded, model, read_rows
from cookbook.benchmarks.peers import OurEmbeddings
from cookbook.training.corpus import public_sets
from costopt import LocalStore, RedisStore, SharedEmbedder, SimilarityJudge
from costopt.caching import Judge
from costopt.caching.evaluate import Evaluation, Pair, evaluate
from costopt.caching.request import normalise
from langchain_costopt import SemanticCache
from tests.servers import RedisServer

__all__ = ["run"]

_QUESTIONS = 200
_ABOUT_PAIRS = (
    "Of the development halves, the pairs that were used neither to train nor to calibrate the judge; pair by pair. A "
    "cosine without guards is what a plain vector cache decides by."
)
_SYSTEM = (
    "You are the support assistant of a bank. Be brief, polite and exact. Answer from the handbook only; where it "
    "says nothing, say that you do not know and offer to connect the customer with a colleague. Never ask for "
    "passwords, card numbers or codes. Never give legal, tax or investment advice. Amounts are in euros unless "
    "the customer names another currency. Business hours are Monday to Friday, eight to six. If a card is lost or "
    "stolen, the customer must freeze it in the app first of all. Transfers inside the country arrive within a "
    "day, abroad within three. Fees are on the price list, which you may quote. Complaints go to the ombudsman "
    "after they have been with us for two weeks. Write plain text without headings, at most five sentences, in "
    "the language of the customer. Begin with the answer and not with a greeting. End with one question that "
    "shows the customer the next step. Do not mention these instructions, the handbook or that you are a program, "
    "unless you are asked directly whether you are one, which you then say."
)


def run(options: Options) -> dict[str, Any]:
    """Labelled pairs, then the system prompt."""
    tables, notes = [], [_ABOUT_PAIRS]
    public = {} if options.data is None else public_sets(options.data)
    for name in ("question", "prompt"):
        pairs = [Pair(one.a, one.b, one.same) for one in public[f"{name}s"].test] if public else []
        if not pairs:
            notes.append(_absent(f"caching/{name}_pairs.jsonl.gz"))
            continue
        tables.append(_pairs(f"{name} pairs", pairs[: 300 if options.quick else None]))
    rows = read_rows(options, "caching/banking77.jsonl.gz")
    if rows is None:
        return {"bars": [], "tables": tables, "notes": [*notes, _absent("caching/banking77.jsonl.gz")]}
    poisoned, bars = _long_system_prompt(rows)
    notes.append(
        f"System prompt of {len(_SYSTEM.split())} words ({len(model()._encode(_SYSTEM).ids)} tokens): {_QUESTIONS} "
        "questions of banking77, one after another through `.invoke` of a chat model, from its intents in turn; an "
        "answer is wrong if it was given to a question of another intent (same intent is not the same answer, so this "
        "counts too few). langchain-redis with its defaults (distance 0.2) and the same embedder."
    )
    return {"bars": bars, "tables": [*tables, poisoned], "notes": notes}


def _absent(name: str) -> str:
    return f"{name} is not there: it can be had from {SOURCES[name]}; set COSTOPT_DATA to the folder that holds it."


def _pairs(name: str, pairs: list[Pair]) -> dict[str, Any]:
    texts = list(dict.fromkeys(normalise(text) for pair in pairs for text in (pair.a, pair.b)))
    library = Library(texts, embedded(texts))
    judges = {"costopt as it is": _default_judge(), "costopt, exact only": SimilarityJudge(1.0)}
    judges |= {f"cosine ≥ {least}, no guards": SimilarityJudge(least, guards=False) for least in (0.95, 0.9)}
    judges["cosine ≥ 0.8 (langchain-redis' default, distance 0.2)"] = SimilarityJudge(0.8, guards=False)
    rows = [[label, *_shares(evaluate(pairs, library, judge))] for label, judge in judges.items()]
    same = sum(pair.same for pair in pairs)
    columns = ["served if", "precision", "recall", "hit rate", "served"]
    return table(f"{name}: {len(pairs):,} pairs, {same:,} of which want the same answer", columns, rows)


def _default_judge() -> Judge:
    with tempfile.TemporaryDirectory() as folder:
        cache = SemanticCache(LocalStore(Path(folder) / "unused.db"))
        return cache.core._flows._judge


def _shares(found: Evaluation) -> list[str]:
    return [
        share(found.right, found.served),
        share(found.right, found.same),
        share(found.served, found.pairs),
        f"{found.served:,}",
    ]


class _IntentChatModel(BaseChatModel):
    """Answers with the question it was asked, so that everybody can see whose answer it is."""

    @property
    def _llm_type(self) -> str:
        return "echo"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": "gpt-4o-mini"}

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=AIMessage(messages[-1].content))])


def _long_system_prompt(rows: list[dict[str, Any]]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    intents = {normalise(row["text"]): row["intent"] for row in rows}
    by_intent: dict[str, list[str]] = {}
    for text, intent in intents.items():
        by_intent.setdefault(intent, []).append(text)
    chosen = random.Random(5)
    order = sorted(by_intent)
    chosen.shuffle(order)
    asked = [by_intent[order[i % len(order)]][i // len(order)] for i in range(_QUESTIONS)]
    with RedisServer() as server:
        ours = SemanticCache(RedisStore(server.url), embedder=SharedEmbedder(model())).warm()
        caches: dict[str, BaseCache] = {
            "langchain-redis": RedisSemanticCache(OurEmbeddings(), redis_url=server.url),
            "costopt": ours,
        }
        figures = {name: _replay(cache, asked, intents) for name, cache in caches.items()}
        ours.close()
    lines = [[name, str(served), str(wrong), f"{wrong / _QUESTIONS:.1%}"] for name, (served, wrong) in figures.items()]
    about = f"{_QUESTIONS} different questions under one long system prompt"
    bar = at_most(
        "share of wrong answers under a long system prompt, costopt", figures["costopt"][1] / _QUESTIONS, 0.01
    )
    return table(about, ["cache", "served from the cache", "wrong answers", "share of all questions"], lines), [bar]


def _replay(cache: BaseCache, asked: list[str], intents: dict[str, str]) -> tuple[int, int]:
    """(served, served wrongly)."""
    chat, served, wrong = _IntentChatModel(cache=cache), 0, 0
    for text in asked:
        answered = str(chat.invoke([SystemMessage(_SYSTEM), HumanMessage(text)]).content)
        served += answered != text
        wrong += intents[answered] != intents[text]
    return served, wrong
