"""Runs backup and restore Jobs in the cluster and returns their results."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from contextlib import suppress

from app.core.errors import RetryableError, SessionError
from app.core.storage.archive_keys import SessionKeys
from app.core.storage.credential import Credential
from workers.job.program import Result, read_outcome
from workers.runtime.base import Check, never
from workers.runtime.kubernetes import job_objects, names, status
from workers.runtime.kubernetes.api_server import ApiServer, Conflict, NotFound, timestamp, wait_for
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.pod_waits import SinglePod

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

    def run(
        self,
        job: Object,
        backup: str,
        keys: SessionKeys,
        credential: Credential | None = None,
        check: Check = never,
    ) -> Result:
        """Run the Job, or join one of the same name that runs already, until it ends; then delete it. It is given these
        keys and this credential for the store, if there are any. Raises the Job's error, `RetryableError` when it does
        not end, and what `check` raises, after the Job and its pod are gone."""
        name = job["metadata"]["name"]
        uid = self._begin(job, keys, credential)
        pod, began = self._pod(uid), time.monotonic()
        deadline = began + job["spec"]["activeDeadlineSeconds"] + MARGIN
        while time.monotonic() < deadline:
            self._cancel_unless_wanted(name, uid, check)
            pods = pod.look()
            message = self._message(name, pods)
            if message is not None:
                self.end(name)
                return read_outcome(message, backup)
            if not pods and time.monotonic() > began + self._patience:
                self.end(name)
                raise RetryableError(
                    f"The Job {name} did not start. It has no pod; its events say why, as a full quota or a LimitRange."
                )
            time.sleep(POLL)
        self.end(name)
        raise RetryableError(f"The Job of {backup} did not end in time.")

    def _begin(self, job: Object, keys: SessionKeys, credential: Credential | None) -> str:
        """Create the Job unless it runs already, and then its Secret, which its pod waits for; its uid."""
        name = job["metadata"]["name"]
        for _ in range(BEGIN_TRIES):
            running: Object | None
            try:
                running = self._cluster.create("jobs", job)
            except Conflict:
                running = self._cluster.get("jobs", name)
                log.info("joining the running Job %s", name)
            if running is not None:
                if keys or credential:
                    self._give(job_objects.secret(running, keys, credential))
                return str(running["metadata"]["uid"])
        raise RetryableError(f"Something keeps deleting the Job {name}.")

    def _give(self, secret: Object) -> None:
        """Create a Job's Secret, or replace that of an earlier Job of the same name, which is about to be deleted."""
        for _ in range(BEGIN_TRIES):
            try:
                self._cluster.create("secrets", secret)
                return
            except Conflict:
                with suppress(NotFound):
                    self._cluster.replace("secrets", secret)
                    return
        raise RetryableError(f"Something keeps deleting the Secret {secret['metadata']['name']}.")

    def _cancel_unless_wanted(self, name: str, uid: str, check: Check) -> None:
        """Cancel the Job when `check` raises: its pod gets SIGTERM, and undoes its work."""
        try:
            check()
        except SessionError:
            # Foreground: no new pod is created, and the Job exists as long as one of its pods may.
            self.end(name, propagation="Foreground")
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

    def start(self, job: Object, backup: str, keys: SessionKeys, credential: Credential | None = None) -> str:
        """Start a Job, given the same as by `run`, without waiting for its end; returns the address of its pod once
        that runs. Raises the Job's error if it ends before, and `RetryableError` when its pod does not start."""
        name = job["metadata"]["name"]
        uid = self._begin(job, keys, credential)
        pod = self._pod(uid)
        deadline = time.monotonic() + self._patience
        try:
            while time.monotonic() < deadline:
                pods = pod.look()
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

    def end(self, name: str, *, propagation: str = "Background") -> None:
        """Delete a Job, running or not, and its Secret, as the garbage collector takes a while."""
        self._cluster.delete("jobs", name, propagation=propagation)
        self._cluster.delete("secrets", name)

    def remove(self, uuid: str) -> None:
        """Delete the session's Jobs, running or not."""
        for job in self._cluster.list("jobs", names.selector(uuid, names.BACKUP))[0]:
            self.end(job["metadata"]["name"])
        self._end_pods(self._cluster.list("pods", names.selector(uuid, names.BACKUP))[0])

    def end_others(self, uuid: str, own: Object) -> None:
        """Delete the session's Jobs with the action of `own` for other backups. Only one worker at a time may run such
        a Job, so the worker that started them was killed."""
        action = own["metadata"]["name"].partition("-")[0]
        for job in self._cluster.list("jobs", names.selector(uuid, names.BACKUP))[0]:
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            if name != own["metadata"]["name"] and name.startswith(f"{action}-"):
                log.warning("deleting the Job %s, whose worker is gone", name, extra={"uuid": uuid})
                self.end(name)
                self._end_pods(self._pods(uid))

    def _pod(self, uid: str) -> SinglePod:
        return SinglePod(self._cluster, lambda: self._pods(uid))

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
            self.end(name)
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
