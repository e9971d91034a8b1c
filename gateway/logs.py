"""How kiki logs: one line an event, with the request's id; never a key, nor a prompt unasked."""

from __future__ import annotations

import json
import logging
from datetime import UTC, datetime
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Literal

from gateway.access.visit import current_visit
from kiki.errors import SettingsError

LogFormat = Literal["text", "json"]
_TEXT = "%(asctime)s %(levelname)s %(name)s: [%(request_id)s] %(message)s"
_FILE_BYTES = 50_000_000
_FILES_KEPT = 7


def configure_logging(level: str, form: LogFormat = "text", file: Path | None = None) -> None:
    """Send our loggers, and the warnings of libraries, to stderr or to a file that turns over.

    Raises SettingsError for a file that can't be written.
    """
    handler = logging.StreamHandler() if file is None else _opened(file)
    handler.addFilter(_name_request)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter(_TEXT))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])
    logging.getLogger("kiki").setLevel(level.upper())


def _opened(file: Path) -> logging.Handler:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        return RotatingFileHandler(
            file, maxBytes=_FILE_BYTES, backupCount=_FILES_KEPT, encoding="utf-8"
        )
    except OSError as error:
        raise SettingsError(
            f"log_file = {str(file)!r} can't be written: {error.strerror}.",
            fix="Name another file, or leave it out to log to stderr.",
        ) from error


def _name_request(record: logging.LogRecord) -> bool:
    visit = current_visit.get()
    record.request_id = visit.request_id if visit else "-"
    return True


class TextFormatter(logging.Formatter):
    """One line a message, whatever it holds: a caller may write a line break into a path."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - logging's name
        record.message = record.message.replace("\n", "\\n").replace("\r", "\\r")
        return super().formatMessage(record)


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
