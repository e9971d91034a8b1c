"""A run as one readable page, with pictures and the questions on which raw and full differ."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from gateway.evaluation.arms import FULL, RAW
from gateway.evaluation.picture import whiskers
from gateway.evaluation.records import Record
from gateway.evaluation.report import shown

MOST_SHOWN = 60

_STYLE = """<style>
:root { color-scheme: light dark }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem } h2 { font-size: 1.15rem; margin-top: 2.5rem } h3 { font-size: 1rem }
table { border-collapse: collapse; margin: .75rem 0 }
th, td { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #8884 }
th:first-child, td:first-child { text-align: left }
pre { white-space: pre-wrap; background: #8881; padding: .6rem; font-size: 13px }
summary { cursor: pointer } .scroll { overflow-x: auto } svg { width: 100%; min-width: 40rem }
.small { opacity: .7; font-size: .9em }
</style>"""


def page(manifest: Mapping[str, Any], numbers: Mapping[str, Any], records: Sequence[Record]) -> str:
    """The HTML document; it loads nothing from elsewhere."""
    adapters = ", ".join(manifest["adapters"]) or "none"
    facts = (
        f"model {manifest['model']['name']} · adapters {adapters} · split {manifest['split']} · "
        f"seed {manifest['seed']} · full asks with {json.dumps(manifest['kiki_options'])}"
    )
    lines = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width">',
        f"<title>The pipeline against its base</title>\n{_STYLE}</head><body>",
        f"<h1>The pipeline against its base</h1><p>{escape(facts)}</p>",
        "<p class='small'>In brackets the 95 % interval, from resampling questions (BBQ: scenes of "
        "four). p is McNemar's, exact and two-sided. The controls spend about as many tokens a "
        "question as full did. Nothing is corrected for the number of comparisons.</p>",
    ]
    for name, found in numbers.items():
        rows = [record for record in records if record["benchmark"] == name]
        lines += _benchmark(name, found, rows)
    return "\n".join([*lines, "</body></html>"]) + "\n"


def _benchmark(name: str, found: Mapping[str, Any], rows: Sequence[Record]) -> Iterator[str]:
    yield f"<h2>{escape(name)}: {found['n']} questions</h2>"
    arms = found["arms"]
    accuracy = [(arm, one["accuracy"]) for arm, one in arms.items()]
    yield _picture(whiskers("right answers, %", accuracy, zero=False))
    if found["differences"]:
        gaps = [(f"{d['arm']} less {d['than']}", d["points"]) for d in found["differences"]]
        yield _picture(whiskers("difference in percentage points", gaps, zero=True))
    yield _table(
        ("", "right, %", "tokens", "seconds", "no answer", "cut short", "refused"),
        (
            (
                arm,
                shown(one["accuracy"]),
                f"{one['tokens']:.0f}",
                f"{one['seconds']:.1f}",
                str(one["without_answer"]),
                str(one["cut"]),
                str(one["refused"]),
            )
            for arm, one in arms.items()
        ),
    )
    yield _table(
        ("", "points", "only the first right", "only the second", "p", ""),
        (
            (
                f"{gap['arm']} less {gap['than']}",
                shown(gap["points"], signed=True),
                str(gap["only_first"]),
                str(gap["only_second"]),
                f"{gap['p']:.2g}",
                gap["verdict"],
            )
            for gap in found["differences"]
        ),
    )
    if "bias" in found:
        yield from _bias(found["bias"])
    for stage, counts in found.get("stages", {}).items():
        told = ", ".join(f"{what} {count}" for what, count in counts.items())
        yield f"<p>full, {escape(stage)}: {escape(told)}</p>"
    yield from _differing(rows)


def _bias(found: Mapping[str, Any]) -> Iterator[str]:
    yield (
        "<h3>Bias</h3><p class='small'>0 is none, 1 is always the stereotype, -1 always against "
        f"it; {found['n_ambiguous']} questions without enough evidence. Disparity: how far the "
        "score differs between a question and its opposite.</p>"
    )
    names = ("bias_ambiguous", "bias_disambiguated", "framing_disparity")
    for name in names:
        rows = [(arm, scores[name]) for arm, scores in found["arms"].items()]
        yield _picture(whiskers(name.replace("_", " "), rows, zero=True, digits=3))
    if "full_less_raw" in found:
        yield _table(
            ("distance from 0, full less raw", "", ""),
            (
                (
                    name.replace("_", " "),
                    shown(change, digits=3, signed=True),
                    change["verdict"],
                )
                for name, change in found["full_less_raw"].items()
            ),
        )
    yield _table(
        ("", "right without evidence, %", "right with evidence, %"),
        (
            (arm, shown(scores["accuracy_ambiguous"]), shown(scores["accuracy_disambiguated"]))
            for arm, scores in found["arms"].items()
        ),
    )


def _differing(rows: Sequence[Record]) -> Iterator[str]:
    """What to read by hand: where one of raw and full alone is right."""
    if not rows or not {RAW, FULL} <= set(rows[0]["arms"]):
        return
    for title, winner, loser in (("Lost by full", RAW, FULL), ("Won by full", FULL, RAW)):
        found = [
            row for row in rows if row["arms"][winner]["right"] and not row["arms"][loser]["right"]
        ]
        shown_of = f", {MOST_SHOWN} shown" if len(found) > MOST_SHOWN else ""
        yield f"<h3>{title}: {len(found)}{shown_of}</h3>"
        for row in found[:MOST_SHOWN]:
            yield (
                f"<details><summary>{escape(row['id'])}: {_answers(row)}</summary>"
                f"<pre>{escape(as_text(row))}</pre></details>"
            )


def _answers(row: Record) -> str:
    told = [f"{arm} {found['answer']}" for arm, found in row["arms"].items()]
    expected = f"expected {row['expected']}" if len(row["expected"]) < 40 else ""
    return escape(", ".join([*told, expected]) if row["benchmark"] != "humaneval" else "")


def as_text(record: Record) -> str:
    """One question with everything that was kept about it, for a terminal."""
    lines = [f"{record['id']}, asked {record['asked']}", "", record["prompt"], ""]
    lines += ["expected:", record["expected"], ""]
    for arm, found in record["arms"].items():
        verdict = "right" if found["right"] else "wrong"
        tokens = found["prompt_tokens"] + found["completion_tokens"]
        lines += [
            f"== {arm}: {verdict}, {tokens} tokens, {found['seconds']:.1f} s",
            found["output"],
            f"-- extracted: {found['answer']}",
        ]
        for name, value in found["details"].items():
            told = (
                value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, indent=1)
            )
            lines.append(f"-- {name}: {told}")
        lines.append("")
    return "\n".join(lines)


def _picture(svg: str) -> str:
    return f'<div class="scroll">{svg}</div>'


def _table(heads: Sequence[str], rows: Iterator[tuple[str, ...]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows
    )
    return f'<div class="scroll"><table><tr>{head}</tr>{body}</table></div>'
