"""One line a request and a few about the server itself, as JSON or text, to standard error.

A line has the route's template, never the path or the query; who asked, never with what; sizes, never contents.
"""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any, TextIO

from llmartifacts.records.rights import TOKEN_PATTERN

_PRINTED = ("time", "level", "event")


class Log:
    """Writes lines.

    Args:
        form: `json` or `text`.
        stream: Where to; standard error by default.
    """

    def __init__(self, form: str = "text", stream: TextIO | None = None) -> None:
        self.json = form == "json"
        self._stream = stream

    def event(self, event: str, level: str = "info", **fields: Any) -> None:
        """Write one line. Empty fields are left out."""
        entry = {"time": _now(), "level": level, "event": event}
        entry |= {key: value for key, value in fields.items() if value not in ("", None)}
        stream = self._stream or sys.stderr
        try:
            stream.write((json.dumps(entry, ensure_ascii=True) if self.json else _text(entry)) + "\n")
            stream.flush()
        except (OSError, ValueError):  # whoever reads the log is gone; the service is not
            pass


class Handler(logging.Handler):
    """Hands what libraries log to a `Log`, without tokens."""

    def __init__(self, log: Log) -> None:
        super().__init__(logging.WARNING)
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        told = without_tokens(record.getMessage())
        trace = without_tokens(logging.Formatter().formatException(record.exc_info)) if record.exc_info else ""
        self._log.event("library", record.levelname.lower(), logger=record.name, message=told, traceback=trace)


def without_tokens(text: str) -> str:
    """The text with every token in it made unreadable."""
    import re

    return re.sub(TOKEN_PATTERN, "lla_…", text)


def _now() -> str:
    now = time.time()
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now * 1000) % 1000:03d}Z"


def _text(entry: dict[str, Any]) -> str:
    rest = " ".join(f"{key}={_shown(value)}" for key, value in entry.items() if key not in _PRINTED)
    return f"{entry['time']} {entry['level']:<7} {entry['event']} {rest}".rstrip()


def _shown(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    plain = text.isascii() and text.isprintable() and not any(c in text for c in ' "=')
    return text if plain else json.dumps(text, ensure_ascii=True)
