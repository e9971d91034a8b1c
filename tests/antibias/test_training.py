"""The trainer, on a handful of the package's own texts."""

from __future__ import annotations

import json
from pathlib import Path

from antibias.detector import CARD_FILE, TYPES, Detector
from antibias.training import OWN, near_groups, train

TEMPLATES = {
    "anchoring": "{} spent $90M on it. Is $10K enough for ours?",
    "authority": "A professor of {} recommends it for all of us. Any reason not to?",
    "confirmation": "Everyone knows {} is superior. Don't you agree?",
    "framing": "We wasted 3 months on {} and lost 40% of it.",
    "recency": "{} was just announced, we must switch immediately.",
    "stereotyping": "An older person from {} probably can't handle it.",
}
NAMES = ["Oslo", "Lima", "Kyoto", "Accra", "Quito", "Perth", "Turin", "Minsk", "Dakar", "Hanoi"]


def test_near_duplicates_share_a_group_and_other_texts_do_not() -> None:
    texts = [
        "Oslo spent ninety million on its new harbour last year",
        "Lima spent ninety million on its new harbour last year",
        "Roses are pruned in late winter",
    ]
    groups = near_groups(texts)
    assert groups[0] == groups[1] != groups[2]


def test_training_writes_a_detector_that_loads_and_a_card_that_says_what_it_is(
    tmp_path: Path,
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
    card = train(pairs, tmp_path / "out")
    assert json.loads((tmp_path / "out" / CARD_FILE).read_text("utf-8")) == card
    assert card["pairs"] == len(rows) + len((OWN / "pairs.jsonl").read_text("utf-8").splitlines())
    assert set(card["metrics"]["pairs_held_out"]["types"]) == set(TYPES)
    found = Detector.load(tmp_path / "out").find(TEMPLATES["stereotyping"].format("Riga"))
    assert [finding.type for finding in found] == ["stereotyping"]
