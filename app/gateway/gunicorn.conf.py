"""gunicorn's configuration for the gateway, from the service's settings."""

from __future__ import annotations

import resource
from typing import Any

from app.http import gunicorn_hooks
from app.http.concurrency import CONNECTIONS
from app.http.gunicorn_worker import listen_at, worker_for
from app.process import scrape, shared_metrics
from app.process.logs import logging_config
from app.process.settings import Settings

_settings = Settings.from_env()

bind = listen_at(_settings.bind, _settings.gateway_port)
workers = _settings.gateway_workers
worker_class = worker_for(per_peer=_settings.gateway_connections_per_peer)
# Agents call every few moments, so their connections stay open.
worker_connections = CONNECTIONS
keepalive = 75
# For a worker's heartbeat, not for a request: one that waits for a model does not block it.
timeout = 30
graceful_timeout = _settings.gateway_grace
# The app logs requests itself, with their ids; paths only, never bodies.
accesslog = None
logconfig_dict = logging_config(_settings.log_level)
# Nothing here uses it, and two services on one machine would share its path.
control_socket_disable = True
# Where each worker counts.
pre_fork, post_fork, child_exit = shared_metrics.pre_fork, shared_metrics.post_fork, shared_metrics.child_exit
worker_exit = gunicorn_hooks.worker_exit

OPEN_FILES = 65_536
"""A stream takes three: client, model's API, Redis; the usual soft limit is 1,024."""


def on_starting(server: object) -> None:
    """Raise the limit of open files, and share metrics; called once, before a worker is started."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
    shared_metrics.begin(_settings.prometheus_multiproc_dir, shared_metrics.processes_of(workers))


def when_ready(server: object) -> None:
    """Serve the metrics from the main process, which answers no requests; called once."""
    scrape.serve(_settings, shared_metrics.shown())


def post_worker_init(worker: Any) -> None:
    """Called once in each process that serves."""
    # The main process has no use for what this imports.
    from app.gateway import model_check

    gunicorn_hooks.serving(worker, "gateway", _settings, also=model_check.of_app(worker.wsgi).look)
