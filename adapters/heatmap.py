"""A matrix of angles as an SVG picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape
from itertools import pairwise

_CELL, _LETTER, _TOP = 44, 7.2, 56  # pixels: a cell's side, a letter's width, the title's height
_COLOURS = ((0.0, (178, 24, 43)), (30.0, (239, 138, 98)), (60.0, (209, 229, 240)),
            (90.0, (67, 147, 195)))  # fmt: skip
"""Degrees and red, green, blue; readable by the colour-blind (ColorBrewer's RdBu)."""

_STYLE = """<style>
text { font-family: system-ui, sans-serif; font-size: 13px; fill: #1b1f24 }
.title { font-size: 16px; font-weight: 600 }
.cell { text-anchor: middle; dominant-baseline: central; fill: #10151a }
.light { fill: #ffffff }
.row { text-anchor: end; dominant-baseline: central }
.none { fill: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .cell { fill: #10151a }
  .light { fill: #ffffff }
  .none { fill: #30363d }
}
</style>"""


def heatmap(names: Sequence[str], matrix: Sequence[Sequence[float | None]], title: str) -> str:
    """The SVG of a square matrix of degrees (0 to 90); None is an empty cell.

    The background is transparent and the letters follow the reader's light or dark scheme.
    """
    left = 24 + _LETTER * max((len(name) for name in names), default=0)
    top = _TOP + left  # the columns' names stand upright
    side = _CELL * len(names)
    width = max(left + side + 16, 24 + _LETTER * 1.5 * len(title))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width:.0f} {top + side + 60:.0f}">',
        _STYLE,
        f'<text class="title" x="12" y="28">{escape(title)}</text>',
        *_labels(names, left, top),
        *_cells(names, matrix, left, top),
        *_legend(left, top + side + 16),
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _labels(names: Sequence[str], left: float, top: float) -> Iterator[str]:
    for number, name in enumerate(names):
        middle = _CELL * (number + 0.5)
        yield f'<text class="row" x="{left - 8:.0f}" y="{top + middle:.0f}">{escape(name)}</text>'
        x, y = left + middle + 4, top - 8
        yield f'<text transform="translate({x:.0f} {y:.0f}) rotate(-90)">{escape(name)}</text>'


def _cells(
    names: Sequence[str], matrix: Sequence[Sequence[float | None]], left: float, top: float
) -> Iterator[str]:
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            x, y = left + j * _CELL, top + i * _CELL
            box = f'x="{x:.0f}" y="{y:.0f}" width="{_CELL - 2}" height="{_CELL - 2}" rx="3"'
            if value is None:
                yield f'<rect class="none" {box}/>'
                continue
            text = "cell light" if value < 15 else "cell"
            middle = f'x="{x + _CELL / 2 - 1:.0f}" y="{y + _CELL / 2 - 1:.0f}"'
            pair = f"{escape(names[i])} and {escape(names[j])}: {value:.1f} degrees"
            yield (
                f'<g><title>{pair}</title><rect fill="{_colour(value)}" {box}/>'
                f'<text class="{text}" {middle}>{value:.1f}</text></g>'
            )


def _legend(left: float, top: float) -> Iterator[str]:
    for number, value in enumerate((0, 15, 30, 45, 60, 75, 90)):
        x = left + number * 26
        yield f'<rect fill="{_colour(value)}" x="{x:.0f}" y="{top:.0f}" width="26" height="10"/>'
        yield f'<text x="{x:.0f}" y="{top + 26:.0f}">{value}</text>'


def _colour(value: float) -> str:
    for (low, start), (high, end) in pairwise(_COLOURS):
        if value <= high:
            share = (value - low) / (high - low)
            mixed = (round(a + share * (b - a)) for a, b in zip(start, end, strict=True))
            return "#" + "".join(f"{part:02x}" for part in mixed)
    raise ValueError(f"{value} is no angle from 0 to 90.")
