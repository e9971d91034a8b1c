"""What the MLX engine can be told."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kiki.errors import SettingsError

GIB = 1024**3


@dataclass(frozen=True, slots=True)
class MlxConfig:
    """Sizes and limits of one MLX engine.

    **Batching or a small KV cache, not both.** With ``kv_bits`` None (the default) up to ``slots``
    rows generate together, each with its own mix, and their KV caches are held as the model
    computes them. With ``kv_bits`` 8 (or 4) the KV cache takes about half (a quarter) of the
    memory of a 16-bit one; mlx_lm's quantised cache has no batched form, so rows run one after
    the other and the engine has one slot whatever ``slots`` says. Linear-attention layers keep
    their small state as it is either way.

    ``context_tokens`` bounds prompt and answer of one row together. ``prefill_tokens`` is how
    many tokens of a new prompt are computed between two tokens of the running rows. The prefix
    cache holds ``prefix_cache_entries`` prompts (0 switches it off) within
    ``prefix_cache_bytes``. ``adapter_dtype`` is what adapters are held in: None keeps what each
    is stored in, and mlx_lm's own results bit for bit. Experts' adapters are float32 on a CPU,
    whatever it says (see ``Slots.patch``). ``probe`` is a file of neurons, which requests that ask
    for it have multiplied by ``probe_gain``. ``memory_limit_bytes`` and ``cache_limit_bytes`` are
    MLX's own limits; None takes the machine's (see ``limits``).
    """

    slots: int = 4
    context_tokens: int = 8192
    kv_bits: int | None = None
    kv_group_size: int = 64
    prefill_tokens: int = 512
    prefix_cache_entries: int = 16
    prefix_cache_bytes: int = 4 * GIB
    adapter_budget_bytes: int = 8 * GIB
    adapter_dtype: Literal["float32", "float16", "bfloat16"] | None = None
    probe: Path | None = None
    probe_gain: float = 2.0
    memory_limit_bytes: int | None = None
    cache_limit_bytes: int | None = None

    def __post_init__(self) -> None:
        """Raises SettingsError."""
        if self.kv_bits not in (None, 4, 8):
            raise SettingsError(
                f"kv_bits is {self.kv_bits}.", fix="Give 8 or 4, or leave it out for no rounding."
            )
        for name in ("slots", "context_tokens", "prefill_tokens"):
            if getattr(self, name) < 1:
                raise SettingsError(f"{name} is {getattr(self, name)}.", fix="Give 1 or more.")
