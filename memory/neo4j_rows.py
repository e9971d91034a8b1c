"""What a node of the graph in Neo4j holds."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from typing import Any

from memory.database import from_stamp, to_stamp
from memory.episode import Owner
from memory.facts import Fact

_NAMESPACE = uuid.UUID("0b6f7a52-9a0f-4b62-8a4e-7f0c3a3f6d17")


def uid(owner: Owner, key: str) -> str:
    """Owner and key in a length that any index takes."""
    return str(uuid.uuid5(_NAMESPACE, json.dumps([owner.tenant, owner.user, key])))


def fact_row(fact: Fact) -> dict[str, Any]:
    return {
        "key": fact.id,
        "text": fact.text,
        "entities": list(fact.entities),
        "source": fact.source_episode,
        "supersedes": list(fact.supersedes),
        "valid_from": to_stamp(fact.valid_from),
        "valid_to": None if fact.valid_to is None else to_stamp(fact.valid_to),
        "recorded_from": to_stamp(fact.recorded_from),
        "recorded_to": None if fact.recorded_to is None else to_stamp(fact.recorded_to),
    }


def to_fact(owner: Owner, row: Mapping[str, Any]) -> Fact:
    ends = [
        None if row[name] is None else from_stamp(row[name]) for name in ("valid_to", "recorded_to")
    ]
    return Fact(
        id=row["key"],
        owner=owner,
        text=row["text"],
        entities=tuple(row["entities"]),
        source_episode=row["source"],
        valid_from=from_stamp(row["valid_from"]),
        valid_to=ends[0],
        recorded_from=from_stamp(row["recorded_from"]),
        recorded_to=ends[1],
        supersedes=tuple(row["supersedes"]),
    )
