"""The settings of stages 5 and 6: who judges, and what a second look at an answer may cost."""

from __future__ import annotations

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings

from gateway.named_model import check_model


class SecondLookSettings(BaseSettings):
    """One budget for both stages; two judges at most."""

    second_look_tokens: int = Field(
        6000,
        ge=0,
        le=1_000_000,
        description="Tokens that negotiation and anti-bias revision of a turn may spend together.",
    )
    second_look_seconds: float = Field(
        60.0, gt=0, le=3600, description="Seconds that they may take together."
    )
    judge: str = Field(
        "engine",
        description="Who decides where a panel is divided: engine (the model that serves), the "
        "path of a GGUF, or the URL of an OpenAI-compatible server (with /v1, and #model where it "
        "isn't its first).",
    )
    judge_api_key: SecretStr | None = Field(None, description="Key for the URL of judge.")
    deep_judge: str | None = Field(
        None,
        description="Who decides instead where drafts hardly agree, or the domain asks for it; "
        "named as judge is. Unset is judge.",
    )
    deep_judge_api_key: SecretStr | None = Field(None, description="Key for the URL of deep_judge.")
    catfish_below: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Confidence of a panel under which dissent is asked for; unset is the "
        "calibrated one, 0 leaves only agreement without argument.",
    )
    judge_timeout_ms: int = Field(
        20_000,
        ge=1,
        le=600_000,
        description="Milliseconds that a judge may take for a reply; after that the strongest "
        "adapter's draft is sent.",
    )

    @field_validator("judge", "deep_judge")
    @classmethod
    def _a_judge(cls, named: str | None) -> str | None:
        return named if named is None else check_model(named, ("engine",))
