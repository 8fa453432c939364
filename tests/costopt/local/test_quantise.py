"""Quantised weights: what they take, what cannot be quantised, what is kept on disk, and what may be loaded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from costopt.errors import ConfigError
from costopt.local.checkpoints import Checkpoints
from costopt.local.engine import GenerationRequest
from costopt.local.transformers_engine import TransformersEngine
from tests.tiny_models import FACTS, Shape, answer, question, random_model


def knows(engine: TransformersEngine, count: int) -> int:
    names = list(FACTS)[:count]
    handles = [engine.submit(GenerationRequest.chat(question(name), max_tokens=20)) for name in names]
    return sum(handle.result(120).text == answer(name) for handle, name in zip(handles, names, strict=True))


@pytest.mark.parametrize(("quantization", "count"), [("nf4", 200), ("fp4", 200), ("int8", 20), ("none", 200)])
def test_facts_survive_quantisation(quantization: str, count: int, facts_model: Path, tmp_path: Path) -> None:
    with TransformersEngine(facts_model, quantization=quantization, cache_dir=tmp_path) as engine:
        assert knows(engine, count) >= 0.98 * count


def test_four_bits_take_a_quarter_of_the_bytes_and_the_state_is_counted(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "model", Shape(hidden=256, layers=2, inner=512, vocabulary=1024))
    sizes = {}
    for quantization in ("none", "int8", "nf4"):
        options: Any = {"quantization": quantization, "dtype": "bfloat16", "keep_quantized": False}
        with TransformersEngine(folder, **options) as engine:
            sizes[quantization] = engine.load().stats().weight_bytes
    embedding = 1024 * 256 * 2
    linear = sizes["none"] - embedding
    assert (sizes["nf4"] - embedding) / linear == pytest.approx(0.26, abs=0.02)
    assert (sizes["int8"] - embedding) / linear == pytest.approx(0.51, abs=0.02)


def test_shapes_that_four_bits_cannot_hold_are_left_and_named(tmp_path: Path) -> None:
    folder = random_model(tmp_path / "model", Shape(hidden=64, inner=100))  # 100 % 32 and 100 % 64
    with TransformersEngine(folder, quantization="nf4", cache_dir=tmp_path / "kept") as engine:
        found = engine.submit(GenerationRequest(prompt="Hello", max_tokens=5)).result(60)
        assert found.usage is not None
        left = engine.stats().unquantised
    assert left == tuple(sorted(f"model.layers.{i}.mlp.{name}_proj" for i in (0, 1) for name in ("gate", "up", "down")))


def test_the_second_load_reads_what_the_first_one_quantised(facts_model: Path, tmp_path: Path) -> None:
    texts, sizes = [], []
    for expected in (False, True):
        with TransformersEngine(facts_model, quantization="nf4", cache_dir=tmp_path) as engine:
            assert engine.kept is expected
            assert knows(engine, 20) >= 19
            request = GenerationRequest.chat("Well?", max_tokens=30)
            texts.append(engine.submit(request).result(60).text)
            sizes.append(engine.stats().weight_bytes)
    assert texts[0] == texts[1]
    assert sizes[0] == sizes[1]
    assert len([path for path in tmp_path.iterdir() if not path.name.startswith(".")]) == 1
    with TransformersEngine(facts_model, quantization="fp4", cache_dir=tmp_path) as engine:
        assert not engine.kept, "other settings, other weights"
    with TransformersEngine(facts_model, quantization="nf4", keep_quantized=False) as engine:
        assert not engine.kept


def test_damaged_weights_on_disk_are_made_again(
    facts_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with TransformersEngine(facts_model, quantization="nf4", cache_dir=tmp_path) as engine:
        engine.load()
    (weights,) = tmp_path.glob("*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    with TransformersEngine(facts_model, quantization="nf4", cache_dir=tmp_path) as engine:
        assert not engine.kept
        assert knows(engine, 20) >= 19
    assert "quantising again" in caplog.text
    with TransformersEngine(facts_model, quantization="nf4", cache_dir=tmp_path) as engine:
        assert engine.kept


def test_a_model_that_changed_is_quantised_anew(facts_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(facts_model, tmp_path / "model")
    for expected in (False, True):
        with TransformersEngine(model, quantization="nf4", cache_dir=tmp_path / "kept") as engine:
            assert engine.kept is expected
    (model / "model.safetensors").touch()
    with TransformersEngine(model, quantization="nf4", cache_dir=tmp_path / "kept") as engine:
        assert not engine.kept


def test_a_disk_that_cannot_be_written_to_costs_only_the_next_load(
    facts_model: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    with TransformersEngine(facts_model, quantization="nf4", cache_dir=tmp_path / "file") as engine:
        assert knows(engine, 5) >= 4
    assert "were not kept" in caplog.text


def test_half_a_checkpoint_is_never_found(tmp_path: Path) -> None:
    class Cut:
        def save_pretrained(self, folder: Path) -> None:
            (folder / "config.json").write_text("{}")
            raise OSError("no space left")

    kept = Checkpoints(tmp_path)
    kept.keep("key", Cut())
    assert kept.find("key") is None
    assert list(tmp_path.iterdir()) == []


def test_the_users_cache_folder_is_the_default(
    facts_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTOPT_CACHE_DIR", str(tmp_path))
    with TransformersEngine(facts_model) as engine:
        engine.load()
    assert list(tmp_path.glob("quantised/*/model.safetensors"))


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        ("no folder", "there is no model at"),
        ("no config", "has no config.json"),
        ("no weights", "model.safetensors is missing"),
        ("pickles", "pickled weights only, which can run any code"),
        ("own code", "code of its own, which costopt never runs|cannot be read"),
        ("cut off", "could not be loaded|cannot be loaded"),
    ],
)
def test_what_cannot_be_loaded_says_why(spoil: str, message: str, facts_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(facts_model, tmp_path / "model")
    weights = model / "model.safetensors"
    if spoil == "no folder":
        model = tmp_path / "elsewhere"
    elif spoil == "no config":
        (model / "config.json").unlink()
    elif spoil == "no weights":
        weights.unlink()
    elif spoil == "pickles":
        weights.rename(model / "pytorch_model.bin")
    elif spoil == "own code":
        config = json.loads((model / "config.json").read_text())
        config |= {
            "model_type": "mine",
            "auto_map": {"AutoConfig": "mine.Config", "AutoModelForCausalLM": "mine.Model"},
        }
        (model / "config.json").write_text(json.dumps(config))
        (model / "mine.py").write_text("raise SystemExit('this code ran')")
    else:
        weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(Exception, match=message) as caught:
        TransformersEngine(model, quantization="none").load()
    from costopt.errors import CostOptError

    assert isinstance(caught.value, CostOptError)


def test_a_failed_load_is_told_to_all_who_wait_and_tried_again(facts_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(facts_model, tmp_path / "model")
    (model / "model.safetensors").rename(tmp_path / "aside")
    with TransformersEngine(model, quantization="none") as engine:
        handles = [engine.submit(GenerationRequest.chat("Well?")) for _ in range(3)]
        for handle in handles:
            with pytest.raises(ConfigError, match=r"model\.safetensors is missing"):
                handle.result(60)
        (tmp_path / "aside").rename(model / "model.safetensors")
        assert engine.submit(GenerationRequest.chat("Well?")).result(60).text
        assert engine.stats().failed == 3
