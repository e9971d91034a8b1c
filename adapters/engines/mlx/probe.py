# mypy: disable-error-code="no-untyped-call"
# mlx.nn is typed in part only.
"""A probe: the neurons of one model that know what bias is, in a file.

A neuron is an input of a feed-forward block's last module, ``down_proj``: what the activation and
the gate made. In a mixture of experts each expert has its own, and so has the shared expert.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from kiki.errors import AssetError

if TYPE_CHECKING:
    from mlx.nn.layers.base import Module

FORMAT = "kiki-knowbias-1"
FEED_FORWARD = "down_proj"

Marks = Mapping[str, NDArray[np.bool_]]
"""By module, which of its inputs: shape (inputs,), or (experts, inputs)."""


@dataclass(frozen=True, slots=True)
class Probe:
    """The marked neurons, and the model that they are of: its name, and its ``fingerprint``."""

    model: str
    fingerprint: str
    marks: Marks
    questions: int

    @property
    def neurons(self) -> int:
        return sum(int(marks.sum()) for marks in self.marks.values())


def write_probe(path: Path, probe: Probe) -> None:
    """Write the probe as safetensors: for each module the places of its neurons, flattened."""
    from safetensors.numpy import save_file

    tensors = {
        name: np.flatnonzero(marks).astype(np.int32)
        for name, marks in probe.marks.items()
        if marks.any()
    }
    shapes = {name: list(probe.marks[name].shape) for name in tensors}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file(
        tensors,
        path,
        {
            "format": FORMAT,
            "model": probe.model,
            "fingerprint": probe.fingerprint,
            "questions": str(probe.questions),
            "shapes": json.dumps(shapes),
        },
    )


def read_probe(path: Path) -> Probe:
    """Raises AssetError for a file that isn't a whole probe."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            told = file.metadata() or {}
            if told.get("format") != FORMAT:
                raise ValueError(f"its format is {told.get('format')!r}, not {FORMAT!r}")
            marks = {}
            for name, shape in json.loads(told["shapes"]).items():
                marks[name] = np.zeros(shape, np.bool_)
                marks[name].reshape(-1)[file.get_tensor(name)] = True
            return Probe(told["model"], told["fingerprint"], marks, int(told["questions"]))
    except (OSError, ValueError, KeyError, IndexError, TypeError, SafetensorError) as error:
        raise AssetError(
            f"{path} can't be read as a probe: {error}.",
            fix="Make one: kiki antibias probe --model MODEL --out FILE",
        ) from error


def check_model(probe: Probe, path: Path, model: str, found: str) -> None:
    """Raises AssetError unless the probe was made for the model with the fingerprint ``found``."""
    if probe.fingerprint != found:
        raise AssetError(
            f"{path} was made for {probe.model!r} ({probe.fingerprint}), and {model!r} is another "
            f"model ({found}).",
            fix=f"Make one for it: kiki antibias probe --model {model} --out FILE",
        )


def fingerprint(model: Module) -> str:
    """What tells models apart: the shapes of the feed-forward blocks and the norms' weights.

    Quantising a model doesn't change it: norms aren't quantised, and are rounded to bfloat16 here.
    """
    import mlx.core as mx
    from mlx.utils import tree_flatten

    from adapters.engines.mlx.slots import find_modules

    told = hashlib.blake2b(digest_size=8)
    for name, (place, _) in sorted(find_modules(model).items()):
        if name.endswith(FEED_FORWARD):
            told.update(f"{name} {place.neurons} {place.outputs}\n".encode())
    weights: dict[str, mx.array] = dict(tree_flatten(model.parameters()))
    for name in sorted(weights):
        if name.endswith("norm.weight"):
            rounded = weights[name].astype(mx.bfloat16).astype(mx.float32)
            told.update(name.encode() + np.array(rounded).tobytes())
    return told.hexdigest()
