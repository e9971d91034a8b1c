"""Which engine serves, why, and how it is built from the settings."""

from __future__ import annotations

import importlib.util
import platform
import shlex
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from adapters.engines.base import Engine
from gateway.settings import Settings
from kiki.errors import SettingsError

if TYPE_CHECKING:
    from adapters.engines.vllm import VllmConfig

LLAMACPP_START_S = 120.0
VLLM_START_S = 900.0  # it compiles and warms up first

EngineName = Literal["mlx", "vllm", "llamacpp"]


@dataclass(frozen=True, slots=True)
class Machine:
    """What the choice depends on."""

    apple_silicon: bool
    nvidia: bool
    mlx: bool
    vllm: bool

    @classmethod
    def here(cls) -> Machine:
        """This machine; nothing heavy is imported to find out."""
        return cls(
            apple_silicon=sys.platform == "darwin" and platform.machine() == "arm64",
            nvidia=Path("/dev/nvidia0").exists(),
            mlx=importlib.util.find_spec("mlx_lm") is not None,
            vllm=shutil.which("vllm") is not None,
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """The engine, and the reason in words."""

    engine: EngineName
    reason: str


def choose_engine(settings: Settings, machine: Machine) -> Choice:
    """What ``engine`` says, or for ``auto`` what fits the model and the machine."""
    if settings.engine != "auto":
        return Choice(settings.engine, f"engine = {settings.engine}")
    if settings.vllm_urls:
        return Choice("vllm", "vllm_urls names running servers")
    if settings.model is None:
        return Choice("llamacpp", "no model is set, and the small one that kiki pulls is a GGUF")
    if settings.model.lower().endswith(".gguf"):
        return Choice("llamacpp", "the model is a GGUF file")
    if machine.apple_silicon:
        return Choice("mlx", "this is Apple silicon")
    if machine.nvidia and machine.vllm:
        return Choice("vllm", "there is an NVIDIA GPU, and vLLM is installed")
    if machine.mlx:
        return Choice("mlx", "MLX is installed, and vLLM or a GPU for it is not")
    missing = "vLLM is not installed" if machine.nvidia else "there is no GPU and no MLX"
    raise SettingsError(
        f"model = {settings.model!r}: nothing here can run it: {missing}.",
        fix="Name a GGUF file, which llama.cpp runs anywhere, or install vLLM or kiki's mlx extra.",
    )


def build_engine(settings: Settings, choice: Choice, model: Path | str) -> Engine:
    """The engine, not started. ``model`` is a GGUF file, a folder, or a name on the hub.

    Raises SettingsError where the model is none that the engine reads, or the engine can't do
    what is set.
    """
    if choice.engine == "mlx":
        return _mlx(settings, model)
    if settings.knowbias_probe is not None:
        raise SettingsError(
            f"knowbias_probe = {settings.knowbias_probe}: {choice.engine} can't amplify neurons.",
            fix="Unset it, or serve with engine = mlx.",
        )
    if choice.engine == "vllm":
        return _vllm(settings, model)
    return _llamacpp(settings, model)


def _llamacpp(settings: Settings, model: Path | str) -> Engine:
    from adapters.engines.llamacpp import LlamaCppEngine, Precision

    if not isinstance(model, Path) or not model.is_file():
        raise SettingsError(
            f"model = {str(model)!r}: llama.cpp reads one GGUF file.",
            fix="Name such a file, or choose another engine.",
        )
    return LlamaCppEngine(
        model,
        cache_dir=settings.models_dir / "adapters",
        slots=settings.engine_slots,
        context_tokens=settings.engine_context,
        threads=settings.engine_threads,
        start_timeout=settings.engine_start_timeout or LLAMACPP_START_S,
        precision=Precision(settings.engine_kv_type, settings.engine_flash_attention),
    )


def _mlx(settings: Settings, model: Path | str) -> Engine:
    from adapters.engines.mlx import MlxConfig, MlxEngine

    config = MlxConfig(
        slots=settings.engine_slots,
        context_tokens=settings.engine_context,
        kv_bits=settings.kv_bits,
        adapter_budget_bytes=settings.adapter_memory,
        adapter_dtype=settings.adapter_dtype,
        probe=settings.knowbias_probe,
        probe_gain=settings.knowbias_lambda,
        memory_limit_bytes=settings.metal_memory_limit,
        cache_limit_bytes=settings.metal_cache_limit,
    )
    return MlxEngine(model, config)


def _vllm(settings: Settings, model: Path | str) -> Engine:
    from adapters.engines.vllm import VllmEngine

    return VllmEngine(vllm_config(settings, model), settings.models_dir / "adapters")


def vllm_config(settings: Settings, model: Path | str) -> VllmConfig:
    """What the settings tell the vLLM engine."""
    from adapters.engines.vllm import VllmConfig
    from adapters.engines.vllm.config import default_work_dir

    key = settings.vllm_api_key
    return VllmConfig(
        model=str(model),
        urls=settings.vllm_urls,
        work_dir=settings.vllm_work_dir or default_work_dir(),
        api_key=key.get_secret_value() if key else None,
        slots=settings.engine_slots,
        context_tokens=settings.engine_context,
        command=tuple(shlex.split(settings.vllm_command)),
        max_loras=settings.vllm_max_loras,
        max_lora_rank=settings.vllm_max_lora_rank,
        lora_bytes=settings.vllm_lora_memory,
        store_bytes=settings.vllm_store_memory,
        store_mixes=settings.vllm_store_mixes,
        dtype=settings.vllm_dtype,
        cpu=settings.vllm_on_cpu,
        extra_args=settings.vllm_args,
        quantization=settings.vllm_quantization,
        tensor_parallel_size=settings.vllm_tensor_parallel_size,
        gpu_memory_utilization=settings.vllm_gpu_memory_utilization,
        start_timeout=settings.engine_start_timeout or VLLM_START_S,
        token_timeout=settings.vllm_token_timeout,
    )
