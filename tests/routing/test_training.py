from __future__ import annotations

import datetime
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kiki.errors import RoutingError
from routing.card import CARD_FILE
from routing.domains import load_domains
from routing.embedder import Embedder
from routing.head import WEIGHTS_FILE
from routing.router import Router
from routing.training import calibrate, rows
from routing.training.corpus import read_corpus
from routing.training.evaluate import ece
from routing.training.fit import Recipe
from routing.training.groups import NEAR, near_duplicates, split
from routing.training.train import train
from routing.training.vectors import VectorCache

DOMAINS = ("python", "sql", "kicad-pcb", "kicad-dsl", "out-of-scope", "multi")
QUICK = Recipe(epochs=8)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty prompts of a few domains, and some of several, as the packaged data has them."""
    folder = tmp_path_factory.mktemp("data")
    for name in DOMAINS:
        lines = (rows.DATA / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        count = 60 if name == "multi" else 20
        (folder / f"{name}.jsonl").write_text("\n".join(lines[:count]) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def vectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("vectors")


def test_training_is_the_same_for_the_same_seed(
    embedder: Embedder, data: Path, vectors: Path, tmp_path: Path
) -> None:
    date = datetime.date(2026, 1, 1)
    for name in ("first", "second"):
        train(embedder, output=tmp_path / name, data=data, cache=vectors, recipe=QUICK, date=date)
    for file in (WEIGHTS_FILE, CARD_FILE):
        assert (tmp_path / "first" / file).read_bytes() == (tmp_path / "second" / file).read_bytes()


def test_data_that_leaves_a_limit_unmeasured_is_refused(
    embedder: Embedder, data: Path, vectors: Path, tmp_path: Path
) -> None:
    shutil.copytree(data, tmp_path / "data")
    (tmp_path / "data" / "multi.jsonl").unlink()
    with pytest.raises(RoutingError, match="no prompt for several domains"):
        train(
            embedder,
            output=tmp_path / "weights",
            data=tmp_path / "data",
            cache=vectors,
            recipe=QUICK,
        )
    assert not (tmp_path / "weights").exists()


def test_what_was_trained_can_be_served_and_says_what_it_is_made_of(
    embedder: Embedder, data: Path, vectors: Path, tmp_path: Path
) -> None:
    report = train(embedder, output=tmp_path, data=data, cache=vectors, recipe=QUICK)
    router = Router.load(tmp_path, embedding_id=embedder.id)
    prompt = "SQL: join two tables"
    decision = router.route(embedder.embed([prompt])[0], prompt)
    assert decision.scores[0].name == "sql"
    card = json.loads((tmp_path / CARD_FILE).read_text(encoding="utf-8"))
    assert card["data"]["sources"] == ["routing/data, Apache-2.0"]
    assert card["metrics"]["test"]["n"] == report.n > 0
    assert sum(card["data"]["parts"].values()) == card["data"]["rows"]
    assert len(card["held_out"]) == report.n
    assert "confusion" not in card["metrics"]["test"]


def test_prompts_like_the_shifted_ones_are_not_trained_on(
    embedder: Embedder, data: Path, vectors: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    lines = (folder / "python.jsonl").read_text(encoding="utf-8").splitlines()
    seen = [json.loads(line)["prompt"] for line in lines[:3]]
    (folder / rows.SHIFTED).mkdir()
    (folder / rows.SHIFTED / "others.jsonl").write_text(
        "\n".join(json.dumps({"prompt": f"{text} !", "domain": "python"}) for text in seen),
        encoding="utf-8",
    )
    corpus = read_corpus(VectorCache(embedder, vectors), folder, (), None, load_domains(), 0)
    assert not {row.prompt for row in corpus.rows} & set(seen)
    shifted = embedder.embed([f"{text} !" for text in seen])
    assert (shifted @ corpus.vectors.T).max() < NEAR


def test_no_near_duplicate_lies_in_two_parts(
    embedder: Embedder, data: Path, vectors: Path, tmp_path: Path
) -> None:
    twins = tmp_path / "twins"
    twins.mkdir()
    for path in data.glob("*.jsonl"):
        kept = path.read_text(encoding="utf-8")
        again = [json.loads(line) for line in kept.splitlines()]
        for row in again:
            row["prompt"] += " !"
        (twins / path.name).write_text(kept + "\n".join(map(json.dumps, again)), encoding="utf-8")
    corpus = read_corpus(VectorCache(embedder, vectors), twins, (), None, load_domains(), 0)
    parts = corpus.parts
    assert len(np.unique(corpus.groups)) < len(corpus.rows)
    together = np.concatenate([parts.train, parts.calibration, parts.test])
    assert sorted(together.tolist()) == list(range(len(corpus.rows)))
    for part in (parts.calibration, parts.test):
        rest = np.setdiff1d(together, part)
        assert len(part)
        assert (corpus.vectors[part] @ corpus.vectors[rest].T).max() < 0.9


@given(
    groups=st.lists(st.integers(0, 30), min_size=1, max_size=120),
    seed=st.integers(0, 2**31),
)
def test_a_split_never_parts_a_group(groups: list[int], seed: int) -> None:
    numbers = np.array(groups)
    parts = split(numbers, ["same"] * len(groups), seed=seed)
    sets = [set(numbers[part].tolist()) for part in (parts.train, parts.calibration, parts.test)]
    assert sum(map(len, sets)) == len(set(groups))
    assert set().union(*sets) == set(groups)


def test_near_pairs_are_joined_through_a_chain() -> None:
    angles = np.array([0.0, 0.4, 0.8, 2.0])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert near_duplicates(vectors).tolist() == [0, 0, 0, 3]


def test_platt_scaling_finds_the_temperature_of_an_overconfident_head() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 1.5, (4000, 3)).astype(np.float32)
    targets = (rng.random(true.shape) < 1 / (1 + np.exp(-true))).astype(np.float32)
    calibration = calibrate.platt(true * 4, targets, np.ones_like(targets))
    assert calibration.slope == pytest.approx(0.25, rel=0.1)
    assert calibration.lead == pytest.approx(0, abs=0.02)
    assert calibration.offset == pytest.approx(0, abs=0.15)


def test_a_score_tells_how_often_the_first_output_is_right_when_only_one_is() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(0, 2, (8000, 6)).astype(np.float32)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = (chances.cumsum(axis=1) > rng.random((8000, 1))).argmax(axis=1)
    targets = np.eye(6, dtype=np.float32)[right]
    scores = calibrate.platt(logits * 3, targets, np.ones_like(targets)).scores(logits * 3)
    assert ece(scores.max(axis=1), scores.argmax(axis=1) == right) < 0.03


def test_the_threshold_is_the_one_of_the_best_active_set() -> None:
    scores = np.array([[0.9, 0.6, 0.1], [0.8, 0.2, 0.1], [0.2, 0.1, 0.1]], np.float32)
    targets = np.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    threshold, f1 = calibrate.best_threshold(scores, targets)
    assert 0.2 < threshold <= 0.6
    assert f1 == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"prompt": "x", "domain": "pyton"}', "no domain 'pyton'"),
        ('{"prompt": 3, "domain": "python"}', "line 1 is no labelled prompt"),
        ('{"prompt": "x"}', "line 1 is no labelled prompt"),
        ("prompt", "line 1 is no labelled prompt"),
    ],
)
def test_a_wrong_row_is_refused_by_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(line, encoding="utf-8")
    with pytest.raises(RoutingError, match=message) as refused:
        rows.read_file(path, load_domains())
    assert str(path) in refused.value.message


def test_a_text_under_several_domains_carries_all_of_them() -> None:
    first = rows.Row("Same text", ("sql",), "a")
    second = rows.Row("same  text", ("python",), "b")
    assert rows.merge_repeats([first, second]) == [rows.Row("Same text", ("sql", "python"), "a")]
