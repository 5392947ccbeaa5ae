"""Starts download jobs: each serves one backup once, to the caller that has its secret."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from app.core.backups.store import session_of
from app.core.storage.archive_keys import NO_KEYS, ArchiveKeys
from app.process.settings import Settings
from workers.job.download_server import digest
from workers.runtime.kubernetes import job_access, job_objects, names
from workers.runtime.kubernetes.api_server import ApiServer
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.job_credentials import JobCredentials
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

    def __init__(self, config: KubernetesConfig, jobs: BackupJobs, keys: ArchiveKeys = NO_KEYS) -> None:
        self._config = config
        self._jobs = jobs
        self._keys = keys
        self._credentials = JobCredentials(config)

    def start(self, name: str) -> DownloadJob:
        """Start a download job for the backup `name`. The cluster learns only the digest of the secret."""
        secret, keys = secrets.token_urlsafe(SECRET_BYTES), self._keys.session(session_of(name))
        job = job_objects.download_job(names.download_job(), name, digest(secret), self._config, keyed=bool(keys))
        credential = self._credentials.issue(session_of(name), job_access.reading(name))
        return DownloadJob(job["metadata"]["name"], self._jobs.start(job, name, keys, credential), secret)

    def end(self, running: DownloadJob) -> None:
        """Delete a download job that nobody will call."""
        self._jobs.end(running.job)


def make(settings: Settings) -> DownloadJobs:
    """The download jobs of the settings' cluster. A pod may take as long to start as a caller waits."""
    cluster = ApiServer(settings.workspace_namespace)
    jobs = BackupJobs(cluster, settings.wait_default)
    return DownloadJobs(KubernetesConfig.of(settings), jobs, ArchiveKeys(settings.archive_key))
