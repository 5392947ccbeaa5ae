"""gunicorn's configuration for forward auth, from the service's settings."""

from __future__ import annotations

from typing import Any

from app.http import gunicorn_hooks
from app.http.concurrency import CONNECTIONS
from app.http.gunicorn_worker import listen_at
from app.process import scrape, shared_metrics
from app.process.logs import logging_config
from app.process.settings import Settings

_settings = Settings.from_env()

# Its answers hold agent secrets: locally it listens on loopback only, in a cluster network policies protect it.
bind = listen_at("127.0.0.1" if _settings.runtime == "local" else _settings.bind, _settings.forward_auth_port)
workers = _settings.forward_auth_workers
worker_class = "app.http.gunicorn_worker.ProblemWorker"
worker_connections = CONNECTIONS
# A sibling workspace can set cookies for the whole domain. With the usual 8 KiB they would lock the user out of all
# workspaces by a 431, so a header may be as long as the ingress takes: Traefik 1 MiB in all.
limit_request_field_size = 1_048_576
keepalive = 75
timeout = 30
graceful_timeout = 2
accesslog = None
logconfig_dict = logging_config(_settings.log_level)
control_socket_disable = True
# Where each worker counts.
pre_fork, post_fork, child_exit = shared_metrics.pre_fork, shared_metrics.post_fork, shared_metrics.child_exit
worker_exit = gunicorn_hooks.worker_exit


def on_starting(server: object) -> None:
    """Have the workers count together; called once, before a worker is started."""
    shared_metrics.begin(_settings.prometheus_multiproc_dir, shared_metrics.processes_of(workers))


def when_ready(server: object) -> None:
    """Serve the metrics from the main process, which answers no requests; called once."""
    scrape.serve(_settings, shared_metrics.shown())


def post_worker_init(worker: Any) -> None:
    """Called once in each process that serves."""
    gunicorn_hooks.serving(worker, "forward-auth", _settings)
