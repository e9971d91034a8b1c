"""The measurements as one readable page, pictures included."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape

from routing.training.evaluate import Report
from routing.training.measure import Measured
from routing.training.picture import NONE, confusion_svg

WORST = 12
_MEASURES = {
    "top1": "highest score is right",
    "top3": "right one among three",
    "ece": "calibration error",
    "macro_f1": "active set, F1 mean of domains",
    "micro_f1": "active set, F1 over all",
    "oos_auroc": "in domain against out of scope",
    "oos_fallback": "out of scope, left to the base",
}

_STYLE = """<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem }
table { border-collapse: collapse; margin: 0.75rem 0 }
th, td { padding: 0.2rem 0.7rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
.interval { opacity: 0.65; font-size: 0.85em }
.scroll { overflow-x: auto } svg { min-width: 46rem; width: 100% }
</style>"""


def page(measured: Sequence[Measured], facts: Mapping[str, str]) -> str:
    """The HTML document.

    Args:
        measured: at least one set.
        facts: what the numbers depend on, such as the date of the weights.
    """
    described = " · ".join(f"{escape(name)}: {escape(text)}" for name, text in facts.items())
    lines = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>The router, measured</title>\n{_STYLE}</head><body>",
        f"<h1>The router, measured</h1>\n<p>{described}</p>",
        *_overview(measured),
    ]
    for one in measured:
        lines += _section(one)
    return "\n".join([*lines, "</body></html>"]) + "\n"


def worst_confusions(report: Report, count: int = WORST) -> list[tuple[str, str, int]]:
    """What is most often taken for what: (label, answer, rows), the most frequent first."""
    names = (*report.outputs, NONE)
    pairs = [
        (names[i], names[j], number)
        for i, row in enumerate(report.confusion)
        for j, number in enumerate(row)
        if number and i != j
    ]
    return sorted(pairs, key=lambda pair: -pair[2])[:count]


def _overview(measured: Sequence[Measured]) -> Iterator[str]:
    heads = "".join(f"<th>{escape(one.name)}</th>" for one in measured)
    yield f'<div class="scroll"><table><tr><th></th>{heads}</tr>'
    counts = "".join(f"<td>{one.report.n}</td>" for one in measured)
    yield f"<tr><td>prompts</td>{counts}</tr>"
    for name, words in _MEASURES.items():
        cells = "".join(f"<td>{_cell(one.report, name)}</td>" for one in measured)
        yield f'<tr><td title="{escape(words)}">{name}: {escape(words)}</td>{cells}</tr>'
    speeds = "".join(f"<td>{_number(one.route_p50_ms, 1)}</td>" for one in measured)
    yield f"<tr><td>milliseconds a prompt, p50</td>{speeds}</tr></table></div>"
    yield "<p class='interval'>In brackets the 95 % confidence interval.</p>"


def _cell(report: Report, name: str) -> str:
    value: float | None = getattr(report, name)
    found = report.intervals.get(name)
    if value is None or found is None:
        return _number(value, 3)
    return f'{value:.3f} <span class="interval">[{found.low:.3f}, {found.high:.3f}]</span>'


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _section(one: Measured) -> Iterator[str]:
    yield f"<h2>{escape(one.name)}</h2><p>{escape(one.note)}; {one.report.n} prompts.</p>"
    title = f"{one.name}: what is taken for what"
    svg = confusion_svg(one.report.outputs, one.report.confusion, title)
    yield f'<div class="scroll">{svg}</div>'
    wrong = worst_confusions(one.report)
    if wrong:
        pairs = "".join(f"<li>{escape(a)} taken for {escape(b)}: {n}</li>" for a, b, n in wrong)
        yield f"<p>Most often confused:</p><ul>{pairs}</ul>"
    yield (
        "<table><tr><th>domain</th><th>prompts</th><th>ranked first</th>"
        "<th>precision</th><th>recall</th><th>F1</th></tr>"
    )
    for row in one.report.domains:
        numbers = (row.top1, row.precision, row.recall, row.f1)
        cells = "".join(f"<td>{value:.2f}</td>" for value in numbers)
        yield f"<tr><td>{escape(row.name)}</td><td>{row.n}</td>{cells}</tr>"
    yield "</table>"
