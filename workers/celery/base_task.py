"""The base of all tasks: it continues the trace of the request behind a task, and an unexpected error leaves a task
without its text.

Celery writes the text of a task's exception, and a traceback with it, into its log, its events and its results. A
library may quote anything there: a path, a URL with a password, a line of a prompt.
"""

from __future__ import annotations

from typing import Any

from celery import Task
from celery.exceptions import SoftTimeLimitExceeded, TaskPredicate

from app.process import tracing
from app.process.logs import trace


class TaskFailed(Exception):
    """An error in a task: its type, and where it was raised."""


class SafeTask(Task):
    """A task whose errors become `TaskFailed`, unless its caller is no worker, as in a test. Celery's own stay."""

    def attempt(self, *args: Any, **kwargs: Any) -> Any:
        """Run the task; a subclass may handle errors of its own here."""
        return super().__call__(*args, **kwargs)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        try:
            with tracing.span(self.name, parent=self.request.get(tracing.HEADER) or "", kind="consumer"):
                return self.attempt(*args, **kwargs)
        except (TaskPredicate, SoftTimeLimitExceeded):
            raise
        except Exception as error:
            if self.request.called_directly:
                raise
            raise TaskFailed(trace(error)) from None
