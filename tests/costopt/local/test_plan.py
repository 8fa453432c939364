"""A plan says beforehand what a model takes: held against real models, loaded and run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    DynamicCache,
    Gemma2Config,
    GPT2Config,
    LlamaConfig,
    MixtralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from costopt.errors import ConfigError, OutOfMemoryError
from costopt.local import inventory
from costopt.local.inventory import Inventory, kept_layers
from costopt.local.memory import free_bytes
from costopt.local.plan import MemoryPlan
from costopt.local.quantise import quantisation, weight_bytes
from costopt.local.sizes import QUANTIZATIONS, Matrix, stored, takes_four_bits

GIB = 2**30
SMALL: dict[str, Any] = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 320,
    "max_position_embeddings": 256,
}
MODELS = {
    "llama": LlamaConfig(**SMALL),
    "tied, with a shape that four bits cannot take": LlamaConfig(
        **{**SMALL, "intermediate_size": 200, "tie_word_embeddings": True}
    ),
    "biases": Qwen2Config(**SMALL),
    "weights the other way round": GPT2Config(n_embd=128, n_layer=2, n_head=4, vocab_size=320, n_positions=256),
    "sliding windows": Gemma2Config(**SMALL, head_dim=32, sliding_window=32),
    "experts": MixtralConfig(**SMALL, num_local_experts=4),
}


def llama(billions: int = 8) -> LlamaConfig:
    """The published shape of Llama 3.1."""
    big = billions > 8
    return LlamaConfig(
        hidden_size=8192 if big else 4096,
        intermediate_size=28672 if big else 14336,
        num_hidden_layers=80 if big else 32,
        num_attention_heads=64 if big else 32,
        num_key_value_heads=8,
        vocab_size=128256,
        max_position_embeddings=131072,
    )


@pytest.fixture(params=MODELS, scope="module")
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model")
    config = AutoConfig.for_model(**MODELS[request.param].to_dict())
    AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16).save_pretrained(path)
    return path


@pytest.mark.parametrize("quantization", ["none", "int8", "nf4"])
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_weights_and_state_are_what_the_loaded_model_has(folder: Path, quantization: str) -> None:
    as_planned(folder, quantization)


@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")
def test_fp4_takes_what_nf4_does(tmp_path: Path) -> None:
    AutoModelForCausalLM.from_config(LlamaConfig(**SMALL), dtype=torch.bfloat16).save_pretrained(tmp_path)
    assert as_planned(tmp_path, "fp4").total == MemoryPlan.of(tmp_path, device="cpu").total


def as_planned(folder: Path, quantization: str) -> MemoryPlan:
    """To 64 bytes: buffers of a few numbers have a dtype that only loading tells."""
    told, _ = quantisation(AutoConfig.from_pretrained(folder), quantization, torch.bfloat16)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16, quantization_config=told)
    plan = MemoryPlan.of(folder, quantization=quantization, device="cpu")
    fresh = plan.at(repacked=False)
    assert weight_bytes(model) == pytest.approx(fresh.weights + fresh.quant_state, abs=64)
    with torch.inference_mode():
        model(torch.zeros((1, 8), dtype=torch.long))  # repacks the weights, on a CPU that has AVX512-BF16
    assert weight_bytes(model) == pytest.approx(plan.weights + plan.quant_state, abs=64)
    return plan


def test_the_cache_is_as_large_as_a_real_one(folder: Path) -> None:
    """A layer with a window keeps one token less than the window between passes."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.bfloat16)
    plan = MemoryPlan.of(folder, quantization="none", device="cpu", context=48, concurrency=3)
    cache = DynamicCache(config=model.config)
    with torch.inference_mode():
        model(torch.zeros((3, 48), dtype=torch.long), past_key_values=cache)
    real = sum(t.numel() * t.element_size() for layer in cache.layers for t in (layer.keys, layer.values))
    windowed = sum(layer.count for layer in plan.inventory.cache if layer.window)
    spare = 3 * windowed * plan.inventory.cache[0].token_bytes
    assert plan.kv_cache - spare <= real <= plan.kv_cache


KINDS = "llama qwen2 qwen3 mistral gemma3_text phi3 gpt2 gpt_neox opt starcoder2 cohere olmo2 granite smollm3 gpt_oss"


@pytest.mark.parametrize("kind", KINDS.split())
def test_what_the_configuration_tells_of_the_cache_is_what_a_pass_leaves_in_it(kind: str) -> None:
    config = AutoConfig.for_model(kind, num_hidden_layers=6)
    model = inventory._built(config, kind)
    passed = inventory._passed(model, config)
    assert passed is not None
    measured = inventory._counted(inventory._measured(layer, 2) for layer in passed)
    assert set(measured) == set(Inventory.of(AutoConfig.for_model(kind, num_hidden_layers=6)).cache)


@pytest.mark.parametrize("kind", ["deepseek_v3", "falcon", "jamba"])
def test_unusual_caches_are_measured(kind: str) -> None:
    """Compressed keys, one key head for all query heads, a state in place of keys and values."""
    config = AutoConfig.for_model(kind, num_hidden_layers=8)
    found = Inventory.of(config).cache
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    each = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    plain = 2 * heads * each * 2 * config.num_hidden_layers
    assert 0 < sum(layer.token_bytes * layer.count for layer in found) < plain / 4
    assert any(layer.fixed_bytes for layer in found) == (kind == "jamba")


def test_a_model_that_cannot_run_on_meta_gets_an_upper_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise RuntimeError("Tensor.item() cannot be called on meta tensors")

    exact = MemoryPlan.of(AutoConfig.for_model("falcon"), device="cpu")
    monkeypatch.setattr("transformers.FalconForCausalLM.forward", fails)
    assert MemoryPlan.of(AutoConfig.for_model("falcon"), device="cpu").kv_cache > exact.kv_cache


def test_published_sizes() -> None:
    plan = MemoryPlan.of(llama(70), device="cpu", free=80 * GIB, context=8_192, concurrency=4)
    assert plan.inventory.parameters == 70_553_706_496
    assert plan.kv_cache == 4 * 8_192 * 320 * 1024  # 80 layers, 8 heads of 128, two bytes, keys and values
    assert plan.at(quantization="none").weights == pytest.approx(2 * 70_553_706_496, rel=1e-6)
    assert 4.0 < 8 * (plan.weights - plan.unquantised + plan.quant_state) / 70e9 < 4.3


def test_nothing_but_the_configuration_is_read(tmp_path: Path) -> None:
    llama(70).save_pretrained(tmp_path)
    before = torch.get_default_dtype()
    plan = MemoryPlan.of(tmp_path, device="cpu", free=80 * GIB)
    assert plan.fits
    assert torch.get_default_dtype() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    assert MemoryPlan.of(tmp_path / "config.json", device="cpu", free=80 * GIB).total == plan.total


def test_experts_that_are_not_linear_layers_are_counted_as_they_are() -> None:
    config = AutoConfig.for_model("mixtral")
    plan = MemoryPlan.of(config, device="cpu", free=80 * GIB)
    assert plan.unquantised > 0.9 * plan.weights
    assert "not quantised" in plan.explain()


settings = st.fixed_dictionaries(
    {
        "quantization": st.sampled_from(QUANTIZATIONS),
        "context": st.integers(1, 131_072),
        "concurrency": st.integers(1, 256),
        "free": st.integers(1, 200 * GIB),
    }
)
PLAN = MemoryPlan.of(llama(), device="cpu", free=GIB)


@given(settings)
def test_what_is_suggested_fits_and_asks_for_no_more(setting: dict[str, Any]) -> None:
    plan = PLAN.at(**setting)
    nearest = plan.nearest
    assert len(nearest) <= 3
    assert all(each.fits for each in nearest)
    for each in nearest:
        assert each.context <= plan.context
        assert each.concurrency <= plan.concurrency
        assert (each.weights + each.quant_state) <= (plan.weights + plan.quant_state)
    assert not any(a._covers(b) for a in nearest for b in nearest)
    distances = [plan._distance(each) for each in nearest]
    assert distances == sorted(distances)
    assert plan.fits == (nearest == (plan,))


@given(settings)
def test_nothing_is_suggested_only_if_the_least_does_not_fit(setting: dict[str, Any]) -> None:
    plan = PLAN.at(**setting)
    if not plan.nearest:
        best = "fp4" if plan.quantization == "fp4" else "nf4"
        least = plan.at(quantization=best, context=min(256, plan.context), concurrency=1)
        assert not least.fits


@given(settings, st.sampled_from(["context", "concurrency", "batch_tokens"]), st.integers(2, 8))
def test_more_of_anything_never_takes_less(setting: dict[str, Any], name: str, times: int) -> None:
    plan = PLAN.at(**setting)
    more = min(getattr(plan, name) * times, 131_072)
    bigger = plan.at(**{name: more})
    for part in ("kv_cache", "activations", "total"):
        assert getattr(bigger, part) >= getattr(plan, part)
    assert bigger.weights == plan.weights


@given(st.integers(1, 300), st.integers(1, 300), st.booleans(), st.booleans())
def test_fewer_bits_never_take_more(rows: int, columns: int, double: bool, repacked: bool) -> None:
    """Of matrices of a size that models have: a tiny one is smaller than its own table."""
    sizes = []
    for quantization in QUANTIZATIONS:
        found = stored(Matrix(32 * rows, 64 * columns), quantization, double_quant=double, repacked=repacked)
        sizes.append(found.weights)
    assert sizes == sorted(sizes, reverse=True)


def test_a_plan_that_does_not_fit_refuses_with_the_figures() -> None:
    plan = MemoryPlan.of(llama(), quantization="none", context=32_768, concurrency=8, device="cpu", free=24 * GIB)
    with pytest.raises(OutOfMemoryError) as caught:
        plan.require()
    said = str(caught.value)
    for part in ("14.96 GiB", "32.00 GiB", "24.00 GiB", "would fit:"):
        assert part in said
    assert said.count("\n  ") == 6 + 3
    assert plan.at(context=4_096, concurrency=1).require().fits


def test_when_nothing_fits_it_says_what_the_least_would_be() -> None:
    plan = MemoryPlan.of(llama(70), device="cpu", free=8 * GIB)
    assert plan.nearest == ()
    assert "no setting of this model fits" in plan.explain()


def test_which_layers_are_kept_and_why() -> None:
    config = LlamaConfig(**{**SMALL, "intermediate_size": 200})
    model = inventory._built(config, "llama")
    reasons = kept_layers(model, "nf4")
    assert reasons.pop("lm_head") == "output layer"
    assert set(reasons.values()) == {"shape"}
    assert len(reasons) == 2 * 3  # gate, up and down of each layer
    assert list(kept_layers(model, "int8")) == ["lm_head"]
    assert not takes_four_bits(200, 128)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"quantization": "int4"}, "use one of 'none', 'int8', 'fp4', 'nf4'"),
        ({"context": 0}, "use 1 or more"),
        ({"concurrency": -1}, "use 1 or more"),
        ({"context": 2**20}, "was made for at most 131072 tokens"),
        ({"dtype": "float8"}, "use one of 'float32', 'float16', 'bfloat16'"),
        ({"device": "gpu"}, 'use "cpu", or a GPU'),
    ],
)
def test_settings_that_cannot_be_meant(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said.replace("(", r"\(")):
        MemoryPlan.of(llama(), **{"device": "cpu", **change})


def test_a_gpu_that_is_not_there() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(ConfigError, match='device="cpu"'):
        free_bytes("cuda")


def test_models_that_are_not_there_or_bring_code_of_their_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="there is no model at"):
        MemoryPlan.of(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match=r"no config\.json"):
        MemoryPlan.of(tmp_path)
    (tmp_path / "config.json").write_text("{broken")
    with pytest.raises(ConfigError, match="cannot be read"):
        MemoryPlan.of(tmp_path)
    own = {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MyConfig", "AutoModelForCausalLM": "mine.MyModel"}}
    (tmp_path / "config.json").write_text(json.dumps(own))
    (tmp_path / "mine.py").write_text("raise SystemExit('code of the model was run')")
    with pytest.raises(ConfigError, match="needs code of its own, which costopt never runs"):
        MemoryPlan.of(tmp_path)


def test_a_model_that_is_none_for_text() -> None:
    with pytest.raises(ConfigError, match="no model that transformers can build for text"):
        MemoryPlan.of(AutoConfig.for_model("vit"), device="cpu")


def test_memory_of_a_container_is_what_its_limit_leaves(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "memory.max").write_text("1000000\n")
    (tmp_path / "memory.current").write_text("700000\n")
    (tmp_path / "memory.stat").write_text("anon 500000\ninactive_file 100000\n")
    monkeypatch.setattr("costopt.local.memory._CGROUP", tmp_path)
    assert free_bytes("cpu") == 400_000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes("cpu") > 1_000_000


def test_a_model_that_was_saved_quantised_is_planned_as_it_was_saved(tmp_path: Path) -> None:
    llama().save_pretrained(tmp_path)
    written = json.loads((tmp_path / "config.json").read_text())
    told = {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
    (tmp_path / "config.json").write_text(json.dumps({**written, "quantization_config": told}))
    plan = MemoryPlan.of(tmp_path, quantization="none", device="cpu")
    assert (plan.quantization, plan.weights) == ("nf4", MemoryPlan.of(llama(), device="cpu").weights)
    (tmp_path / "config.json").write_text(json.dumps({**written, "quantization_config": {"quant_method": "gptq"}}))
    other = MemoryPlan.of(tmp_path, device="cpu", free=GIB)
    assert (other.quantization, other.weights) == ("none", MemoryPlan.of(llama(), quantization="none").weights)
    assert "at the least (none, " in other.explain(), "and no other quantisation is suggested"


def test_a_configuration_is_left_as_it_was() -> None:
    config: PretrainedConfig = llama()
    before = config.to_dict()
    MemoryPlan.of(config, device="cpu")
    assert config.to_dict() == before
