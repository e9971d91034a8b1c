"""What a benchmark prints."""

from __future__ import annotations

import os
import platform
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from kiki import __version__


@dataclass(frozen=True, slots=True)
class Metric:
    """A measured value with its unit and the number of measurements behind it."""

    value: float
    unit: str
    n: int


@dataclass(frozen=True, slots=True)
class Report:
    """One run: what was measured, on which machine, with which settings.

    ``left_out`` says for each part that was not measured why.
    """

    bench: str
    metrics: dict[str, Metric]
    settings: dict[str, Any]
    left_out: dict[str, str] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        return {
            "bench": self.bench,
            "metrics": {name: asdict(metric) for name, metric in self.metrics.items()},
            "machine": machine(),
            "settings": self.settings,
            "left_out": self.left_out,
        }

    def to_text(self) -> str:
        """A table for people."""
        width = max(map(len, self.metrics), default=0)
        rows = [
            f"  {name:<{width}} {metric.value:>12.3f} {metric.unit:<7} n={metric.n}"
            for name, metric in self.metrics.items()
        ]
        absent = [f"  left out: {part}: {reason}" for part, reason in self.left_out.items()]
        return "\n".join([f"{self.bench} on {machine()['processor']}", *rows, *absent])


def median(values: Sequence[float], unit: str) -> Metric:
    """The median of the measurements."""
    return Metric(round(statistics.median(values), 4), unit, len(values))


def machine() -> dict[str, Any]:
    """What the numbers depend on."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.release()}",
        "python": sys.version.split()[0],
        "kiki": __version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
