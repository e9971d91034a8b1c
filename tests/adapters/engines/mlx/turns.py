"""The model's thread, stopped between two turns: what is in flight then stays so."""

from __future__ import annotations

import time

import pytest

from adapters.engines.mlx.runner import Runner
from tests.waiting import until


class Turns:
    """Counts the turns of every runner. After ``only(n)`` of them the thread stands still.

    It still runs commands: rows come, are cancelled, wait.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._left: int | None = None
        self.most_active = 0
        turn = Runner.turn

        def counted(runner: Runner) -> None:
            if self._left == 0:
                time.sleep(0.001)
                return
            turn(runner)
            self.most_active = max(self.most_active, runner.stats.active_rows)
            if self._left is not None:
                self._left -= 1

        monkeypatch.setattr(Runner, "turn", counted)

    def only(self, count: int) -> None:
        """Call it while nothing runs."""
        self._left = count

    async def taken(self) -> None:
        """Wait until the turns that were given are taken."""
        await until(lambda: self._left == 0)

    def free(self) -> None:
        self._left = None
