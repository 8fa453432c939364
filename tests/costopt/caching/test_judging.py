"""The judge in its place, behind the search of a real store: when it is asked, and which answer it lets through."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from costopt import SimilarityJudge, sqlite
from costopt.caching.judge import Verdict
from tests.command import script
from tests.costopt.caching.conftest import OpenCache
from tests.costopt.caching.judges import SURE_ENOUGH, TRUSTING, Oracle
from tests.faults.words import Words

MOON, REWORDED = "how old is the moon", "the moon is how old"
CALLERS = 64


# -- when it is asked ----------------------------------------------------------------------------------------


def test_where_the_exact_tier_answers_the_judge_is_not_asked(open_cache: OpenCache) -> None:
    oracle = Oracle()
    asker = open_cache(judge=oracle)
    asker.tell(MOON)
    asker.tell(REWORDED)
    for text in (MOON, REWORDED):
        hit = asker.ask(text)
        assert hit is not None
        assert hit.tier == "exact"
    assert oracle.passes == 0


def test_where_nobody_is_near_enough_the_judge_is_not_asked(open_cache: OpenCache) -> None:
    oracle = Oracle()
    asker = open_cache(judge=oracle, min_similarity=0.9)
    assert asker.ask(MOON) is None
    asker.tell(MOON)
    assert asker.ask("how far is the sun") is None
    assert asker.ask("how old is the sun") is None
    assert oracle.passes == 0
    assert asker.answered(REWORDED) == MOON
    assert oracle.passes == 1


def test_the_floor_is_the_judges_own_if_none_is_given(open_cache: OpenCache) -> None:
    near, oracle = "how old is the sun", Oracle()
    asker = open_cache(judge=oracle)
    asker.tell(MOON)
    assert asker.answered(near) == MOON
    assert oracle.pairs == [(near, MOON)]
    assert open_cache(judge=SimilarityJudge(0.9, guards=False)).answered(near) is None
    hit = open_cache(judge=SimilarityJudge(0.9, guards=False)).ask(REWORDED)
    assert hit is not None
    assert 0.99 < hit.similarity < 1.01


def test_who_asks_in_another_scope_is_not_judged(open_cache: OpenCache) -> None:
    oracle = Oracle()
    asker = open_cache(judge=oracle)
    asker.tell(MOON, system="Answer in French.")
    assert asker.ask(REWORDED, system="Answer in German.") is None
    assert oracle.passes == 0


def test_a_text_beyond_the_embedders_window_is_not_judged(open_cache: OpenCache) -> None:
    oracle = Oracle()
    asker = open_cache(judge=oracle)
    asker.tell("moon " * 1000)
    assert asker.ask("moon " * 1001) is None
    assert oracle.passes == 0


def test_at_a_max_error_of_0_only_the_same_text_is_served(open_cache: OpenCache) -> None:
    oracle = Oracle(lambda *_: 1.0)
    asker = open_cache(judge=oracle, max_error=0)
    asker.tell(MOON)
    assert asker.ask(REWORDED) is None
    hit = asker.ask(MOON)
    assert hit is not None
    assert hit.tier == "exact"
    assert oracle.passes == 0


def test_the_judge_is_asked_once_about_all_candidates_on_a_thread_of_its_own(open_cache: OpenCache) -> None:
    oracle = Oracle(lambda *_: 0.01)
    asker = open_cache(judge=oracle)
    for word in ("really", "truly", "exactly"):
        asker.tell(f"{MOON} {word}")
    assert asker.ask(REWORDED) is None
    assert (oracle.passes, len(oracle.pairs)) == (1, 3)
    assert oracle.threads == {"costopt-judge"}


# -- what is served ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("best", ["really", "truly", "exactly"])
def test_of_several_accepted_the_most_probable_is_served(open_cache: OpenCache, best: str) -> None:
    asker = open_cache(judge=lambda asked, cached: 0.99 if best in cached else 0.97)
    for word in ("really", "truly", "exactly"):
        asker.tell(f"{MOON} {word}")
    hit = asker.ask(REWORDED)
    assert hit is not None
    assert hit.cached == f"{MOON} {best}"
    assert (hit.probability, hit.reason) == (0.99, "probability 0.990 >= 0.950")
    assert hit.answer.generations[0]["content"] == f"answer to {MOON} {best}"


def test_of_the_equally_probable_the_nearest_is_served(open_cache: OpenCache) -> None:
    asker = open_cache(judge=Oracle())
    for text in (f"{MOON} really", MOON, f"{MOON} truly"):
        asker.tell(text)
    assert asker.answered(REWORDED) == MOON


def test_what_is_not_accepted_hides_nothing_that_is(open_cache: OpenCache) -> None:
    """A judge of one's own may have reasons that its probability does not tell."""

    class Moody:
        def judge(self, asked: str, candidates: Sequence[tuple[str, float]]) -> list[Verdict]:
            return [Verdict("truly" in text, "mood", 0.5 if "truly" in text else 0.99) for text, _ in candidates]

    asker = open_cache(judge=Moody())
    for word in ("really", "truly", "exactly"):
        asker.tell(f"{MOON} {word}")
    assert asker.answered(REWORDED) == f"{MOON} truly"


def test_guards_forbid_what_the_model_would_serve_unless_switched_off(open_cache: OpenCache) -> None:
    oracle = Oracle()
    asker = open_cache(judge=oracle, guards=True)
    asker.tell("name the top 5 films")
    assert asker.ask("name the top 10 films") is None
    assert oracle.passes == 0
    assert open_cache(judge=oracle).answered("name the top 10 films") == "name the top 5 films"


def test_the_shipped_judge_serves_a_rewording_and_no_other_question(open_cache: OpenCache) -> None:
    asker = open_cache(embedder=None, guards=True, policy=TRUSTING, max_error=SURE_ENOUGH)
    asker.cache.warm()
    asker.tell("How do I reset my password?")
    hit = asker.ask("How can I reset my password?")
    assert hit is not None
    assert (hit.tier, hit.cached) == ("semantic", "How do I reset my password?")
    assert hit.probability is not None
    assert hit.probability > 0.5
    for other in ("How do I reset my phone?", "How do I cancel my order?", "Which planets have rings?"):
        assert asker.ask(other) is None, other
    assert asker.failures() == {}


# -- many at once --------------------------------------------------------------------------------------------


def test_64_who_ask_at_once_are_judged_in_few_passes(open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite, "_BUSY_MS", 5_000)  # on a busy machine 63 others may take longer than 100 ms
    oracle = Oracle(lambda asked, cached: 0.99 if asked.split()[1:] == cached.split()[:-1] else 0.01, seconds=0.1)
    asker = open_cache(judge=oracle, single_flight=False)
    questions = [f"how old is the moon of planet {number}" for number in range(CALLERS)]
    for number, question in enumerate(questions):
        asker.tell(f"{question[4:]} how", f"{number}")
    assert asker.answered(questions[0]) is not None  # the local index has read what was stored
    oracle.passes = 0
    if asker.runner is None:
        together = threading.Barrier(CALLERS)

        def look(question: str) -> Any:
            together.wait()
            return asker.ask(question)

        with ThreadPoolExecutor(CALLERS) as pool:
            hits = list(pool.map(look, questions))
    else:

        async def look_all() -> list[Any]:
            return await asyncio.gather(*(asker.cache.alookup(asker.request(question)) for question in questions))

        hits = asker.runner.run(look_all())
    assert asker.failures() == {}
    assert [hit and hit.answer.generations[0]["content"] for hit in hits] == [str(n) for n in range(CALLERS)]
    assert len(oracle.pairs) >= CALLERS
    assert oracle.passes <= CALLERS // 4


FORKING = """
import asyncio, os, sys, threading
from costopt import SemanticCache
from tests.costopt.caching.conftest import store_at
from tests.costopt.caching.judges import SURE_ENOUGH, TRUSTING, Oracle
from tests.faults.words import Words
from tests.faults.words import Words, found, human, keep
place, kind = sys.argv[1:]
judge = {"shipped": None, "slow": Oracle(lambda *_: 5.0, seconds=1.0)}[kind]
options = {} if judge is None else {"embedder": Words()}
cache = SemanticCache(
    store_at(place), judge=judge, policy=TRUSTING, max_error=SURE_ENOUGH, time_budget=20.0, **options
).warm()
asked = "How do I reset my password?"
keep(cache, asked)
assert found(cache, "How can I reset my password?")[0] == "semantic"
busy = threading.Thread(target=found, args=(cache, "Please, how can I reset my password?"))
busy.start()
children = []
for child in range(2):
    if not (pid := os.fork()):
        hit = cache.lookup(human(cache, "How could I reset my password?"))
        assert (hit.tier, hit.cached) == ("semantic", asked), hit
        hit = asyncio.run(cache.alookup(human(cache, "How do I reset my password now?")))
        assert (hit.tier, hit.cached) == ("semantic", asked), hit
        assert not cache.stats().failures, cache.stats().failures
        os._exit(0)
    children.append(pid)
busy.join()
assert found(cache, "How could I reset my password?")[0] == "semantic"
print([os.waitpid(pid, 0)[1] for pid in children], dict(cache.stats().failures))
cache.close()
"""


@pytest.mark.parametrize("kind", ["shipped", "slow"])
def test_after_a_fork_the_judge_works_in_the_child_and_in_the_parent(place: str, kind: str) -> None:
    """The judge's thread stays with the parent, in the middle of its work."""
    libraries = "torch tokenizers safetensors redis redisvl.index usearch.index pytest"
    assert script(FORKING, place, kind, libraries=libraries) == "[0, 0] {}\n"


# -- why it is not served -------------------------------------------------------------------------------------


def test_each_miss_says_why(open_cache: OpenCache) -> None:
    words = Words()
    asker = open_cache(embedder=words, judge=lambda asked, cached: 0.0, guards=True)

    def why(text: str, system: str = "") -> str:
        before = Counter(asker.cache.stats().misses)
        assert asker.ask(text, system) is None
        (reason,) = Counter(asker.cache.stats().misses) - before
        return reason

    assert why(MOON) == "other scope"
    asker.tell(MOON)
    assert why(REWORDED, system="It is Monday.") == "other scope"
    assert why("where do llamas live") == "not near"
    assert why(f"{MOON} not") == "guard: negation"
    assert why(f"{MOON} really") == "judge"
    assert why(f"{REWORDED} " + 1000 * "x") == "too long"
    assert why("") == "exact only"
    assert not asker.failures()
    words.fault = lambda texts: 1 / 0
    assert why("a question that cannot be embedded") == "stepped over"
    stats = asker.cache.stats()
    assert sum(stats.misses.values()) == stats.lookups == 8
    with pytest.raises(TypeError):
        stats.misses["mine"] = 1  # type: ignore[index]
