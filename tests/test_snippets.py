"""Every piece of code in README and docs/ runs as it stands there; every command and file that they name is there."""

from __future__ import annotations

import ast
import json
import re
import shlex
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

import costopt
from cookbook.benchmarks import readme
from cookbook.benchmarks.__main__ import recorded
from costopt.cli import app
from langchain_costopt.demo import sample_log
from tests.batch_server import batch_server
from tests.costopt.compression.classifiers import bert
from tests.costopt.routing.rows import outcomes
from tests.openai_server import openai_server
from tests.snippets import ROOT, blocks, outside_blocks, pages, run

PAGES = pages()
DOCUMENTS = [*PAGES, "CONTRIBUTING.md", "CHANGELOG.md", "cookbook/data/README.md"]
WITH_CODE = [
    page
    for page in PAGES
    if blocks(page, "python", "diff") or any("costopt " in block.code for block in blocks(page, "sh"))
]


@pytest.mark.parametrize("page", WITH_CODE)
def test_every_snippet_of_a_page_runs(page: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    text = (ROOT / page).read_text("utf-8")
    _given_files(tmp_path)
    if "models/token-classifier" in text:
        (tmp_path / "models").mkdir()
        bert(tmp_path).rename(tmp_path / "models" / "token-classifier")
    if "models/my-chat-model" in text:
        (tmp_path / "models").mkdir(exist_ok=True)
        (tmp_path / "models" / "my-chat-model").symlink_to(request.getfixturevalue("facts_model"))
    env = {}
    if 'environ["COSTOPT_REDIS_URL"]' in text:
        env["COSTOPT_REDIS_URL"] = request.getfixturevalue("redis_url")
    with openai_server() as server, batch_server() as batches:
        ran = run(blocks(page), tmp_path, calls=server.url, batches=f"{batches.url}/v1", env=env)
        asked = [request["messages"][-1]["content"] for request in server.requests]
    if ran[0].block.code.count("reset my password?") == 3:
        assert "How can I reset my password?" not in asked  # "no call", it says
    for each in ran:
        for said in re.findall(r"^print\(.*\)  # (.+)$", each.block.code, flags=re.MULTILINE):
            assert said in each.printed, f"{page}, line {each.block.line}: {each.printed}"


def _given_files(folder: Path) -> None:
    """What pages take for granted: files of the user's own, by the names that the pages give them."""
    asked = [
        f"{verb} my {what}" for verb in ("reset", "change", "delete", "see") for what in ("password", "username", "PIN")
    ]
    pairs = [
        {"a": f"How do I {a}?", "b": f"How can I {b}?", "same": a == b}
        for a in asked
        for b in asked
        if a.split()[-1] == b.split()[-1]
    ]
    learned, held_out = (
        replace(outcomes(count, seed), tiers=("gpt-4o-mini", "gpt-4o"), answers={})
        for count, seed in ((120, 0), (40, 1))
    )
    rows = {
        name: [
            {"prompt": prompt, "scores": dict(zip(given.tiers, map(float, scores), strict=True))}
            for prompt, scores in zip(given.prompts, given.scores, strict=True)
        ]
        for name, given in (("OUTCOMES", learned), ("HELD_OUT", held_out))
    }
    bodies = [
        {"model": "gpt-4o-mini", "max_tokens": 8, "messages": [{"role": "user", "content": f"Good or bad? {text}"}]}
        for text in ("Too narrow.", "It never came.")
    ]
    requests = [
        {"custom_id": f"row {number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        for number, body in enumerate(bodies)
    ]
    prompts = [{"prompt": row["prompt"]} for row in rows["HELD_OUT"]]
    for name, lines in {**rows, "PAIRS": pairs, "PROMPTS": prompts, "REQUESTS": requests}.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines), "utf-8")
    log = Path(sample_log()).read_text("utf-8").splitlines(keepends=True)[:60]
    (folder / "LOG.jsonl").write_text("".join(log), "utf-8")
    (folder / "FILE.txt").write_text("The museum opened in 1931. It is built of brick. Tickets cost 12 EUR.\n", "utf-8")


def test_there_is_code_to_run() -> None:
    assert len(WITH_CODE) >= 8
    assert sum(len(blocks(page, "python")) for page in PAGES) >= 25


@pytest.mark.parametrize("page", PAGES)
def test_what_is_no_program_can_be_read_all_the_same(page: str) -> None:
    for block in blocks(page):
        if block.language == "diff":
            ast.parse(block.side("-"))
        elif block.language in ("yaml", "yml"):
            assert yaml.safe_load(block.code)
        elif block.language == "toml":
            assert tomllib.loads(block.code)
        elif block.language == "json":
            assert [json.loads(line) for line in block.code.splitlines()]
        else:
            assert block.language in ("python", "sh", "text"), f"{page}, line {block.line}: who runs {block.language}?"
    assert "    costopt " not in outside_blocks(page)  # indented, nobody would run it


NAMED = [
    (page, command)
    for page in DOCUMENTS
    for command in [
        *re.findall(r"`(costopt [^`]+)`", outside_blocks(page)),
        *(line for block in blocks(page, "sh") for line in block.code.splitlines() if line.startswith("costopt ")),
    ]
]


@pytest.mark.parametrize(("page", "line"), dict.fromkeys(NAMED))
def test_every_command_that_is_named_is_there(page: str, line: str) -> None:
    command: Any = typer.main.get_command(app)
    options = re.sub(r"\{.*?\}|…|\.\.\.", "", line)
    for word in shlex.split(options, comments=True)[1:]:
        if word == ">":
            break
        if word.startswith("-") and word != "-":
            known = {name for each in command.params for name in (*each.opts, *each.secondary_opts)} | {"--help"}
            assert word.split("=")[0] in known, f"{page}: {line}"
        elif commands := getattr(command, "commands", {}):
            assert word in commands, f"{page}: {line}"
            command = commands[word]


@pytest.mark.parametrize("page", DOCUMENTS)
def test_every_extra_target_and_file_that_is_named_is_there(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    for named in re.findall(r"costopt\[([\w,]+)\]", text):
        assert set(named.split(",")) <= set(extras), named
    targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text("utf-8"), flags=re.MULTILINE)
    for named in re.findall(r"(?:^|`)make ([\w-]+)", text, flags=re.MULTILINE):
        assert named in targets, named
    for link in re.findall(r"\]\(([^)#\s]+)", outside_blocks(page)):
        assert link.startswith("https://") or (ROOT / page).parent.joinpath(link).exists(), link


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_ours_that_is_imported_is_public(page: str) -> None:
    for block in blocks(page, "python", "diff"):
        code = block.side("+") if block.language == "diff" else block.code
        for node in ast.walk(ast.parse(code)):
            if isinstance(node, ast.ImportFrom) and node.module == "costopt":
                assert {name.name for name in node.names} <= set(costopt.__all__), f"{page}, line {block.line}"


def test_the_measured_table_is_that_of_the_last_results() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    # `python -m cookbook.benchmarks --draw` writes it without measuring.
    assert readme.with_figures(text, recorded()) == text


def test_every_error_has_its_mend_on_the_page_of_errors() -> None:
    page = (ROOT / "docs" / "errors.md").read_text("utf-8")
    missing = [name for name in costopt.errors.__all__ if name.endswith("Error") and f"`{name}`" not in page]
    assert not missing
