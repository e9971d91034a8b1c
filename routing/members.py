"""Which domain of a merged output a prompt means."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from routing.domains import DomainTable
from routing.head import NEIGHBOURS, Index

NEARNESS = 20.0
"""What a cosine counts beside the words in choosing a member: with both 0.88 of held-out prompts
get the right one, by cosine alone 0.81."""


class Members:
    """The member domains of every output, with the places of their centres in the index."""

    def __init__(self, index: Index, table: DomainTable) -> None:
        places = {domain.name: number for number, domain in enumerate(table.domains)}
        self._merged = {name: place for place, name in enumerate(table.merged)}
        self._centres = {
            output: {
                name: np.flatnonzero(index.domains == places[name])
                for name in table.members(output)
            }
            for output in table.outputs
        }

    def meant(
        self, output: str, similarities: NDArray[np.float32], words: NDArray[np.float32]
    ) -> str:
        """The member with the nearest training prompts and the likeliest words.

        Args:
            similarities: to the index's centres, shape (centres,).
            words: what the prompt's words say for each member of a merged output, shape (members,).
        """
        centres = self._centres[output]
        if len(centres) == 1:
            return next(iter(centres))

        def fits(name: str) -> float:
            near = _nearness(similarities[centres[name]])
            return NEARNESS * near + float(words[self._merged[name]])

        return max(centres, key=fits)


def _nearness(similarities: NDArray[np.float32]) -> float:
    return float(np.sort(similarities)[-NEIGHBOURS:].mean()) if similarities.size else -1.0
