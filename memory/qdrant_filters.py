"""What is asked of a Qdrant server's points."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from memory.atlas import Removed, owner_key, point_id
from memory.episode import Owner

if TYPE_CHECKING:
    from qdrant_client.models import Filter


def owned_by(owner: Owner, exclude: Collection[str] = ()) -> Filter:
    from qdrant_client import models

    owned = models.FieldCondition(key="owner", match=models.MatchValue(value=owner_key(owner)))
    if not exclude:
        return models.Filter(must=[owned])
    excluded = models.HasIdCondition(has_id=[point_id(owner, id_) for id_ in exclude])
    return models.Filter(must=[owned], must_not=[excluded])


def gone(removed: Sequence[Removed]) -> Filter:
    """The points that were removed, but not what was written after."""
    from qdrant_client import models

    by_version: defaultdict[int, list[str]] = defaultdict(list)
    for one in removed:
        by_version[one.until].append(point_id(one.owner, one.id))
    return models.Filter(
        should=[
            models.Filter(
                must=[
                    models.HasIdCondition(has_id=list(points)),
                    models.FieldCondition(key="written", range=models.Range(lte=until)),
                ]
            )
            for until, points in by_version.items()
        ]
    )


def told_since(at: int) -> Filter:
    from qdrant_client import models

    return models.Filter(must=[models.FieldCondition(key="at", range=models.Range(gte=at))])
