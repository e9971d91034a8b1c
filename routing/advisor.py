"""A second opinion on the domains: an optional plug-in that never breaks a request."""

from __future__ import annotations

import importlib
import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from kiki.errors import SettingsError
from routing.domains import DomainTable

log = logging.getLogger("kiki.routing")

Advise = Callable[[str], Mapping[str, float]]
"""From a prompt to a logit for each domain or output that it has an opinion on."""
Outcome = Literal["used", "missing", "slow", "busy", "raised", "unusable"]

NERVE_WML = "nerve_wml.bridge.kiki_nerve_advisor:KikiNerveAdvisor"
_WITHOUT_INDEX = frozenset({"spice-sim"})
"""Domains that nerve-wml, which numbers them by alphabet, doesn't have."""


class Advisor:
    """Calls the plug-in within a time budget, one call at a time.

    What goes wrong is logged once for each kind and counted always; the router then decides alone.

    Args:
        advise: the plug-in; None where it couldn't be loaded.
        alpha: its share of the logits, 0 to 1.
        budget_s: how long a request waits for it.
        count: called with the outcome of each call.
    """

    def __init__(
        self,
        advise: Advise | None,
        table: DomainTable,
        *,
        alpha: float,
        budget_s: float,
        count: Callable[[Outcome], None] | None = None,
    ) -> None:
        self._advise = advise
        self._table = table
        self._places = {name: place for place, name in enumerate(table.outputs)}
        self._alpha = np.float32(alpha)
        self._budget_s = budget_s
        self._count = count or (lambda _: None)
        self._free = threading.Lock()
        self._logged: set[str] = set()

    def advice(self, prompt: str) -> NDArray[np.float32] | None:
        """The plug-in's logits, shape (outputs,), NaN where it has none; None where it failed.

        Of a merged output the highest of its members counts.
        """
        try:
            advice = self._call(prompt)
        except _LeftOutError as failure:
            self._count(failure.outcome)
            if failure.outcome not in self._logged:
                self._logged.add(failure.outcome)
                log.warning("The advisor is left out: %s. Logged once, counted always.", failure)
            return None
        self._count("used")
        return advice

    def blend(self, log_odds: NDArray[np.float32], advice: NDArray[np.float32]) -> NDArray[Any]:
        """(1 - alpha) * log_odds + alpha * advice, where there is advice."""
        mixed = (1 - self._alpha) * log_odds + self._alpha * advice
        return np.where(np.isnan(advice), log_odds, mixed).astype(np.float32)

    def _call(self, prompt: str) -> NDArray[np.float32]:
        """The plug-in's logits, if they come in time: a lazy mapping is read in its thread too.
        The thread keeps the lock until it ends, so that a slow plug-in has one thread and not one
        a request."""
        advise = self._advise
        if advise is None:
            raise _LeftOutError("missing", "it could not be loaded")
        deadline = time.monotonic() + self._budget_s
        if not self._free.acquire(timeout=self._budget_s):
            raise _LeftOutError("busy", "it is busy with an earlier prompt")
        answers: list[NDArray[np.float32]] = []
        errors: list[BaseException] = []
        done = threading.Event()

        def run() -> None:
            try:
                answers.append(self._logits(advise(prompt)))
            except BaseException as error:  # a plug-in's own, its exit included
                errors.append(error)
            finally:
                self._free.release()
                done.set()

        try:
            threading.Thread(target=run, name="kiki-advisor", daemon=True).start()
        except RuntimeError as error:  # the system has no thread left
            self._free.release()
            raise _LeftOutError("busy", f"it has no thread: {error}") from error
        if not done.wait(max(deadline - time.monotonic(), 0)):
            raise _LeftOutError("slow", f"it took more than {self._budget_s * 1e3:.0f} ms")
        if errors and isinstance(errors[0], _LeftOutError):
            raise errors[0]
        if errors:
            raise _LeftOutError("raised", f"it raised {_described(errors[0])}")
        return answers[0]

    def _logits(self, given: Mapping[str, float]) -> NDArray[np.float32]:
        advice = np.full(len(self._places), np.nan, np.float32)
        try:
            for name, value in given.items():
                place = self._places[self._table.output_of(name)]
                advice[place] = np.fmax(advice[place], np.float32(value))
            if np.isinf(advice).any():
                raise ValueError("a logit is infinite")
        except Exception as error:  # whatever a plug-in may return
            raise _LeftOutError(
                "unusable", f"its advice is no logits by domain: {_described(error)}"
            ) from error
        return advice


class _LeftOutError(Exception):
    """The plug-in gives no advice on this prompt."""

    def __init__(self, outcome: Outcome, reason: str) -> None:
        super().__init__(reason)
        self.outcome = outcome


def _described(error: BaseException) -> str:
    """A plug-in's error may fail to say what it is."""
    try:
        return repr(error)
    except Exception:
        return type(error).__name__


def load(path: str) -> Advise | None:
    """The plug-in "module:function"; None, and a line in the log, where it can't be imported.

    Raises:
        SettingsError: the text isn't of that form.
    """
    module, _, name = path.partition(":")
    if not module or not name.isidentifier():
        raise SettingsError(
            f"advisor = {path!r} names no function.", fix='Write it as "module:function".'
        )
    try:
        found: Advise = getattr(importlib.import_module(module), name)
        if not callable(found):
            raise TypeError(f"{path} is {type(found).__name__}")
    except (Exception, SystemExit) as error:  # an import runs any code
        why = _described(error)
        log.warning("The advisor %s can't be loaded: %s. The router decides alone.", path, why)
        return None
    return found


def load_nerve_wml(table: DomainTable, tokens: Callable[[str], list[int]]) -> Advise | None:
    """The nerve-wml project's advisor: token ids in, a logit by the domain's number out."""
    build = load(NERVE_WML)
    if build is None:
        return None
    names = sorted(d.name for d in table.domains if d.name not in _WITHOUT_INDEX)
    try:
        advisor: Any = build()  # type: ignore[call-arg]
    except (Exception, SystemExit) as error:  # the plug-in's own
        why = _described(error)
        log.warning("The nerve-wml advisor can't be made: %s. The router decides alone.", why)
        return None

    def advise(prompt: str) -> Mapping[str, float]:
        numbered = advisor.advise(tokens(prompt))
        return {names[int(at)]: float(v) for at, v in numbered.items() if 0 <= int(at) < len(names)}

    return advise
