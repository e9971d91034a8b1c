"""A run's checkpoint: one safetensors file with weights, optimizer and how far the run has come.

The order of the batches follows from the seed and nothing else is random (there is no dropout),
so the step is all that a resumed run needs to know about chance.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from adapters.training.fit import CurvePoint
from kiki.errors import AdapterError

FILE = "checkpoint.safetensors"


@dataclass(frozen=True, slots=True)
class State:
    """How far a run has come. ``run`` is its job's fingerprint, ``seconds`` what it took so far."""

    run: str
    step: int = 0
    base_perplexity: float = 0.0
    curve: tuple[CurvePoint, ...] = ()
    seconds: float = 0.0

    def metadata(self) -> dict[str, str]:
        """As safetensors keeps it: texts only."""
        return {"state": json.dumps(asdict(self))}


def start_state(work: Path, run: str, *, resume: bool) -> State:
    """Where the run ``run`` starts: at 0, or where its checkpoint in ``work`` stands.

    Raises AdapterError where a checkpoint is there and ``resume`` wasn't asked for, or the
    checkpoint is another run's or can't be read.
    """
    path = work / FILE
    if not path.is_file():
        return State(run)
    if not resume:
        raise AdapterError(
            f"An unfinished run has left a checkpoint in {work}.",
            fix=f"Go on from it with --resume, or start over: rm -r '{work}'",
        )
    state = _read(path)
    if state.run != run:
        raise AdapterError(
            f"The checkpoint in {work} is that of another run.",
            fix="Give the same base, text, steps and seed as before, or start over: "
            f"rm -r '{work}'",
        )
    return state


def write_whole(work: Path, write: Callable[[Path], None]) -> None:
    """Let ``write`` make the checkpoint; it replaces the last one only when whole."""
    work.mkdir(parents=True, exist_ok=True)
    new = work / f"new-{FILE}"
    write(new)
    new.replace(work / FILE)


def _read(path: Path) -> State:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            values = json.loads(file.metadata()["state"])
        values["curve"] = tuple(CurvePoint(**point) for point in values["curve"])
        return State(**values)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise AdapterError(
            f"{path} isn't a checkpoint: {error}.", fix=f"Start over: rm -r '{path.parent}'"
        ) from error
