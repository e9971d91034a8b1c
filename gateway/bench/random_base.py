"""The random model and adapters that switching and decoding are measured on, written to disk."""

# mypy: disable-error-code="no-untyped-call"
# mlx is typed in part only.

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import mlx.core as mx
import numpy as np

from adapters.engines.mlx.shapes import SHAPES
from adapters.engines.mlx.tiny import random_adapter, random_model, write_model
from adapters.forms import write_lora
from gateway.bench import fast_blas
from gateway.bench.options import Options, Progress

BITS = 4
RANK = 16
ADAPTERS = 4


@dataclass(frozen=True, slots=True)
class RandomBase:
    """A folder that ``mlx_lm.load`` takes, and adapters in mlx_lm's form, all modules in each."""

    model: Path
    adapters: tuple[Path, ...]


def prepare_mlx() -> None:
    """Free what another part left, and on a CPU compile no kernels: 40 s with a C++ compiler.

    For both sides of every comparison: the switch is the process's.
    """
    gc.collect()  # models lie in reference cycles, and memory may not hold another one
    mx.clear_cache()
    if on_cpu():
        mx.disable_compile()


def on_cpu() -> bool:
    return mx.default_device().type == mx.DeviceType.cpu


def mlx_settings() -> dict[str, Any]:
    """What measurements with MLX depend on."""
    return {
        "mlx": version("mlx"),
        "mlx_lm": version("mlx-lm"),
        "mlx_device": str(mx.device_info().get("device_name", mx.default_device())),
        "mlx_on_cpu": on_cpu(),
        "mlx_compile": not on_cpu() and "MLX_DISABLE_COMPILE" not in os.environ,
        "mlx_blas": fast_blas.load() if on_cpu() else None,
    }


@contextmanager
def random_base(options: Options, progress: Progress) -> Iterator[RandomBase]:
    """Write the model, 4-bit, and four adapters of rank 16; they go when the context ends.

    In float32 on a CPU, where MLX's experts take nothing else, in float16 elsewhere. The folder
    is the system's temporary one (TMPDIR): 30 GB for the large shape.
    """
    shape = replace(SHAPES[options.shape], layers=options.layers)
    dtype, numbers = (mx.float32, np.float32) if on_cpu() else (mx.float16, np.float16)
    with TemporaryDirectory(prefix="kiki-bench-") as folder:
        progress("random model", 0, 1 + ADAPTERS)
        model = random_model(shape, bits=BITS, dtype=dtype)
        write_model(Path(folder, "model"), model, shape, BITS)
        progress("random model", 1, 1 + ADAPTERS)
        adapters = []
        for number in range(1, 1 + ADAPTERS):
            lora = random_adapter(model, number, RANK, dtype=numbers)
            path = Path(folder, "adapters", lora.name)
            path.parent.mkdir(exist_ok=True)
            write_lora(lora, "mlx", path)
            adapters.append(path)
            progress("random model", 1 + number, 1 + ADAPTERS)
        del model, lora
        mx.clear_cache()
        yield RandomBase(Path(folder, "model"), tuple(adapters))
