# mypy: disable-error-code="no-untyped-call"
# mlx.nn and mlx_lm are typed in part only.
"""Random models of Qwen3.6-35B-A3B's architecture, and random adapters for them.

    python -m adapters.engines.mlx.tiny OUT --bits 4 --adapters 2

They know nothing, and have every module that the real one has: for tests of what is done to a
model, and for measurements at any size, the real one's included.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import mlx.core as mx
import numpy as np
from mlx.nn.layers.base import Module
from mlx.nn.layers.quantized import quantize
from mlx.utils import tree_map_with_path
from mlx_lm.models.qwen3_5_moe import Model, ModelArgs
from mlx_lm.utils import save_model

from adapters.engines.mlx.byte_tokenizer import write_tokenizer
from adapters.engines.mlx.shapes import SHAPES, TINY, Shape
from adapters.engines.mlx.slots import find_modules
from adapters.forms import write_lora
from adapters.lora import Lora, LoraWeight

GROUP_SIZE = 64
ROUTER_BITS = 8  # the bits that mlx_lm gives the routers of this architecture


def random_model(
    shape: Shape = TINY, *, seed: int = 0, bits: int | None = None, dtype: mx.Dtype = mx.float32
) -> Model:
    """A model with random weights, quantised to ``bits`` where given; equal for equal arguments.

    Made layer by layer: what is in memory at once is the model and one layer of it in float32.
    """
    mx.random.seed(seed)
    model = Model(ModelArgs.from_dict(shape.config()))
    model.eval()
    text = model.language_model
    for layer in text.model.layers:
        _finish(layer, bits, dtype)
    _finish(model, bits, dtype)  # what is left: the embedding, the norm and the output layer
    return model


def _finish(module: Module, bits: int | None, dtype: mx.Dtype) -> None:
    """Cast, quantise and compute ``module``; what is quantised already stays."""

    def cast(path: str, array: mx.array) -> mx.array:
        floating = mx.issubdtype(array.dtype, mx.floating)
        return array.astype(dtype) if floating and not path.endswith("A_log") else array

    def how(path: str, child: Module) -> bool | dict[str, int]:
        if not hasattr(child, "to_quantized"):
            return False
        router = path.endswith(("mlp.gate", "shared_expert_gate"))
        return {"group_size": GROUP_SIZE, "bits": ROUTER_BITS} if router else True

    module.update(tree_map_with_path(cast, module.parameters()))
    if bits is not None:
        quantize(module, GROUP_SIZE, bits, class_predicate=how)
    mx.eval(module.parameters())


def random_adapter(
    model: Module,
    seed: int,
    rank: int = 16,
    *,
    layers: int | None = None,
    strength: float = 0.3,
    dtype: type[np.floating[Any]] = np.float32,
) -> Lora:
    """An adapter on every module of the last ``layers`` layers (None: all), scale 1.

    ``strength`` is how large its updates come out, where the base's own outputs are about 0.6.
    """
    generator = np.random.default_rng(seed)
    found = {n: place for n, (place, _) in find_modules(model).items() if n.startswith("layers.")}
    first = 0 if layers is None else 1 + max(map(_layer, found)) - layers
    weights = {}
    for name, place in found.items():
        if _layer(name) < first:
            continue
        experts = () if place.experts is None else (place.experts,)
        a = generator.standard_normal((*experts, rank, place.inputs), np.float32)
        b = generator.standard_normal((*experts, place.outputs, rank), np.float32)
        a *= place.inputs**-0.5
        b *= strength * rank**-0.5
        weights[name] = LoraWeight(name, a.astype(dtype), b.astype(dtype))
    return Lora(f"random-{seed}", "", rank, float(rank), weights)


def _layer(name: str) -> int:
    return int(name.split(".")[1])


def write_model(folder: Path, model: Model, shape: Shape, bits: int | None) -> None:
    """Write a model of ``random_model`` as a folder that ``mlx_lm.load`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    config = shape.config()
    config["eos_token_id"] = write_tokenizer(folder, shape.vocab)
    if bits is not None:
        config["quantization"] = {"group_size": GROUP_SIZE, "bits": bits, "mode": "affine"}
    save_model(folder, model)
    (folder / "config.json").write_text(json.dumps(config, indent=2))


@click.command()
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--shape", "name", type=click.Choice(sorted(SHAPES)), default="tiny")
@click.option("--layers", type=click.IntRange(4), help="Layers; a multiple of 4.")
@click.option("--hidden", type=click.IntRange(64), help="Hidden size; a multiple of 64.")
@click.option("--experts", type=click.IntRange(4), help="Experts in each layer.")
@click.option("--bits", type=click.Choice(["4", "8"]), help="Quantise; without it, full precision.")
@click.option("--dtype", type=click.Choice(["float32", "bfloat16"]), default="float32")
@click.option("--seed", type=int, default=0)
@click.option("--adapters", type=click.IntRange(0), default=0, help="Random adapters beside it.")
@click.option("--rank", type=click.IntRange(1), default=16, help="Their rank.")
def main(
    out: Path,
    name: str,
    layers: int | None,
    hidden: int | None,
    experts: int | None,
    bits: str | None,
    dtype: str,
    seed: int,
    adapters: int,
    rank: int,
) -> None:
    """Write a random model into the folder OUT, and adapters into OUT/adapters/random-N."""
    given = {"layers": layers, "hidden": hidden, "experts": experts}
    shape = replace(SHAPES[name], **{key: value for key, value in given.items() if value})
    width = int(bits) if bits else None
    model = random_model(shape, seed=seed, bits=width, dtype=getattr(mx, dtype))
    write_model(out, model, shape, width)
    for number in range(1, adapters + 1):
        lora = random_adapter(model, number, rank)
        write_lora(lora, "mlx", out / "adapters" / lora.name)
    click.echo(f"{out}: {shape.layers} layers, {shape.hidden} wide, {shape.experts} experts.")


if __name__ == "__main__":
    main()
