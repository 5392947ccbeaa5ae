"""Starts download jobs: each serves one backup once, to the caller that has its secret."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from app.settings import Settings
from workers.download_server import digest
from workers.runtime.kubernetes import job_objects, names
from workers.runtime.kubernetes.api_server import ApiServer
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.jobs import BackupJobs

SECRET_BYTES = 32


@dataclass(frozen=True)
class DownloadJob:
    """A running download job: its Job, the address of its pod, and the secret for one download."""

    job: str
    host: str
    secret: str = field(repr=False)

    @property
    def answer(self) -> dict[str, Any]:
        """The reply to the RPC: what the caller needs to download."""
        return {"host": self.host, "port": job_objects.DOWNLOAD_PORT, "secret": self.secret}


class DownloadJobs:
    """The download jobs of one cluster. Raises `BackupNotFound` and `RetryableError`."""

    def __init__(self, config: KubernetesConfig, jobs: BackupJobs) -> None:
        self._config = config
        self._jobs = jobs

    def start(self, name: str) -> DownloadJob:
        """Start a download job for the backup `name`. The cluster learns only the digest of the secret."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        job = job_objects.download_job(names.download_job(), name, digest(secret), self._config)
        return DownloadJob(job["metadata"]["name"], self._jobs.start(job, name), secret)

    def end(self, running: DownloadJob) -> None:
        """Delete a download job that nobody will call."""
        self._jobs.end(running.job)


def make(settings: Settings) -> DownloadJobs:
    """The download jobs of the settings' cluster. A pod may take as long to start as a caller waits."""
    cluster = ApiServer(settings.workspace_namespace, settings.kube_timeout)
    return DownloadJobs(KubernetesConfig.of(settings), BackupJobs(cluster, settings.wait_default))
