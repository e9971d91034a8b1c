"""How exact llama.cpp's attention and adapters are, against memory and time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from kiki.errors import SettingsError

KvType = Literal["f16", "f32", "q8_0"]


@dataclass(frozen=True, slots=True)
class Precision:
    """``kv_type`` is the number format of the KV cache: q8_0 halves f16's memory, f32 doubles it.

    ``flash_attention`` None leaves the choice to llama.cpp; it rounds to f16 inside. Adapters are
    converted in their own number format, or as F32 with ``f32_adapters``: llama.cpp rounds the
    activations to f16 before it multiplies them by an F16 adapter.
    Raises SettingsError for a quantised cache without flash attention, which llama.cpp refuses.
    """

    kv_type: KvType = "f16"
    flash_attention: bool | None = None
    f32_adapters: bool = False

    def __post_init__(self) -> None:
        if self.kv_type == "q8_0" and self.flash_attention is False:
            raise SettingsError(
                "llama.cpp can't keep a q8_0 KV cache without flash attention.",
                fix="Leave flash attention on, or choose f16 or f32.",
            )


DEFAULT = Precision()
# On F32 weights this leaves single precision's own error: 1e-4 where DEFAULT leaves 1e-2.
EXACT = Precision("f32", flash_attention=False, f32_adapters=True)
