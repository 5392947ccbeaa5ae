"""How every process of the service logs: one JSON object a line, each with the id of the request behind it.

The web process sets `request_id` for each request, a worker for each task (from the task's header), so
that one search finds everything a call led to.
"""

from __future__ import annotations

import logging
import logging.config
from contextvars import ContextVar
from typing import Any

request_id: ContextVar[str] = ContextVar("request_id", default="")
"""The id of the request this thread is working for, "" outside of one."""


class RequestIdFilter(logging.Filter):
    """Puts the current request's id on every line that doesn't carry one."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not getattr(record, "request_id", ""):
            record.request_id = request_id.get()
        return True


def logging_config(level: str) -> dict[str, Any]:
    """The set-up as `logging.config.dictConfig` takes it (gunicorn does so too); lines go to stderr."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"request_id": {"()": "app.logs.RequestIdFilter"}},
        "formatters": {
            "json": {
                "()": "pythonjsonlogger.json.JsonFormatter",
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
            # gunicorn gives its loggers handlers of its own; here they use the one above.
            "gunicorn.error": {"level": level.upper(), "handlers": [], "propagate": True},
            # The app logs requests itself, with their ids.
            "gunicorn.access": {"level": "WARNING", "handlers": [], "propagate": True},
            # However little else is logged: what Redis forgets of the audit is here.
            "app.audit": {"level": "INFO"},
            # Says at INFO what the 429 says already, client address included.
            "flask-limiter": {"level": "WARNING"},
        },
    }


def configure(level: str) -> None:
    """Log as JSON to stderr from now on. Call it once, at the start of a process."""
    logging.config.dictConfig(logging_config(level))
