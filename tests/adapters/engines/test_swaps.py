"""What an engine says of its swaps."""

from __future__ import annotations

import pytest

from adapters.engines.swaps import SwapMethod, Swaps


def test_what_succeeds_is_told_with_its_seconds_and_what_fails_is_not() -> None:
    told: list[tuple[SwapMethod, float]] = []
    swaps = Swaps()
    swaps.count("bind", 1.0)  # nobody listens
    swaps.listener = lambda method, seconds: told.append((method, seconds))
    with swaps.timed("restart"):
        pass
    with pytest.raises(RuntimeError), swaps.timed("compose"):
        raise RuntimeError
    swaps.count("load", 2.5)
    assert [method for method, _ in told] == ["restart", "load"]
    assert told[0][1] >= 0
    assert told[1][1] == 2.5
