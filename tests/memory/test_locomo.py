"""Evidence recall on a small conversation in LoCoMo's form, through the real memory."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from kiki.errors import RequestError
from memory.locomo import as_text, evaluate, load
from routing.embedder import Embedder


def said(speaker: str, number: int, text: str) -> dict[str, str]:
    return {"speaker": speaker, "dia_id": f"D1:{number}", "text": text}


def asked(question: str, evidence: list[str], category: int = 4) -> dict[str, Any]:
    return {"question": question, "answer": "", "evidence": evidence, "category": category}


SAMPLE = {
    "sample_id": "talk-1",
    "conversation": {
        "speaker_a": "Nora",
        "speaker_b": "Paul",
        "session_1_date_time": "1:56 pm on 8 May, 2023",
        "session_1": [
            said("Nora", 1, "Hello Paul! I adopted a greyhound from the shelter."),
            said("Paul", 2, "Wonderful! What will you call it?"),
            said("Nora", 3, "Comet."),
            said("Paul", 4, "I burnt my first sourdough bread."),
        ],
        "session_2_date_time": "9:00 am on 2 June, 2023",
        "session_2": [],
    },
    "qa": [
        asked("What did Nora adopt?", ["D1:1"]),
        asked("What did Paul bake in May 2023?", ["D1:4; D1:9"], category=2),
        asked("What does Paul's cat eat?", ["D1:2"], category=5),
        asked("Who is it?", []),
    ],
}


def written(folder: Path, samples: object) -> Path:
    path = folder / "locomo.json"
    path.write_text(json.dumps(samples))
    return path


def test_a_conversation_becomes_episodes_with_speaker_and_date(tmp_path: Path) -> None:
    (dialogue,) = load(written(tmp_path, [SAMPLE]))
    first = dialogue.episodes[0]
    assert first.user_text == "Nora: Hello Paul! I adopted a greyhound from the shelter."
    assert first.created.isoformat() == "2023-05-08T13:56:00+00:00"
    assert len(dialogue.episodes) == 4
    # The adversarial question and the one without evidence are not asked.
    assert [question.category for question in dialogue.questions] == [4, 2]
    assert dialogue.questions[1].evidence == {dialogue.episodes[3].id}


def test_evidence_recall_is_measured_through_the_memory(tmp_path: Path, embedder: Embedder) -> None:
    report = evaluate(
        load(written(tmp_path, [SAMPLE])),
        tmp_path / "memory",
        embedding_id=embedder.id,
        embed=embedder.embed,
        progress=lambda what, done, total: None,
    )
    assert report["n"] == 2
    assert report["evidence_recall_at_5"] == 1
    assert set(report["by_category"]) == {"temporal", "single-hop"}
    assert "talk-1" in as_text(report)


@pytest.mark.parametrize("samples", [{}, 3, [{"sample_id": "x"}], [dict(SAMPLE, qa=[])], ["text"]])
def test_another_file_is_refused_with_its_name(tmp_path: Path, samples: object) -> None:
    path = written(tmp_path, samples)
    with pytest.raises(RequestError, match=r"locomo\.json") as caught:
        load(path)
    assert caught.value.fix
