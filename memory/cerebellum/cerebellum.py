"""The cerebellum: a model decides where there is one in time, rules where there isn't."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TypeVar

from memory.cerebellum.arbitrate import Verdict, arbitrate
from memory.cerebellum.concepts import read
from memory.cerebellum.memorize import MAX_KEPT, Kept, may_keep, memorize, sentences
from memory.cerebellum.model import Ask, JunkError, ModelDecider

logger = logging.getLogger("kiki.memory")

TIMEOUT_S = 0.5
WARM_UP_PAUSE_S = 0.5
DecisionT = TypeVar("DecisionT")


class Cerebellum:
    """Two decisions: `memorize` a sentence or not, and `arbitrate` it against a stored one.

    ``ask`` is the model (None: rules alone) and may take ``timeout_s`` a decision. Late, absent or
    junk, the rules decide. ``counts`` says how often which: model, rules, late, junk, failed;
    ``decided`` is told of each. Thread-safe.
    """

    def __init__(
        self,
        ask: Ask | None = None,
        *,
        timeout_s: float = TIMEOUT_S,
        decided: Callable[[str], None] = lambda what: None,
    ) -> None:
        self._model = ModelDecider(ask) if ask else None
        self._timeout_s = timeout_s
        self._decided = decided
        self._counts: Counter[str] = Counter()
        self._lock = threading.Lock()

    @property
    def counts(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)

    def warm_up(self, seconds: float) -> bool:
        """Asks the model until it answers once, which is slow the first time; False when it
        didn't in ``seconds``."""
        if self._model is None:
            return True
        began = time.monotonic()
        while (left := seconds - (time.monotonic() - began)) > 0:
            try:
                self._model.arbitrate("I live in Rome.", "I live in Rome.", left)
            except JunkError:
                return True
            except Exception as error:  # whatever the model raises, the rules go on
                logger.debug("the cerebellum's model does not answer yet: %s", error)
                time.sleep(min(WARM_UP_PAUSE_S, left))
            else:
                return True
        return False

    def memorize(self, text: str) -> list[Kept]:
        """What of the user's ``text`` to keep; nothing is SKIP.

        Code, quotes, pasted output and secrets are out before the model is asked.
        """
        said = [one for one in sentences(text) if may_keep(one)]
        if not said:
            return []

        def ask(model: ModelDecider) -> list[Kept]:
            places = model.memorize(said[:12], self._timeout_s)
            return [Kept(said[place], "model") for place in places][:MAX_KEPT]

        return self._decide(ask, lambda: memorize(text))

    def arbitrate(self, stored: str, new: str, cosine: float) -> Verdict:
        """What ``new`` does to ``stored``; ``cosine`` is that of their embeddings."""
        return self._decide(
            lambda model: model.arbitrate(stored, new, self._timeout_s),
            lambda: arbitrate(read(stored), read(new), cosine),
        )

    def _decide(
        self, ask: Callable[[ModelDecider], DecisionT], rules: Callable[[], DecisionT]
    ) -> DecisionT:
        if self._model is not None:
            try:
                decided = ask(self._model)
            except TimeoutError:
                self._count("late")
            except JunkError:
                self._count("junk")
            except Exception as error:  # whatever the model raises, the rules go on
                logger.warning("the cerebellum's model failed: %s", error)
                self._count("failed")
            else:
                self._count("model")
                return decided
        self._count("rules")
        return rules()

    def _count(self, what: str) -> None:
        with self._lock:
            self._counts[what] += 1
        self._decided(what)
