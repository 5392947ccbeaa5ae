"""gunicorn's configuration for web, from the service's settings."""

from __future__ import annotations

from typing import Any

from app.http import gunicorn_hooks
from app.http.concurrency import CONNECTIONS
from app.http.gunicorn_worker import listen_at
from app.process import shared_metrics
from app.process.logs import logging_config
from app.process.settings import Settings

_settings = Settings.from_env()

bind = listen_at(_settings.bind, _settings.port)
workers = _settings.web_workers
worker_class = "app.http.gunicorn_worker.ProblemWorker"
worker_connections = CONNECTIONS
# A proxy in front should close first.
keepalive = 75
# For a worker's heartbeat, not for a request: one that waits for a session does not block it.
timeout = 30
# Below the 4 s that scripts/run gives a process to end in: an event stream never ends by itself.
graceful_timeout = 3
# The app logs requests itself, with their ids.
accesslog = None
logconfig_dict = logging_config(_settings.log_level)
# Nothing here uses it, and two services on one machine would share its path.
control_socket_disable = True
# Where each worker counts.
pre_fork, post_fork, child_exit = shared_metrics.pre_fork, shared_metrics.post_fork, shared_metrics.child_exit
worker_exit = gunicorn_hooks.worker_exit


def on_starting(server: object) -> None:
    """Have the workers count together; called once, before a worker is started."""
    shared_metrics.begin(_settings.prometheus_multiproc_dir, shared_metrics.processes_of(workers))


def post_worker_init(worker: Any) -> None:
    """Called once in each process that serves."""
    gunicorn_hooks.serving(worker, "web", _settings)
