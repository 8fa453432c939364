"""The settings file: every key does what its constructor says, and every mistake is told with its mend."""

from __future__ import annotations

import inspect
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from costopt import Compressor, ConfigError, Ledger, LocalStore, Optimizer, RedisStore, SemanticCache, SpendingLimit
from costopt.batch import BatchRunner
from costopt.compression import HistoryCompressor
from costopt.compression.documents import DocumentOptions
from costopt.routing.options import RoutingOptions
from costopt.settings import SECTIONS, read_settings
from costopt.settings_template import TEMPLATE

OPTIONS = {
    "cache": inspect.signature(SemanticCache).parameters,
    "router": RoutingOptions.__annotations__,
    "compressor": DocumentOptions.__annotations__,
    "history": inspect.signature(HistoryCompressor).parameters,
    "ledger": inspect.signature(Ledger).parameters,
    "limit": inspect.signature(SpendingLimit).parameters,
    "batch": [*inspect.signature(BatchRunner).parameters, "urgent"],
}


def written(folder: Path, text: str) -> Path:
    file = folder / "costopt.toml"
    file.write_text(text, "utf-8")
    return file


def test_every_key_is_an_option_of_what_its_section_sets_up() -> None:
    assert SECTIONS.keys() == OPTIONS.keys()
    for name, section in SECTIONS.items():
        assert set(section) <= set(OPTIONS[name]), name


def test_the_file_that_init_writes_is_right_as_it_is_and_with_every_comment_taken_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COSTOPT_REDIS_URL", "redis://localhost:1")
    first = read_settings(written(tmp_path, TEMPLATE))
    assert set(first) == {"cache", "router", "compressor", "history", "ledger"}
    lines = [line.removeprefix("# ") if re.match(r"# (\[|\w+ = )", line) else line for line in TEMPLATE.splitlines()]
    everything = read_settings(written(tmp_path, "\n".join(lines)))
    assert set(everything) == set(SECTIONS)
    assert everything["router"]["policy"] == {"strong_share": 0.3}
    assert everything["batch"]["journal"] == str(tmp_path / "batches.db")


def test_what_the_file_says_is_what_the_optimizer_has(tmp_path: Path) -> None:
    text = """
        [cache]
        store = "answers/cache.db"
        ttl = "never"
        tenant = "acme"
        [ledger]
        path = "books.db"
        keep_text = true
        [limit]
        dollars = 12.5
        period = "day"
    """
    optimizer = Optimizer.from_toml(written(tmp_path, text))
    assert optimizer.cache is not None
    assert isinstance(optimizer.cache.store, LocalStore)
    assert optimizer.cache.store.path == tmp_path / "answers" / "cache.db"
    assert optimizer.cache.request([], model="m").tenant == SemanticCache(tenant="acme").request([], model="m").tenant
    assert optimizer.ledger is not None
    assert (optimizer.ledger.path, optimizer.ledger.keep_text) == (tmp_path / "books.db", True)
    assert optimizer.limit is not None
    assert (str(optimizer.limit.dollars), optimizer.limit.period) == ("12.5", "day")
    assert [path.name for path in tmp_path.iterdir()] == ["costopt.toml"], "nothing is opened before it is used"


def test_the_environment_holds_what_is_secret(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = written(tmp_path, '[cache]\nstore = "env:MY_REDIS"')
    with pytest.raises(ConfigError, match=r"MY_REDIS is not set: export MY_REDIS=..., or leave the key out"):
        Optimizer.from_toml(file)
    monkeypatch.setenv("MY_REDIS", "redis://:secret@localhost:1")
    optimizer = Optimizer.from_toml(file)
    assert optimizer.cache is not None
    assert isinstance(optimizer.cache.store, RedisStore)
    with pytest.raises(ConfigError, match=r'holds a password.*write store = "env:COSTOPT_REDIS_URL"'):
        Optimizer.from_toml(written(tmp_path, '[cache]\nstore = "redis://:secret@localhost:1"'))


@pytest.mark.parametrize(
    ("text", "mend"),
    [
        ("[cahce]", r"\[cahce\]: there is no such section \(did you mean cache\?\). There are \[cache\], \[router\]"),
        ("[cache]\nmax_eror = 0.1", r"\[cache\]: max_eror is not known \(did you mean max_error\?\). Known are store"),
        ("[cache]\nmax_error = '0.1'", r"\[cache\]: max_error = '0.1' is not a number"),
        ("[cache]\nguards = 1", r"\[cache\]: guards = 1 is not true or false"),
        ("[cache]\nmax_error = true", r"\[cache\]: max_error = True is not a number"),
        ("[cache]\ntags = 'docs'", r"\[cache\]: tags = 'docs' is not a list of texts"),
        ("[cache]\nttl = 'ever'", r"""\[cache\]: ttl = 'ever' is not a number of seconds, or "never\""""),
        ("[router]\nthresholds = [0.3, 'a']", r"\[router\]: thresholds = .* is not a list of numbers"),
        ("[history]\nkeep_last = 2.5", r"\[history\]: keep_last = 2.5 is not a whole number"),
        ("[ledger]\npath = 7", r"\[ledger\]: path = 7 is not a path"),
        ("cache = true", r"cache = ... is no section: write \[cache\] on a line"),
        ("[cache]\nmax_error = .1", r"is no TOML: .*line 2"),
        ("max_error: 0.1", r"is no TOML: .*`costopt init` writes a file to begin with"),
        ("[cache]\nmax_error = 2.0", "max_error"),
        ("[limit]\ndollars = 5", r"a limit counts what a ledger has: give ledger=\{\}, or write \[ledger\]"),
        ("[ledger]\n[limit]\nperiod = 'day'", r"the limit says no dollars"),
        ("", r"no lever is on: .*`costopt init`"),
        ("[batch]\ntries = 2", r"no lever is on"),
    ],
)
def test_a_mistake_is_told_with_its_mend(text: str, mend: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=mend):
        Optimizer.from_toml(written(tmp_path, text))


def test_a_file_that_cannot_be_read_says_so(tmp_path: Path) -> None:
    missing = tmp_path / "none.toml"
    with pytest.raises(ConfigError, match=f"there is no {missing}: `costopt init --path {missing}` writes one"):
        Optimizer.from_toml(missing)
    with pytest.raises(ConfigError, match=r"cannot be read .*give another file"):
        Optimizer.from_toml(tmp_path)
    (tmp_path / "costopt.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="is no TOML"):
        Optimizer.from_toml(tmp_path / "costopt.toml")


def test_the_template_names_no_option_that_is_the_default_wrongly() -> None:
    """What is written without a comment is what a lever does anyhow: the file shows, it does not change."""
    told = tomllib.loads(TEMPLATE)
    defaults: dict[str, Any] = {
        **{name: each.default for name, each in inspect.signature(SemanticCache).parameters.items()},
        **{name: each.default for name, each in inspect.signature(HistoryCompressor).parameters.items()},
    }
    for section in ("cache", "history"):
        for name, value in told[section].items():
            assert defaults[name] in (value, None), name


# -- in a few lines of Python --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "mend"),
    [
        ({}, "no lever is on"),
        ({"cache": {"max_eror": 0.1}}, "cache: max_eror is not known. Known are store"),
        ({"cache": 0.1}, "cache=0.1: give a mapping of options"),
        ({"router": {"tiers": []}}, "router: tiers is not known"),
        ({"history": {"keep": 1}}, "history: keep is not known"),
        ({"compressor": {"ratio": 1}}, "compressor: ratio is not known. Known are target_ratio"),
        ({"limit": {"dollars": 1}}, "a limit counts what a ledger has"),
        ({"ledger": "l.db", "batch": {"every": 1}}, "batch: every is not known. Known are journal"),
    ],
)
def test_a_mistake_in_an_argument_is_told_likewise(given: dict[str, Any], mend: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(mend)):
        Optimizer(**given)


def test_objects_are_taken_as_they_are(tmp_path: Path) -> None:
    cache, ledger = SemanticCache(LocalStore(tmp_path / "c.db")), Ledger(tmp_path / "l.db")
    limit = SpendingLimit(ledger, 5)
    optimizer = Optimizer(cache=cache, compressor=Compressor(), history=HistoryCompressor(), limit=limit)
    assert (optimizer.cache, optimizer.ledger, optimizer.limit) == (cache, ledger, limit)
    with pytest.raises(ConfigError, match="the limit counts on"):
        Optimizer(ledger=tmp_path / "other.db", limit=limit)
    with pytest.raises(ConfigError, match="there is no ledger to report on"):
        Optimizer(cache=cache).report()
