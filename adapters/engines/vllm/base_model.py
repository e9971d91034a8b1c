"""What the base model's own files say: its modules' names and shapes."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.engines.vllm.tensors import ITEM_BYTES, Kind
from adapters.forms.tensors import read_header
from kiki.errors import AdapterError

_WEIGHT = re.compile(r"(?:.+\.)?(layers\.\d+\..+?)(?:\.weight)?")
_EXPERT = re.compile(r"(.+\.experts)\.\d+\.(gate_proj|up_proj|down_proj)")
_TOGETHER = {"gate_proj": "gate_up_proj", "up_proj": "gate_up_proj", "down_proj": "down_proj"}
_KINDS: dict[str, Kind] = {"float32": "F32", "float16": "F16", "half": "F16", "bfloat16": "BF16"}


@dataclass(frozen=True, slots=True)
class BaseModel:
    """``modules`` maps a linear module below the layers list to (experts, outputs, inputs).

    ``prefix`` is what stands before ``layers.`` in the names that vLLM gives the modules.
    ``kind`` is that of the numbers that vLLM computes with, and turns adapters into. Where the
    files aren't on this machine, these are the plain guesses (``model.``, None).
    """

    prefix: str = "model."
    modules: Mapping[str, tuple[int, int, int]] | None = None
    kind: Kind | None = None

    @classmethod
    def read(cls, model: str, dtype: str = "auto") -> BaseModel:
        """From the folder ``model``; ``dtype`` is what vLLM is told (``--dtype``)."""
        folder = Path(model)
        try:
            config = json.loads((folder / "config.json").read_text("utf-8"))
        except (OSError, ValueError):
            return cls(kind=_KINDS.get(dtype))
        if dtype == "auto":
            text = config.get("text_config", config)
            dtype = str(text.get("dtype") or text.get("torch_dtype"))
            if dtype == "float32":  # vLLM then takes a half of its own choice
                dtype = ""
        kind = _KINDS.get(dtype)
        # A model with a vision part keeps its text model one level down.
        prefix = "model.language_model." if "text_config" in config else "model."
        modules: dict[str, tuple[int, int, int]] = {}
        for file in sorted(folder.glob("*.safetensors")):
            for name, entry in read_header(file)[0].items():
                match = _WEIGHT.fullmatch(name)
                shape, stored = entry["shape"], entry["dtype"]
                if not match or len(shape) not in (2, 3) or match[1].endswith("conv1d"):
                    continue
                if stored not in ITEM_BYTES:  # a quantised base: its shapes say nothing plain
                    return cls(prefix, kind=kind)
                modules[match[1]] = (1, *shape) if len(shape) == 2 else tuple(shape)
        return cls(prefix, modules or None, kind)

    @property
    def digest(self) -> str:
        """Changes with what the base says of itself."""
        text = repr((self.prefix, sorted((self.modules or {}).items()), self.kind))
        return hashlib.sha256(text.encode()).hexdigest()

    def slot_bytes(self, max_loras: int, rank: int) -> int | None:
        """What vLLM's adapter slots take on the device: A and B of each module, for each slot.

        vLLM sets this memory aside at its start, whatever the adapters hold. None where the
        shapes aren't known (a hub's name, a quantised base).
        """
        if self.modules is None:
            return None
        numbers = sum(
            experts * (outputs + inputs) for experts, outputs, inputs in self.modules.values()
        )
        return max_loras * rank * numbers * ITEM_BYTES[self.kind or "BF16"]

    def check(self, module: str, outputs: int, inputs: int) -> None:
        """Raise AdapterError unless the base has this module, named as in PEFT's files."""
        if self.modules is None:
            return
        shape = self._shape_of(module[max(module.find("layers."), 0) :])
        if shape is None:
            raise AdapterError(
                f"it adapts {module}, which the base doesn't have.",
                fix="It was trained for another base model.",
            )
        if shape != (outputs, inputs):
            raise AdapterError(
                f"it adapts a {module} of {outputs} x {inputs}; "
                f"the base's is {shape[0]} x {shape[1]}.",
                fix="It was trained for another base model.",
            )

    def _shape_of(self, module: str) -> tuple[int, int] | None:
        assert self.modules is not None
        if module.endswith(".experts.base_layer"):  # PEFT's names for the fused parameters
            module = module.removesuffix("base_layer") + "gate_up_proj"
        elif module.endswith(".experts"):
            module += ".down_proj"
        if module in self.modules:
            return self.modules[module][1:]
        expert = _EXPERT.fullmatch(module)  # one expert, where the base keeps them all together
        together = expert and self.modules.get(f"{expert[1]}.{_TOGETHER[expert[2]]}")
        if not expert or not together:
            return None
        _, outputs, inputs = together
        return (outputs if expert[2] == "down_proj" else outputs // 2), inputs
