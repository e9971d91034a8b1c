"""What ``kiki adapters eval`` shows."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from adapters.evaluation.measurement import Measurement, is_worse, mcnemar

FEWEST_WRITTEN = 10  # a row of fewer tasks or texts would decide by chance


@dataclass(frozen=True, slots=True)
class Result:
    """What was measured, out of how many, and the evidence row by row."""

    row: Measurement
    total: int
    evidence: list[dict[str, Any]]

    @property
    def interrupted(self) -> bool:
        return len(self.evidence) < self.total

    @property
    def may_be_written(self) -> bool:
        """Whether a policy should hold it: a whole run, of enough rows."""
        return not self.interrupted and len(self.evidence) >= FEWEST_WRITTEN

    def to_dict(self, written: Path | None = None) -> dict[str, Any]:
        """For JSON. ``p`` is McNemar's, two-sided; None for perplexity, which has low and high."""
        return asdict(self.row) | {
            "difference": round(self.row.difference, 3),
            "p": two_sided(self.row),
            "worse": is_worse(self.row),
            "interrupted": self.interrupted,
            "written": written,
            "rows": self.evidence,
        }

    def to_text(self, written: Path | None = None) -> str:
        """For people, in a few lines."""
        row = self.row
        unit = "held-out texts" if row.is_text else "tasks"
        of = f" of {self.total}" if self.interrupted else ""
        lines = [
            f"{row.adapter} on {row.base_model}, {row.benchmark}: {row.n}{of} {unit}",
            f"  {row.metric:<16} base {row.base_score:.2f}, adapter {row.adapter_score:.2f}",
            f"  {'difference':<16} {row.difference:+.2f}, {_uncertainty(row)}",
            f"  {_meaning(row)}",
        ]
        if written:
            lines.append(f"  Written to {written}; the setting policy_file names the one in use.")
        elif not self.may_be_written:
            lines.append(
                f"  Can't go into a policy: that takes a whole run of {FEWEST_WRITTEN} or more."
            )
        return "\n".join(lines)


def two_sided(row: Measurement) -> float | None:
    """How likely so large a difference, either way, is among equals; None without pairs."""
    if row.only_base is None or row.only_adapter is None:
        return None
    most, least = max(row.only_base, row.only_adapter), min(row.only_base, row.only_adapter)
    return min(1.0, 2 * mcnemar(most, least))


def _uncertainty(row: Measurement) -> str:
    if row.low is not None and row.high is not None:
        return f"95 % between {row.low:+.2f} and {row.high:+.2f} (paired bootstrap)"
    return (
        f"p = {two_sided(row):.2g} (McNemar, exact, two-sided: the adapter alone solved "
        f"{row.only_adapter}, the base alone {row.only_base})"
    )


def _meaning(row: Measurement) -> str:
    if is_worse(row):
        rank = ", unless tasks say otherwise" if row.is_text else ""
        return f"Worse than the base: with this row the router uses the base{rank}."
    if row.loss > 0:
        return "Behind the base by no more than chance explains: the adapter stays in use."
    return "Not worse than the base: the adapter stays in use."
