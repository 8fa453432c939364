"""Rows that share passes give what each would give alone, however they come and go."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from costopt.local.rows import RowBatch
from costopt.local.sampling import Sampling
from costopt.local.sequence import Sequence
from costopt.local.slots import Slots, can_batch
from tests.tiny_models import Shape, random_model

PLAIN = Sampling(0.0, 1.0, None, None)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Random weights, whose greedy answers are long and never end by themselves; grouped queries, long context."""
    from transformers import AutoModelForCausalLM

    folder = random_model(tmp_path_factory.mktemp("random"), Shape(hidden=64, inner=128, context=2048))
    return AutoModelForCausalLM.from_pretrained(folder).eval()


def prompt(seed: int, length: int) -> list[int]:
    return [random.Random(seed).randrange(5, 1000) for _ in range(length)]


def alone(model: Any, tokens: list[int], count: int) -> list[int]:
    with torch.no_grad():
        made = model.generate(
            torch.tensor([tokens]), attention_mask=torch.ones(1, len(tokens)), max_new_tokens=count,
            min_new_tokens=count, do_sample=False,
        )  # fmt: skip
    return [int(token) for token in made[0, len(tokens) :]]


def sequence(tokens: list[int], count: int, tokenizer: Any, channel: Any) -> Sequence:
    from costopt.local.engine import GenerationRequest

    return Sequence(GenerationRequest(prompt="x"), channel, tokens, count, PLAIN, (), tokenizer)


@settings(max_examples=6)
@example(rows=[(600, 1, 0, False)])  # read in parts, and over with its first token
@example(rows=[(7, 3, 0, False), (300, 4, 0, False), (30, 2, 0, False), (7, 5, 0, False)])  # not read in order
@given(
    rows=st.lists(
        st.tuples(st.sampled_from([1, 2, 7, 30, 300, 600]), st.integers(1, 12), st.integers(0, 20), st.booleans()),
        min_size=1,
        max_size=6,
    )
)
def test_every_row_says_what_it_would_say_alone(
    rows: list[tuple[int, int, int, bool]], model: Any, reference: Any
) -> None:
    """Prompts of any length join at any step; some are given up on the way."""
    from costopt.local.channel import Channel

    batch = RowBatch(model, max_rows=4, cache_tokens=10_000)
    waiting = [
        (start, sequence(prompt(i, length), count, reference[1], Channel()), given_up)
        for i, (length, count, start, given_up) in enumerate(rows)
    ]
    everyone = [(one, given_up) for _, one, given_up in waiting]
    for step in range(200):
        for item in [item for item in waiting if item[0] <= step and batch.has_room(item[1])]:
            if batch.has_room(item[1]):
                batch.add(item[1])
                waiting.remove(item)
        batch.step()
        for one, given_up in everyone:
            if given_up and len(one.made) >= 2:
                one.channel.cancel()
        if not waiting and not batch.sequences:
            break
    assert not batch.sequences
    assert batch.cache_bytes == 0, "memory is given back"
    for one, given_up in everyone:
        expected = alone(model, one.prompt, max(1, len(one.made)))
        assert one.made == expected[: len(one.made)]
        assert len(one.made) == one.max_tokens or given_up


def test_no_more_rows_than_there_is_memory_for(model: Any, reference: Any) -> None:
    from costopt.local.channel import Channel

    batch = RowBatch(model, max_rows=3, cache_tokens=100)
    short, long = (sequence(prompt(1, n), 10, reference[1], Channel()) for n in (20, 60))
    batch.add(short)
    assert batch.has_room(sequence(prompt(2, 20), 10, reference[1], Channel()))
    assert not batch.has_room(long), "two slots as long as this one would need 140 positions"
    batch.step()
    assert batch.cache_bytes > 0


def test_a_pass_that_fails_ends_the_rows_that_shared_it_and_no_other(model: Any, reference: Any) -> None:
    from costopt.errors import EngineError
    from costopt.local.channel import Channel, StreamHandle

    bad = 999

    def explode(module: Any, args: Any, kwargs: Any) -> None:
        if (kwargs["input_ids"] == bad).any():
            raise RuntimeError("boom")

    hook = model.register_forward_pre_hook(explode, with_kwargs=True)
    batch = RowBatch(model, max_rows=8, cache_tokens=10_000)
    good = [sequence([5 + i, 6], 4, reference[1], Channel()) for i in range(3)]
    poisoned = sequence([bad, 6], 4, reference[1], Channel())
    for one in (good[0], poisoned, *good[1:]):
        batch.add(one)
    while batch.sequences:
        batch.step()
    hook.remove()
    assert [len(one.made) for one in good] == [4, 4, 4]
    with pytest.raises(EngineError, match="the model failed: RuntimeError: boom"):
        StreamHandle(poisoned.channel).result()


SIZES: dict[str, Any] = {
    "vocab_size": 1024, "hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256,
}  # fmt: skip
NO_ENDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
OTHERS: dict[str, tuple[dict[str, Any], bool]] = {
    "qwen3": (SIZES, True),
    "gemma": (SIZES, True),
    "olmo2": ({**SIZES, "num_key_value_heads": 4}, True),
    "gpt2": ({"vocab_size": 1024, "n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}, True),
    "gpt_neox": ({**SIZES, "num_key_value_heads": 4}, True),
    "mistral": ({**SIZES, "sliding_window": 8}, False),  # what is out of the window depends on where a row ends
    "gemma2": ({**SIZES, "sliding_window": 8}, False),
    "bloom": ({"vocab_size": 1024, "hidden_size": 64, "n_layer": 2, "n_head": 4}, False),  # takes no positions
}


@pytest.mark.parametrize(("kind", "sizes", "batched"), [(kind, *rest) for kind, rest in OTHERS.items()], ids=OTHERS)
def test_other_architectures_run_together_where_they_can_and_say_the_same(
    kind: str, sizes: dict[str, Any], batched: bool, reference: Any
) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from costopt.local.channel import Channel

    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(kind, **sizes, **NO_ENDS)).eval()
    assert can_batch(model) is batched
    batch = RowBatch(model, max_rows=8, cache_tokens=1_000)
    waiting = [sequence(prompt(i, 12 + 3 * i), 6, reference[1], Channel()) for i in range(4)]
    rows = list(waiting)
    while waiting or batch.sequences:
        if waiting and batch.has_room(waiting[0]):
            batch.add(waiting.pop(0))
        assert batched or len(batch.sequences) <= 1
        batch.step()
    for one in rows:
        assert one.made == alone(model, one.prompt, 6)


def test_slots_say_what_they_take(model: Any) -> None:
    slots = Slots(model, batched=True)
    assert slots.bytes == 0
    slots.read_rows([prompt(1, 10), prompt(2, 3)])
    per_position = 2 * 2 * 2 * 16 * 4  # keys and values, layers, heads, dimension, float32
    assert slots.bytes == 2 * 256 * per_position
    slots.drop(0)
    slots.drop(0)
    assert slots.bytes == 0
