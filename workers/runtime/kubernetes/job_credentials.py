"""Gives each Job a credential of its own for an object store: for what it works on, and for as long as it may take."""

from __future__ import annotations

from app.core.storage.credential import Credential
from app.core.storage.object_stores import is_google
from workers.runtime.kubernetes import gs_credentials, s3_credentials
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.job_access import Access

MARGIN = 60
"""s beyond the Job's deadline: from here to its start, and between two clocks."""

SHORTEST = 900
"""s; STS gives no shorter ones."""


class JobCredentials:
    """The credentials by `BACKUP_ROLE`; none where that is empty: the backups are on a volume."""

    def __init__(self, config: KubernetesConfig) -> None:
        self._config = config

    def issue(self, uuid: str, access: Access) -> Credential | None:
        """One for a Job that works for this session. Raises `RetryableError` when the cloud does not answer,
        `ArchiveError` when it refuses."""
        if not (role := self._config.backup_role):
            return None
        bucket, _, root = self._config.backup_url.partition("://")[2].strip("/").partition("/")
        duration = min(max(self._config.job_deadline + MARGIN, SHORTEST), self._config.backup_role_limit)
        if is_google(self._config.backup_url):
            return gs_credentials.issue(role, bucket, root, access, duration)
        return s3_credentials.issue(role, bucket, root, f"session-{uuid}", access, duration)
