"""Where a text is prose, and what in it must never change."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE_END = r"\n {0,3}\1[`~]*[ \t]*$"
_FENCE = re.compile(
    rf"^ {{0,3}}(```+|~~~+)[^\n]*(?:(?!{_FENCE_END})\n[^\n]*)*(?:{_FENCE_END})?", re.MULTILINE
)
_INLINE = re.compile(r"(?<!`)(`+)(?!`)[^`\n]+?\1(?!`)")
_URL = re.compile(r"\b(?:[a-z][a-z0-9+.-]*://|www\.)[^\s<>()\"']+", re.I)
_NUMBER = re.compile(r"(?<!\w)[-+]?\d[\d.,:/]*\d|\d")
_PARAGRAPH = re.compile(r"[^\n]+(?:\n(?!\s*\n)[^\n]+)*")


@dataclass(frozen=True, slots=True)
class Span:
    """A part of a text: ``text[start:end]``."""

    start: int
    end: int

    def of(self, text: str) -> str:
        return text[self.start : self.end]


def fixed_spans(text: str) -> tuple[Span, ...]:
    """Code, JSON and URLs, in order and apart from each other."""
    spans = [Span(*match.span()) for match in _FENCE.finditer(text)]
    spans += _json_spans(text)
    spans += [Span(*match.span()) for match in _INLINE.finditer(text)]
    spans += [Span(*match.span()) for match in _URL.finditer(text)]
    apart: list[Span] = []
    for span in sorted(spans, key=lambda span: (span.start, -span.end)):
        if not apart or span.start >= apart[-1].end:
            apart.append(span)
    return tuple(apart)


def fixed_content(text: str) -> Counter[str]:
    """What a revision must keep as it is: code, JSON, URLs, and the numbers of the prose."""
    spans = fixed_spans(text)
    kept = Counter(span.of(text) for span in spans)
    kept.update(_NUMBER.findall(blank(text, spans)))
    return kept


def blank(text: str, spans: tuple[Span, ...]) -> str:
    """The text with the spans as spaces, so that places stay the same."""
    for span in spans:
        text = text[: span.start] + " " * (span.end - span.start) + text[span.end :]
    return text


def sentences(prose: str) -> Iterator[Span]:
    """The sentences of a text whose fixed spans are blank, without white space around them."""
    start = 0
    for match in re.finditer(r"(?<=[.!?])[\"'”»)]*\s+|\s{3,}|\n", prose):
        yield from _trimmed(prose, start, match.start())
        start = match.end()
    yield from _trimmed(prose, start, len(prose))


def paragraph_around(text: str, span: Span) -> Span | None:
    """The paragraph that holds the span and no block of code or JSON, else None."""
    blocks = [fixed for fixed in fixed_spans(text) if "\n" in fixed.of(text)]
    prose = blank(text, tuple(blocks))
    for match in _PARAGRAPH.finditer(prose):
        for found in _trimmed(prose, *match.span()):
            if found.start <= span.start and span.end <= found.end:
                return found
    return None


def _trimmed(text: str, start: int, end: int) -> Iterator[Span]:
    part = text[start:end]
    if stripped := part.strip():
        begin = start + part.index(stripped)
        yield Span(begin, begin + len(stripped))


def _json_spans(text: str) -> list[Span]:
    decoder = json.JSONDecoder()
    spans: list[Span] = []
    position = 0
    while match := re.compile(r"[{\[]").search(text, position):
        try:
            _, end = decoder.raw_decode(text, match.start())
        except (ValueError, RecursionError):
            position = match.end()
            continue
        spans.append(Span(match.start(), end))
        position = end
    return spans
