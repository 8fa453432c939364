"""Learning in place: what users reject, and what shadow mode compares, moves the threshold of its own scope."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pytest

from costopt import Answer, LocalStore, SemanticCache, SimilarityJudge, StoreError
from costopt.caching import online
from costopt.caching.online import Evidence, decode_evidence
from tests.command import script
from tests.costopt.caching.conftest import Asker, OpenCache, store_at
from tests.costopt.caching.judges import TRUSTING, Oracle, logit
from tests.faults.words import Words, found, keep

FRENCH, GERMAN = "Answer in French.", "Answer in German."
# At the start `TRUSTING` serves from 0.95 on; whoever is wrong once at 0.96 is not believed at 0.96 any more.
UNSURE, PROBABLE, SURE = 0.91, 0.96, 0.995


def by_words(asked: str, cached: str) -> float:
    """As sure as the question says."""
    return logit(SURE if "surely" in asked else UNSURE if "perhaps" in asked else PROBABLE)


def learning(open_cache: OpenCache, **options: Any) -> Asker:
    return open_cache(**{"judge": by_words, "policy": TRUSTING, "max_error": 0.05, **options})


def seen(asker: Asker) -> list[Evidence | None]:
    """All evidence in the store."""
    return [decode_evidence(row) for row in asker.cache.store.all_evidence()]


def reject_one(asker: Asker, system: str, topic: str = "moon") -> None:
    asker.tell(f"how old is the {topic}", system=system)
    hit = asker.ask(f"the {topic} is how old", system)
    assert hit is not None
    asker.cache.reject(hit)


# -- rejections ----------------------------------------------------------------------------------------------


def test_a_rejection_is_evidence(open_cache: OpenCache) -> None:
    asker = learning(open_cache)
    reject_one(asker, FRENCH)
    assert seen(asker) == [Evidence("the moon is how old", "how old is the moon", same=False, probability=PROBABLE)]
    assert asker.cache.stats().rejected == 1


def test_a_rejection_makes_its_scope_stricter_at_once_and_leaves_other_scopes_alone(open_cache: OpenCache) -> None:
    asker = learning(open_cache)
    for system in (FRENCH, GERMAN):
        asker.tell("how far is the sun", system=system)
        assert asker.answered("the sun is how far", system) == "how far is the sun"
    reject_one(asker, FRENCH)
    assert asker.answered("the sun is how far", FRENCH) is None
    assert asker.answered("surely the sun is how far", FRENCH) == "how far is the sun", "what is surer is still served"
    hit = asker.ask("the sun is how far", GERMAN)
    assert hit is not None
    assert (hit.cached, hit.reason) == ("how far is the sun", "probability 0.960 >= 0.950")
    assert asker.failures() == {}


def test_clear_leaves_no_text_behind(open_cache: OpenCache) -> None:
    asker = learning(open_cache)
    reject_one(asker, FRENCH)
    asker.cache.clear()
    assert seen(asker) == []


def test_a_tenant_that_is_invalidated_leaves_no_text_behind_and_other_tenants_keep_theirs(
    open_cache: OpenCache,
) -> None:
    one, two = (learning(open_cache, tenant=name, tags=["t"]) for name in ("one", "two"))
    reject_one(one, FRENCH, "moon")
    reject_one(two, FRENCH, "sun")
    one.cache.invalidate(tenant="one", tag="t")
    assert len(seen(one)) == 2, "a tag tells of entries, not of what was learned"
    one.cache.invalidate(tenant="one")
    assert [row.b for row in seen(two) if row] == ["how old is the sun"]


def test_a_rejection_is_known_to_whoever_opens_the_store(open_cache: OpenCache) -> None:
    reject_one(learning(open_cache), FRENCH)
    other = learning(open_cache)
    for system, served in ((FRENCH, None), (GERMAN, "how far is the sun")):
        other.tell("how far is the sun", system=system)
        assert other.answered("the sun is how far", system) == served


def test_a_cache_that_is_running_hears_of_a_rejection_in_a_minute(
    open_cache: OpenCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    asker, other = learning(open_cache), learning(open_cache)
    other.tell("how far is the sun", system=FRENCH)
    assert other.answered("the sun is how far", FRENCH) == "how far is the sun"
    reject_one(asker, FRENCH)
    minute_later = online.time.monotonic() + 61
    monkeypatch.setattr(online.time, "monotonic", lambda: minute_later)
    assert other.answered("the sun is how far", FRENCH) is None


OTHER_PROCESS = """
import sys
from costopt import SemanticCache
from tests.costopt.caching.conftest import Asker, store_at
from tests.costopt.caching.judges import TRUSTING
from tests.costopt.caching.test_scopes_learn import FRENCH, GERMAN, by_words
from tests.faults.words import Words
cache = SemanticCache(
    store_at(sys.argv[1]),
    embedder=Words(), judge=by_words, policy=TRUSTING, max_error=0.05, guards=False, time_budget=10.0
)
cache.store.open()
asker = Asker(cache, None)
print([asker.answered("the sun is how far", system) for system in (FRENCH, GERMAN)])
hit = asker.ask("the sun is how far", GERMAN)
cache.reject(hit)
print(asker.failures())
asker.close()
"""


def test_a_rejection_is_known_to_other_processes(open_cache: OpenCache, place: str) -> None:
    """And what is rejected there is known here."""
    asker = learning(open_cache)
    for system in (FRENCH, GERMAN):
        asker.tell("how far is the sun", system=system)
        asker.tell("how far is the moon", system=system)
    reject_one(asker, FRENCH)
    said = script(OTHER_PROCESS, place, libraries="redis redisvl.index usearch.index pytest")
    assert said == "[None, 'how far is the sun']\n{}\n"
    assert len(seen(asker)) == 2
    assert asker.answered("the moon is how far", GERMAN) is None


def test_rejecting_what_no_model_judged_is_no_evidence(open_cache: OpenCache) -> None:
    """Of the same text, and of a judge that knows no probability, no threshold can be learned."""
    asker = open_cache(judge=SimilarityJudge(0.9, guards=False))
    reject_one(asker, FRENCH)
    asker.tell("how far is the sun")
    exact = asker.ask("how far is the sun")
    assert exact is not None
    asker.cache.reject(exact)
    assert seen(asker) == []
    assert asker.ask("how far is the sun") is None


def test_a_scope_keeps_its_latest_500_pairs_and_others_theirs(place: str) -> None:
    store = store_at(place)
    store.add_evidence("t", "other", b"theirs")
    for number in range(503):
        store.add_evidence("t", "scope", b"%d" % number)
    assert list(store.evidence("t", "scope")) == [b"%d" % number for number in range(3, 503)]
    assert list(store.evidence("t", "other")) == [b"theirs"]
    assert list(store.evidence("t", "none")) == []
    assert len(store.all_evidence()) == 501
    store.close()


def test_what_others_wrote_for_evidence_is_passed_over(open_cache: OpenCache) -> None:
    asker = learning(open_cache)
    asker.tell("how far is the sun")
    request = asker.request("the sun is how far")
    for row in (b"", b"\xff\x00", b"[]", b'{"a": 1, "b": 2, "same": "no", "probability": 2}'):
        asker.cache.store.add_evidence(request.tenant, request.scope, row)
    assert asker.answered("the sun is how far") == "how far is the sun"
    assert asker.failures() == {}


def test_where_the_evidence_cannot_be_read_the_policy_decides(tmp_path: Any) -> None:
    class Forgetful(LocalStore):
        def evidence(self, tenant: str, scope: str) -> list[bytes]:
            raise StoreError("disk I/O error")

    store = Forgetful(tmp_path / "cache.db")
    options: dict[str, Any] = {"judge": by_words, "policy": TRUSTING, "guards": False, "time_budget": 10.0}
    cache = SemanticCache(store, embedder=Words(), max_error=0.05, **options)
    keep(cache, "how far is the sun")
    assert found(cache, "the sun is how far") == ("semantic", "answer to how far is the sun")
    assert found(cache, "perhaps the sun is how far") is None
    assert cache.stats().failures == {"evidence: StoreError": 2}
    cache.close()


# -- shadow mode ---------------------------------------------------------------------------------------------


def same_words(one: Answer, other: Answer) -> bool:
    return bool(one.generations[0]["content"] == other.generations[0]["content"])


def shadowed(asker: Asker, count: int, answer: str, hedge: str = "", system: str = "") -> None:
    """`count` questions in the shadow, each near to one whose answer is "yes", that the model gives this answer."""
    asker.tell("how old is the moon", "yes", system)
    for number in range(count):
        question = f"{hedge} the moon is how old {'please ' * (number % 3)}{'?' * number}".strip()
        assert asker.ask(question, system) is None
        asker.tell(question, answer, system)


def test_in_the_shadow_nothing_is_served_and_what_would_have_been_is_compared(open_cache: OpenCache) -> None:
    asker = learning(open_cache, shadow=True, same_answer=same_words)
    shadowed(asker, 2, "yes")
    shadowed(asker, 1, "no", "surely")
    stats = asker.cache.stats()
    assert (stats.agreed, stats.disagreed, stats.hits) == (2, 1, 0)
    assert [hit.tier for hit in asker.cache.shadow_hits] == ["semantic"] * stats.shadow
    assert [(row.same, row.probability) for row in seen(asker) if row] == [(True, PROBABLE)] * 2 + [(False, SURE)]
    assert asker.failures() == {}


def test_what_would_not_have_been_served_is_evidence_but_not_counted(open_cache: OpenCache) -> None:
    """A threshold can only fall where somebody looks below it."""
    asker = learning(open_cache, shadow=True, same_answer=same_words)
    shadowed(asker, 1, "yes", "perhaps")
    stats = asker.cache.stats()
    assert (stats.agreed, stats.disagreed, stats.shadow) == (0, 0, 0)
    assert [(row.same, row.probability) for row in seen(asker) if row] == [(True, UNSURE)]


def test_agreement_in_the_shadow_makes_its_scope_laxer_and_leaves_other_scopes_alone(open_cache: OpenCache) -> None:
    asker = learning(open_cache, shadow=True, same_answer=same_words, embedder=Words())
    unsure = Oracle(lambda asked, cached: logit(UNSURE))
    for system in (FRENCH, GERMAN):
        serving = learning(open_cache, judge=unsure)
        serving.tell("how old is the moon", "yes", system)
        assert serving.answered("the moon is how old", system) is None
    shadowed(asker, 60, "yes", "perhaps", FRENCH)
    serving = learning(open_cache, judge=unsure)
    assert len(seen(asker)) == 60
    hit = serving.ask("is the moon how old", FRENCH)
    assert hit is not None
    assert hit.probability == pytest.approx(UNSURE)
    assert serving.answered("is the moon how old", GERMAN) is None


def test_disagreement_in_the_shadow_makes_its_scope_stricter_in_the_same_cache(open_cache: OpenCache) -> None:
    asker = learning(open_cache, shadow=True, same_answer=same_words)
    shadowed(asker, 1, "no")
    before = asker.cache.stats().shadow
    assert before == 1
    asker.tell("how far is the sun")
    asker.ask("the sun is how far")
    assert asker.cache.stats().shadow == before
    asker.ask("surely the sun is how far")
    assert asker.cache.stats().shadow == before + 1


def test_what_cannot_be_told_is_no_evidence(open_cache: OpenCache) -> None:
    asker = learning(open_cache, shadow=True, same_answer=lambda one, other: None)
    shadowed(asker, 3, "maybe")
    stats = asker.cache.stats()
    assert (stats.agreed, stats.disagreed, stats.shadow) == (0, 0, 3)
    assert seen(asker) == []


def test_same_answer_is_asked_of_the_models_answer_and_the_cached_one(open_cache: OpenCache) -> None:
    asked: list[Sequence[Any]] = []

    def note(one: Answer, other: Answer) -> bool:
        asked.append([answer.generations[0]["content"] for answer in (one, other)])
        return True

    asker = learning(open_cache, shadow=True, same_answer=note)
    shadowed(asker, 1, "the model's")
    assert asked == [["the model's", "yes"]]


def test_a_same_answer_that_fails_is_stepped_over(open_cache: OpenCache) -> None:
    asker = learning(open_cache, shadow=True, same_answer=lambda one, other: 1 / 0)  # type: ignore[arg-type]
    shadowed(asker, 2, "no")
    assert asker.failures() == {"compare: ZeroDivisionError": 2}
    assert asker.cache.stats().stored == 3
    assert seen(asker) == []


def test_without_same_answer_equal_answers_agree_and_other_numbers_do_not(open_cache: OpenCache) -> None:
    asker = learning(open_cache, shadow=True)
    asker.tell("how old is the moon", "It is 4.5 billion years old.")
    for hedge, answer in (("now", "It is 4.5  billion years old."), ("then", "It is 3 years old.")):
        question = f"the moon is how old {hedge}"
        assert asker.ask(question) is None
        asker.tell(question, answer)
    assert (asker.cache.stats().agreed, asker.cache.stats().disagreed) == (1, 1)


def test_a_probability_of_one_is_evidence_as_well(open_cache: OpenCache) -> None:
    asker = learning(open_cache, judge=lambda asked, cached: math.inf)
    asker.tell("how old is the moon")
    hit = asker.ask("the moon is how old")
    assert hit is not None
    asker.cache.reject(hit)
    assert [row.probability for row in seen(asker) if row] == [1.0]
