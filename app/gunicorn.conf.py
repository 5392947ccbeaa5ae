"""How gunicorn runs the web process, from the same settings as everything else."""

from __future__ import annotations

from app.logs import logging_config
from app.settings import Settings
from app.threads import end_process_when_one_dies
from app.web_worker import listen_at

_settings = Settings.from_env()

bind = listen_at(_settings.bind, _settings.port)
workers = _settings.web_workers
worker_class = "app.web_worker.ProblemWorker"
worker_connections = _settings.web_connections
# A proxy in front should close first.
keepalive = 75
# Of a worker's heartbeat, not of a request: one that waits for a session doesn't stop it.
timeout = 30
# Below the 4 s that scripts/respawn gives a process to end in: an event stream never ends by itself.
graceful_timeout = 3
# The app logs requests itself, with their ids.
accesslog = None
logconfig_dict = logging_config(_settings.log_level)
# Nothing here uses it, and two services on one machine would share its path.
control_socket_disable = True


def post_worker_init(worker: object) -> None:
    """Called once in each process that serves."""
    end_process_when_one_dies()
