"""Runs backup and restore Jobs in the cluster and returns their results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from app.core.errors import RetryableError, SessionError
from workers.backup_job import read_outcome
from workers.runtime.base import BackupSummary, Check, never
from workers.runtime.kubernetes import job_objects, names, status
from workers.runtime.kubernetes.api_server import ApiServer, Conflict, timestamp, wait_for
from workers.runtime.kubernetes.names import Object

log = logging.getLogger(__name__)

POLL = 0.3
"""s between two looks at a Job, which takes 1.5 s at least."""

BEGIN_TRIES = 3

MARGIN = 30.0
"""s beyond the Job's own deadline until it is given up: the cluster ends it first, and says so."""

END_LIMIT = job_objects.BACKUP_GRACE + 10.0
"""s that the pod of a cancelled Job has to end."""


class BackupJobs:
    """The Jobs of one cluster that work on backups. `patience` (s) is how long a pod may take to start; `clock` returns
    seconds since the epoch."""

    def __init__(self, cluster: ApiServer, patience: float, clock: Callable[[], float] = time.time) -> None:
        self._cluster = cluster
        self._patience = patience
        self._clock = clock

    def run(self, job: Object, backup: str, check: Check = never) -> BackupSummary | None:
        """Run the Job, or join one of the same name that runs already, until it ends; then delete it. Raises the Job's
        error, `RetryableError` when it does not end, and what `check` raises, after the Job and its pod are gone."""
        name = job["metadata"]["name"]
        uid = self._begin(job)
        deadline = time.monotonic() + job["spec"]["activeDeadlineSeconds"] + MARGIN
        while time.monotonic() < deadline:
            self._cancel_unless_wanted(name, uid, check)
            message = self._message(name, self._pods(uid))
            if message is not None:
                self._cluster.delete("jobs", name)
                return read_outcome(message, backup)
            time.sleep(POLL)
        self._cluster.delete("jobs", name)
        raise RetryableError(f"The Job of {backup} did not end in time.")

    def _begin(self, job: Object) -> str:
        """Create the Job unless it runs already; its uid."""
        name = job["metadata"]["name"]
        for _ in range(BEGIN_TRIES):
            try:
                return str(self._cluster.create("jobs", job)["metadata"]["uid"])
            except Conflict:
                running = self._cluster.get("jobs", name)
            if running is not None:
                log.info("joining the running Job %s", name)
                return str(running["metadata"]["uid"])
        raise RetryableError(f"Something keeps deleting the Job {name}.")

    def _cancel_unless_wanted(self, name: str, uid: str, check: Check) -> None:
        """Cancel the Job when `check` raises: its pod gets SIGTERM, and undoes its work."""
        try:
            check()
        except SessionError:
            # Foreground: no new pod is created, and the Job exists as long as one of its pods may.
            self._cluster.delete("jobs", name, propagation="Foreground")
            try:
                wait_for(lambda: self._ended(name, uid), END_LIMIT, f"The pod of the Job {name} did not end", POLL)
            except RetryableError as error:
                log.warning("not waiting any longer for a cancelled Job: %s", error)
            raise

    def _ended(self, name: str, uid: str) -> bool:
        """Delete the pods of a Job that is being deleted; whether Job and pods are gone."""
        pods = self._pods(uid)
        self._end_pods(pods)
        job = None if pods else self._cluster.get("jobs", name)
        return not pods and (job is None or job["metadata"]["uid"] != uid)

    def _end_pods(self, pods: list[Object]) -> None:
        """Delete the pods at once: the garbage collector takes a second, in which a pod may do its whole work."""
        for pod in pods:
            if "deletionTimestamp" not in pod["metadata"]:
                self._cluster.delete("pods", pod["metadata"]["name"])

    def start(self, job: Object, backup: str) -> str:
        """Start a Job without waiting for its end; returns the address of its pod once that runs. Raises the Job's
        error if it ends before, and `RetryableError` when its pod does not start."""
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
            raise RetryableError(f"The download job of {backup} did not start in time; try again.")
        except SessionError:
            self.end(name)
            raise

    def end(self, name: str) -> None:
        """Delete a Job, running or not."""
        self._cluster.delete("jobs", name)

    def remove(self, uuid: str) -> None:
        """Delete the session's Jobs, running or not."""
        for job in self._cluster.list("jobs", names.selector(uuid, names.BACKUP))[0]:
            self._cluster.delete("jobs", job["metadata"]["name"])
        self._end_pods(self._cluster.list("pods", names.selector(uuid, names.BACKUP))[0])

    def end_others(self, uuid: str, own: Object) -> None:
        """Delete the session's Jobs with the action of `own` for other backups. Only one worker at a time may run such
        a Job, so the worker that started them was killed."""
        action = own["metadata"]["name"].partition("-")[0]
        for job in self._cluster.list("jobs", names.selector(uuid, names.BACKUP))[0]:
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            if name != own["metadata"]["name"] and name.startswith(f"{action}-"):
                log.warning("deleting the Job %s, whose worker is gone", name, extra={"uuid": uuid})
                self._cluster.delete("jobs", name)
                self._end_pods(self._pods(uid))

    def _pods(self, uid: str) -> list[Object]:
        """The pods of the Job with this uid: the pod of an earlier Job of the same name may still exist."""
        return self._cluster.list("pods", f"batch.kubernetes.io/controller-uid={uid}")[0]

    def _message(self, name: str, pods: list[Object]) -> str | None:
        """The Job's result message, None while it runs."""
        for pod in pods:
            if (ended := _terminated(pod)) is not None:
                return ended
            self._check_start(pod, name)
        if pods:
            return None
        job = self._cluster.get("jobs", name)
        if job is None:
            raise RetryableError(f"The Job {name} was deleted by something else.")
        for condition in (job.get("status") or {}).get("conditions") or []:
            if condition["type"] in ("Failed", "FailureTarget") and condition["status"] == "True":
                return str(condition.get("message") or condition.get("reason"))
        return None

    def _check_start(self, pod: Object, name: str) -> None:
        """Give up a pod that does not start: it would keep trying until the deadline of its Job."""
        problem = status.pod_problem(pod)
        created = timestamp(pod["metadata"].get("creationTimestamp"))
        if problem is not None and self._clock() - created > self._patience:
            self._cluster.delete("jobs", name)
            raise RetryableError(f"The Job {name} did not start. {problem.text}")


def _address(pod: Object) -> str:
    """The IP address of a running pod, "" when it does not run."""
    status = pod.get("status") or {}
    running = any("running" in (each.get("state") or {}) for each in status.get("containerStatuses") or [])
    return str(status.get("podIP") or "") if running else ""


def _terminated(pod: Object) -> str | None:
    status = pod.get("status") or {}
    for container in status.get("containerStatuses") or []:
        if (end := (container.get("state") or {}).get("terminated")) is not None:
            return str(end.get("message") or f"exited with status {end.get('exitCode')} ({end.get('reason')})")
    if status.get("phase") in ("Failed", "Succeeded"):
        return str(status.get("message") or status.get("reason") or "its pod is gone")
    return None
