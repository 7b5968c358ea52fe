"""Draw line charts with logarithmic axes side by side, as one SVG for light and dark backgrounds."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

__all__ = ["Line", "Panel", "draw"]

WIDTH, HEIGHT = 300.0, 220.0
LEFT, TOP, BOTTOM, GAP = 52.0, 34.0, 40.0, 44.0
COLOURS = (("#0969da", "#58a6ff"), ("#1a7f37", "#3fb950"), ("#bc4c00", "#f0883e"), ("#8250df", "#bc8cff"))
"""Colours for light and for dark backgrounds."""
_ROOT = 'role="img" font-family="system-ui, sans-serif" font-size="12"'
MARKS = ("circle", "square", "triangle", "diamond")
"""Markers, so that the lines can be distinguished without colour."""


@dataclass(frozen=True, slots=True)
class Line:
    """Points ``(x, y)`` of one side; *ends* is a label after the last point that says why there are no more."""

    name: str
    points: list[tuple[float, float]]
    ends: str = ""


@dataclass(frozen=True, slots=True)
class Panel:
    """One chart: its title with the unit, its lines, and optionally a horizontal line at *limit* with a label."""

    title: str
    lines: list[Line] = field(default_factory=list)
    limit: float | None = None
    limit_name: str = ""


def draw(panels: list[Panel], x_title: str, description: str) -> str:
    """Return the SVG. Values of 0 or less are omitted, since the axes are logarithmic."""
    names = list(dict.fromkeys(line.name for panel in panels for line in panel.lines))
    width = len(panels) * (LEFT + WIDTH + GAP)
    height = TOP + HEIGHT + BOTTOM + 26
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" {_ROOT}>',
        f"<title>{escape(description)}</title>",
        _style(len(names)),
    ]
    for number, panel in enumerate(panels):
        left = LEFT + number * (LEFT + WIDTH + GAP)
        parts += _panel(panel, left, names, x_title)
    for number, name in enumerate(names):
        x = LEFT + number * (width - LEFT) / len(names)
        y = height - 10
        parts += [_mark(number, x + 6, y - 4), f'<text class="ink" x="{x + 16:.1f}" y="{y:.1f}">{escape(name)}</text>']
    return "\n".join([*parts, "</svg>", ""])


def _style(count: int) -> str:
    def rules(dark: int) -> str:
        ink, faint = ("#e6edf3", "#484f58") if dark else ("#1f2328", "#d0d7de")
        lines = [f".ink{{fill:{ink}}} .axis{{stroke:{faint};fill:none}} .limit{{stroke:{ink};stroke-dasharray:4 3}}"]
        for number in range(count):
            colour = COLOURS[number % len(COLOURS)][dark]
            lines.append(f".line{number}{{stroke:{colour};fill:none;stroke-width:2}} .mark{number}{{fill:{colour}}}")
        return " ".join(lines)

    return f"<style>{rules(0)} @media (prefers-color-scheme: dark) {{{rules(1)}}}</style>"


def _panel(panel: Panel, left: float, names: list[str], x_title: str) -> list[str]:
    points = [point for line in panel.lines for point in line.points if min(point) > 0]
    if not points:
        return []
    x_low, x_high = _decades([x for x, _ in points])
    y_low, y_high = _decades([y for _, y in points] + ([panel.limit] if panel.limit else []))

    def place(x: float, y: float) -> tuple[float, float]:
        return (
            left + WIDTH * (math.log10(x) - x_low) / (x_high - x_low),
            TOP + HEIGHT * (1 - (math.log10(y) - y_low) / (y_high - y_low)),
        )

    parts = [f'<text class="ink" x="{left:.1f}" y="{TOP - 14:.1f}" font-weight="600">{escape(panel.title)}</text>']
    for decade in range(x_low, x_high + 1):
        x, _ = place(10.0**decade, 10.0**y_low)
        parts += [
            f'<path class="axis" d="M{x:.1f} {TOP:.1f}V{TOP + HEIGHT:.1f}"/>',
            f'<text class="ink" x="{x:.1f}" y="{TOP + HEIGHT + 16:.1f}" text-anchor="middle">{10**decade:,}</text>',
        ]
    for decade in range(y_low, y_high + 1):
        _, y = place(10.0**x_low, 10.0**decade)
        parts += [
            f'<path class="axis" d="M{left:.1f} {y:.1f}H{left + WIDTH:.1f}"/>',
            f'<text class="ink" x="{left - 6:.1f}" y="{y + 4:.1f}" text-anchor="end">{10.0**decade:,g}</text>',
        ]
    middle = f'x="{left + WIDTH / 2:.1f}" y="{TOP + HEIGHT + 32:.1f}" text-anchor="middle"'
    parts.append(f'<text class="ink" {middle}>{escape(x_title)}</text>')
    if panel.limit:
        _, y = place(10.0**x_low, panel.limit)
        parts += [
            f'<path class="limit" d="M{left:.1f} {y:.1f}H{left + WIDTH:.1f}"/>',
            f'<text class="ink" x="{left + 4:.1f}" y="{y + 14:.1f}">{escape(panel.limit_name)}</text>',
        ]
    for line in panel.lines:
        number = names.index(line.name)
        places = [place(x, y) for x, y in line.points if min(x, y) > 0]
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
        parts += [f'<path class="line{number}" d="M{path}"/>', *(_mark(number, x, y) for x, y in places)]
        if line.ends and places:
            x, y = places[-1]
            parts.append(f'<text class="mark{number}" x="{x + 7:.1f}" y="{y + 4:.1f}">{escape(line.ends)}</text>')
    return parts


def _decades(values: list[float]) -> tuple[int, int]:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return low, max(high, low + 1)


def _mark(number: int, x: float, y: float) -> str:
    shape = MARKS[number % len(MARKS)]
    if shape == "circle":
        return f'<circle class="mark{number}" cx="{x:.1f}" cy="{y:.1f}" r="4"/>'
    moves = {"square": "m-4-4h8v8h-8z", "triangle": "m0-5l5 9h-10z", "diamond": "m0-5l5 5-5 5-5-5z"}[shape]
    return f'<path class="mark{number}" d="M{x:.1f} {y:.1f}{moves}"/>'
