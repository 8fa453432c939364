"""What an engine says of its model before it is loaded is what it says afterwards, and costs next to nothing."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from costopt.local.glance import Glance, glance
from costopt.local.transformers_engine import TransformersEngine

PLAIN = "{% for message in messages %}{{ message.content }}{% endfor %}"
TELLS = "{% for tool in tools %}{{ tool }}{% endfor %}" + PLAIN


def test_an_engine_says_the_same_before_and_after_it_is_loaded(facts_model: Path) -> None:
    with TransformersEngine(facts_model, quantization="none") as engine:
        before = (engine.context_window, engine.knows_tools)
        assert engine.stats().weight_bytes == 0
        engine.load()
        assert (engine.context_window, engine.knows_tools) == before == (512, True)


def test_the_context_is_the_one_asked_for_or_the_default_where_the_models_is_long(
    facts_model: Path, tmp_path: Path
) -> None:
    assert TransformersEngine(facts_model, context=100).context_window == 100
    model = shutil.copytree(facts_model, tmp_path / "model")
    config = json.loads((model / "config.json").read_text())
    (model / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 131_072}))
    with TransformersEngine(model, quantization="none") as engine:
        before = engine.context_window
        assert engine.load().context_window == before == 4_096


def test_nothing_is_said_of_a_model_that_is_not_here_and_tools_are_tried() -> None:
    engine = TransformersEngine("nobody/has-this-model")
    assert (engine.context_window, engine.knows_tools) == (None, True)


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, Glance()),
        ({"config.json": "["}, Glance()),
        ({"config.json": "[]"}, Glance()),
        ({"config.json": {"n_positions": 1024}}, Glance(1024, False)),
        ({"config.json": {"text_config": {"max_position_embeddings": 99}}}, Glance(99, False)),
        ({"config.json": {"max_position_embeddings": "many"}}, Glance(None, False)),
        ({"config.json": {"a": 1}, "chat_template.jinja": PLAIN}, Glance(None, False)),
        ({"config.json": {"a": 1}, "chat_template.jinja": TELLS}, Glance(None, True)),
        ({"config.json": {"a": 1}, "tokenizer_config.json": {"chat_template": TELLS}}, Glance(None, True)),
        ({"config.json": {"a": 1}, "tokenizer_config.json": {"chat_template": 3}}, Glance(None, False)),
        (
            {"config.json": {"a": 1}, "tokenizer_config.json": {"chat_template": [{"name": "x", "template": TELLS}]}},
            Glance(None, True),
        ),
        (
            {
                "config.json": {"a": 1},
                "chat_template.jinja": PLAIN,
                "additional_chat_templates/tool_use.jinja": TELLS,
            },
            Glance(None, True),
        ),
    ],
)
def test_files_of_every_age_are_understood(files: dict[str, Any], expected: Glance, tmp_path: Path) -> None:
    for name, content in files.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    assert glance(str(tmp_path)) == expected


def test_it_costs_no_import_of_transformers(facts_model: Path) -> None:
    code = (
        "import sys\nfrom costopt.local import TransformersEngine\n"
        "engine = TransformersEngine(sys.argv[1])\nassert (engine.context_window, engine.knows_tools) == (512, True)\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code, str(facts_model)], check=True, timeout=120)
