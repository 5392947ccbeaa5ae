"""The Jobs of backups, whole."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.workers.runtime.kubernetes.test_objects import (
    ADA,
    CHOICES,
    DISK,
    IDENTITY_TEXT,
    LABELS,
    POD_SECURITY,
    RESTRICTED,
    SETTINGS,
    TOLERATIONS,
    VOLUMES,
)
from workers.runtime.kubernetes import job_objects
from workers.runtime.kubernetes.config import KubernetesConfig


def test_the_backup_job() -> None:
    """It reads the files, writes the backups, holds no token, and runs where the volume is mounted already."""
    name = "app-abcd1234-20260101-000000.zip"
    labels = {**LABELS, "app": "workspace-archive"}
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
    assert job_objects.backup_job("backup", ADA, name, 12.5, CHOICES, "node-1") == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "backup-abcd1234-2f91d41912", "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 3240,
            "ttlSecondsAfterFinished": 300,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 30,
                    "restartPolicy": "Never",
                    "serviceAccountName": "default",
                    "affinity": {"nodeAffinity": required},
                    "securityContext": POD_SECURITY,
                    "containers": [
                        {
                            "name": "archive",
                            "image": "workspace:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["archive-job"],
                            "args": [
                                "backup",
                                *("--name", name, "--url", "file:///backups", "--files", "/workspace/app"),
                                *("--max-bytes", "21474836480", "--max-entries", "2000000"),
                                *("--identity", IDENTITY_TEXT, "--at", "12.500"),
                            ],
                            "resources": {
                                "requests": {"cpu": "250m", "memory": "256Mi", **DISK[0]},
                                "limits": {"cpu": "2", "memory": "1Gi", **DISK[1]},
                            },
                            "securityContext": RESTRICTED,
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [
                                {"name": "files", "mountPath": "/workspace", "readOnly": True},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {"name": "backups", "mountPath": "/backups", "readOnly": False},
                            ],
                        }
                    ],
                    "volumes": [
                        *VOLUMES,
                        {"name": "backups", "persistentVolumeClaim": {"claimName": "backups"}},
                    ],
                    "tolerations": TOLERATIONS,
                },
            },
        },
    }


def test_a_partial_backup_is_asked_for() -> None:
    """Only where it may be one."""
    job = job_objects.backup_job("backup", ADA, "app-abcd1234-20260101-000000.zip", 0.0, CHOICES, partial=True)
    assert job["spec"]["template"]["spec"]["containers"][0]["args"][-1] == "--partial"


def test_the_reader_job() -> None:
    """It sees the backups, no workspace's files, and no secret: only the digest of one. It ends in any case."""
    name = "app-abcd1234-20260101-000000.zip"
    labels = {"app": "backup-reader"}
    assert job_objects.download_job("read-1", name, "d1", CHOICES) == {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": "read-1", "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 3240,
            "ttlSecondsAfterFinished": 5,
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "automountServiceAccountToken": False,
                    "enableServiceLinks": False,
                    "terminationGracePeriodSeconds": 1,
                    "restartPolicy": "Never",
                    "serviceAccountName": "default",
                    "securityContext": POD_SECURITY,
                    "containers": [
                        {
                            "name": "reader",
                            "image": "workspace:1",
                            "imagePullPolicy": "IfNotPresent",
                            "command": ["archive-job"],
                            "args": [
                                *("serve", "--name", name, "--url", "file:///backups"),
                                *("--secret-digest", "d1", "--port", "8081", "--patience", "30"),
                            ],
                            "ports": [{"name": "http", "containerPort": 8081, "protocol": "TCP"}],
                            "resources": {
                                "requests": {"cpu": "50m", "memory": "64Mi", **DISK[0]},
                                "limits": {"cpu": "1", "memory": "256Mi", **DISK[1]},
                            },
                            "securityContext": RESTRICTED,
                            "terminationMessagePolicy": "FallbackToLogsOnError",
                            "volumeMounts": [{"name": "backups", "mountPath": "/backups", "readOnly": True}],
                        }
                    ],
                    "volumes": [{"name": "backups", "persistentVolumeClaim": {"claimName": "backups"}}],
                    "tolerations": TOLERATIONS,
                },
            },
        },
    }
    remote = KubernetesConfig.of(replace(SETTINGS, backup_url="gs://bucket/backups", backup_service_account="archive"))
    spec = job_objects.download_job("read-1", name, "d1", remote)["spec"]["template"]["spec"]
    assert (spec["volumes"], spec["serviceAccountName"]) == ([], "archive")


def test_the_restore_job_is_the_other_way_round() -> None:
    """It writes the files and may not touch the backups; an object store needs no volume for them."""
    name = "app-abcd1234-20260101-000000.zip"
    spec = job_objects.backup_job("restore", ADA, name, 0.0, CHOICES)["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert "affinity" not in spec
    assert [mount["readOnly"] for mount in container["volumeMounts"] if "readOnly" in mount] == [False, True]
    assert container["args"][-4:] == ["--max-bytes", "21474836480", "--max-entries", "2000000"]
    remote = KubernetesConfig.of(replace(SETTINGS, backup_url="gs://bucket/backups", backup_service_account="archive"))
    spec = job_objects.backup_job("restore", ADA, name, 0.0, remote)["spec"]["template"]["spec"]
    assert [volume["name"] for volume in spec["volumes"]] == ["files", "tmp"]
    assert spec["serviceAccountName"] == "archive"
