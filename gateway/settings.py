"""Every setting, from ``kiki.toml`` and ``KIKI_*``; the environment wins over the file."""

from __future__ import annotations

import os
import tomllib
from pathlib import Path
from typing import Any, Literal

import platformdirs
from pydantic import Field, SecretStr, ValidationError, field_validator
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

from gateway.access_settings import AccessSettings
from gateway.admission_settings import AdmissionSettings
from gateway.antibias_settings import AntibiasSettings
from gateway.connection_settings import ConnectionSettings
from gateway.console_settings import ConsoleSettings
from gateway.engine_settings import EngineSettings
from gateway.named_model import check_model
from gateway.second_look_settings import SecondLookSettings
from gateway.store_settings import StoreSettings
from gateway.tracing_settings import TracingSettings
from kiki.errors import SettingsError
from kiki.names import near

ENV_PREFIX = "KIKI_"
TEST_PREFIX = "KIKI_TEST_"
"""Variables that name servers to the tests."""
FILE_VARIABLE = "KIKI_CONFIG"
DEFAULT_FILE = Path("kiki.toml")
_SECRETS = frozenset(
    {
        "api_key",
        "api_keys",
        "neo4j_password",
        "qdrant_api_key",
        "vllm_api_key",
        "cerebellum_api_key",
        "judge_api_key",
        "deep_judge_api_key",
    }
)


def _default_data_dir() -> Path:
    return Path(platformdirs.user_data_dir("kiki", appauthor=False))


def _default_models_dir() -> Path:
    return Path(platformdirs.user_cache_dir("kiki", appauthor=False)) / "models"


class Settings(
    AdmissionSettings,
    AccessSettings,
    AntibiasSettings,
    SecondLookSettings,
    ConsoleSettings,
    ConnectionSettings,
    TracingSettings,
    StoreSettings,
    EngineSettings,
):
    """One field a setting; the description is what ``kiki config`` and the docs show."""

    model_config = SettingsConfigDict(env_prefix=ENV_PREFIX, extra="forbid", frozen=True)

    host: str = Field("127.0.0.1", description="Address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="Port to listen on; 0 picks a free one.")
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
    log_format: Literal["text", "json"] = Field(
        "text", description="Lines for people, or an object a line."
    )
    log_file: Path | None = Field(
        None,
        description="Log to this file instead of stderr; it is turned over at 50 MB, and seven "
        "are kept.",
    )
    log_prompts: bool = Field(
        False, description="Log what the model is asked, memory included; else no prompt is logged."
    )

    router_threads: int = Field(2, ge=1, le=64, description="Threads of the embedding model.")
    router_threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Score from which a domain is active; unset is the calibrated one. A prompt "
        "that is about no domain goes to the base whatever it says; a request's own threshold "
        "decides that too.",
    )
    advisor: str | None = Field(
        None,
        pattern=r"^[\w.]+:\w+$",
        description="A second opinion for the router, as module:function, from a prompt to logits "
        "by domain. NERVE_WML_ENABLED=1 in the environment takes nerve-wml's.",
    )
    advisor_alpha: float | None = Field(
        None,
        ge=0,
        le=1,
        description="The advisor's share of the logits; unset is NERVE_WML_ALPHA, else 0.5.",
    )
    advisor_budget_ms: int = Field(
        20, ge=1, le=10_000, description="Milliseconds that a request waits for the advisor."
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
    cerebellum: str = Field(
        "rules",
        description="Who decides what is learnt from a turn: rules, engine (the model that "
        "serves), the path of a GGUF, or the URL of an OpenAI-compatible server (with /v1).",
    )
    cerebellum_timeout_ms: int = Field(
        500,
        ge=1,
        le=600_000,
        description="Milliseconds that a decision may take; after that the rules decide.",
    )
    cerebellum_api_key: SecretStr | None = Field(None, description="Key for the URL of cerebellum.")
    sleep_at: str | None = Field(
        None,
        pattern=r"^([01]\d|2[0-3]):[0-5]\d$|^[1-9]\d*[hm]$",
        description='When the memory sleeps: a local time ("03:30"), or an interval ("6h", "30m"); '
        "unset is never. kiki memory sleep does it at once.",
    )
    sleep_ttl_days: int | None = Field(
        None, ge=1, description="Days after which sleep deletes an episode; unset is never."
    )
    sleep_max_episodes: int | None = Field(
        None,
        ge=1,
        description="Episodes that a tenant may keep; sleep deletes the rest, least kept first.",
    )
    antibias: bool = Field(True, description="Screen answers for bias and revise those found.")

    @field_validator("data_dir", "models_dir", "log_file")
    @classmethod
    def _expand_home(cls, path: Path | None) -> Path | None:
        return path.expanduser().absolute() if path else None

    @field_validator("cerebellum")
    @classmethod
    def _a_decider(cls, named: str) -> str:
        return check_model(named, ("rules", "engine"))

    @property
    def keys_path(self) -> Path:
        """The file of API keys, whether there is one or not."""
        return self.keys_file or self.data_dir / "keys.toml"

    @property
    def key_headers(self) -> dict[str, str]:
        """What kiki's own commands send to a gateway."""
        return (
            {"authorization": f"Bearer {self.api_key.get_secret_value()}"} if self.api_key else {}
        )

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
        if name.startswith(TEST_PREFIX):
            continue
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
    value = "(secret)" if name in _SECRETS else repr(problem["input"])
    return f"{where} = {value}: {problem['msg'].lower()}. {fix}"


def _where(name: str, overrides: dict[str, Any]) -> str:
    if overrides.get(name) is not None:
        return f"--{name.replace('_', '-')}"
    variable = ENV_PREFIX + name.upper()
    return variable if variable in os.environ else f"{name} (in {settings_file()})"


_LIST = "List them all with: kiki config"
