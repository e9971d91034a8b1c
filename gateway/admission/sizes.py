"""How much a request may hold beside its bytes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gateway.admission_settings import AdmissionSettings
from kiki.errors import TooLargeError


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
