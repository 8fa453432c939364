"""The network behind the default judge: what it says, what it refuses to say, and the file it comes from."""

from __future__ import annotations

import json
import math
import threading
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from costopt import CrossEncoderJudge, EmbeddingError, MiniLMEmbedder
from costopt.caching import cross_encoder
from costopt.caching.cross_encoder import MAX_TOKENS, SHIPPED, CrossEncoder, base_layers, dequantised, quantised
from tests.command import script
from tests.costopt.caching.judges import TRUSTING
from tests.faults.words import Process

# What rounding may add to a logit, which lies between -10 and 10.
ROUNDING = {"float32": 1e-3, "bfloat16": 0.3}
PAIRS = [
    ("How do I reset my password?", "How can I reset my password?"),
    ("How do I reset my password?", "Which planets have rings?"),
    ("refund", "How do I get my money back for a parcel that never came, though the page says that it was delivered?"),
    ("", "?"),
]

_PIECES = (
    "how do i reset my password phone in 3 30 days not never Paris Ünïcode 漢字 🦙 [SEP] [PAD] \ud800 \x00 ? -".split()
)
_TEXTS = st.lists(st.sampled_from(_PIECES), max_size=40).map(" ".join) | st.text(max_size=60)


@pytest.fixture(scope="module", params=["float32", "bfloat16"])
def encoder(request: pytest.FixtureRequest) -> Iterator[CrossEncoder]:
    """Over an embedder of either precision; which of them is the default hangs on the machine."""
    dtype: Literal["float32", "bfloat16"] = request.param
    model = MiniLMEmbedder(dtype=dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cross_encoder, "default_model", lambda: model)
        encoder = CrossEncoder()
        encoder.load()
        yield encoder


@lru_cache
def alone(encoder: CrossEncoder) -> list[float]:
    return [encoder.predict([pair])[0] for pair in PAIRS]


def rounding() -> float:
    return ROUNDING[cross_encoder.default_model().dtype]


def test_it_knows_a_rewording_from_another_question(encoder: CrossEncoder) -> None:
    same, other, *_ = encoder.predict(PAIRS)
    assert same > other + 1


@given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=4))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_the_order_of_the_two_texts_does_not_matter(encoder: CrossEncoder, pairs: list[tuple[str, str]]) -> None:
    there, back = encoder.predict(pairs), encoder.predict([(b, a) for a, b in pairs])
    assert all(map(math.isfinite, there))
    assert there == pytest.approx(back, abs=rounding())


@given(st.lists(st.tuples(_TEXTS, _TEXTS), min_size=1, max_size=12))
@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_a_pair_is_judged_with_does_not_matter(encoder: CrossEncoder, company: list[tuple[str, str]]) -> None:
    together = encoder.predict([*company, *PAIRS])
    assert len(together) == len(company) + len(PAIRS)
    assert together[len(company) :] == pytest.approx(alone(encoder), abs=rounding())


def test_no_pairs_have_no_scores(encoder: CrossEncoder) -> None:
    assert encoder.predict([]) == []


def test_of_a_text_that_is_too_long_nothing_is_said_and_the_others_in_the_batch_are_judged(
    encoder: CrossEncoder,
) -> None:
    longest, longer = "the " * (MAX_TOKENS - 2), "the " * (MAX_TOKENS - 1)  # two tokens are not the text's own
    fits, *refused, plain = encoder.predict([(longest, longest), (longer, "the"), ("the", longer), PAIRS[0]])
    assert refused == [-math.inf, -math.inf]
    assert math.isfinite(fits)
    assert plain == pytest.approx(encoder.predict([PAIRS[0]])[0], abs=rounding())


def test_a_text_that_is_too_long_is_never_served(encoder: CrossEncoder) -> None:
    """Not even at the laxest: it is no pair of which the model could be unsure."""
    longer = "the " * (MAX_TOKENS - 1)
    judge = CrossEncoderJudge(encoder, policy=TRUSTING, max_error=0.99)
    verdicts = judge.judge(f"{longer} end", [(longer, 0.999), ("the", 0.99)])
    assert [(verdict.accepted, verdict.probability) for verdict in verdicts] == [(False, 0.0)] * 2


# -- the weights -------------------------------------------------------------------------------------------


@given(st.integers(0, 2**31), st.integers(1, 20), st.integers(1, 40), st.floats(1e-6, 10), st.floats(0, 1))
def test_a_quantised_matrix_is_off_by_half_a_step_of_its_row_at_most(
    seed: int, rows: int, columns: int, change: float, unchanged: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    base = {"5.up.weight": torch.randn(rows, columns, generator=generator)}
    difference = torch.randn(rows, columns, generator=generator) * change
    difference[torch.rand(rows, generator=generator) < unchanged] = 0
    tuned = {"5.up.weight": base["5.up.weight"] + difference}
    stored = quantised(tuned, base)
    assert stored["5.up.weight"].dtype == torch.int8
    error = (dequantised(stored, base)["5.up.weight"] - tuned["5.up.weight"]).abs()
    # Adding float32 numbers rounds, too.
    step = (tuned["5.up.weight"] - base["5.up.weight"]).abs().amax(1, keepdim=True) / 127
    assert (error <= step * 0.501 + 1e-6 * tuned["5.up.weight"].abs().max()).all()


@given(st.lists(st.floats(-100, 100, width=32), min_size=1, max_size=20))
def test_what_is_no_matrix_is_kept_as_float16_and_the_scale_exactly(values: list[float]) -> None:
    tensors = {name: torch.tensor(values) for name in ("5.up.bias", "across", "head.0.bias", "scale")}
    found = dequantised(quantised(tensors, {}), {})
    assert set(found) == set(tensors)
    for name, value in found.items():
        assert value.dtype == torch.float32
        exact = tensors[name] if name == "scale" else tensors[name].half().float()
        assert torch.equal(value, exact)


def test_layers_that_were_not_tuned_are_the_embedders_own() -> None:
    base = base_layers(weights(), 4)
    assert {name[0] for name in base} == {"4", "5"}
    found = dequantised(quantised(base, base), base)
    assert all(torch.equal(found[name], base[name]) for name in base if base[name].dim() == 2)


def weights() -> dict[str, torch.Tensor]:
    file = MiniLMEmbedder().weights()
    return {name.removeprefix("bert."): tensor for name, tensor in load_file(file).items()}


def write_nothing(_: Path) -> None: ...


def write_noise(file: Path) -> None:
    file.write_bytes(b"\x08\x00\x00\x00\x00\x00\x00\x00{}      noise")


def write_half(file: Path) -> None:
    whole = (SHIPPED / "weights.safetensors").read_bytes()
    file.write_bytes(whole[: len(whole) // 2])


def write_a_folder(file: Path) -> None:
    file.mkdir()


def writes(tensors: dict[str, Any], **about: Any) -> Any:
    def write(file: Path) -> None:
        save_file(tensors, file, {"about": json.dumps(about)} if about else None)

    return write


WRONG_SHAPE = {"4.qkv.weight": torch.zeros(3, 5, dtype=torch.int8), "4.qkv.weight.scale": torch.zeros(3, 1)}


@pytest.mark.parametrize(
    "write",
    [
        write_nothing,
        write_noise,
        write_half,
        write_a_folder,
        writes({"scale": torch.zeros(2)}),
        writes({"scale": torch.zeros(2)}, seed=0),
        writes({"scale": torch.zeros(2)}, depth=6),
        writes({"scale": torch.zeros(2)}, depth="deep"),
        writes(WRONG_SHAPE, depth=4),
    ],
    ids=["absent", "noise", "half", "folder", "no metadata", "no depth", "no layers", "odd depth", "another shape"],
)
def test_weights_that_are_missing_or_foreign_are_named(tmp_path: Path, write: Any) -> None:
    write(tmp_path / "weights.safetensors")
    encoder = CrossEncoder(tmp_path)
    for _ in range(2):
        with pytest.raises(EmbeddingError, match=f"judge cannot be read from {tmp_path}"):
            encoder.predict(PAIRS)
        assert not encoder.loaded


# -- loading -----------------------------------------------------------------------------------------------


def test_many_threads_load_it_once_and_agree(encoder: CrossEncoder) -> None:
    fresh = CrossEncoder()
    found: list[list[float]] = []
    tops = set()

    def predict() -> None:
        found.append(fresh.predict(PAIRS))
        tops.add(id(fresh._top))

    threads = [threading.Thread(target=predict) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert len(tops) == 1
    assert all(scores == pytest.approx(encoder.predict(PAIRS), abs=rounding()) for scores in found)


def test_a_fork_while_it_is_loaded_does_not_hang_the_child() -> None:
    """The lock that a thread of the parent held stayed locked, and OpenMP waited for threads that were left behind."""
    code = """
import os, threading
from costopt.caching.cross_encoder import CrossEncoder
from costopt.embedding import default_model
default_model().load()
encoder = CrossEncoder()
thread = threading.Thread(target=encoder.load)
thread.start()
while not encoder._lock.locked():
    assert thread.is_alive(), "too quick"
if not (pid := os.fork()):
    same, other = encoder.predict([("reset my password", "password reset"), ("reset my password", "a red bus")])
    os._exit(0 if same > other else 1)
thread.join()
print(os.waitpid(pid, 0)[1])
"""
    assert script(code, libraries="torch tokenizers safetensors") == "0\n"


def test_with_an_embedder_of_another_make_it_is_loaded_when_somebody_is_near_and_not_before(tmp_path: Path) -> None:
    code = """
import sys
from costopt import LocalStore, SemanticCache
from costopt.embedding import default_model
from tests.costopt.caching.judges import SURE_ENOUGH, TRUSTING
from tests.faults.words import Words, found, keep, wait_for
cache = SemanticCache(
    LocalStore(sys.argv[1]), embedder=Words(), policy=TRUSTING, max_error=SURE_ENOUGH, time_budget=10.0
)
keep(cache, "How do I reset my password?")
print(found(cache, "How do I reset my password?")[0], found(cache, "Which planets have rings?"))
print("torch" in sys.modules, default_model().loaded)
reworded = wait_for(lambda: found(cache, "How can I reset my password?"), "the model is loaded", 60)
print(reworded[0], default_model().loaded)
cache.close()
"""
    with Process(code, tmp_path / "cache.db") as process:
        assert process.rest(120) == ["exact None", "False False", "semantic True"]
