"""Numbers with their intervals as SVG: one row each, a dot and a whisker."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

WIDTH, LEFT, RIGHT, ROW, TOP, BOTTOM = 760, 230, 90, 26, 30, 26
TICKS = 5


def whiskers(
    title: str,
    rows: Sequence[tuple[str, Mapping[str, Any]]],
    *,
    zero: bool,
    digits: int = 1,
) -> str:
    """``rows`` are labels and intervals (value, low, high); ``zero`` draws a line there."""
    bounds: list[float] = [interval[key] for _, interval in rows for key in ("low", "high")]
    if zero:
        bounds.append(0.0)
    margin = (max(bounds) - min(bounds)) * 0.06 or 1.0
    low: float = min(bounds) - margin
    high: float = max(bounds) + margin

    def x(value: float) -> float:
        return LEFT + (value - low) / (high - low) * (WIDTH - LEFT - RIGHT)

    height = TOP + ROW * len(rows) + BOTTOM
    lines = [
        f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(title)}" '
        'xmlns="http://www.w3.org/2000/svg" font-family="system-ui, sans-serif" font-size="13" '
        'fill="currentColor">',
        f'<text x="0" y="16" font-weight="600">{escape(title)}</text>',
    ]
    for tick in range(TICKS):
        value = low + (high - low) * tick / (TICKS - 1)
        lines.append(
            f'<text x="{x(value):.1f}" y="{height - 6}" text-anchor="middle" opacity=".6">'
            f"{value:.{digits}f}</text>"
        )
    if zero:
        lines.append(
            _line(x(0), TOP - 6, x(0), height - BOTTOM, "opacity='.5' stroke-dasharray='3'")
        )
    for place, (label, interval) in enumerate(rows):
        y = TOP + ROW * place + ROW / 2
        value, least, most = (interval[key] for key in ("value", "low", "high"))
        lines += [
            f'<text x="0" y="{y + 4:.1f}">{escape(label)}</text>',
            _line(x(least), y, x(most), y, "stroke-width='3' opacity='.35'"),
            f'<circle cx="{x(value):.1f}" cy="{y:.1f}" r="4.5"/>',
            f'<text x="{WIDTH}" y="{y + 4:.1f}" text-anchor="end">{value:.{digits}f}</text>',
        ]
    return "\n".join([*lines, "</svg>"])


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> str:
    ends = f'x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"'
    return f'<line {ends} stroke="currentColor" {style}/>'
