"""The site that `make docs` builds: whole, strict, and of nothing but its own files."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path
from urllib.parse import unquote

from tests.chromium import browser, chromium_path
from tests.snippets import ROOT

PACKAGES = (
    "costopt.caching costopt.routing costopt.compression costopt.batch costopt.local costopt.audit costopt.errors "
    "costopt.pricing costopt.tokens costopt.embedding langchain_costopt llamaindex_costopt"
).split()
_ASKED_FOR = re.compile(r"<(?:script|img|iframe|source|video)[^>]+?src=[\"']?([^\"'\s>]+)")
_LINK_TAG = re.compile(r"<link[^>]+?href=[\"']?([^\"'\s>]+)")


def test_the_site(tmp_path: Path) -> None:
    """One test, for building takes seconds."""
    env = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    # Strict: a warning, a link that leads nowhere or a heading that is not there ends it.
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=env, timeout=300)
    assert built.returncode == 0, built.stdout + built.stderr
    pages = {path: path.read_text("utf-8") for path in tmp_path.rglob("*.html")}
    assert len(pages) >= 30
    for path, html in pages.items():
        needed = [*_ASKED_FOR.findall(html), *_LINK_TAG.findall(html)]
        foreign = [address for address in needed if "//" in address]
        assert not foreign, f"{path.name} fetches {foreign}"
        for address in needed if path.name != "404.html" else ():  # which a server sends for any folder
            assert (path.parent / unquote(address.split("?")[0].split("#")[0])).exists(), f"{path.name}: {address}"
    _everything_public_is_there(tmp_path)
    if chromium_path() is not None:
        _looked_at(tmp_path)


def _everything_public_is_there(site: Path) -> None:
    text = "".join(path.read_text("utf-8") for path in (site / "api").glob("*.html"))
    anchors = set(re.findall(r"id=\"([\w.]+)\"", text))
    for package in PACKAGES:
        for name in importlib.import_module(package).__all__:
            assert f"{package}.{name}" in anchors, f"{package}.{name} is in no page of the reference"
    for name in importlib.import_module("costopt").__all__:
        assert any(anchor.endswith(f".{name}") for anchor in anchors), f"costopt.{name} is in no page of the reference"


def _looked_at(site: Path) -> None:
    with browser() as tab:
        for page, width, dark in (
            ("index.html", 390, True),
            ("api/caching.html", 390, False),
            ("caching.html", 1280, True),
        ):
            tab.open(site / page, width, 900, dark=dark)
            assert tab.value("document.documentElement.scrollWidth") == width, f"{page} is wider than {width}"
            scheme = tab.value("document.body.dataset.mdColorScheme")
            assert scheme == ("slate" if dark else "default")
            tab.value("localStorage.clear()")
            assert not tab.messages, page
            assert all(address.startswith(("file:", "data:", "about:")) for address in tab.requests), page
        # Asked again until it answers: what is typed before the search is ready is lost.
        field = "document.querySelector('[data-md-component=search-query]')"
        tab.value(f"{field}.focus()")
        tab.call("Input.insertText", text="tenant")
        typed = f"{field}.focus(), {field}.dispatchEvent(new Event('keyup'))"
        results = "document.querySelectorAll('.md-search-result__item').length"
        deadline = time.monotonic() + 30
        while (found := tab.value(f"{typed}, {results}")) < 3 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert found >= 3  # in pages that were opened as files
