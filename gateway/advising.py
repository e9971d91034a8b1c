"""The router's optional advisor, by the settings or by the seed project's variables."""

from __future__ import annotations

import os
from collections.abc import Callable

from gateway.settings import Settings
from kiki.errors import SettingsError
from routing.advisor import Advisor, Outcome, load, load_nerve_wml
from routing.domains import DomainTable

ENABLED, ALPHA = "NERVE_WML_ENABLED", "NERVE_WML_ALPHA"
DEFAULT_ALPHA = 0.5


def build_advisor(
    settings: Settings,
    table: DomainTable,
    tokens: Callable[[str], list[int]],
    count: Callable[[Outcome], None] | None = None,
) -> Advisor | None:
    """The advisor that is asked for, imported once; None where none is.

    One that can't be imported is an advisor that gives no advice, so that its absence is counted.

    Args:
        tokens: what nerve-wml's advisor reads a prompt as.

    Raises:
        SettingsError: alpha is no number from 0 to 1.
    """
    if settings.advisor:
        advise = load(settings.advisor)
    elif os.environ.get(ENABLED) == "1":
        advise = load_nerve_wml(table, tokens)
    else:
        return None
    alpha = settings.advisor_alpha
    return Advisor(
        advise,
        table,
        alpha=_seeds_alpha() if alpha is None else alpha,
        budget_s=settings.advisor_budget_ms / 1e3,
        count=count,
    )


def _seeds_alpha() -> float:
    text = os.environ.get(ALPHA, str(DEFAULT_ALPHA))
    try:
        alpha = float(text)
    except ValueError:
        alpha = -1.0
    if not 0 <= alpha <= 1:
        raise SettingsError(f"{ALPHA} = {text!r} is no number from 0 to 1.", fix="Correct it.")
    return alpha
