"""How every process of the service logs: one JSON object a line, with the id of the request that led to it.

The web process sets `request_id` for each request, a worker for each task (from the task's header), so
that one search finds everything a call led to.

No line holds a text of a user. The formatter leaves out what `app.process.private_text` marks, and the texts of
exceptions, as a library may quote anything in one: a prompt, a key, a path.
"""

from __future__ import annotations

import logging
import logging.config
import os
import time
import traceback
from contextvars import ContextVar
from pathlib import PurePath
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from app.process.private_text import all_without_private

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request this thread works for, "" for none."""


class RequestIdFilter(logging.Filter):
    """Adds the current request's id to every line that has none."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "request_id", ""):
            record.request_id = request_id.get()
        return True


class UtcJsonFormatter(JsonFormatter):
    """JSON lines with times in ISO 8601 UTC, as `2026-11-22T03:11:31.123Z`, and without private texts."""

    converter = time.gmtime  # type: ignore[assignment]
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatException(self, ei: Any) -> str:
        return trace(ei[1], ei[2])

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {name: all_without_private(value) for name, value in log_data.items()}


CAUSES, FRAMES = 5, 30
"""How many exceptions of a chain, and the innermost frames of each, a line shows."""


def trace(error: BaseException | None, frames: Any = None) -> str:
    """An exception and its causes, each with its type, the system's reason and the places it passed, without its text.
    `frames` are those of the first, by default its own."""
    lines: list[str] = []
    for _ in range(CAUSES):
        if error is None:
            break
        number = getattr(error, "errno", None)
        reason = f" ({os.strerror(number)})" if isinstance(error, OSError) and isinstance(number, int) else ""
        lines.append(f"{'caused by ' if lines else ''}{type(error).__module__}.{type(error).__qualname__}{reason}")
        for frame in traceback.extract_tb(frames or error.__traceback__)[-FRAMES:]:
            lines.append(f"  {'/'.join(PurePath(frame.filename).parts[-3:])}:{frame.lineno} in {frame.name}")
        error, frames = error.__cause__ or (None if error.__suppress_context__ else error.__context__), None
    return "\n".join(lines)


def at_least_info(level: str) -> str:
    """`level`, or INFO if that is DEBUG."""
    return "INFO" if level.upper() == "DEBUG" else level.upper()


def logging_config(level: str) -> dict[str, Any]:
    """The settings for `logging.config.dictConfig`, which gunicorn uses too; lines go to stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": "app.process.logs.RequestIdFilter"}},
        "formatters": {
            "json": {
                "()": "app.process.logs.UtcJsonFormatter",
                "format": "%(asctime)s %(levelname)s %(name)s %(process)d %(request_id)s %(message)s",
                "rename_fields": {"asctime": "time", "levelname": "level", "name": "logger", "process": "pid"},
            }
        },
        "handlers": {
            "stderr": {
                "class": "logging.StreamHandler",
                "stream": "ext://sys.stderr",
                "formatter": "json",
                "filters": ["request_id"],
            }
        },
        "root": {"level": level.upper(), "handlers": ["stderr"]},
        "loggers": {
            # gunicorn would add handlers of its own; here its loggers use the one above.
            # At DEBUG it would log the path of each request.
            "gunicorn.error": {"level": at_least_info(level), "handlers": [], "propagate": True},
            # The app logs requests itself, with their ids.
            "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
            # At any LOG_LEVEL: the log keeps the audit's entries that Redis drops.
            "app.audit": {"level": "INFO"},
            # At INFO it repeats each 429, with the client's address.
            "flask-limiter": {"level": "WARNING"},
        },
    }


def configure(level: str) -> None:
    """Log as JSON to stderr. Call this once, at the start of a process."""
    logging.config.dictConfig(logging_config(level))
