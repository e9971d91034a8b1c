"""How much a request may hold beside its bytes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from gateway.admission_settings import AdmissionSettings
from kiki.errors import TooLargeError

MOST_REPEATED = 2000
# What a regular expression is made of, as far as its length goes.
_PART = re.compile(
    r"(?P<open>\((?:\?(?::|=|!|<=|<!|P?<\w+>))?)|(?P<close>\))"
    r"|\{(?P<low>\d{1,9}),?(?P<high>\d{1,9})?\}|(?P<star>[*+?|^$])"
    r"|\[(?:\\.|[^\]\\])*\]|\\.|.",
    re.S,
)


def check_sizes(
    settings: AdmissionSettings,
    *,
    messages: int,
    tools: Sequence[object] = (),
    schemas: Mapping[str, object] | None = None,
) -> None:
    """Raises TooLargeError, naming the field. ``schemas`` are JSON schemas by the field that holds
    them; a tool is one too."""
    if messages > settings.max_messages:
        raise TooLargeError(
            f"{messages} messages; a request may have {settings.max_messages}.",
            param="messages",
            fix="Leave the oldest out.",
        )
    if len(tools) > settings.max_tools:
        raise TooLargeError(
            f"{len(tools)} tools; a request may have {settings.max_tools}.", param="tools"
        )
    named = {f"tools[{number}]": tool for number, tool in enumerate(tools)} | dict(schemas or {})
    for param, schema in named.items():
        if deeper_than(schema, settings.max_schema_depth):
            raise TooLargeError(
                f"The schema has over {settings.max_schema_depth} levels.", param=param
            )
        for pattern in _patterns(schema):
            if repeated(pattern) > MOST_REPEATED:
                raise TooLargeError(
                    f"The pattern {pattern[:80]!r} repeats up to {repeated(pattern)} parts; a "
                    f"pattern may repeat {MOST_REPEATED}.",
                    param=param,
                    fix="Nest no counted repetitions, or bound the length by maxLength.",
                )


def repeated(pattern: str) -> int:
    """How many parts a regular expression has once its counted repetitions are written out.

    An engine's grammar writes them out, and nested ones multiply: 100 of 100 stop it for minutes.
    """
    totals, last = [0], [0]
    for part in _PART.finditer(pattern):
        if part["open"]:
            totals.append(0)
            last.append(0)
        elif part["close"] and len(totals) > 1:
            inner = totals.pop() + last.pop()
            totals[-1] += last[-1]
            last[-1] = max(1, inner)
        elif part["low"]:
            last[-1] *= max(1, int(part["high"] or part["low"]))
        elif not part["star"]:
            totals[-1] += last[-1]
            last[-1] = 1
    return sum(totals) + sum(last)


def _patterns(schema: object) -> Iterator[str]:
    waiting = [schema]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Mapping):
            if isinstance(pattern := one.get("pattern"), str):
                yield pattern
            waiting.extend(one.values())
        elif isinstance(one, list):
            waiting.extend(one)


def deeper_than(value: object, levels: int) -> bool:
    """Whether objects and lists lie in each other more than ``levels`` deep."""
    layer = [value] if isinstance(value, Mapping | list) else []
    for _ in range(levels):
        layer = [
            inner
            for one in layer
            for inner in (one.values() if isinstance(one, Mapping) else one)
            if isinstance(inner, Mapping | list)
        ]
    return bool(layer)
