"""How gunicorn runs the gateway, from the same settings as everything else."""

from __future__ import annotations

import resource

from app.logs import logging_config
from app.settings import Settings
from app.threads import end_process_when_one_dies
from app.web_worker import listen_at, worker_for

_settings = Settings.from_env()

bind = listen_at(_settings.bind, _settings.gateway_port)
workers = _settings.gateway_workers
worker_class = worker_for(per_peer=_settings.gateway_connections_per_peer)
# Agents call every few moments, so theirs stay open between.
worker_connections = _settings.gateway_connections
keepalive = 75
# Of a worker's heartbeat, not of a request: one that waits for a model doesn't stop it.
timeout = 30
graceful_timeout = _settings.gateway_grace
# The app logs requests itself, with their ids; paths only, never bodies.
accesslog = None
logconfig_dict = logging_config(_settings.log_level)
# Nothing here uses it, and two services on one machine would share its path.
control_socket_disable = True

OPEN_FILES = 65_536
"""A stream takes three: the client, the model's API, Redis; and the usual limit of 1,024 is a soft one."""


def on_starting(server: object) -> None:
    """Allow what the settings promise; called once, before a worker is started."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def post_worker_init(worker: object) -> None:
    """Called once in each process that serves."""
    end_process_when_one_dies()
