"""Arguments of the wrong kind: told of where they are given, and not at the first paid call, or never."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.llms import MockLLM
from llama_index.core.schema import TextNode

import langchain_costopt
import llamaindex_costopt
from costopt import Budget, ConfigError, Ledger, Price, Router, RouteRequest, SpendingLimit, Tier
from costopt.audit.recorder import Recorder
from costopt.routing import HeuristicEstimator, Sticky, StrongShare
from langchain_costopt.compression_middleware import CompressionMiddleware
from langchain_costopt.demo import SimulatedChatModel
from langchain_costopt.router_middleware import RouterMiddleware

NAMES = ["gpt-4o-mini", "gpt-4o"]
CHATS = [SimulatedChatModel(model_name=name) for name in NAMES]
TRAINED = SimpleNamespace(
    name="trained", tiers=tuple(NAMES), wants_vectors=False, thresholds=None, scores=lambda texts, vectors: None
)
LIMIT = r"^limit=20: give a SpendingLimit, as in limit=SpendingLimit\(ledger, 20\)"
PRICE = r"give a Price\(input, output\) in dollars per million tokens"


def router(**options: Any) -> Router:
    return Router(NAMES, **options)


WRONG: dict[str, tuple[Callable[[], Any], str]] = {
    # books and limits
    "dollars for a limit": (lambda: langchain_costopt.CostTracker("l.db", limit=20), LIMIT),  # type: ignore[arg-type]
    "dollars for a gate's limit": (lambda: llamaindex_costopt.SpendingGate(20), LIMIT),  # type: ignore[arg-type]
    "a class for a limit": (lambda: Recorder("l.db", limit=SpendingLimit), "give a SpendingLimit"),  # type: ignore[arg-type]
    "a pair for a price": (
        lambda: langchain_costopt.CostTracker("l.db", prices={"m": (5, 15)}),  # type: ignore[dict-item]
        r"^prices\['m'\]=\(5, 15\): " + PRICE,
    ),
    "a number for a batch price": (
        lambda: llamaindex_costopt.CostTracker("l.db", batch_prices={"m": 5}),  # type: ignore[dict-item]
        r"^batch_prices\['m'\]=5: " + PRICE,
    ),
    "a price for prices": (
        lambda: Recorder("l.db", prices=Price(5, 15)),  # type: ignore[arg-type]
        r'give them by name, as in prices=\{"my-model": Price\(',
    ),
    "one tag of a tracker": (lambda: langchain_costopt.CostTracker("l.db", tags="prod"), r"as in tags=\['prod'\]"),
    "alerts in per cent": (lambda: SpendingLimit("l.db", 20, alerts=(50, 80)), r"as in alerts=\(0\.5, 1\.0\) for half"),
    "one alert": (lambda: SpendingLimit("l.db", 20, alerts=0.5), r"as in alerts=\(0\.5, 1\.0\)"),  # type: ignore[arg-type]
    "an alert at nothing": (lambda: SpendingLimit("l.db", 20, alerts=(0,)), r"as in alerts=\(0\.5, 1\.0\)"),
    "a name for a function": (lambda: SpendingLimit("l.db", 20, on_alert="print"), "give a function"),  # type: ignore[arg-type]
    # routers
    "thresholds in per cent": (lambda: router(thresholds=(30,)), r"between 0 and 1: .* thresholds=\(0\.5,\)"),
    "below every score": (lambda: router(thresholds=(-0.5,)), "between 0 and 1"),
    "beyond every gain": (lambda: router(estimator=TRAINED, thresholds=(30,)), "between -1 and 1"),
    "words for thresholds": (lambda: router(thresholds=("low",)), r"as in thresholds=\(0\.5,\)"),
    "a text for thresholds": (lambda: router(thresholds="0.5"), r"as in thresholds=\(0\.5,\)"),
    "one region": (lambda: router(regions="eu"), r"^regions='eu': give a list, as in regions=\['eu'\]"),
    "one tag": (lambda: router(tags="eu"), r"^tags='eu': give a list, as in tags=\['eu'\]"),
    "one required tag": (
        lambda: langchain_costopt.RouterRunnable(tiers=CHATS, required_tags="eu"),
        r"^required_tags='eu': give a list",
    ),
    "one region of a request": (lambda: RouteRequest("Why?", regions="eu"), "give a list"),  # type: ignore[arg-type]
    "dollars for a budget": (lambda: router(budget=5), r"^budget=5: .*=Budget\(5, seconds=86_400\)"),
    "no dollars for a budget": (lambda: router(budget=0), "^budget=0: "),
    "options for a cascade": (
        lambda: router(cascade={"min_logprob": -0.5}),
        r"as in cascade=Cascade\(min_logprob=-0\.5",
    ),
    "a word for sticky": (lambda: router(sticky="yes"), r"give True or False, or how, as in sticky=Sticky\("),
    "a word for shadow": (lambda: router(shadow="no"), "^shadow='no': give True or False"),
    "a word for explore": (lambda: router(explore="some"), r"give a share of the requests in \[0, 1\)"),
    "a share for a policy": (lambda: router(policy=0.3), r"as in policy=StrongShare\(0\.3\)"),
    "a file for an estimator": (lambda: router(estimator="router"), r'estimator=load_router\("router"\)'),
    "a class for an estimator": (lambda: router(estimator=HeuristicEstimator), "give an estimator"),
    "a file for a log": (lambda: router(log="decisions.jsonl"), r'log=DecisionLog\("decisions.jsonl"\)'),
    "a name for an embedder": (lambda: router(embedder="minilm"), r"embedder=MiniLMEmbedder\(\)"),
    "one name for tiers": (lambda: Router("gpt-4o"), "^tiers='gpt-4o': give a list of models"),
    "one model for tiers": (lambda: langchain_costopt.RouterRunnable(CHATS[0]), "give a list of models"),  # type: ignore[arg-type]
    "an option that is not there": (
        lambda: langchain_costopt.RouterRunnable(tiers=CHATS, threshold=0.5),  # type: ignore[call-arg]
        r"^RouterRunnable has no option threshold: it has .*\bthresholds\b.*\btemperature\b",
    ),
    "the same in LlamaIndex": (
        lambda: llamaindex_costopt.RouterLLM([MockLLM()], threshold=0.5),  # type: ignore[call-arg]
        r"^RouterLLM has no option threshold: it has .*\bthresholds\b.*\bsystem_prompt\b",
    ),
    "the same in an agent": (
        lambda: RouterMiddleware(tiers=CHATS, threshold=0.5),
        r"^a router has no option threshold: it has .*\bthresholds\b",
    ),
    "names for an agent's models": (lambda: RouterMiddleware(tiers=NAMES), "tier 'gpt-4o-mini' is a str: give a chat"),
    # tiers
    "a text for a price": (lambda: Tier("m", price="0.5/1.5"), "^price='0.5/1.5': " + PRICE),  # type: ignore[arg-type]
    "a text for a window": (
        lambda: Tier("m", context_window="128k"),  # type: ignore[arg-type]
        "^context_window='128k': give a number of tokens above 0",
    ),
    "a text for a length": (lambda: Tier("m", max_output_tokens="4k"), "^max_output_tokens='4k': "),  # type: ignore[arg-type]
    "a price for a name": (lambda: Tier("m", Price(1, 2)), r"^name=Price\(.*give a text"),  # type: ignore[arg-type]
    "a list of one region": (lambda: Tier("m", region=["eu"]), r"^region=\['eu'\]: give a text"),  # type: ignore[arg-type]
    "a word for a skill": (lambda: Tier("m", tools="no"), "^tools='no': give True or False"),  # type: ignore[arg-type]
    "a number for tags": (lambda: Tier("m", tags=5), r"^tags=5: give a list"),  # type: ignore[arg-type]
    # compression
    "an option of another compressor": (
        lambda: CompressionMiddleware(max_tokens=300),  # type: ignore[call-arg]
        r"^CompressionMiddleware has no option max_tokens: it has .*\bmax_tool_tokens\b",
    ),
    "the same in a chain": (
        lambda: langchain_costopt.HistoryCompressor(max_tokens=300),  # type: ignore[call-arg]
        r"^HistoryCompressor has no option max_tokens: it has .*\bmax_tool_tokens\b",
    ),
    "nodes without a score": (
        lambda: llamaindex_costopt.CompressorPostprocessor().postprocess_nodes([TextNode(text="Why?")]),  # type: ignore[list-item]
        r"as in \[NodeWithScore\(node=TextNode\(text=text\)",
    ),
}


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_of_the_wrong_kind_is_refused_at_once(
    wrong: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    made, mend = WRONG[wrong]
    with pytest.raises(ConfigError, match=mend):
        made()
    assert not list(tmp_path.iterdir()), "a constructor must not make files"


def test_what_is_right_is_taken(tmp_path: Path) -> None:
    """Kinds that the checks must not refuse."""
    limit = SpendingLimit(str(tmp_path / "ledger.db"), 20, alerts=(0.5, 1, 1.2), on_alert=print)
    tags: Any = (each for each in ["eu"])
    tiers = [Tier(name, price=Price(1, 2), tags="eu", region="eu", max_output_tokens=9, tools=True) for name in NAMES]
    options: list[dict[str, Any]] = [
        {"budget": limit, "thresholds": [0.5], "sticky": False, "explore": 0},
        {"budget": Budget(5, 60), "thresholds": (float("inf"),), "sticky": Sticky(5), "regions": {"eu"}},
        {"policy": StrongShare(0.3), "log": print, "tags": tags, "sticky": None},
        {"estimator": TRAINED, "thresholds": (-0.2,)},
    ]
    assert [Router(iter(tiers), **each).names for each in options] == [tuple(NAMES)] * 4
    assert RouteRequest("Why?", tags=["eu"]).tags == {"eu"}  # type: ignore[arg-type]


def test_a_tracker_without_a_ledger_or_with_its_file_writes_where_its_limit_counts(tmp_path: Path) -> None:
    limit = SpendingLimit(tmp_path / "ledger.db", 20)
    for given in (None, tmp_path / "ledger.db", limit.ledger):
        assert langchain_costopt.CostTracker(given, limit=limit).ledger is limit.ledger
    with Ledger(tmp_path / "other.db") as other:
        assert langchain_costopt.CostTracker(other, limit=limit).ledger is other
    assert langchain_costopt.CostTracker(tmp_path / "third.db", limit=limit).ledger.path == tmp_path / "third.db"
