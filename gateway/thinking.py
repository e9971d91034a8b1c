"""Take ``<think>...</think>`` out of an answer, also when it arrives in pieces."""

from __future__ import annotations

OPEN, CLOSE = "<think>", "</think>"


class ThinkingStripper:
    """Feed pieces, get back what may be shown. White space around a removed block goes too.

    ``thought`` is what the last call took out, without its tags.
    """

    def __init__(self) -> None:
        self.thought = ""
        self._pending = ""
        self._inside = False
        self._trim = True

    def feed(self, piece: str) -> str:
        """The part of the text so far that is certainly not thinking and was not yet given."""
        self._pending += piece
        self.thought = ""
        shown = ""
        while True:
            tag = CLOSE if self._inside else OPEN
            before, found, after = self._pending.partition(tag)
            if not found:
                break
            shown += self._show(before)
            self._inside = not self._inside
            self._trim = True
            self._pending = after
        keep = _overlap(self._pending, CLOSE if self._inside else OPEN)
        cut = len(self._pending) - keep
        shown += self._show(self._pending[:cut])
        self._pending = self._pending[cut:]
        return shown

    def flush(self) -> str:
        """The rest, when the answer has ended; an unclosed block stays hidden."""
        self.thought = ""
        rest, self._pending = self._show(self._pending), ""
        return rest

    def _show(self, text: str) -> str:
        if self._inside:
            self.thought += text
            return ""
        if self._trim:
            text = text.lstrip()
            self._trim = not text
        return text


def strip_thinking(text: str) -> str:
    """Take the thinking out of a whole text."""
    stripper = ThinkingStripper()
    return stripper.feed(text) + stripper.flush()


def _overlap(text: str, tag: str) -> int:
    """How many of the last characters of ``text`` could begin ``tag``."""
    return next(
        (n for n in range(min(len(text), len(tag) - 1), 0, -1) if text.endswith(tag[:n])), 0
    )
