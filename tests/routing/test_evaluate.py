from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import RoutingError
from routing.card import Card
from routing.conversation import Conversations
from routing.domains import load_domains
from routing.embedder import Embedder
from routing.neighbours import fingerprint
from routing.router import PACKAGED, ActiveDomain, DomainScore, RouteDecision, Router
from routing.training.datasets import Dataset, follow_ups, from_files, held_out
from routing.training.evaluate import auroc, confusion_matrix, ece, report
from routing.training.intervals import bootstrap, wilson
from routing.training.measure import measure
from routing.training.page import page, worst_confusions
from routing.training.picture import confusion_svg

OUTPUTS = ("a", "b", "c", "d")
ROWS = (
    {"prompt": "Write a SQL query that joins two tables", "domain": "sql"},
    {"prompt": "KiCad PCB: how do I pour a ground zone?", "domains": ["kicad"]},
    {"prompt": "KiCad PCB: how do I add vias?", "domains": ["kicad-pcb"]},
    {"prompt": "what is the weather like in Paris", "domains": []},
    {
        "messages": [
            {"role": "user", "content": "SQL: delete the duplicates of a table"},
            {"role": "assistant", "content": "DELETE FROM people WHERE ..."},
            {"role": "user", "content": "and keep the oldest"},
        ],
        "domains": ["sql"],
    },
)


def decision(scores: list[float], active: int, in_domain: float = 0.9) -> RouteDecision:
    """Of the outputs by name, the `active` highest ones active."""
    ranked = sorted(zip(scores, OUTPUTS, strict=True), reverse=True)
    return RouteDecision(
        scores=tuple(DomainScore(name, score) for score, name in ranked),
        active=tuple(ActiveDomain(name, s, 1 / active, name) for s, name in ranked[:active]),
        threshold=0.5,
        top_k=4,
        in_domain=in_domain,
        confidence=ranked[0][0],
        clear=True,
    )


@pytest.fixture(scope="module")
def conversations(embedder: Embedder) -> Conversations:
    return Conversations(Router.load(embedding_id=embedder.id), embedder)


def test_ranks_sets_and_scope_are_counted_by_hand() -> None:
    decisions = [
        decision([0.9, 0.1, 0.1, 0.0], 1),  # a, right
        decision([0.8, 0.7, 0.1, 0.0], 2),  # b, ranked second
        decision([0.9, 0.4, 0.3, 0.2], 1),  # d, not among three
        decision([0.2, 0.1, 0.1, 0.1], 0, in_domain=0.1),  # out of scope, left to the base
        decision([0.6, 0.1, 0.1, 0.1], 1, in_domain=0.95),  # out of scope, taken for a
    ]
    targets = np.zeros((5, 4), bool)
    targets[[0, 1, 2], [0, 1, 3]] = True
    found = report(decisions, targets, OUTPUTS)
    assert (found.n, found.n_out_of_scope) == (5, 2)
    assert found.top1 == pytest.approx(1 / 3)
    assert found.top3 == pytest.approx(2 / 3)
    assert found.oos_fallback == 0.5
    assert found.oos_auroc == pytest.approx(0.5)
    # a: one right of four active; b: one right of one; d never active.
    assert found.macro_f1 == pytest.approx((2 / 5 + 1 + 0) / 3)
    assert found.micro_f1 == pytest.approx(2 * 2 / (5 + 3))
    assert {row.name: row.top1 for row in found.domains} == {"a": 1, "b": 0, "d": 0}
    assert found.confusion[1][0] == found.confusion[3][0] == found.confusion[0][0] == 1
    assert found.confusion[4] == (1, 0, 0, 0, 1)
    assert worst_confusions(found)[0][2] == 1


def test_shares_of_nothing_are_none() -> None:
    only_outside = report([decision([0.1] * 4, 0)], np.zeros((1, 4), bool), OUTPUTS)
    assert only_outside.top1 is only_outside.ece is only_outside.oos_auroc is None
    assert only_outside.oos_fallback == 1
    empty = report([], np.zeros((0, 4), bool), OUTPUTS)
    assert empty.n == 0
    assert empty.intervals == {}


def test_calibration_error_and_auroc_are_those_of_the_textbook() -> None:
    assert ece(np.full(100, 0.8), np.arange(100) < 60) == pytest.approx(0.2)
    assert auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([False, False, True, True])) == 0.75
    assert auroc(np.array([0.5, 0.5]), np.array([False, True])) == 0.5
    assert auroc(np.array([0.5]), np.array([True])) is None
    interval = wilson(87, 100)
    assert (round(interval.low, 3), round(interval.high, 3)) == (0.790, 0.922)


@given(st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=1, max_size=60))
def test_auroc_is_the_share_of_ordered_pairs(rows: list[tuple[int, bool]]) -> None:
    scores = np.array([score for score, _ in rows], float)
    positive = np.array([flag for _, flag in rows])
    pairs = [
        (a > b) + (a == b) / 2 for a in scores[positive] for b in scores[~positive]
    ]  # fmt: skip
    expected = sum(pairs) / len(pairs) if pairs else None
    assert auroc(scores, positive) == (pytest.approx(expected) if pairs else None)


def test_a_bootstrap_interval_holds_the_mean_and_is_the_same_each_time() -> None:
    values = np.random.default_rng(1).normal(0.5, 0.1, 400)
    first = bootstrap(lambda rows: float(values[rows].mean()), len(values))
    assert first == bootstrap(lambda rows: float(values[rows].mean()), len(values))
    assert first is not None
    assert first.low < values.mean() < first.high
    assert first.high - first.low < 0.04
    assert bootstrap(lambda _: None, 3) is None


def test_a_prompt_of_several_labels_counts_once_in_the_confusion_matrix() -> None:
    targets = np.array([[True, True, False]])
    order = np.array([[2, 1, 0]])
    counts = confusion_matrix(targets, np.zeros((1, 3), bool), order)
    assert sum(map(sum, counts)) == 1
    assert counts[1][2] == 1


def test_a_file_is_measured_as_it_would_be_served(
    conversations: Conversations, embedder: Embedder, tmp_path: Path
) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)), encoding="utf-8")
    (dataset,) = from_files([path], load_domains())
    seen: list[int] = []
    found = measure(dataset, embedder, conversations, lambda _, done, __: seen.append(done))
    assert (found.report.n, found.report.n_out_of_scope) == (5, 1)
    assert found.report.top1 == found.report.top3 == 1
    assert found.report.oos_auroc == 1
    assert {row.name: row.n for row in found.report.domains} == {"sql": 2, "kicad": 2}
    assert found.baselines["all_turns_joined"] == 1
    assert found.route_p50_ms is not None
    assert seen == [1, 2, 3, 4, 5]
    whole = json.loads(json.dumps(found.to_dict()))
    assert {"top1", "top3", "ece", "macro_f1", "oos_auroc", "n", "intervals"} <= whole.keys()


def test_a_text_may_hold_other_ends_of_lines_and_a_file_a_mark_of_order(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    prompts = ["one\u2028two", "three\x85four"]
    lines = [json.dumps({"prompt": p, "domain": "sql"}, ensure_ascii=False) for p in prompts]
    path.write_bytes(b"\xef\xbb\xbf" + "\r\n".join(lines).encode())
    (dataset,) = from_files([path], load_domains())
    assert [row.prompt for row in dataset.rows] == prompts


def test_a_file_that_cannot_be_read_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"prompt": "caf\xe9", "domain": "sql"}')
    with pytest.raises(RoutingError, match=r"rows\.jsonl is no UTF-8 text"):
        from_files([path], load_domains())
    path.write_text('{"prompt": "a", "domains": "sql"}', encoding="utf-8")
    with pytest.raises(RoutingError, match=r"line 1 .* must be a list"):
        from_files([path], load_domains())


def test_files_of_one_name_are_two_sets(tmp_path: Path) -> None:
    paths = [tmp_path / folder / "rows.jsonl" for folder in ("mine", "yours")]
    for path in paths:
        path.parent.mkdir()
        path.write_text(json.dumps(ROWS[0]), encoding="utf-8")
    assert [one.name for one in from_files(paths, load_domains())] == ["rows", "rows (2)"]


@pytest.mark.parametrize("text", ["{", "[]", '{"train": []}', '{"oos_val": 3}'])
def test_a_file_that_is_not_clincs_is_refused_by_name(text: str, tmp_path: Path) -> None:
    path = tmp_path / "clinc.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(RoutingError, match=r"clinc\.json isn't CLINC150's JSON"):
        held_out(load_domains(), Card.read(PACKAGED), clinc=path)


def test_the_page_and_the_picture_show_what_was_measured(
    conversations: Conversations, embedder: Embedder
) -> None:
    rows = [*follow_ups(load_domains(), tuned=False)[:12]]
    found = measure(
        Dataset("<talks>", "a & b", tuple(rows)), embedder, conversations, lambda *_: None
    )
    svg = confusion_svg(found.report.outputs, found.report.confusion, found.name)
    root = ElementTree.fromstring(svg)
    assert root.get("aria-label") == "<talks>"
    hints = [title.text for title in root.iter("{http://www.w3.org/2000/svg}title")]
    assert hints
    assert all(" taken for " in (hint or "") for hint in hints)
    html = page([found], {"weights of": "2026-01-01"})
    assert "&lt;talks&gt;" in html
    assert "<talks>" not in html
    assert f"{found.report.top1:.3f}" in html


def test_the_two_halves_of_the_follow_ups_share_nothing() -> None:
    table = load_domains()
    tuned, reported = (follow_ups(table, tuned=half) for half in (True, False))
    assert not set(tuned) & set(reported)
    assert min(len(tuned), len(reported)) >= 60


def test_the_sets_are_the_cards_held_out_prompts_the_shifted_and_clinc(tmp_path: Path) -> None:
    table = load_domains()
    data = tmp_path / "data"
    (data / "shifted").mkdir(parents=True)
    kept, other = "rotate a table by 90 degrees", "pivot a table"
    lines = [json.dumps({"prompt": text, "domains": ["sql"]}) for text in (kept, other)]
    (data / "sql.jsonl").write_text("\n".join(lines), encoding="utf-8")
    (data / "shifted" / "forum.jsonl").write_text(lines[1], encoding="utf-8")
    clinc = tmp_path / "clinc.json"
    clinc.write_text(json.dumps({"oos_val": [["how old are you", "oos"]]}), encoding="utf-8")
    card = replace(Card.read(PACKAGED), held_out=(fingerprint(kept),))
    sets = {one.name: one.rows for one in held_out(table, card, data=data, clinc=clinc)}
    assert [row.prompt for row in sets["test"]] == [kept]
    assert [row.prompt for row in sets["forum"]] == [other]
    assert [row.prompt for row in sets["clinc"]] == ["how old are you", kept]
