"""Log lines to stderr: text for people, one JSON object a line for machines. Secrets are never passed to a log call."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


class TextLines(logging.Formatter):
    """One line a message: a line break inside a message (from data) cannot start a line of its own."""

    def format(self, record: logging.LogRecord) -> str:
        shown = super().format(record)
        if record.exc_info:
            return shown
        return shown.replace("\r", "\\r").replace("\n", "\\n")


def configure(level: str, form: str) -> None:
    """Set up the root logger of this process; libraries only speak up from `warning`."""
    handler = logging.StreamHandler(sys.stderr)
    text = TextLines("%(asctime)s %(levelname)-7s %(name)s: %(message)s", "%H:%M:%S")
    handler.setFormatter(JsonLines() if form == "json" else text)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for ours in ("app", "workers"):
        logging.getLogger(ours).setLevel(level.upper())
