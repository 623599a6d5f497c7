"""Structured logs: one JSON object a line on stderr. No line carries an API key, whoever wrote it."""

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import orjson

SECRETS = re.compile(r"(?i)\b(bearer\s+|x-api-key\W{1,4})[^\s\"',;]+|\bpymk_[A-Za-z0-9_\-.]{8,}")
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName", "color_message"}


def without_secrets(text: str) -> str:
    return SECRETS.sub(lambda found: f"{found[1] or ''}[key]", text)


class JsonLines(logging.Formatter):
    """time, level, logger, process and message, then whatever the caller gave as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "process": record.process,
            "message": record.getMessage(),
        }
        fields |= {name: value for name, value in vars(record).items() if name not in STANDARD}
        if record.exc_info:
            fields["trace"] = self.formatException(record.exc_info)
        return without_secrets(orjson.dumps(fields, default=str).decode())


class PlainLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)s %(name)s: %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return without_secrets(super().format(record))


def configure(lines: str, replace: bool = True) -> None:
    """lines: json, text or auto. replace: take the place of handlers that were there before."""
    logging.getLogger("lookup_api").setLevel(logging.INFO)
    handler = logging.StreamHandler(sys.stderr)
    plain = lines == "text" or (lines == "auto" and sys.stderr.isatty())
    handler.setFormatter(PlainLines() if plain else JsonLines())
    root = logging.getLogger()
    if replace or not root.handlers:
        root.setLevel(logging.WARNING)
        root.handlers = [handler]


class Sparing:
    """Logs at most `most` lines a second, and says how many were left out: callers decide how many there are."""

    def __init__(self, log: logging.Logger, most: int = 10, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._most = most
        self._clock = clock
        self._lock = threading.Lock()
        self._second = 0
        self._written = self._left_out = 0

    def warning(self, message: str, **extra: Any) -> None:
        self._write(logging.WARNING, message, extra)

    def info(self, message: str, **extra: Any) -> None:
        self._write(logging.INFO, message, extra)

    def _write(self, level: int, message: str, extra: dict[str, Any]) -> None:
        with self._lock:
            second = int(self._clock())
            left_out = 0
            if second != self._second:
                left_out, self._second, self._written, self._left_out = self._left_out, second, 0, 0
            self._written += 1
            if self._written > self._most:
                self._left_out += 1
                return
        if left_out:
            extra["left_out"] = left_out
        self._log.log(level, message, extra=extra)
