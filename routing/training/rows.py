"""Labelled prompts: read from files, checked against the domain table, split without leaks."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kiki.errors import RoutingError
from routing.conversation import Said, asked_last
from routing.domains import DomainTable

DATA = Path(__file__).parent.parent / "data"
FOLLOW_UPS = "followups.jsonl"
SHIFTED = "shifted"
"""The subfolder of prompts by people who saw none of the others: for measuring, not training."""

CLINC_DROPPED = frozenset({"calculator"})
"""CLINC intents that are no clear case of out of scope: arithmetic is the math domain's."""
CLINC_PER_INTENT = 10


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt. `domains` are names of the table's domains or outputs; empty is out of scope.

    `before` is the conversation that the prompt goes on with, the oldest turn first.
    """

    prompt: str
    domains: tuple[str, ...]
    source: str
    kind: str = ""
    lang: str = ""
    before: tuple[Said, ...] = ()


def read_file(
    path: Path, table: DomainTable, source: str | None = None, *, follow_ups: bool = False
) -> list[Row]:
    """Reads a JSONL file of rows {"prompt" or "messages", "domain" or "domains"}.

    Args:
        follow_ups: also read conversations of several turns, labelled for the last one. Training
            leaves them out: it reads single texts.

    Raises:
        RoutingError: the file isn't UTF-8, a line isn't such a row, or it names a domain that the
            table doesn't have.
    """
    rows: list[Row] = []
    known = {domain.name for domain in table.domains} | set(table.outputs)
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        try:
            raw: dict[str, Any] = json.loads(line)
            prompt, before = _prompt(raw)
            domains = raw["domains"] if "domains" in raw else [raw["domain"]]
            if not isinstance(domains, list):
                raise TypeError("domains must be a list")
            kind, lang = str(raw.get("kind", "")), str(raw.get("lang", ""))
            labels = tuple(str(name) for name in domains)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise RoutingError(
                f"{path}, line {number} is no labelled prompt: {error!r}.",
                fix='Write {"prompt": "...", "domains": ["..."]}, one object a line.',
            ) from error
        unknown = [name for name in labels if name not in known]
        if unknown:
            raise RoutingError(
                f"{path}, line {number}: no domain {unknown[0]!r}.",
                fix="Use the names in routing/domains.toml.",
            )
        if follow_ups or not any(turn.role == "user" for turn in before):
            rows.append(Row(prompt, labels, source or path.stem, kind, lang, before))
    return rows


def _lines(path: Path) -> list[str]:
    """A text may hold other ends of lines than these (U+2028), and the file a mark of order."""
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise RoutingError(f"{path} is no UTF-8 text: {error}.", fix="Save it as UTF-8.") from error


def _prompt(raw: dict[str, Any]) -> tuple[str, tuple[Said, ...]]:
    """The prompt, or the last user turn of a conversation with all that was said before it."""
    if "messages" not in raw:
        prompt = raw["prompt"]
        if not isinstance(prompt, str):
            raise TypeError("prompt must be text")
        return prompt, ()
    return asked_last(raw["messages"])


def read_packaged(table: DomainTable, folder: Path = DATA) -> list[Row]:
    """All prompts of `routing/data`, sorted by file name."""
    return [
        row
        for path in sorted(folder.glob("*.jsonl"))
        for row in read_file(path, table, source="packaged")
    ]


def read_shifted(table: DomainTable, folder: Path = DATA) -> list[Row]:
    """All prompts of the shifted set: to measure with, never to train on."""
    return [
        row
        for path in sorted((folder / SHIFTED).glob("*.jsonl"))
        for row in read_file(path, table, follow_ups=True)
    ]


def read_folder(folder: Path, table: DomainTable) -> list[Row]:
    """All prompts of the folder's JSONL files, its subfolders included."""
    return [
        row
        for path in sorted(folder.rglob("*.jsonl"))
        for row in read_file(path, table, source=folder.name)
    ]


def read_clinc(path: Path, part: str) -> list[Row]:
    """CLINC150 (Larson et al. 2019, arXiv:1909.02027) as out-of-scope rows.

    Args:
        part: "train" or "val". Takes all its `oos` rows and the first few of each intent, for a
            general assistant's requests are as far from these domains as the out-of-scope ones.
    """
    raw = json.loads(path.read_text(encoding="utf-8"))
    rows = [Row(text, (), f"clinc-oos-{part}") for text, _ in raw[f"oos_{part}"]]
    taken: dict[str, int] = {}
    for text, intent in raw[part]:
        if intent in CLINC_DROPPED or taken.get(intent, 0) >= CLINC_PER_INTENT:
            continue
        taken[intent] = taken.get(intent, 0) + 1
        rows.append(Row(text, (), f"clinc-{part}"))
    return rows


def merge_repeats(rows: Iterable[Row]) -> list[Row]:
    """One row for each text: a text under several domains carries all of them."""
    merged: dict[str, Row] = {}
    for row in rows:
        key = " ".join(row.prompt.casefold().split())
        first = merged.get(key)
        if first is None:
            merged[key] = row
        elif set(row.domains) - set(first.domains):
            labels = tuple(dict.fromkeys((*first.domains, *row.domains)))
            merged[key] = Row(first.prompt, labels, first.source, first.kind, first.lang)
    return list(merged.values())


def digest(rows: Sequence[Row]) -> str:
    """A sha256 over prompts and labels, whatever their order."""
    lines = sorted(json.dumps([row.prompt, sorted(row.domains)]) for row in rows)
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()
