"""What PEFT's ``adapter_config.json`` says about ranks and scales, and what of it isn't a LoRA."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters.forms.folder import positive, rank_of
from kiki.errors import AdapterError

# Each of these changes what the weights mean, or adds some that aren't low-rank updates.
_REFUSED = (
    "use_dora",
    "use_qalora",
    "use_bdlora",
    "lora_bias",
    "modules_to_save",
    "layer_replication",
    "trainable_token_indices",
    "alora_invocation_tokens",
    "fan_in_fan_out",
)
# These change the base's own weights when PEFT loads the adapter: without that, B @ A is wrong.
_CHANGES_BASE = ("pissa", "olora", "corda", "loftq")
_PATTERN = re.compile(r"\^?[A-Za-z0-9_]+(?:\\?\.[A-Za-z0-9_]+)*")


@dataclass(frozen=True, slots=True)
class Scales:
    """Ranks and scales by module. A path is a module's name in the model, with its prefix.

    ``ranks`` and ``alphas`` are the config's rank_pattern and alpha_pattern.
    """

    rank: int
    alpha: float
    rslora: bool
    ranks: Mapping[str, int]
    alphas: Mapping[str, float]

    @property
    def default(self) -> float:
        """The scale of a module that no pattern names."""
        return self._scale(self.rank, self.alpha)

    def rank_of(self, path: str) -> int:
        key = _key_for(self.ranks, path)
        return self.rank if key is None else self.ranks[key]

    def factor(self, path: str) -> float:
        """The scale of ``path`` over the default one; exactly 1 where no pattern names it."""
        key = _key_for(self.alphas, path)
        alpha = self.alpha if key is None else self.alphas[key]
        scale = self._scale(self.rank_of(path), alpha)
        return 1.0 if scale == self.default else scale / self.default

    def _scale(self, rank: int, alpha: float) -> float:
        return alpha / (math.sqrt(rank) if self.rslora else rank)


def read_scales(config: Mapping[str, Any], path: Path) -> Scales:
    """The scales in ``config``, read from ``path``.

    Raises AdapterError unless it describes a plain LoRA with ranks and alphas above 0.
    """
    if config.get("peft_type") != "LORA":
        raise AdapterError(f"{path} doesn't describe a LoRA (peft_type must be LORA).")
    for name in _REFUSED:
        if config.get(name):
            raise AdapterError(f"{path}: {name} can't be converted; only a plain LoRA can.")
    start = str(config.get("init_lora_weights"))
    if start.lower().startswith(_CHANGES_BASE):
        raise AdapterError(
            f"{path}: init_lora_weights {start!r} changes the base's weights too.",
            fix="Save it from PEFT with path_initial_model_for_weight_conversion: a plain LoRA.",
        )
    if config.get("bias", "none") != "none":
        raise AdapterError(f"{path}: bias {config['bias']!r} can't be converted.")
    ranks = _pattern(config, "rank_pattern", path)
    alphas = _pattern(config, "alpha_pattern", path)
    return Scales(
        rank=rank_of(config.get("r"), f"{path}: r"),
        alpha=positive(config.get("lora_alpha"), f"{path}: lora_alpha"),
        rslora=bool(config.get("use_rslora")),
        ranks={key: rank_of(value, f"{path}: rank_pattern {key!r}") for key, value in ranks},
        alphas={key: positive(value, f"{path}: alpha_pattern {key!r}") for key, value in alphas},
    )


def _pattern(config: Mapping[str, Any], name: str, path: Path) -> list[tuple[str, Any]]:
    pattern = config.get(name) or {}
    if not isinstance(pattern, dict):
        raise AdapterError(f"{path}: {name} isn't an object of module names.")
    for key in pattern:
        # PEFT takes any regular expression; one from a stranger's file can run for ever.
        if not _PATTERN.fullmatch(key):
            raise AdapterError(
                f"{path}: {name} has the key {key!r}; only plain module names are read."
            )
    return list(pattern.items())


def _key_for(pattern: Mapping[str, Any], path: str) -> str | None:
    """The first key that is ``path`` or its end, as PEFT matches them."""
    for key in pattern:
        name = key.removeprefix("^").replace("\\.", ".")
        if path == name or (not key.startswith("^") and path.endswith(f".{name}")):
            return key
    return None
