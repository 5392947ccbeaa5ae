"""Runs an archive Job in the cluster and brings back what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from app.sessions.errors import RetryableError
from workers.archive_job import read_outcome
from workers.runtime import names, views
from workers.runtime.base import BackupSummary
from workers.runtime.cluster import Cluster, Conflict, timestamp

log = logging.getLogger(__name__)

Object = dict[str, Any]

POLL = 0.3
"""s between two looks at a Job; it takes 1.5 at least, most of it to start."""

MARGIN = 30.0
"""s beyond the Job's own deadline until we give up on it: the cluster ends it, then says so."""


class ArchiveJobs:
    """The archive Jobs of one cluster. `start_timeout` (s) is what a pod may take to start;
    `clock` gives seconds since the epoch."""

    def __init__(self, cluster: Cluster, start_timeout: float, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._start_timeout = start_timeout
        self._clock = clock

    def run(self, job: Object, backup: str) -> BackupSummary | None:
        """Run the Job, or go on with one of the same name that runs already, until it ends; it is deleted
        then. Raises what the Job raised, and `RetryableError` when it came to no end."""
        name = job["metadata"]["name"]
        try:
            self._cluster.create("jobs", job)
        except Conflict:
            log.info("going on with the Job %s", name)
        deadline = time.monotonic() + job["spec"]["activeDeadlineSeconds"] + MARGIN
        while time.monotonic() < deadline:
            message = self._message(name)
            if message is not None:
                self._cluster.delete("jobs", name)
                return read_outcome(message, backup)
            time.sleep(POLL)
        self._cluster.delete("jobs", name)
        raise RetryableError(f"The archive Job of {backup} did not end in time.")

    def remove(self, uuid: str) -> None:
        """Delete the session's Jobs, finished or not."""
        for job in self._cluster.list("jobs", names.selector(uuid, names.ARCHIVE))[0]:
            self._cluster.delete("jobs", job["metadata"]["name"])

    def _message(self, name: str) -> str | None:
        """What the Job's pod left behind, None while it is at it."""
        pods, _ = self._cluster.list("pods", f"batch.kubernetes.io/job-name={name}")
        for pod in pods:
            if (ended := _terminated(pod)) is not None:
                return ended
            self._check_start(pod, name)
        if pods:
            return None
        job = self._cluster.get("jobs", name)
        if job is None:
            raise RetryableError("The archive Job was deleted by someone else.")
        for condition in (job.get("status") or {}).get("conditions") or []:
            if condition["type"] in ("Failed", "FailureTarget") and condition["status"] == "True":
                return str(condition.get("message") or condition.get("reason"))
        return None

    def _check_start(self, pod: Object, name: str) -> None:
        """Give up on a pod that doesn't start: it will go on trying for as long as its Job may take."""
        problem = views.pod_problem(pod)
        created = timestamp(pod["metadata"].get("creationTimestamp"))
        if problem is not None and self._clock() - created > self._start_timeout:
            self._cluster.delete("jobs", name)
            raise RetryableError(f"The archive Job did not start. {problem.text}")


def _terminated(pod: Object) -> str | None:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        if (end := (container.get("state") or {}).get("terminated")) is not None:
            return str(end.get("message") or f"it ended with status {end.get('exitCode')} ({end.get('reason')})")
    if status.get("phase") in ("Failed", "Succeeded"):
        return str(status.get("message") or status.get("reason") or "its pod is gone")
    return None
