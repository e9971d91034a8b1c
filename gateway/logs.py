"""How kiki logs: one line an event, to stderr, with the request's id; never a key or a prompt."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from typing import Literal

from gateway.access.visit import current_visit

LogFormat = Literal["text", "json"]
_TEXT = "%(asctime)s %(levelname)s %(name)s: [%(request_id)s] %(message)s"


def configure_logging(level: str, form: LogFormat = "text") -> None:
    """Send our loggers, and the warnings of libraries, to stderr."""
    handler = logging.StreamHandler()
    handler.addFilter(_name_request)
    handler.setFormatter(JsonFormatter() if form == "json" else logging.Formatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("kiki").setLevel(level.upper())


def _name_request(record: logging.LogRecord) -> bool:
    visit = current_visit.get()
    record.request_id = visit.request_id if visit else "-"
    return True


class JsonFormatter(logging.Formatter):
    """One object a line; ``extra={"fields": {...}}`` of a call adds to it."""

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": getattr(record, "request_id", "-"),
            "message": record.getMessage(),
        }
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False, default=str)
