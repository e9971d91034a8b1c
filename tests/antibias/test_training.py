"""The trainer, on a handful of texts, and what it is measured by."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from antibias.corpus import FAIR, NEUTRAL, OWN, near_groups, read_pairs
from antibias.detector import CARD_FILE, TYPES, Detector
from antibias.measure import metrics
from antibias.training import train
from kiki.errors import EvaluationError
from routing.embedder import Embedder
from routing.training.vectors import VectorCache

TEMPLATES = {
    "anchoring": "{} spent $90M on it. Is $10K enough for ours?",
    "authority": "A professor of {} recommends it for all of us. Any reason not to?",
    "confirmation": "Everyone knows {} is superior. Don't you agree?",
    "framing": "We wasted 3 months on {} and lost 40% of it.",
    "recency": "{} was just announced, we must switch immediately.",
    "stereotyping": "An older person from {} probably can't handle it.",
}
NAMES = ["Oslo", "Lima", "Kyoto", "Accra", "Quito"]


def test_near_duplicates_share_a_group_and_other_texts_do_not() -> None:
    texts = [
        "Oslo spent ninety million on its new harbour last year",
        "Lima spent ninety million on its new harbour last year",
        "Roses are pruned in late winter",
    ]
    groups = near_groups(texts)
    assert groups[0] == groups[1] != groups[2]


def test_training_writes_a_detector_that_loads_and_a_card_that_says_what_it_is(
    tmp_path: Path, embedder: Embedder
) -> None:
    pairs = tmp_path / "pairs.jsonl"
    rows = [
        {
            "biased_prompt": template.format(name),
            "fair_prompt": f"What does {name} need, and what is the evidence?",
            "bias_type": kind,
        }
        for kind, template in TEMPLATES.items()
        for name in NAMES
    ]
    pairs.write_text("\n".join(map(json.dumps, rows)))
    embed = VectorCache(embedder, None).embed
    card = train(pairs, tmp_path / "out", embed, embedder.id)
    assert json.loads((tmp_path / "out" / CARD_FILE).read_text("utf-8")) == card
    own = len(read_pairs(OWN / "pairs.jsonl"))
    harmless = len((OWN / "neutral.jsonl").read_text("utf-8").splitlines())
    assert card["texts"] == 2 * (len(rows) + own) + harmless
    assert set(card["metrics"]["pairs_held_out"]["types"]) == set(TYPES)
    detector = Detector.load(tmp_path / "out")
    detector.check(embedder.id)
    found = detector.find(TEMPLATES["stereotyping"].format("Riga"), embedder.embed)
    assert [finding.type for finding in found] == ["stereotyping"]


def test_a_line_that_is_no_pair_is_named(tmp_path: Path) -> None:
    file = tmp_path / "pairs.jsonl"
    good = {"biased_prompt": "a", "fair_prompt": "b", "bias_type": "framing"}
    file.write_text("\n".join(map(json.dumps, [good, good | {"bias_type": "other"}])))
    with pytest.raises(EvaluationError, match="line 2") as refused:
        read_pairs(file)
    assert refused.value.fix is not None
    assert "framing" in refused.value.fix


def test_metrics_count_what_was_found_by_type_with_intervals() -> None:
    targets = np.array([0, 0, 1, FAIR, NEUTRAL])
    found = np.zeros((5, len(TYPES)), np.bool_)
    found[[0, 2, 3], 0] = True  # one right, one of another type, one fair
    measured = metrics(found, targets, intervals=True)
    first = measured["types"][TYPES[0]]
    assert first["precision"]["value"] == pytest.approx(1 / 3, abs=1e-4)
    assert first["recall"] == {"value": 0.5, "n": 2, "95": [0.095, 0.905]}
    assert first["f1"] == 0.4
    assert measured["any_bias_recall"]["value"] == pytest.approx(2 / 3, abs=1e-4)
    assert measured["fair_false_alarms"]["value"] == 1.0
    assert measured["neutral_false_alarms"]["value"] == 0.0
    low, high = measured["macro_f1_95"]
    assert low <= measured["macro_f1"] <= high
