"""The card beside the router's weights: what they were made from, for, and how good they are."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from kiki.errors import RoutingError

CARD_FILE = "card.json"
FIX = "Train the router again: kiki router train"


@dataclass(frozen=True, slots=True)
class Card:
    """Describes one file of weights.

    `threshold` is the score from which an output is active, `scope_threshold` the in-domain
    probability under which nothing is, `several_threshold` the probability from which a prompt
    needs several domains; all three come out of the calibration, as `calibration` says. `held_out`
    has the fingerprints of the prompts in `routing/data` that the weights haven't seen, nor any
    near-duplicate of them; `data["packaged"]` and `data["shifted"]` have the sha256 of all prompts
    and labels of that folder and of the set that was kept apart from them.
    """

    embedding_id: str
    outputs: tuple[str, ...]
    domains: tuple[str, ...]
    threshold: float
    scope_threshold: float
    several_threshold: float
    weights_sha256: str
    date: str
    seed: int
    data: dict[str, Any]
    calibration: dict[str, Any]
    metrics: dict[str, Any]
    held_out: tuple[str, ...]

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=2, ensure_ascii=False)
        (folder / CARD_FILE).write_text(text + "\n", encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Card:
        """Raises `RoutingError` where the file is missing or isn't such a card."""
        path = folder / CARD_FILE
        try:
            raw = json.loads(path.read_text(encoding="utf-8"))
            values = {field.name: raw[field.name] for field in fields(cls)}
            names = {
                key: tuple(map(str, values[key])) for key in ("outputs", "domains", "held_out")
            }
            limits = ("threshold", "scope_threshold", "several_threshold")
            numbers = {key: float(values[key]) for key in limits}
            return cls(**values | names | numbers)
        except OSError as error:
            raise RoutingError(
                f"The router's card {path} can't be read: {error}.", fix=FIX
            ) from error
        except (ValueError, KeyError, TypeError) as error:
            raise RoutingError(f"{path} is no router card: {error!r}.", fix=FIX) from error
