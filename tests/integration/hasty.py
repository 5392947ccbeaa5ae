"""The workers' Celery application, soon at the end of its patience: `celery -A tests.integration.hasty worker`."""

from __future__ import annotations

from pathlib import Path

from app.core.redis import task_queue
from workers.celery import liveness
from workers.celery.app import app, settings

__all__ = ["app"]

TIMEOUT = 2.0
"""s a Redis that hangs is waited for, so that a test sees many tries."""
TOUCH = "tests.touch"
"""A name of its own: of two tasks with one name, a worker takes the one that was registered first."""

task_queue.ROUTES = {**task_queue.ROUTES, TOUCH: "wake"}
app.conf.broker_transport_options = task_queue.transport_options(task_queue.visibility_timeout(settings), TIMEOUT)
liveness.STUCK = 3


@app.task(name=TOUCH, time_limit=60)
def touch(name: str) -> None:
    """Leaves a file, to show that it was carried out."""
    (Path(settings.data_dir) / name).touch()
