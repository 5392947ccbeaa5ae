"""Celery's remote control, switched off.

By it anybody who may publish to one channel of Redis could end workers, take back their tasks and have them take
others'. So workers listen to none (`worker_enable_remote_control`), nobody may publish there (app/core/redis/users.py),
and nothing is sent: Flower, which would ask each worker about itself, shows what the workers' events say.
"""

from __future__ import annotations

from typing import Any

from celery.app.control import Control


class NoControl(Control):
    """Sends no command to any worker."""

    def broadcast(self, *args: Any, **options: Any) -> list[dict[str, Any]]:
        """The answers of no workers. An empty list would mean to Flower that asking failed."""
        return [{}]
