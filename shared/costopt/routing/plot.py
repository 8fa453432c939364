"""The curve of a router as an SVG picture: quality against share of strong calls, beside the controls."""

from __future__ import annotations

from collections.abc import Mapping
from xml.sax.saxutils import escape

import numpy as np
from numpy.typing import NDArray

from costopt.routing.evaluate import RouterEvaluation
from costopt.routing.metrics import Curve

__all__ = ["svg"]

_WIDTH, _HEIGHT = 720, 480
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 20, 48, 56
_MOST_CORNERS = 400
_STYLE = {
    "oracle": ("#9a9a9a", "2 3"),
    "length": ("#c07a00", "7 4"),
    "random": ("#777777", "3 3"),
    "cascade": ("#1b8a5a", ""),
    "router": ("#1f5fbf", ""),
}


def svg(found: RouterEvaluation) -> str:
    """Draw the router, its cascade, and the controls random, length and oracle.

    Example:
        >>> from costopt.routing.evaluate import evaluate_scores
        >>> from costopt.routing import Outcomes
        >>> outcomes = Outcomes(("Why?", "Who?"), ("small", "big"), np.array([[0.0, 1.0], [1.0, 1.0]]))
        >>> svg(evaluate_scores(outcomes, np.array([0.9, 0.1]), resamples=10)).startswith("<svg ")
        True
    """
    curves: dict[str, Curve] = {
        name: found.controls[name].curve for name in ("oracle", "length", "random") if name in found.controls
    }
    if found.cascade is not None:
        curves["cascade"] = found.cascade.curve
    curves["router"] = found.router.curve
    low, high = _bounds(curves)
    parts = [
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" width="{_WIDTH}" '
            f'height="{_HEIGHT}" font-family="sans-serif" font-size="13" fill="#333333">'
        ),
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#ffffff"/>',
        *_axes(found, low, high),
        *(_line(name, each, low, high) for name, each in curves.items()),
        *_legend(curves),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _bounds(curves: Mapping[str, Curve]) -> tuple[float, float]:
    values = np.concatenate([each.qualities for each in curves.values()])
    low, high = float(values.min()), float(values.max())
    room = 0.05 * max(high - low, 1e-3)
    return low - room, high + room


def _x(share: float) -> float:
    return _LEFT + share * (_WIDTH - _LEFT - _RIGHT)


def _y(quality: float, low: float, high: float) -> float:
    return _TOP + (high - quality) / (high - low) * (_HEIGHT - _TOP - _BOTTOM)


def _axes(found: RouterEvaluation, low: float, high: float) -> list[str]:
    title = f"{found.cheap[0]} and {found.strong[0]}, {found.prompts:,} prompts"
    parts = [f'<text x="{_LEFT}" y="26" font-size="15">{escape(title)}</text>']
    for share in np.linspace(0, 1, 6):
        x = _x(float(share))
        parts.append(f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{_HEIGHT - _BOTTOM}" stroke="#eeeeee"/>')
        parts.append(f'<text x="{x:.1f}" y="{_HEIGHT - _BOTTOM + 18}" text-anchor="middle">{share:.0%}</text>')
    for quality in np.linspace(low, high, 6)[1:-1]:
        y = _y(float(quality), low, high)
        parts.append(f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" stroke="#eeeeee"/>')
        parts.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{quality:.3f}</text>')
    middle, foot = _x(0.5), _HEIGHT - 14
    parts.append(f'<text x="{middle:.1f}" y="{foot}" text-anchor="middle">share of calls to the strong model</text>')
    half = (_TOP + _HEIGHT - _BOTTOM) / 2
    parts.append(f'<text transform="translate(18 {half:.1f}) rotate(-90)" text-anchor="middle">mean quality</text>')
    return parts


def _line(name: str, drawn: Curve, low: float, high: float) -> str:
    colour, dashes = _STYLE[name]
    corners = " ".join(f"{_x(share):.1f},{_y(quality, low, high):.1f}" for share, quality in _thinned(drawn))
    width = 2.5 if name in ("router", "cascade") else 1.5
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<polyline points="{corners}" fill="none" stroke="{colour}" stroke-width="{width}"{dashed}/>'


def _thinned(drawn: Curve) -> NDArray[np.float64]:
    """(share, quality) of at most some hundred corners; the eye sees no more."""
    step = -(-len(drawn.shares) // _MOST_CORNERS)
    kept = np.unique(np.append(np.arange(0, len(drawn.shares), step), len(drawn.shares) - 1))
    return np.stack([drawn.shares[kept], drawn.qualities[kept]], axis=1)


def _legend(curves: Mapping[str, Curve]) -> list[str]:
    parts = []
    for row, (name, each) in enumerate(reversed(list(curves.items()))):
        colour, dashes = _STYLE[name]
        y = _HEIGHT - _BOTTOM - 16 - 20 * (len(curves) - 1 - row)
        x = _WIDTH - _RIGHT - 190
        dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
        parts.append(f'<line x1="{x}" y1="{y}" x2="{x + 32}" y2="{y}" stroke="{colour}" stroke-width="2"{dashed}/>')
        parts.append(f'<text x="{x + 40}" y="{y + 4}">{name}, APGR {each.apgr:.3f}</text>')
    return parts
