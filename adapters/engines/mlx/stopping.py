"""Stop strings: text is held back as long as it may be the beginning of one."""

from __future__ import annotations

from collections.abc import Sequence


class StopStrings:
    """Finds the first stop string in a text that comes in pieces.

    ``feed`` gives back what can't be part of a stop string any more; the stop string itself and
    what follows it are never given back.
    """

    def __init__(self, strings: Sequence[str]) -> None:
        self._strings = tuple(string for string in strings if string)
        self._held = ""

    def feed(self, text: str) -> tuple[str, bool]:
        """The text that is safe to send, and whether a stop string came."""
        text = self._held + text
        found = [(text.find(string), string) for string in self._strings]
        ends = [(start + len(string), start) for start, string in found if start >= 0]
        if ends:  # the one that was complete first, in whatever pieces the text came
            self._held = ""
            return text[: min(ends)[1]], True
        keep = max((_overlap(text, string) for string in self._strings), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def rest(self) -> str:
        """What is still held back, once no more text comes."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, string: str) -> int:
    """The length of the longest end of ``text`` that begins ``string``."""
    longest = min(len(text), len(string) - 1)
    return next((n for n in range(longest, 0, -1) if string.startswith(text[-n:])), 0)
