"""Which adapters the router doesn't use, because their base was measured to be better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from adapters.evaluation.measurement import Measurement, is_worse
from adapters.evaluation.table import read_table
from kiki.names import same_base

SHIPPED_POLICY = Path(__file__).parent / "policy.toml"


@dataclass(frozen=True, slots=True)
class BaseOnly:
    """An adapter that lost to its base, and the measurements that showed it."""

    adapter: str
    because: tuple[Measurement, ...]

    def __str__(self) -> str:
        """``base 73.0 > adapter 66.0 on MBPP (percent solved, n unknown)``."""
        return "; ".join(str(row) for row in self.because)


@dataclass(frozen=True, slots=True)
class Policy:
    """All measured comparisons. Where nothing was measured, nothing is base-only."""

    rows: tuple[Measurement, ...] = ()

    @classmethod
    def load(cls, path: Path = SHIPPED_POLICY) -> Policy:
        """Read a policy file. Raises SettingsError with the file, the row and the fix."""
        return cls(read_table(path))

    def base_only(self, adapter: str, base_model: str) -> BaseOnly | None:
        """The verdict on ``adapter`` where ``base_model`` is served; None: it may be used.

        Only rows of the same base count. One task benchmark that shows the adapter worse is
        enough. Perplexity and loss say how likely a text is, not whether an answer is right, so
        they decide only where no task was measured: good ones never outweigh a lost benchmark.
        """
        rows = [
            row
            for row in self.rows
            if row.adapter == adapter and same_base(row.base_model, base_model)
        ]
        tasks = [row for row in rows if not row.is_text]
        because = tuple(row for row in tasks or rows if is_worse(row))
        return BaseOnly(adapter, because) if because else None

    def verdicts(self, base_model: str) -> Mapping[str, BaseOnly]:
        """Every adapter that is base-only on ``base_model``: worked out once, looked up often."""
        names = sorted({row.adapter for row in self.rows})
        found = ((name, self.base_only(name, base_model)) for name in names)
        return {name: verdict for name, verdict in found if verdict is not None}
