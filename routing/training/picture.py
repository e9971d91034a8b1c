"""A confusion matrix as an SVG picture."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

_CELL, _LETTER, _TOP = 24, 6.6, 84  # pixels: a cell's side, a letter's width, the titles' height
_RIGHT, _WRONG = (33, 102, 172), (178, 24, 43)
"""Blue on the diagonal, red off it: readable by the colour-blind (ColorBrewer's RdBu)."""
NONE = "(none)"

_STYLE = """<style>
text { font-family: system-ui, sans-serif; font-size: 12px; fill: #1b1f24 }
.title { font-size: 16px; font-weight: 600 }
.cell { text-anchor: middle; dominant-baseline: central; font-size: 11px }
.light { fill: #ffffff }
.row { text-anchor: end; dominant-baseline: central }
.empty { fill: #8b949e; fill-opacity: 0.1 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .light { fill: #ffffff } }
</style>"""


def confusion_svg(outputs: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> str:
    """The SVG of a matrix as `evaluate.confusion_matrix` makes it: labels down, answers across.

    A cell's strength is its share of the row. The background is transparent and the letters follow
    the reader's light or dark scheme.
    """
    names = (*outputs, NONE)
    left = 24 + _LETTER * max(map(len, names))
    top = _TOP + left - 24  # the columns' names stand upright
    side = _CELL * len(names)
    width = max(left + side + 16, 24 + _LETTER * 1.5 * len(title))
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(title)}" '
        f'viewBox="0 0 {width:.0f} {top + side + 16:.0f}">',
        _STYLE,
        f'<text class="title" x="12" y="24">{escape(title)}</text>',
        '<text x="12" y="44">rows: what a prompt is about; columns: the highest score</text>',
        *_labels(names, left, top),
        *_cells(names, counts, left, top),
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
    names: Sequence[str], counts: Sequence[Sequence[int]], left: float, top: float
) -> Iterator[str]:
    for i, row in enumerate(counts):
        total = max(sum(row), 1)
        for j, count in enumerate(row):
            x, y = left + j * _CELL, top + i * _CELL
            box = f'x="{x:.0f}" y="{y:.0f}" width="{_CELL - 2}" height="{_CELL - 2}" rx="3"'
            if not count:
                yield f'<rect class="empty" {box}/>'
                continue
            share = count / total
            red, green, blue = _RIGHT if i == j else _WRONG
            text = "cell light" if share > 0.45 else "cell"
            hint = f"{names[i]} taken for {names[j]}: {count} of {total}"
            middle = f'x="{x + _CELL / 2 - 1:.0f}" y="{y + _CELL / 2 - 1:.0f}"'
            yield (
                f"<g><title>{escape(hint)}</title>"
                f'<rect fill="rgb({red},{green},{blue})" fill-opacity="{0.15 + 0.85 * share:.2f}" '
                f'{box}/><text class="{text}" {middle}>{count}</text></g>'
            )
