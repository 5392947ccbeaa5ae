"""The workers' Celery application with tasks that go wrong: `celery -A tests.integration.poison worker`.

POISON says how: `killed` ends the worker's process at once, `busy` fails in a way that is worth a retry,
`bug` raises what nobody expected, `no redis` and `no runtime` meet one that is away.
"""

from __future__ import annotations

import os
import signal

from app.core.errors import RetryableError, RuntimeUnavailable, StateUnavailable
from app.core.sessions.model import Record
from workers.celery.app import app
from workers.lifecycle.steps import Steps

__all__ = ["app"]


def go_wrong(self: Steps, record: Record) -> None:
    match os.environ["POISON"]:
        case "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        case "busy":
            raise RetryableError("The runtime is busy.")
        case "bug":
            raise ZeroDivisionError("a secret may stand here")
        case "no redis":
            raise StateUnavailable("The state store can't be reached.")
        case "no runtime":
            raise RuntimeUnavailable("The API server can't be reached.")


Steps.act = go_wrong  # type: ignore[method-assign]
