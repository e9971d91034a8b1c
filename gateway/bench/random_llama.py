"""A random model of Llama's shape for vLLM, and adapters for it, written to disk."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from adapters.adapter import Adapter
from adapters.catalog import Catalog
from adapters.engines.vllm.tensors import header_of
from adapters.forms.folder import CONFIG_FILE
from adapters.forms.peft import WEIGHTS_FILE
from gateway.bench.options import Progress

RANK = 16
HEAD = 64


@dataclass(frozen=True, slots=True)
class Shape:
    """``hidden`` is a multiple of 128; the feed-forward part is four times as wide."""

    hidden: int
    layers: int

    @classmethod
    def parse(cls, text: str) -> Shape:
        """From ``2048x16``. Raises ValueError."""
        hidden, layers = map(int, text.split("x"))
        if hidden < 1 or layers < 1 or hidden % (2 * HEAD):
            raise ValueError(f"{text}: the first is a multiple of {2 * HEAD}, the second 1 or more")
        return cls(hidden, layers)

    def modules(self) -> dict[str, tuple[int, int]]:
        """Each linear module of a layer with its outputs and inputs."""
        hidden, wide, narrow = self.hidden, 4 * self.hidden, self.hidden // 2
        return {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (narrow, hidden),
            "self_attn.v_proj": (narrow, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (wide, hidden),
            "mlp.up_proj": (wide, hidden),
            "mlp.down_proj": (hidden, wide),
        }


@contextmanager
def random_llama(
    shape: Shape, small_base: Path, adapters: int, progress: Progress
) -> Iterator[tuple[Path, tuple[Adapter, ...]]]:
    """The model's folder and adapters of rank 16 on all its modules, in bfloat16.

    The folder has no weights: vLLM makes them up (``--load-format dummy``). Its tokenizer is that
    of ``small_base``. All goes when the context ends.
    """
    with TemporaryDirectory(prefix="kiki-bench-") as folder:
        model = Path(folder, "random-llama")
        _write_model(shape, small_base, model)
        parent = Path(folder, "adapters")
        for number in range(adapters):
            _write_adapter(shape, parent / f"random-{number}", number)
            progress("random adapters", 1 + number, adapters)
        yield model, Catalog(parent).scan().adapters


def _write_model(shape: Shape, small_base: Path, out: Path) -> None:
    config = json.loads((small_base / "config.json").read_bytes())
    heads = shape.hidden // HEAD
    config |= {
        "hidden_size": shape.hidden,
        "intermediate_size": 4 * shape.hidden,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": heads // 2,
        "head_dim": HEAD,
        "dtype": "bfloat16",
    }
    config.pop("torch_dtype", None)
    out.mkdir()
    for file in small_base.iterdir():
        if file.suffix != ".safetensors":
            shutil.copy(file, out)
    (out / "config.json").write_text(json.dumps(config), "utf-8")


def _write_adapter(shape: Shape, out: Path, seed: int) -> None:
    random = np.random.default_rng(seed)
    shapes = {}
    for layer in range(shape.layers):
        for module, (outputs, inputs) in shape.modules().items():
            name = f"base_model.model.model.layers.{layer}.{module}"
            shapes[f"{name}.lora_A.weight"] = (RANK, inputs)
            shapes[f"{name}.lora_B.weight"] = (outputs, RANK)
    out.mkdir(parents=True)
    with (out / WEIGHTS_FILE).open("wb") as file:
        file.write(header_of({name: ("BF16", each) for name, each in shapes.items()}))
        for each in shapes.values():
            numbers = random.standard_normal(each, np.float32) * 0.02
            file.write((numbers.view(np.uint32) >> 16).astype(np.uint16).tobytes())
    config = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "r": RANK,
        "lora_alpha": RANK,
        "target_modules": sorted(name.partition(".")[2] for name in shape.modules()),
    }
    (out / CONFIG_FILE).write_text(json.dumps(config), "utf-8")
