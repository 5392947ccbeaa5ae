"""The Jobs that work on backups, as pure functions: backup, restore, and download. All run workers/backup_job.py in the
workspace's image.
"""

from __future__ import annotations

from collections.abc import Mapping

from app.core.sessions.model import Identity
from workers.runtime.kubernetes import names, pods
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.objects import identity_text

JOB_KEPT = 300
"""s a backup Job stays after its end when the worker that should delete it was killed."""

BACKUP_RESOURCES = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
"""For backup and restore: they need 33 MB, and as much CPU as they can get."""

BACKUP_GRACE = 30
"""s a cancelled Job has to delete what it wrote so far."""

DOWNLOAD_PORT = 8081
"""The port of the download server in its pod."""

DOWNLOAD_PATIENCE = 30
"""s a download server waits for its caller, who calls as soon as the server runs."""

DOWNLOAD_KEPT = 5
"""s a download Job stays after its end, so that its worker can read why it ended too early."""

DOWNLOAD_RESOURCES = {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "1", "memory": "256Mi"}}
"""For downloads, which only copy."""


def backup_job(
    action: str,
    identity: Identity,
    backup: str,
    now: float,
    config: KubernetesConfig,
    node: str = "",
    *,
    partial: bool = False,
) -> Object:
    """The Job that does `action` ("backup" or "restore") with the session's files and that backup, which may be
    `partial`.

    It runs on `node` when one is given: a volume mounted there can be mounted nowhere else. It gets no token; the cloud
    gives its service account access to the object store.
    """
    uuid = identity.uuid
    arguments = [action, "--name", backup, "--url", config.backup_url, "--files", pods.FILES]
    arguments += ["--max-bytes", str(config.restore_limits[0]), "--max-entries", str(config.restore_limits[1])]
    if action == "backup":
        arguments += ["--identity", identity_text(identity), "--at", f"{now:.3f}", *(["--partial"] if partial else [])]
    mounts: list[Object] = [
        {"name": "files", "mountPath": pods.MOUNT, "readOnly": action == "backup"},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    container = {"name": "archive", "args": arguments, "resources": BACKUP_RESOURCES, "volumeMounts": mounts}
    spec = _pod_spec(container, pods.volumes(uuid, config), config, may_write=action == "backup", grace=BACKUP_GRACE)
    if node:
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
        }
    name = names.backup_job(action, uuid, backup)
    return _job(name, pods.labels(identity, names.BACKUP), spec, config, kept=JOB_KEPT)


def download_job(name: str, backup: str, secret_digest: str, config: KubernetesConfig) -> Object:
    """The Job `name` that serves that backup once, to the caller with the secret of this digest. Its access to the
    backups is read-only; it ends after the download, when no caller comes, and with its deadline at the latest."""
    arguments = ["serve", "--name", backup, "--url", config.backup_url]
    arguments += ["--secret-digest", secret_digest, "--port", str(DOWNLOAD_PORT), "--patience", str(DOWNLOAD_PATIENCE)]
    container = {
        "name": "reader",
        "args": arguments,
        "ports": [{"name": "http", "containerPort": DOWNLOAD_PORT, "protocol": "TCP"}],
        "resources": DOWNLOAD_RESOURCES,
        "volumeMounts": [],
    }
    spec = _pod_spec(container, [], config, may_write=False, grace=1)
    return _job(name, {names.APP_LABEL: names.DOWNLOAD}, spec, config, kept=DOWNLOAD_KEPT)


def place(job: Object, node: str) -> None:
    """Place the Job's pod on that node without the scheduler, which rejects a pod whose claim is being deleted. The
    kubelet accepts it: the volume is mounted there already."""
    job["spec"]["template"]["spec"]["nodeName"] = node


def _pod_spec(own: Object, volumes: list[Object], config: KubernetesConfig, *, may_write: bool, grace: int) -> Object:
    """A pod that runs workers/backup_job.py once in the container `own`, with the backups mounted where they are in a
    folder."""
    mounts = own["volumeMounts"]
    if config.backup_folder:
        mounts = [*mounts, {"name": "backups", "mountPath": config.backup_folder, "readOnly": not may_write}]
        volumes = [*volumes, {"name": "backups", "persistentVolumeClaim": {"claimName": config.backup_pvc}}]
    container = {
        **own,
        "image": config.image,
        "imagePullPolicy": "IfNotPresent",
        "command": ["archive-job"],
        "securityContext": pods.container_security(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "volumeMounts": mounts,
    }
    spec = pods.pod_spec([container], volumes, config, grace=grace)
    return spec | {"restartPolicy": "Never", "serviceAccountName": config.backup_service_account}


def _job(name: str, labels: Mapping[str, str], spec: Object, config: KubernetesConfig, *, kept: int) -> Object:
    """A Job that runs once, ends by its deadline, and is deleted `kept` seconds after its end."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": config.job_deadline,
            "ttlSecondsAfterFinished": kept,
            "template": {"metadata": {"labels": labels}, "spec": spec},
        },
    }
