"""The recipes of the cookbook, as a user runs them: what they say they saved is what the provider counted."""

from __future__ import annotations

import re
import subprocess
import sys
from decimal import Decimal
from pathlib import Path

import pytest
import yaml

from cookbook.__main__ import RECIPES
from cookbook.stand_in import StandIn, known, stand_in
from costopt import MemoryPlan, Usage
from costopt.pricing import cost
from tests.batch_server import Fault
from tests.cookbook.recipes import COOKBOOK, SAVED, recipe
from tests.servers import HOST, free_port
from tests.tiny_models import FACTS, answer, question

SCRIPTS = [*RECIPES]
COMPOSE = sorted(COOKBOOK.glob("deploy/*/compose.yaml"))
ROUNDED = 2e-6  # sums are printed with six decimals


def saved(said: str) -> tuple[float, float]:
    """What the last line says: saved, of how much."""
    found = SAVED.match(said.splitlines()[-1])
    assert found, said
    amounts = float(found[1]), float(found[2])
    assert round(amounts[0] / amounts[1] * 100) == pytest.approx(int(found[3]), abs=1)
    return amounts


def check(said: str, before: Decimal, after: Decimal) -> None:
    assert saved(said) == (pytest.approx(float(before - after), abs=ROUNDED), pytest.approx(float(before), abs=ROUNDED))
    assert before > after > 0


def as_always(server: StandIn, first: int, model: str = "gpt-4o") -> Decimal:
    """What the calls from `first` on would have cost by this model."""
    return sum((cost(model, call.usage) or Decimal(0) for call in server.bill[first:]), Decimal(0))


def test_documents_are_compressed(tmp_path: Path) -> None:
    with stand_in() as server:
        said = recipe("rag_compressor", folder=tmp_path, url=server.url)
    assert len(server.bill) == 10
    check(said, server.dollars(0, 5), server.dollars(5))
    # What was sent less of was enough for the same answers.
    before, after = (re.findall(rf"^  {side}: +(.*)", said, re.MULTILINE) for side in ("all of it", "what matters"))
    assert len(before) == 5
    assert before == after


def test_an_application_of_llamaindex(tmp_path: Path) -> None:
    with stand_in() as server:
        said = recipe("llamaindex_app", folder=tmp_path, url=server.url)
    # Seven before; after, one question is asked to the letter again.
    assert [call.model for call in server.bill] == ["gpt-4o"] * 7 + ["gpt-4o-mini"] * 6
    check(said, server.dollars(0, 7), server.dollars(7))
    before, after = (re.findall(rf"^  {side}: +(.*)", said, re.MULTILINE) for side in ("before", "after"))
    assert len(before) == 7
    assert before == after


def test_a_router_is_trained_on_a_log(tmp_path: Path) -> None:
    with stand_in(known("train_router")) as server:
        said = recipe("train_router", folder=tmp_path, url=server.url)
    assert [call.model for call in server.bill[:300]] == ["gpt-4o-mini"] * 300
    assert len(server.bill) == 400
    check(said, as_always(server, 300), server.dollars(300))
    right = int(re.findall(r"^(\d+) of 100 answers as before", said, re.MULTILINE)[0])
    assert right >= 95
    assert len((tmp_path / "outcomes.jsonl").read_text().splitlines()) == 300
    assert {path.name for path in tmp_path.glob("router*")} == {"router.json", "router.npz"}


def test_ten_thousand_in_a_batch(tmp_path: Path) -> None:
    """It dies once the batch is made, goes on where it was, and has nothing to ask the third time."""
    with stand_in(known("batch_reviews")) as server:
        cut = server.fault
        server.fault = lambda method, path, number: Fault(status=401) if method == "GET" and server.batches else None
        with pytest.raises(AssertionError, match="401"):
            recipe("batch_reviews", folder=tmp_path, url=server.url)
        server.fault = cut
        said = [recipe("batch_reviews", folder=tmp_path, url=server.url) for _ in range(2)]
    assert "10,000 rows, 9,800 different, 0 answered before" in said[0]
    assert "10,000 rows, 9,800 different, 9,800 answered before" in said[1]
    assert said[0].splitlines()[1:] == said[1].splitlines()[1:]
    assert len(server.bill) == 9_800
    assert set(server.billed.values()) == {1}
    amount, of = saved(said[0])
    assert of - amount == pytest.approx(float(server.dollars()), abs=ROUNDED)
    assert amount > of / 2  # half the price, and 200 rows that were asked for already


def test_a_model_of_ones_own(tmp_path: Path, facts_model: Path) -> None:
    names = [*FACTS][:4]
    said = recipe("local_chat", *map(question, names), folder=tmp_path, COSTOPT_MODEL=str(facts_model))
    answers = [line for line in said.splitlines() if " has " in line]
    assert answers == [answer(names[0]), *map(answer, names)]  # the first one is streamed beforehand
    tokens = re.findall(r"^(\d+) tokens in, (\d+) out", said, re.MULTILINE)[0]
    dollars = cost("gpt-4o-mini", Usage(*map(int, tokens)))
    assert said.splitlines()[-1] == f"saved ${dollars:.6f} that gpt-4o-mini would have cost, less the electricity"
    held, instead = (int(size.replace(",", "")) for size in re.findall(r"([\d,]{6,})(?= bytes|, \d+% less)", said))
    assert held < 0.6 * instead
    assert instead == MemoryPlan.of(facts_model, quantization="none").weights


@pytest.mark.parametrize("up", [True, False], ids=["up", "down"])
def test_a_server_of_ones_own(tmp_path: Path, up: bool) -> None:
    """If it is down, the hosted model answers, and nothing is saved."""
    with stand_in() as server:
        address = server.url if up else f"http://{HOST}:{free_port()}/v1"
        said = recipe("vllm_server", folder=tmp_path, url=server.url, VLLM_BASE_URL=address, GPU_DOLLARS_PER_HOUR="0.9")
    models = [call.model for call in server.bill]
    assert sorted(set(models)) == (["Qwen/Qwen2.5-7B-Instruct-AWQ", "gpt-4o"] if up else ["gpt-4o"])
    assert re.findall(r"^(own|gpt-4o) ", said, re.MULTILINE).count("gpt-4o") == models.count("gpt-4o")
    own = sum(call.usage.total_tokens for call in server.bill if call.model != "gpt-4o")
    before, after = as_always(server, 0), server.dollars() + own * Decimal("0.1") / 1_000_000
    assert saved(said) == (
        pytest.approx(float(before - after), abs=ROUNDED),
        pytest.approx(float(before), abs=ROUNDED),
    )
    assert models.count("gpt-4o") == (1 if up else 6)


def test_every_lever(tmp_path: Path) -> None:
    with stand_in() as server:
        said = recipe("every_lever", folder=tmp_path, url=server.url)
    amount, of = saved(said)
    assert of - amount == pytest.approx(float(server.dollars()), abs=ROUNDED)
    levers = {name: float(dollars) for name, dollars in re.findall(r"^(\w+) .* \$(\d[\d.]*)$", said, re.MULTILINE)}
    assert {name for name, dollars in levers.items() if dollars} == {"cache", "routing", "compression", "batch"}
    assert sum(levers.values()) == pytest.approx(amount, abs=ROUNDED)
    assert {call.batch for call in server.bill} == {False, True}


# -- what holds for all of them ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SCRIPTS)
def test_it_is_a_page_that_says_how_it_is_run(name: str) -> None:
    text = RECIPES[name].read_text("utf-8")
    assert len(text.splitlines()) <= 90
    assert 'pip install "costopt[' in text
    assert f"python cookbook/{name}.py" in text
    assert "from cookbook" not in text  # it is copied, and works by itself


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("train_router", "OPENAI_API_KEY"),
        ("batch_reviews", "OPENAI_API_KEY"),
        ("local_chat", "set COSTOPT_MODEL"),
        ("vllm_server", "set VLLM_BASE_URL"),
        ("redis_production", "set COSTOPT_REDIS_URL"),
    ],
)
def test_what_is_missing_is_named(name: str, wanted: str, tmp_path: Path) -> None:
    with pytest.raises(AssertionError) as failed:
        recipe(name, folder=tmp_path)
    assert wanted in str(failed.value)


def test_the_readme_lists_them_all() -> None:
    readme = (COOKBOOK / "README.md").read_text("utf-8")
    linked = set(re.findall(r"\]\(([\w./]+)\)", readme))
    assert all((COOKBOOK / path).exists() for path in linked)
    notebooks = {f"notebooks/{path.name}" for path in COOKBOOK.glob("notebooks/*.ipynb")}
    assert linked >= {f"{name}.py" for name in SCRIPTS} | notebooks


def test_without_a_name_they_are_listed() -> None:
    said = subprocess.run(
        [sys.executable, "-m", "cookbook"], cwd=COOKBOOK.parent, capture_output=True, text=True, check=True
    ).stdout
    assert [line.split()[0] for line in said.splitlines()] == SCRIPTS


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.parent.name)
def test_a_compose_file(path: Path) -> None:
    """Pinned, watched, not open to the network; and what it mounts is there, or made as the page says."""
    found = yaml.safe_load(path.read_text("utf-8"))
    assert set(found) == {"services", "volumes"}
    for service in found["services"].values():
        name, _, tag = service["image"].partition(":")
        assert name
        assert re.search(r"\d+\.\d+\.\d+", tag)
        assert set(service["healthcheck"]) >= {"test", "interval", "timeout", "retries"}
        assert service["restart"] == "unless-stopped"
        assert all(port.startswith("127.0.0.1:") for port in service["ports"])
        for mount in service["volumes"]:
            source = mount.split(":")[0]
            there = [path.parent / source, path.parent / f"{source}.template"]
            assert source in found["volumes"] or any(each.exists() for each in there)
