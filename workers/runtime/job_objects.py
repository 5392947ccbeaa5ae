"""The Jobs that work on backups, as pure functions: those that write or read a session's files, and the one that hands
a backup out. All run the archive's program in the workspace's image.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from app.sessions.model import Identity
from workers.runtime import names, pods
from workers.runtime.choices import Choices
from workers.runtime.objects import identity_text

Object = dict[str, Any]

JOB_KEPT = 300
"""s an archive Job stays when the worker that should have deleted it was killed."""

ARCHIVE_RESOURCES = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
"""Of an archive Job: it needs 33 MB and all the CPU it can get, for as short as that lasts."""

ARCHIVE_GRACE = 30
"""s an archive Job that is told to end has to delete what it wrote so far; it ends at once when it has."""

READER_PORT = 8081
"""Where a reader of a backup listens in its pod."""

READER_PATIENCE = 30
"""s a reader waits for its caller, who has waited for it and calls at once."""

READER_KEPT = 5
"""s its Job stays when it has ended: so long that its worker still reads why, if that was too early."""

READER_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
"""Of a reader: it copies."""


def archive_job(
    action: str,
    identity: Identity,
    backup: str,
    now: float,
    choices: Choices,
    node: str = "",
    *,
    partial: bool = False,
) -> Object:
    """The Job that does `action` ("backup" or "restore") with the session's files and that backup, which may be
    `partial`.

    It runs on `node` when one is given: a volume that is mounted there can be mounted nowhere else.
    It gets no token; an object store's credential comes with its service account, by the cloud's
    own means.
    """
    uuid = identity.uuid
    arguments = [action, "--name", backup, "--url", choices.backup_url, "--files", pods.FILES]
    arguments += ["--max-bytes", str(choices.restore_limits[0]), "--max-entries", str(choices.restore_limits[1])]
    if action == "backup":
        arguments += ["--identity", identity_text(identity), "--at", f"{now:.3f}", *(["--partial"] if partial else [])]
    mounts: list[Object] = [
        {"name": "files", "mountPath": pods.MOUNT, "readOnly": action == "backup"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    container = {"name": "archive", "args": arguments, "resources": ARCHIVE_RESOURCES, "volumeMounts": mounts}
    spec = _pod_spec(container, pods.volumes(uuid, choices), choices, may_write=action == "backup", grace=ARCHIVE_GRACE)
    if node:
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
        }
    name = names.archive_job(action, uuid, backup)
    return _job(name, pods.labels(identity, names.ARCHIVE), spec, choices, kept=JOB_KEPT)


def reader_job(name: str, backup: str, secret_digest: str, choices: Choices) -> Object:
    """The Job `name` that hands out that backup, once, to whoever knows the secret of this digest. It sees the backups
    and may change none; it ends when it is done, when nobody comes, and with its deadline at the latest."""
    arguments = ["serve", "--name", backup, "--url", choices.backup_url]
    arguments += ["--secret-digest", secret_digest, "--port", str(READER_PORT), "--patience", str(READER_PATIENCE)]
    container = {
        "name": "reader",
        "args": arguments,
        "ports": [{"name": "http", "containerPort": READER_PORT, "protocol": "TCP"}],
        "resources": READER_RESOURCES,
        "volumeMounts": [],
    }
    spec = _pod_spec(container, [], choices, may_write=False, grace=1)
    return _job(name, {names.APP_LABEL: names.READER}, spec, choices, kept=READER_KEPT)


def place(job: Object, node: str) -> None:
    """Put the Job's pod on that node past the scheduler, which has no place for one whose claim is being deleted.
    The kubelet takes it: the volume is in use there already."""
    job["spec"]["template"]["spec"]["nodeName"] = node


def _pod_spec(own: Object, volumes: list[Object], choices: Choices, *, may_write: bool, grace: int) -> Object:
    """A pod that runs the archive's program once, as `own` says of its container, and sees the backups where they are
    kept in a folder."""
    mounts = own["volumeMounts"]
    if choices.backup_folder:
        mounts = [*mounts, {"name": "backups", "mountPath": choices.backup_folder, "readOnly": not may_write}]
        volumes = [*volumes, {"name": "backups", "persistentVolumeClaim": {"claimName": choices.backup_pvc}}]
    container = {
        **own,
        "image": choices.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["archive-job"],
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    spec = pods.pod_spec([container], volumes, choices, grace=grace)
    return spec | {"restartPolicy": "Never", "serviceAccountName": choices.archive_service_account}


def _job(name: str, labels: Mapping[str, str], spec: Object, choices: Choices, *, kept: int) -> Object:
    """A Job that is tried once, ends by its deadline, and stays `kept` seconds after its end."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": choices.archive_deadline,
            "ttlSecondsAfterFinished": kept,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
