"""Runs an archive Job in the cluster and brings back what came of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

from app.sessions.errors import RetryableError, SessionError
from workers.archive_job import read_outcome
from workers.runtime import job_objects, names, views
from workers.runtime.base import BackupSummary, Check, never
from workers.runtime.cluster import Cluster, Conflict, timestamp, wait_for

log = logging.getLogger(__name__)

Object = dict[str, Any]

POLL = 0.3
"""s between two looks at a Job; it takes 1.5 at least, most of it to start."""

BEGIN_TRIES = 3

MARGIN = 30.0
"""s beyond the Job's own deadline until we give up on it: the cluster ends it, then says so."""


END_LIMIT = job_objects.ARCHIVE_GRACE + 10.0
"""s for the pod of a Job that is broken off to be gone."""


class ArchiveJobs:
    """The archive Jobs of one cluster. `patience` (s) is what a pod may take to start;
    `clock` gives seconds since the epoch."""

    def __init__(self, cluster: Cluster, patience: float, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._patience = patience
        self._clock = clock

    def run(self, job: Object, backup: str, check: Check = never) -> BackupSummary | None:
        """Run the Job, or go on with one of the same name that runs already, until it ends; it is deleted
        then. Raises what the Job raised, `RetryableError` when it came to no end, and what `check` does, with the Job
        and its pod gone."""
        name = job["metadata"]["name"]
        uid = self._begin(job)
        deadline = time.monotonic() + job["spec"]["activeDeadlineSeconds"] + MARGIN
        while time.monotonic() < deadline:
            self._go_on(name, uid, check)
            message = self._message(name, self._pods(uid))
            if message is not None:
                self._cluster.delete("jobs", name)
                return read_outcome(message, backup)
            time.sleep(POLL)
        self._cluster.delete("jobs", name)
        raise RetryableError(f"The archive Job of {backup} did not end in time.")

    def _begin(self, job: Object) -> str:
        """The uid of the Job, which is made now or runs already."""
        name = job["metadata"]["name"]
        for _ in range(BEGIN_TRIES):
            try:
                return str(self._cluster.create("jobs", job)["metadata"]["uid"])
            except Conflict:
                running = self._cluster.get("jobs", name)
            if running is not None:
                log.info("going on with the Job %s", name)
                return str(running["metadata"]["uid"])
        raise RetryableError(f"The Job {name} is deleted again and again.")

    def _go_on(self, name: str, uid: str, check: Check) -> None:
        """Break the Job off when it is no longer wanted: its pod is told to end, and takes back what it did."""
        try:
            check()
        except SessionError:
            # Foreground: no pod is made for it any more, and it is there for as long as one may still be.
            self._cluster.delete("jobs", name, propagation="Foreground")
            try:
                wait_for(lambda: self._ended(name, uid), END_LIMIT, f"The pod of the Job {name} did not end", POLL)
            except RetryableError as error:
                log.warning("left to end by itself: %s", error)
            raise

    def _ended(self, name: str, uid: str) -> bool:
        """Whether nothing is left of a Job that is being deleted; its pod is told to end."""
        pods = self._pods(uid)
        self._end_pods(pods)
        job = None if pods else self._cluster.get("jobs", name)
        return not pods and (job is None or job["metadata"]["uid"] != uid)

    def _end_pods(self, pods: list[Object]) -> None:
        """Delete them now: the garbage collector leaves a pod a second, in which it may begin and even end its work."""
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                self._cluster.delete("pods", pod["metadata"]["name"])

    def start(self, job: Object, backup: str) -> str:
        """Start a Job that goes on by itself, and answer its pod's address once that runs. Raises what the Job raised
        when it ended first, and `RetryableError` when its pod did not start."""
        name = job["metadata"]["name"]
        uid = self._begin(job)
        deadline = time.monotonic() + self._patience
        try:
            while time.monotonic() < deadline:
                pods = self._pods(uid)
                if address := next(filter(None, map(_address, pods)), ""):
                    return address
                if (message := self._message(name, pods)) is not None:
                    read_outcome(message, backup)
                    break
                time.sleep(POLL)
            raise RetryableError(f"The reader of {backup} did not start.")
        except SessionError:
            self.end(name)
            raise

    def end(self, name: str) -> None:
        """Delete a Job, whatever it is at."""
        self._cluster.delete("jobs", name)

    def remove(self, uuid: str) -> None:
        """Delete the session's Jobs, finished or not."""
        for job in self._cluster.list("jobs", names.selector(uuid, names.ARCHIVE))[0]:
            self._cluster.delete("jobs", job["metadata"]["name"])
        self._end_pods(self._cluster.list("pods", names.selector(uuid, names.ARCHIVE))[0])

    def end_others(self, uuid: str, own: Object) -> None:
        """Delete the session's Jobs that do the same as `own` for another backup. Only one worker at a time may run
        such a Job: whoever ran these was killed."""
        action = own["metadata"]["name"].partition("-")[0]
        for job in self._cluster.list("jobs", names.selector(uuid, names.ARCHIVE))[0]:
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            if name != own["metadata"]["name"] and name.startswith(f"{action}-"):
                log.warning("ending the Job %s, which nobody waits for", name, extra={"uuid": uuid})
                self._cluster.delete("jobs", name)
                self._end_pods(self._pods(uid))

    def _pods(self, uid: str) -> list[Object]:
        """The Job's own: the pod of one that had its name before may still be there, with what came of that."""
        return self._cluster.list("pods", f"batch.kubernetes.io/controller-uid={uid}")[0]

    def _message(self, name: str, pods: list[Object]) -> str | None:
        """What the Job's pod left behind, None while it is at it."""
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
        if problem is not None and self._clock() - created > self._patience:
            self._cluster.delete("jobs", name)
            raise RetryableError(f"The archive Job did not start. {problem.text}")


def _address(pod: Object) -> str:
    """Where a pod that runs is to be found, "" when it does not."""
    status = pod.get("status") or {}
    running = any("running" in (each.get("state") or {}) for each in status.get("containerStatuses") or [])
    return str(status.get("podIP") or "") if running else ""


def _terminated(pod: Object) -> str | None:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        if (end := (container.get("state") or {}).get("terminated")) is not None:
            return str(end.get("message") or f"it ended with status {end.get('exitCode')} ({end.get('reason')})")
    if status.get("phase") in ("Failed", "Succeeded"):
        return str(status.get("message") or status.get("reason") or "its pod is gone")
    return None
