"""Names that are nearly right, and base models that go by many names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

# How a weight file was packed: it follows the model's name and says nothing about which model.
_PACKING = re.compile(
    r"""-(?:
        (?:ud-)?[it]?q\d+(?:-(?:k|s|m|l|xl|xs|xxs|nl|0|1))*  # Q4_K_M, IQ2_XXS, UD-Q4_K_XL
      | (?:mx|nv)?fp(?:4|6|8|16|32)(?:-(?:dynamic|block|moe|e4m3|e5m2))*  # FP8-Dynamic, MXFP4
      | b?f(?:16|32) | int[48] | w\d+a\d+ | \d+-?bit | (?:\d+-)?\d+bpw
      | awq | gptq | gguf | ggml | mlx | bnb | dwq | hqq | exl[23] | i1 | imat(?:rix)?
      | gs?(?:32|64|128) | (?:32|64|128)g
      | \d{5}-of-\d{5}
      | safetensors | bin | pt
    )$""",
    re.VERBOSE,
)
# Some GGUF files carry their owner in front: Qwen_Qwen3.6-35B-A3B-Q4_K_M.gguf.
_OWNER = re.compile(r"^([a-z]+)-(?=\1)")


def near(name: str, known: Iterable[str]) -> str:
    """`` Did you mean a, b?`` with a leading space, or nothing."""
    matches = difflib.get_close_matches(name, list(known), n=3, cutoff=0.6)
    return f" Did you mean {', '.join(matches)}?" if matches else ""


def same_base(first: str, second: str) -> bool:
    """Whether two names mean the same base model, however it was packed.

    A hub name, a folder, a GGUF file and a quantised copy of one model are the same base:
    ``Qwen/Qwen3.6-35B-A3B`` is ``Qwen3.6-35B-A3B-Q4_K_M.gguf``. Size and tuning count:
    ``SmolLM2-135M`` isn't ``SmolLM2-135M-Instruct``. An empty name is no base, so it is the same
    as none.
    """
    key = base_key(first)
    return bool(key) and key == base_key(second)


def base_key(name: str) -> str:
    """What all names of one base model have in common: ``qwen3-6-35b-a3b``; may be empty."""
    parts = [part for part in re.split(r"[/\\]+", name.strip().casefold()) if part]
    # In the hub's cache the last part is a commit; the name stands in models--OWNER--NAME.
    cached = [part.rsplit("--", 1)[-1] for part in parts if part.startswith("models--")]
    key = re.sub(r"[-_.\s]+", "-", (cached or parts or [""])[-1]).strip("-")
    while (shorter := _OWNER.sub("", _PACKING.sub("", key))) != key:
        key = shorter
    return key
