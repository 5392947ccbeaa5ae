"""The Jobs that work on backups and restore points, as pure functions: backup, point, drill, restore, and
download. All run workers/job/program.py in the workspace's image.

A Job works for one session. Of the backups it has that session's folder alone: as a mount, or by a credential for an
object store. The session's keys and that credential are in a Secret of its own, which goes with it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict

from app.core.backups.store import session_of
from app.core.restore_points import names as points
from app.core.restore_points.drilling import room_for
from app.core.sessions.model import Identity
from app.core.storage.archive_keys import SessionKeys
from app.core.storage.credential import Credential
from workers.runtime.base import PointOrder, ProofOrder
from workers.runtime.kubernetes import names, pods
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.names import Object
from workers.runtime.kubernetes.objects import identity_text

BACKUP_CLAIM = "backups"
"""The claim that holds the backups when BACKUP_URL is a path: that of manifests/components/backup-pvc."""

JOB_KEPT = 300
"""s a backup Job stays after its end when the worker that should delete it was killed."""

BACKUP_RESOURCES = {"requests": {"cpu": "250m", "memory": "256Mi"}, "limits": {"cpu": "2", "memory": "1Gi"}}
"""For backup and restore: they need 33 MB, and as much CPU as they can get."""

BACKUP_GRACE = 30
"""s a cancelled Job has to delete what it wrote so far."""

KEYS, CREDENTIAL = "keys", "credential"
"""The keys in a Job's Secret, and the files that they are mounted as."""

VOLUME = "/volume"
"""Where a session's volume is mounted in its Jobs: not at the home of the image's user, which is the tenant's."""

SCRATCH = "/scratch"
"""Where a drill restores to, in its pod."""

SCRATCH_SLACK, SCRATCH_TMP = 64, 1_024
"""MiB beyond what a restore point takes, and for the engine's cache."""

MIB = 1 << 20

SECRET_FOLDER = "/run/archive-keys"

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
    newer_than: float = 0.0,
    going_back: bool = False,
    keyed: bool = False,
) -> Object:
    """The Job that does `action` ("backup" or "restore") with the session's files and that backup, which may be
    `partial`, or the restore point with that reference (`newer_than` and `going_back` as in `Runtime.restore`). A
    `keyed` one waits for its Secret (`secret`).

    It runs on `node` when one is given: a volume mounted there can be mounted nowhere else. It gets no token.
    """
    arguments = ["--max-bytes", str(config.restore_limits[0]), "--max-entries", str(config.restore_limits[1])]
    if action == "backup":
        arguments += ["--identity", identity_text(identity), "--at", f"{now:.3f}", *(["--partial"] if partial else [])]
    else:
        # Attached, since a user id may begin with a dash.
        arguments += [f"--user-id={identity.user_id}", *(["--newer-than", repr(newer_than)] if newer_than else [])]
        arguments += ["--going-back"] if going_back else []
    return _files_job(action, identity, backup, arguments, config, node, keyed=keyed)


def point_job(order: PointOrder, identity: Identity, config: KubernetesConfig, node: str = "") -> Object:
    """The Job that makes that restore point; it waits for its Secret."""
    point = points.reference(order.uuid, order.id)
    return _files_job("point", identity, point, ["--order", json.dumps(asdict(order))], config, node, keyed=True)


def drill_job(order: ProofOrder, config: KubernetesConfig) -> Object:
    """The Job that proves that restore point; it waits for its Secret. It mounts no volume of the workspace and only
    reads the store; what it restores is on the node's disk, within a limit, and gone with its pod."""
    point = points.reference(order.uuid, order.id)
    room = SCRATCH_SLACK + -(-room_for(order.files, order.size) // MIB)
    container = {
        "name": "archive",
        "args": [
            *("drill", "--name", point, "--url", config.backup_url),
            *("--scratch", f"{SCRATCH}/files", "--order", json.dumps(asdict(order))),
        ],
        "resources": BACKUP_RESOURCES,
        "volumeMounts": [{"name": "scratch", "mountPath": SCRATCH}, {"name": "tmp", "mountPath": "/tmp"}],
    }
    volumes: list[Object] = [
        {"name": "scratch", "emptyDir": {"sizeLimit": f"{room}Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": f"{SCRATCH_TMP}Mi"}},
    ]
    name = names.backup_job("drill", order.uuid, point)
    spec = _pod_spec(
        name,
        container,
        volumes,
        _backups(point, config, may_write=False),
        config,
        keyed=True,
        grace=BACKUP_GRACE,
    )
    # What a pod's volumes hold counts against its container's part of the disk.
    resources = spec["containers"][0]["resources"]
    resources["requests"]["ephemeral-storage"] = f"{room}Mi"
    resources["limits"]["ephemeral-storage"] = f"{room + SCRATCH_TMP}Mi"
    labels = {names.APP_LABEL: names.BACKUP, names.UUID_LABEL: order.uuid}
    return _job(name, labels, spec, config, kept=JOB_KEPT)


def source_of(name: str) -> str:
    """The uuid of the session whose backup or restore point that is; raises `BackupNotFound` for an invalid name."""
    point = points.parse(name)
    return point[0] if point else session_of(name)


def _files_job(
    action: str,
    identity: Identity,
    what: str,
    arguments: list[str],
    config: KubernetesConfig,
    node: str,
    *,
    keyed: bool,
) -> Object:
    uuid, reads = identity.uuid, action != "restore"
    arguments = [action, "--name", what, "--url", config.backup_url, "--files", f"{VOLUME}/app", *arguments]
    mounts: list[Object] = [
        {"name": "files", "mountPath": VOLUME, "readOnly": reads},
        {"name": "tmp", "mountPath": "/tmp"},
    ]
    container = {"name": "archive", "args": arguments, "resources": BACKUP_RESOURCES, "volumeMounts": mounts}
    name = names.backup_job(action, uuid, what)
    # Who restores a point holds its lock, and adds a key file after a rotation of the archive key.
    mounted = _backups(what, config, may_write=reads or points.parse(what) is not None)
    spec = _pod_spec(name, container, pods.volumes(identity, config), mounted, config, keyed=keyed, grace=BACKUP_GRACE)
    if node:
        here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": [node]}]}
        spec["affinity"] = {
            "nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
        }
    return _job(name, pods.labels(identity, names.BACKUP), spec, config, kept=JOB_KEPT)


def download_job(
    name: str, backup: str, secret_digest: str, config: KubernetesConfig, *, keyed: bool = False
) -> Object:
    """The Job `name` that serves that backup once, to the caller with the secret of this digest. Its access to the
    backups is read-only; it ends after the download, when no caller comes, and with its deadline at the latest. `keyed`
    is as for `backup_job`."""
    arguments = ["serve", "--name", backup, "--url", config.backup_url]
    arguments += ["--secret-digest", secret_digest, "--port", str(DOWNLOAD_PORT), "--patience", str(DOWNLOAD_PATIENCE)]
    container = {
        "name": "reader",
        "args": arguments,
        "ports": [{"name": "http", "containerPort": DOWNLOAD_PORT, "protocol": "TCP"}],
        "resources": DOWNLOAD_RESOURCES,
        "volumeMounts": [],
    }
    mounted = _backups(backup, config, may_write=False)
    spec = _pod_spec(name, container, [], mounted, config, keyed=keyed, grace=1)
    return _job(name, {names.APP_LABEL: names.DOWNLOAD}, spec, config, kept=DOWNLOAD_KEPT)


def place(job: Object, node: str) -> None:
    """Place the Job's pod on that node without the scheduler, which rejects a pod whose claim is being deleted. The
    kubelet accepts it: the volume is mounted there already."""
    job["spec"]["template"]["spec"]["nodeName"] = node


def secret(job: Object, keys: SessionKeys, credential: Credential | None = None) -> Object:
    """The Secret of a Job, as the cluster returned it, with the keys of the session that it works for, and its
    credential for the store, if there are any. It is deleted with the Job."""
    metadata = job["metadata"]
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": metadata["name"], "uid": metadata["uid"]}
    contents = {KEYS: keys.to_text()} if keys else {}
    if credential is not None:
        contents[CREDENTIAL] = credential.to_text()
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": metadata["name"], "ownerReferences": [owner]},
        "type": "Opaque",
        "stringData": contents,
    }


def _backups(backup: str, config: KubernetesConfig, *, may_write: bool) -> list[Object]:
    """The mount of the one session's folder of the backup store; none where the store is no folder. The worker has made
    that folder: the kubelet would make it root's."""
    if not config.backup_folder:
        return []
    uuid = source_of(backup)
    place = f"{config.backup_folder.rstrip('/')}/{uuid}"
    return [{"name": "backups", "mountPath": place, "subPath": uuid, "readOnly": not may_write}]


def _pod_spec(
    job: str,
    own: Object,
    volumes: list[Object],
    backups: list[Object],
    config: KubernetesConfig,
    *,
    keyed: bool,
    grace: int,
) -> Object:
    """The pod of that Job, which runs workers/job/program.py once in the container `own`, with these mounts of the
    backups. It waits for its Secret if that is to hold anything. Its service account is that of workspaces, which has
    no rights in the cluster or in a cloud.
    """
    mounts = [*own["volumeMounts"], *backups]
    files = [each for each, given in ((KEYS, keyed), (CREDENTIAL, bool(config.backup_role))) if given]
    if backups:
        volumes = [*volumes, {"name": "backups", "persistentVolumeClaim": {"claimName": BACKUP_CLAIM}}]
    if files:
        told = [word for each in files for word in (f"--{each}-file", f"{SECRET_FOLDER}/{each}")]
        own = {**own, "args": [*own["args"], *told]}
        mounts = [*mounts, {"name": "keys", "mountPath": SECRET_FOLDER, "readOnly": True}]
        volumes = [*volumes, {"name": "keys", "secret": {"secretName": job, "defaultMode": 0o400}}]
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
    return spec | {"restartPolicy": "Never"}


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
