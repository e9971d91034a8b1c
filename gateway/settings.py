"""Every setting, from ``kiki.toml`` and ``KIKI_*``; the environment wins over the file."""

from __future__ import annotations

import ipaddress
import os
import tomllib
from pathlib import Path
from typing import Annotated, Any, Literal

import platformdirs
from pydantic import (
    ByteSize,
    Field,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    NoDecode,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from kiki.assets import BASE_NAME
from kiki.errors import SettingsError
from kiki.names import near

ENV_PREFIX = "KIKI_"
FILE_VARIABLE = "KIKI_CONFIG"
DEFAULT_FILE = Path("kiki.toml")


def _default_data_dir() -> Path:
    return Path(platformdirs.user_data_dir("kiki", appauthor=False))


def _default_models_dir() -> Path:
    return Path(platformdirs.user_cache_dir("kiki", appauthor=False)) / "models"


class Settings(BaseSettings):
    """One field a setting; the description is what ``kiki config`` and the docs show."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
    allow_remote: bool = Field(
        False,
        description="Allow a host that is not loopback. There are no API keys yet: everyone who "
        "reaches the port may then use the gateway and read the memory of any user.",
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir, description="Folder of the memory (mode 0700)."
    )
    models_dir: Path = Field(
        default_factory=_default_models_dir,
        description="Folder of downloaded and converted models; safe to delete.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="How much to log, to stderr."
    )

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
    engine_start_timeout: float = Field(
        120.0, gt=0, le=3600, description="Seconds the engine may take until its first token."
    )

    adapter_memory: ByteSize = Field(
        ByteSize(8 * 2**30),
        description="mlx: memory for adapters, as 80GB; beyond it the least recently used leave.",
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
    vllm_work_dir: Path | None = Field(
        None,
        description="vllm: folder of composed adapters, best on a RAM disk; unset is /dev/shm "
        "where there is one.",
    )

    router_threads: int = Field(2, ge=1, le=64, description="Threads of the embedding model.")
    router_threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Score from which a domain is active; unset is the calibrated one.",
    )

    default_max_tokens: int = Field(
        512, ge=1, le=262144, description="Answer's limit where a request gives none."
    )
    default_temperature: float = Field(
        0.2, ge=0, le=2, description="Temperature where a request gives none."
    )
    memory: bool = Field(True, description="Recall and keep episodes; a request may switch it off.")
    recall_tokens: int = Field(
        400, ge=0, le=32768, description="Tokens of the prompt that recalled episodes may take."
    )
    recall_limit: int = Field(4, ge=1, le=50, description="Episodes recalled at most.")
    negotiate_tokens: int = Field(
        2000, ge=0, le=100000, description="Tokens that votes and judgements of a turn may spend."
    )
    antibias: bool = Field(True, description="Screen answers for bias and revise those found.")

    @field_validator("data_dir", "models_dir", "adapters_dir", "policy_file", "vllm_work_dir")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path else None

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
    def _model_is_there(self) -> Settings:
        if self.model_path is not None and not self.model_path.exists():
            raise ValueError(
                f"model = {self.model!r}: there is no such file or folder; correct the path, or "
                "give a name on the hub as owner/name"
            )
        return self

    @model_validator(mode="after")
    def _remote_is_meant(self) -> Settings:
        if not self.allow_remote and not _is_loopback(self.host):
            raise ValueError(
                f"host = {self.host!r} is not a loopback address, and kiki has no API keys yet; "
                "use 127.0.0.1, or set allow_remote = true behind a proxy that checks keys"
            )
        return self

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        file = settings_file()
        sources = (init_settings, env_settings)
        return (*sources, TomlConfigSettingsSource(settings_cls, file)) if file else sources


def settings_file() -> Path | None:
    """The file in use: ``KIKI_CONFIG``, else ``kiki.toml`` here, else none."""
    named = os.environ.get(FILE_VARIABLE)
    if named:
        if not Path(named).is_file():
            raise SettingsError(
                f"{FILE_VARIABLE}={named}: there is no such file.",
                fix="Correct the path or unset the variable.",
            )
        return Path(named)
    return DEFAULT_FILE if DEFAULT_FILE.is_file() else None


def load_settings(**overrides: Any) -> Settings:
    """Read and check all settings; ``overrides`` (command line) win over everything.

    Raises SettingsError, naming each wrong setting, its value, where it stands, and the fix.
    """
    try:
        _refuse_unknown_variables()
        return Settings(**{name: value for name, value in overrides.items() if value is not None})
    except tomllib.TOMLDecodeError as error:
        raise SettingsError(
            f"{settings_file()}: not valid TOML: {error}.", fix="Correct that line."
        ) from error
    except ValidationError as error:
        lines = [_explain(dict(problem), overrides) for problem in error.errors()]
        raise SettingsError("\n".join(lines)) from error


def _refuse_unknown_variables() -> None:
    known = {ENV_PREFIX + name.upper() for name in Settings.model_fields} | {FILE_VARIABLE}
    for name in os.environ:
        if name.startswith(ENV_PREFIX) and name not in known:
            raise SettingsError(f"{name}: no such setting.{near(name, known)}", fix=_LIST)


def _explain(problem: dict[str, Any], overrides: dict[str, Any]) -> str:
    if not problem["loc"]:
        return f"{problem['msg'].removeprefix('Value error, ')}."
    name = str(problem["loc"][0])
    where = _where(name, overrides)
    if problem["type"] == "extra_forbidden":
        return f"{where}: no such setting.{near(name, Settings.model_fields)} {_LIST}"
    default = Settings.model_fields[name].get_default(call_default_factory=True, validated_data={})
    fix = f"Set {ENV_PREFIX}{name.upper()} or {name} in kiki.toml; the default is {default}."
    return f"{where} = {problem['input']!r}: {problem['msg'].lower()}. {fix}"


def _where(name: str, overrides: dict[str, Any]) -> str:
    if overrides.get(name) is not None:
        return f"--{name.replace('_', '-')}"
    variable = ENV_PREFIX + name.upper()
    return variable if variable in os.environ else f"{name} (in {settings_file()})"


def _looks_like_path(model: str) -> bool:
    """A path that is there, or can't be owner/name on the hub."""
    return model.endswith(".gguf") or model.count("/") != 1 or Path(model).expanduser().exists()


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


_LIST = "List them all with: kiki config"
