"""The workers' Celery application with an intent that is one call of the cluster's API server, at FAKE_API:
`celery -A tests.integration.traced worker`.
"""

from __future__ import annotations

import os

from kubernetes import client

from app.core.sessions.model import Record
from workers.celery.app import app
from workers.lifecycle.steps import Steps
from workers.runtime.kubernetes.api_server import ApiServer

__all__ = ["app"]


def ask_the_cluster(self: Steps, record: Record) -> None:
    cluster = ApiServer("workspaces", 5.0, client.Configuration(host=os.environ["FAKE_API"]))
    assert cluster.get("deployments", f"user-{record.uuid}") is None


Steps.act = ask_the_cluster  # type: ignore[method-assign]
