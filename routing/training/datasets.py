"""The sets of prompts that the router is measured on, none of which its weights have seen."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from kiki.errors import RoutingError
from routing.card import Card
from routing.domains import DomainTable
from routing.neighbours import fingerprint
from routing.training.rows import (
    DATA,
    FOLLOW_UPS,
    SHIFTED,
    Row,
    digest,
    read_file,
    read_packaged,
    read_shifted,
)


@dataclass(frozen=True, slots=True)
class Dataset:
    """Labelled prompts under a name; `note` says what they are."""

    name: str
    note: str
    rows: tuple[Row, ...]


def held_out(
    table: DomainTable, card: Card, *, data: Path = DATA, clinc: Path | None = None
) -> list[Dataset]:
    """The sets that come with the project, and CLINC150 where its file is given.

    Sets without a row are left out. The out-of-scope prompts stand beside the test part's others,
    for a separation needs both sides. Raises `RoutingError` for a file that isn't CLINC150's.
    """
    seen_by_nobody = set(card.held_out)
    test = [row for row in read_packaged(table, data) if fingerprint(row.prompt) in seen_by_nobody]
    labelled = [row for row in test if row.domains]
    sets = [Dataset("test", "held out of the training data, no near-duplicate in it", tuple(test))]
    apart = card.data.get("shifted") == digest(read_shifted(table, data))
    note = "by people who saw no training prompt"
    note += "" if apart else "; the weights are older, and may have seen the like"
    for path in sorted((data / SHIFTED).glob("*.jsonl")):
        rows = read_file(path, table, follow_ups=True)
        sets.append(Dataset(path.stem, note, tuple(rows)))
    sets.append(
        Dataset(
            "follow-ups",
            "the half of the conversations that nothing was tuned on",
            tuple(follow_ups(table, data, tuned=False)),
        )
    )
    if clinc:
        note = "CLINC150's out-of-scope prompts beside the test part's with a domain"
        sets.append(Dataset("clinc", note, (*_clinc(clinc), *labelled)))
    return [dataset for dataset in sets if dataset.rows]


def from_files(files: Sequence[Path], table: DomainTable) -> list[Dataset]:
    """One set a file, numbered where names repeat; raises `RoutingError` by file and line."""
    sets = []
    seen: Counter[str] = Counter()
    for path in files:
        seen[path.stem] += 1
        name = path.stem if seen[path.stem] == 1 else f"{path.stem} ({seen[path.stem]})"
        sets.append(Dataset(name, str(path), tuple(read_file(path, table, follow_ups=True))))
    return sets


def follow_ups(table: DomainTable, data: Path = DATA, *, tuned: bool) -> list[Row]:
    """Half of the follow-ups by their hash: those that stickiness was tuned on, or the others."""
    path = data / FOLLOW_UPS
    rows = read_file(path, table, follow_ups=True) if path.is_file() else []
    return [row for row in rows if (int(_dialogue(row), 16) % 2 == 0) is tuned]


def _dialogue(row: Row) -> str:
    return fingerprint("\n".join([*(turn.text for turn in row.before), row.prompt]))


def _clinc(path: Path) -> list[Row]:
    """The out-of-scope prompts of the parts that training doesn't read."""
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
        parts = [part for part in ("oos_val", "oos_test") if part in raw]
        rows = [Row(text, (), f"clinc-{part}") for part in parts for text, _ in raw[part]]
        if not rows:
            raise ValueError("it has neither oos_val nor oos_test")
    except (ValueError, TypeError) as error:
        raise RoutingError(
            f"{path} isn't CLINC150's JSON: {error}.", fix="Give its data_full.json."
        ) from error
    return rows
