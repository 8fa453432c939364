"""The report says the same in JSON, on a page and in a terminal; and the page works where people open it."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from cookbook.benchmarks.planted_log import planted_log
from costopt.audit.figures import at, shown, usd
from costopt.audit.report import CostReport, audit
from costopt.audit.report_html import html_report
from costopt.audit.report_text import print_report
from costopt.gpu import GpuSample
from tests.chromium import Browser, browser, chromium_path
from tests.costopt.audit.rows import START, asked, write

NASTY = "<script>alert('x')</script> & \"quotes\" \ud800 {{}}"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> CostReport:
    path = tmp_path_factory.mktemp("report") / "log & <more>.jsonl"
    planted_log(path, 400)
    with path.open("a") as file:
        file.write(json.dumps(asked(NASTY, name=NASTY, colour=1, model="my-<b>own</b>")) + "\n")
        file.write(
            json.dumps(asked("x" * 5_000, model="a-model-with-a-name-" + "that-never-ends-" * 8)) + "\nno JSON\n"
        )
    samples = [GpuSample(START + i, 0, 0.5, 0.25) for i in range(10)]
    return audit(path, cheaper=["gpt-4.1-nano"], gpu=samples)


class _Figures(HTMLParser):
    """The figures of a page, and the digits that stand outside of them."""

    def __init__(self) -> None:
        super().__init__()
        self.figures: list[tuple[str, str | None, str]] = []
        self.loose: list[str] = []
        self._open: list[tuple[str, dict[str, str | None]]] = []
        self._skip = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in ("meta", "br"):
            return
        self._open.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        self._open.pop()

    def handle_data(self, data: str) -> None:
        if any(tag in ("style", "script", "title") for tag, _ in self._open):
            return
        place = next((each for _, each in reversed(self._open) if "data-figure" in each), None)
        if place is not None:
            self.figures.append((str(place["data-figure"]), place.get("data-kind"), data))
        elif re.search(r"\d", data):
            self.loose.append(data)


def parsed(report: CostReport) -> tuple[_Figures, Any]:
    page = _Figures()
    page.feed(html_report(report))
    return page, json.loads(json.dumps(report.as_dict(), default=str))


def test_every_figure_of_the_page_is_in_the_json(report: CostReport) -> None:
    page, data = parsed(report)
    assert len(page.figures) > 150
    for path, kind, text in page.figures:
        value = at(data, path)
        if kind is not None:
            assert text == shown(value, kind), path
    assert page.loose == [], "figures that do not say where they are from"


def test_what_a_user_wrote_is_text_and_never_markup(report: CostReport) -> None:
    page = html_report(report)
    assert "<script>alert" not in page
    assert "<b>own</b>" not in page
    assert page.count("<script>") == 1
    assert page.count("&lt;script&gt;") >= 1


def test_the_page_needs_nothing_else(report: CostReport) -> None:
    page = html_report(report)
    assert not re.search(r"(src|href)=|url\(|@import|https?://", page)
    assert "default-src 'none'" in page


def test_prompts_are_left_out_where_that_is_asked(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", [asked("a very secret question") for _ in range(3)])
    shown_, hidden = audit(path), audit(path, keep_text=False)
    for page, expected in ((shown_, True), (hidden, False)):
        everything = html_report(page) + json.dumps(page.as_dict(), default=str)
        assert ("secret" in everything) is expected


def test_the_terminal_says_the_same_in_a_screen(report: CostReport) -> None:
    out = Console(file=io.StringIO(), width=100)
    print_report(report, out)
    text = out.file.getvalue()  # type: ignore[attr-defined]
    for figure in (usd(report.together["before"]), usd(report.together["after"]), "over-routed", "unknown, at most"):
        assert figure in text
    assert "line 460" in text or "not JSON" in text
    assert len(text.splitlines()) < 50


def test_a_log_gives_no_commands_to_the_terminal(tmp_path: Path) -> None:
    path = write(tmp_path / "log.jsonl", [asked("a") | {"\x1b[2J\ud800[red]": 1, "error": "\x1b]0;x\x07"}])
    out = Console(file=io.TextIOWrapper(io.BytesIO(), "utf-8"), width=100)
    print_report(audit(path), out)
    out.file.flush()
    text = out.file.buffer.getvalue().decode()  # type: ignore[attr-defined]
    assert "\x1b" not in text
    assert "\\x1b[2J\\ud800[red] (1)" in text


@given(value=st.decimals(min_value=0, max_value=10**9, allow_nan=False, places=6))
def test_money_on_the_page_is_near_the_money_in_the_json(value: Any) -> None:
    text = usd(value)
    assert (
        abs(float(text.replace("$", "").replace(",", "")) - float(value)) <= (0.005 if value >= 1 else 0.00005) + 1e-9
    )


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    if chromium_path() is None:
        pytest.skip("there is no Chromium on this machine; COSTOPT_TEST_CHROMIUM names one")
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize(("width", "height"), [(360, 740), (1280, 900)])
def test_the_page_opens_without_errors_and_fits(
    tab: Browser, report: CostReport, tmp_path: Path, width: int, height: int, dark: bool
) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_report(report), "utf-8", errors="backslashreplace")
    tab.open(file, width, height, dark=dark)
    assert tab.messages == []
    assert [address for address in tab.requests if not address.startswith("file://")] == []
    assert tab.value("document.documentElement.scrollWidth") <= width
    cut = (
        """[...document.querySelectorAll("section, .head div")].filter(e => e.scrollWidth > e.clientWidth + 1).length"""
    )
    assert tab.value(cut) == 0
    ground = [int(part) for part in re.findall(r"\d+", tab.value("getComputedStyle(document.body).backgroundColor"))]
    assert (sum(ground) < 200) is dark


CONTRAST = """
(() => {
  const light = (c) => { const [r, g, b] = c.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255)
    .map((v) => (v <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
    return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = getComputedStyle(e).backgroundColor;
    if (c !== "rgba(0, 0, 0, 0)") return c; } return "rgb(255, 255, 255)"; };
  return Math.min(...[...document.querySelectorAll("p, td, th button, b, figcaption, li, .n, h1, h2")].map((e) => {
    const pair = [light(getComputedStyle(e).color), light(ground(e))].sort((a, b) => b - a);
    return (pair[0] + 0.05) / (pair[1] + 0.05); }));
})()
"""


@pytest.mark.parametrize("dark", [False, True])
def test_everything_can_be_read_in_light_and_dark(tab: Browser, report: CostReport, tmp_path: Path, dark: bool) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_report(report), "utf-8", errors="backslashreplace")
    tab.open(file, 800, 800, dark=dark)
    assert tab.value(CONTRAST) >= 4.5, "the least contrast that the guidelines for accessibility allow"


def test_tables_sort_by_number_both_ways(tab: Browser, report: CostReport, tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text(html_report(report), "utf-8", errors="backslashreplace")
    tab.open(file, 1280, 900, dark=False)
    column = "[...document.querySelectorAll('#templates tbody tr')].map(r => Number(r.cells[3].dataset.sort))"
    click = "document.querySelectorAll('#templates th button')[3].click()"
    tab.value(click)
    falling = tab.value(column)
    tab.value(click)
    rising = tab.value(column)
    assert falling == sorted(falling, reverse=True)
    assert rising == sorted(rising)
    assert len(set(rising)) > 2
    assert tab.value("document.querySelectorAll('#templates th')[3].getAttribute('aria-sort')") == "ascending"
