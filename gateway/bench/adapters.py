"""``kiki bench adapters``: what changing, mixing and using adapters costs on this machine.

Each part compares two ways of doing the same work in one run. A part whose engine isn't installed
is left out, with the reason.
"""

from __future__ import annotations

import asyncio
import importlib.util
import shutil
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from adapters.adapter import Adapter
from adapters.catalog import Catalog
from gateway.assets import ensure_small_base
from gateway.bench import fast_blas, panels
from gateway.bench.options import Options, Progress
from gateway.bench.report import Metric, Report
from gateway.engines import Choice, EngineName, Machine, build_engine
from gateway.settings import load_settings
from kiki.errors import EngineUnavailableError, KikiError

if TYPE_CHECKING:
    from gateway.bench.random_base import RandomBase

PARTS = ("switch", "decode", "panel-mlx", "panel-llamacpp", "compose-vllm")
CPU_ENVIRONMENT = (("VLLM_CPU_KVCACHE_SPACE", "1"), ("KMP_BLOCKTIME", "0"))
VLLM_HERE = Path(__file__).parents[2] / ".venv-vllm" / "bin" / "vllm"  # scripts/setup-vllm's


def measure(options: Options, only: Sequence[str], progress: Progress) -> Report:
    """Measure the parts named in ``only``, all of them where it is empty."""
    metrics: dict[str, Metric] = {}
    left_out: dict[str, str] = {}
    settings: dict[str, Any] = asdict(options)
    with ExitStack() as stack:
        parts = _Parts(options, progress, stack)
        for name in [part for part in PARTS if part in only or not only]:
            try:
                metrics |= parts.measure(name)
            except KikiError as error:
                left_out[name] = str(error)
    return Report("adapters", metrics, settings | _mlx_settings(), left_out)


def parts_named(name: str) -> tuple[str, ...]:
    """The parts that are called so, or begin so: ``panel`` is the panel on each engine."""
    return tuple(part for part in PARTS if part == name or part.startswith(f"{name}-"))


class _Parts:
    """The parts by their names; those that need the random model share it."""

    def __init__(self, options: Options, progress: Progress, stack: ExitStack) -> None:
        self._options = options
        self._progress = progress
        self._stack = stack
        self._random: RandomBase | None = None

    def measure(self, name: str) -> dict[str, Metric]:
        """Raises KikiError where the part can't be measured here."""
        if name == "switch":
            base = self._random_base()
            from gateway.bench import switching

            return switching.measure(base, self._options, self._progress)
        if name == "decode":
            base = self._random_base()
            from gateway.bench import decoding

            return decoding.measure(base, self._options, self._progress)
        if name == "panel-mlx":
            return self._panel_mlx()
        if name == "panel-llamacpp":
            return self._panel("llamacpp", ensure_small_base(load_settings()), _shipped())
        return self._compose()

    def _panel_mlx(self) -> dict[str, Metric]:
        if self._options.shape == "tiny":
            return self._panel("mlx", _small_base_folder(), _shipped())
        base = self._random_base()
        return self._panel("mlx", base.model, Catalog(base.adapters[0].parent).scan().adapters)

    def _panel(
        self, engine: EngineName, model: Path, adapters: Sequence[Adapter]
    ) -> dict[str, Metric]:
        if engine == "mlx":
            _prepare_mlx()
        # A quantised KV cache would have the rows run one by one, and a small budget would measure
        # the disk. Held in float32, an adapter takes up to twice its files.
        changes = {
            "engine_slots": panels.MIXES,
            "kv_bits": None,
            "adapter_memory": 2 * sum(adapter.bytes for adapter in adapters),
        }
        settings = load_settings().model_copy(update=changes)
        built = build_engine(settings, Choice(engine, "it is measured"), model)
        return asyncio.run(panels.measure(built, adapters, self._options, self._progress))

    def _compose(self) -> dict[str, Metric]:
        command = shutil.which("vllm") or (str(VLLM_HERE) if VLLM_HERE.is_file() else None)
        if command is None:
            raise EngineUnavailableError(
                "vLLM is not installed.", fix="Install it, or run scripts/setup-vllm."
            )
        if self._options.vllm_shape == "smollm2":
            dtype = "auto" if Machine.here().nvidia else "float32"
            return self._compose_with(command, _small_base_folder(), _shipped(), dtype)
        from gateway.bench.composing import MIXED
        from gateway.bench.random_llama import Shape, random_llama

        shape = Shape.parse(self._options.vllm_shape)
        made = random_llama(shape, _small_base_folder(), MIXED + 1, self._progress)
        with made as (model, adapters):
            dummy = "--load-format", "dummy"
            return self._compose_with(command, model, adapters, "bfloat16", dummy)

    def _compose_with(
        self,
        command: str,
        model: Path,
        adapters: Sequence[Adapter],
        dtype: str,
        arguments: tuple[str, ...] = (),
    ) -> dict[str, Metric]:
        from adapters.engines.vllm import VllmConfig, VllmEngine
        from gateway.bench import composing

        quick = () if Machine.here().nvidia else CPU_ENVIRONMENT
        config = VllmConfig(
            model=str(model),
            command=(command,),
            slots=4,
            context_tokens=1024,
            store_mixes=composing.STORE_MIXES,
            dtype=dtype,
            environment=quick,
            extra_args=("--enforce-eager", *arguments),
        )
        with TemporaryDirectory(prefix="kiki-bench-") as converted:
            engine = VllmEngine(config, Path(converted))
            return asyncio.run(composing.measure(engine, adapters, self._options, self._progress))

    def _random_base(self) -> RandomBase:
        _prepare_mlx()
        if self._random is None:
            from gateway.bench.random_base import random_base

            self._random = self._stack.enter_context(random_base(self._options, self._progress))
        return self._random


def _prepare_mlx() -> None:
    """Raises EngineUnavailableError where MLX isn't installed."""
    if importlib.util.find_spec("mlx_lm") is None:
        raise EngineUnavailableError(
            "MLX is not installed.", fix="Install it: pip install 'kiki-gateway[mlx]'"
        )
    fast_blas.load()
    from gateway.bench.random_base import prepare_mlx

    prepare_mlx()


def _mlx_settings() -> dict[str, Any]:
    if "mlx.core" not in sys.modules:  # nothing was measured with it
        return {}
    from gateway.bench.random_base import mlx_settings

    return mlx_settings()


def _shipped() -> tuple[Adapter, ...]:
    return Catalog(None).scan().adapters


def _small_base_folder() -> Path:
    """The small base in the form that MLX and vLLM read, made from its GGUF where it isn't there.

    Raises EngineUnavailableError without the packages that make it.
    """
    gguf = ensure_small_base(load_settings())
    folder = gguf.with_name("SmolLM2-135M-Instruct.F32")
    if not folder.is_dir():
        if importlib.util.find_spec("torch") is None:
            raise EngineUnavailableError(
                f"{folder} isn't there, and making it needs the training packages.",
                fix="Install them: pip install 'kiki-gateway[train]'",
            )
        from adapters.training.export import export_hf

        export_hf(gguf, folder)
    return folder
