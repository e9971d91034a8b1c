"""The settings of the base model, its engine and its adapters."""

from __future__ import annotations

import os
import shlex
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ByteSize, Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode

from kiki.assets import BASE_NAME


class EngineSettings(BaseSettings):
    """Those that begin with an engine's name, or say so, are that engine's alone."""

    engine: Literal["auto", "mlx", "vllm", "llamacpp"] = Field(
        "auto",
        description="What runs the model. auto: llamacpp for a GGUF file, else mlx on Apple "
        "silicon, vllm where a GPU and vLLM are; kiki doctor says which and why.",
    )
    model: str | None = Field(
        None,
        description="The base model: a GGUF file, a folder, or a name on the hub (mlx, vllm). "
        "Unset is the small GGUF that kiki pulls.",
    )
    base: str | None = Field(
        None,
        description="What adapters call the base they were trained on; those that name another "
        "are left out. Unset compares shapes alone, unless the model is kiki's own.",
    )
    adapters_dir: Path | None = Field(
        None,
        description="A folder of adapters in mlx, PEFT or GGUF form; unset is the shipped ones.",
    )
    adapters_watch: bool = Field(
        True,
        description="Serve new, changed and removed adapters without a restart; else they wait "
        "for POST /v1/adapters/refresh.",
    )
    policy_file: Path | None = Field(
        None,
        description="Measured results that decide where the base answers alone; unset is the "
        "shipped file.",
    )
    engine_slots: int = Field(4, ge=1, le=64, description="Requests generated at a time.")
    engine_context: int = Field(
        4096, ge=256, le=262144, description="Tokens a request may fill, prompt and answer."
    )
    engine_threads: int = Field(
        default_factory=lambda: min(os.cpu_count() or 2, 8),
        ge=1,
        le=256,
        description="Threads of the engine.",
    )
    engine_kv_type: Literal["f16", "f32", "q8_0"] = Field(
        "f16", description="llamacpp: the KV cache's numbers; q8_0 halves it, f32 is the exact one."
    )
    engine_flash_attention: bool | None = Field(
        None, description="llamacpp: flash attention; unset lets llama.cpp decide."
    )
    engine_start_timeout: float | None = Field(
        None,
        gt=0,
        le=7200,
        description="Seconds until the engine's first token; unset is 120, for vllm 900.",
    )

    adapter_memory: ByteSize = Field(
        ByteSize(8 * 2**30),
        description="mlx: memory for adapters, as 80GB; beyond it the least recently used leave.",
    )
    adapter_dtype: Literal["float32", "bfloat16", "float16"] | None = Field(
        None,
        description="mlx: numbers that adapters are held in; unset keeps those of each file. On a "
        "CPU those of experts are float32 whatever it says.",
    )
    kv_bits: Literal[8] | None = Field(
        None,
        description="mlx: 8 keeps the KV cache in 8 bits, for long contexts; requests are then "
        "generated one at a time instead of in a batch.",
    )
    metal_memory_limit: ByteSize | None = Field(
        None, description="mlx: memory it may use, as 460GB; unset is nine tenths of the machine's."
    )
    metal_cache_limit: ByteSize | None = Field(
        None, description="mlx: freed memory it may keep, as 32GB; unset is a sixteenth."
    )
    vllm_urls: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="vllm: addresses of running servers, comma-separated in the environment; "
        "unset starts one here.",
    )
    vllm_api_key: SecretStr | None = Field(
        None, description="vllm: the key that the servers ask for."
    )
    vllm_token_timeout: float = Field(
        300.0,
        gt=0,
        le=7200,
        description="vllm: seconds that a request waits for its next token; then it fails, and the "
        "server is asked for one.",
    )
    vllm_quantization: str | None = Field(
        None,
        description="vllm: the weights' form, as awq or fp8; unset asks the model.",
    )
    vllm_tensor_parallel_size: int = Field(
        1, ge=1, le=64, description="vllm: GPUs that share one model."
    )
    vllm_gpu_memory_utilization: float = Field(
        0.9, gt=0, le=1, description="vllm: share of the GPU's memory that it takes."
    )
    vllm_max_loras: int = Field(
        4, ge=1, le=64, description="vllm: mixes that may be active in one batch."
    )
    vllm_max_lora_rank: Literal[8, 16, 32, 64, 128, 256, 320, 512] = Field(
        64, description="vllm: rank of a slot; a mix takes the sum of its adapters' ranks."
    )
    vllm_lora_memory: ByteSize | None = Field(
        None, description="vllm: device memory for adapter slots; unset is what is there."
    )
    vllm_store_memory: ByteSize | None = Field(
        None,
        description="vllm: bytes of composed adapters in vllm_work_dir; unset is its free half.",
    )
    vllm_store_mixes: int = Field(
        16, ge=1, le=1000, description="vllm: composed mixes that are kept."
    )
    vllm_dtype: str = Field("auto", description="vllm: numbers it computes with, as bfloat16.")
    vllm_on_cpu: bool | None = Field(
        None, description="vllm: whether the servers are CPU builds; unset asks machine and server."
    )
    vllm_command: str = Field("vllm", description="vllm: the program that starts a server here.")
    vllm_args: Annotated[tuple[str, ...], NoDecode] = Field(
        (), description="vllm: more arguments for that program, separated by blanks."
    )
    vllm_work_dir: Path | None = Field(
        None,
        description="vllm: folder of composed adapters, best on a RAM disk; unset is /dev/shm "
        "where there is one.",
    )

    @field_validator("adapters_dir", "policy_file", "vllm_work_dir")
    @classmethod
    def _expand_paths(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path else None

    @field_validator("kv_bits", "vllm_max_lora_rank", mode="before")
    @classmethod
    def _read_number(cls, value: object) -> object:
        """The environment has texts only, and of a few numbers none is one of them."""
        return int(value) if isinstance(value, str) and value.isdecimal() else value

    @field_validator("vllm_args", mode="before")
    @classmethod
    def _split_args(cls, args: object) -> object:
        return shlex.split(args) if isinstance(args, str) else args

    @field_validator("vllm_urls", mode="before")
    @classmethod
    def _split_urls(cls, urls: object) -> object:
        if not isinstance(urls, str):
            return urls
        return [url.strip() for url in urls.split(",") if url.strip()]

    @field_validator("vllm_urls")
    @classmethod
    def _check_urls(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if "@" in url:
                raise ValueError("an address holds a password; a key goes into vllm_api_key")
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"{url!r} is no http address, as http://127.0.0.1:8001")
        return tuple(url.rstrip("/") for url in urls)

    @property
    def model_path(self) -> Path | None:
        """The model's file or folder; None where there is none or it is a name on the hub."""
        if self.model is None or not _looks_like_path(self.model):
            return None
        return Path(self.model).expanduser().absolute()

    @property
    def adapters_base(self) -> str | None:
        """The base that adapters have to name; None where only their shapes can tell."""
        return self.base or (BASE_NAME if self.model is None else None)

    @model_validator(mode="after")
    def _model_is_there(self) -> EngineSettings:
        if self.model_path is not None and not self.model_path.exists():
            raise ValueError(
                f"model = {self.model!r}: there is no such file or folder; correct the path, or "
                "give a name on the hub as owner/name"
            )
        return self


def _looks_like_path(model: str) -> bool:
    """A path that is there, or can't be owner/name on the hub."""
    return (
        model.lower().endswith(".gguf")
        or model.count("/") != 1
        or Path(model).expanduser().exists()
    )
