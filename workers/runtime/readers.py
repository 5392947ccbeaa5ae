"""Starts the short-lived readers of backups: a Job each, that hands one backup to the one who has its secret."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import Any

from app.settings import Settings
from workers.backup_reader import digest
from workers.runtime import job_objects, names
from workers.runtime.choices import Choices
from workers.runtime.cluster import Cluster
from workers.runtime.jobs import ArchiveJobs

SECRET_BYTES = 32


@dataclass(frozen=True)
class Reader:
    """A reader that runs: its Job, its pod's address, and the secret that opens it, once."""

    job: str
    host: str
    secret: str = field(repr=False)

    @property
    def answer(self) -> dict[str, Any]:
        """What its caller must know."""
        return {"host": self.host, "port": job_objects.READER_PORT, "secret": self.secret}


class Readers:
    """The readers of one cluster. Raises `BackupNotFound` and `RetryableError`."""

    def __init__(self, choices: Choices, jobs: ArchiveJobs) -> None:
        self._choices = choices
        self._jobs = jobs

    def start(self, name: str) -> Reader:
        """A new reader of the backup `name`. The cluster learns the secret's digest only."""
        secret = secrets.token_urlsafe(SECRET_BYTES)
        job = job_objects.reader_job(names.reader_job(), name, digest(secret), self._choices)
        return Reader(job["metadata"]["name"], self._jobs.start(job, name), secret)

    def end(self, reader: Reader) -> None:
        """Take away one that nobody will call."""
        self._jobs.end(reader.job)


def make(settings: Settings) -> Readers:
    """Those of the settings' cluster; a pod may take as long to start as a caller waits for it."""
    cluster = Cluster(settings.workspace_namespace, settings.kube_timeout)
    return Readers(Choices.of(settings), ArchiveJobs(cluster, settings.wait_default))
