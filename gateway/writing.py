"""One answer while it is written: what is shown, what is thought, and the whole at its end."""

from __future__ import annotations

from adapters.engines.base import Calls, Delta, TokenLogprob, Usage
from gateway.thinking import ThinkingStripper
from gateway.turn import Answered, Piece


class Writing:
    """Takes the deltas of one choice; without ``strip`` thinking stays in the text."""

    def __init__(self, choice: int, *, strip: bool) -> None:
        self._choice = choice
        self._stripper = ThinkingStripper() if strip else None
        self._reasoning = ""
        self._calls = Calls()
        self._logprobs: tuple[TokenLogprob, ...] = ()
        self._held: tuple[TokenLogprob, ...] = ()
        self.text = ""

    def take(self, delta: Delta) -> Piece | None:
        """What the caller gets of this delta, None where that is nothing yet."""
        text, thought = self._split(delta)
        logprobs: tuple[TokenLogprob, ...] = ()
        if delta.logprobs or self._held:
            logprobs = self._shown(delta, text, thought)
        if not (text or thought or delta.calls or logprobs):
            return None
        self.text += text
        self._reasoning += thought
        self._calls.add(delta.calls)
        self._logprobs += logprobs
        return Piece(text, thought, delta.calls, logprobs, self._choice)

    def answered(self, delta: Delta, author: str | None) -> Answered:
        """The whole answer, once its last delta was taken."""
        assert delta.finish_reason is not None
        return Answered(
            author,
            self.text,
            delta.finish_reason,
            delta.usage or Usage(),
            self._reasoning,
            self._calls.whole,
            self._logprobs,
        )

    def _split(self, delta: Delta) -> tuple[str, str]:
        if self._stripper is None:
            return delta.text, ""
        text = self._stripper.feed(delta.text)
        thought = self._stripper.thought
        if delta.finish_reason:
            text += self._stripper.flush()
            thought += self._stripper.thought
        return text, thought

    def _shown(self, delta: Delta, text: str, thought: str) -> tuple[TokenLogprob, ...]:
        """The log-probabilities of what is shown; what belongs to thinking is left out."""
        held, self._held = self._held + delta.logprobs, ()
        if thought and not text:
            return ()
        if text or delta.finish_reason or not delta.text:
            return held
        self._held = held  # it may yet turn out to be a tag
        return ()
