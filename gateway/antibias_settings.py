"""The settings of stage 6 and of what the engine amplifies for it."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator
from pydantic_settings import BaseSettings


class AntibiasSettings(BaseSettings):
    """Whether answers are reviewed is ``antibias``; what it may cost, ``second_look_tokens``."""

    antibias_threshold: float = Field(
        0.9,
        ge=0.5,
        le=1,
        description="Confidence from which a biased passage is rewritten; from 0.5 on it is noted.",
    )
    antibias_refuse: bool = Field(
        False,
        description="Refuse an answer that is still as surely biased after the rewriting; else it "
        "is sent with a note.",
    )
    knowbias_probe: Path | None = Field(
        None,
        description="mlx: the neurons that know bias in the base model, a file that kiki antibias "
        "probe makes; they are amplified in answers and revisions. Unset amplifies nothing.",
    )
    knowbias_lambda: float = Field(
        2.0, ge=0, le=10, description="mlx: what those neurons are multiplied by; 1 is nothing."
    )

    @field_validator("knowbias_probe")
    @classmethod
    def _a_file(cls, path: Path | None) -> Path | None:
        if path is None:
            return None
        path = path.expanduser().absolute()
        if not path.is_file():
            raise ValueError(f"there is no file {path}")
        return path
