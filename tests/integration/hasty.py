"""The workers' Celery application, soon at the end of its patience: `celery -A tests.integration.hasty worker`."""

from __future__ import annotations

from pathlib import Path

from app.sessions import queue
from workers import pulse
from workers.celery_app import app, settings

__all__ = ["app"]

TIMEOUT = 2.0
"""s a Redis that hangs is waited for, so that a test sees many tries."""
TOUCH = "tests.touch"
"""A name of its own: of two tasks with one name, a worker takes the one that was registered first."""

app.conf.broker_transport_options = queue.transport_options(settings.visibility_timeout, TIMEOUT)
pulse.STUCK = 3


@app.task(name=TOUCH, time_limit=60)
def touch(name: str) -> None:
    """Leaves a file, to show that it was carried out."""
    (Path(settings.data_dir) / name).touch()
