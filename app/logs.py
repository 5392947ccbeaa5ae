"""How every process of the service logs: one JSON object a line, with the id of the request that led to it.

The web process sets `request_id` for each request, a worker for each task (from the task's header), so
that one search finds everything a call led to.
"""

from __future__ import annotations

import logging
import logging.config
import time
from contextvars import ContextVar
from typing import Any

from pythonjsonlogger.json import JsonFormatter

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request this thread works for, "" for none."""


class RequestIdFilter(logging.Filter):
    """Adds the current request's id to every line that has none."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "request_id", ""):
            record.request_id = request_id.get()
        return True


class UtcJsonFormatter(JsonFormatter):
    """JSON lines with times in ISO 8601 UTC, as `2026-11-22T03:11:31.123Z`."""

    converter = time.gmtime  # type: ignore[assignment]
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"


def logging_config(level: str) -> dict[str, Any]:
    """The settings for `logging.config.dictConfig`, which gunicorn uses too; lines go to stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": "app.logs.RequestIdFilter"}},
        "formatters": {
            "json": {
                "()": "app.logs.UtcJsonFormatter",
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
            "gunicorn.error": {"level": level.upper(), "handlers": [], "propagate": True},
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
