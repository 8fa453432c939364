"""The picture is an SVG that a browser reads, shows every curve, and lets no name break out of it."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np

from costopt.routing import Outcomes
from costopt.routing.evaluate import evaluate_scores
from costopt.routing.plot import svg

NAMESPACE = "{http://www.w3.org/2000/svg}"


def drawn(count: int, *, after: bool, cheap: str = "small") -> tuple[str, ElementTree.Element]:
    chosen = np.random.default_rng(0)
    scores = np.stack([chosen.random(count) < 0.5, chosen.random(count) < 0.9], axis=1).astype(float)
    prompts = tuple(f"prompt {n}" for n in range(count))
    guess = chosen.random(count)
    found = evaluate_scores(Outcomes(prompts, (cheap, "large"), scores), guess, guess if after else None, resamples=10)
    text = svg(found)
    return text, ElementTree.fromstring(text)


def test_router_cascade_and_controls_are_drawn_inside_the_frame() -> None:
    _, root = drawn(5_000, after=True)
    lines = root.findall(f"{NAMESPACE}polyline")
    assert len(lines) == 5
    for line in lines:
        corners = [tuple(map(float, corner.split(","))) for corner in line.attrib["points"].split()]
        assert 2 <= len(corners) <= 500
        assert all(72 <= x <= 700 and 48 <= y <= 424 for x, y in corners)
        assert (corners[0][0], corners[-1][0]) == (72, 700)
    words = [text.text or "" for text in root.findall(f"{NAMESPACE}text")]
    for name in ("router", "cascade", "length", "random", "oracle"):
        assert any(word.startswith((f"{name}, APGR 0.", f"{name}, APGR 1.")) for word in words), name


def test_without_answers_there_is_no_cascade() -> None:
    text, root = drawn(50, after=False)
    assert len(root.findall(f"{NAMESPACE}polyline")) == 4
    assert "cascade" not in text


def test_a_name_is_text_and_nothing_else() -> None:
    text, root = drawn(50, after=False, cheap='</text><script>alert("x")</script>')
    assert "<script" not in text
    assert any("<script>" in (each.text or "") for each in root.findall(f"{NAMESPACE}text"))
