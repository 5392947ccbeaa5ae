"""The Jobs of backups, whole."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, new_key
from app.core.storage.credential import Credential
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
from workers.job import program
from workers.runtime.base import PointOrder, ProofOrder
from workers.runtime.kubernetes import job_objects
from workers.runtime.kubernetes.config import KubernetesConfig

NAME = "app-abcd1234-20260101-000000.zip"
ROLE = "arn:aws:iam::123456789012:role/archive"
OWN_FOLDER = {"name": "backups", "mountPath": "/backups/abcd1234", "subPath": "abcd1234"}
"""Of all backups, those of the session."""


def test_the_backup_job() -> None:
    """It reads the files, writes the session's backups, holds no token, runs where the volume is mounted already."""
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
                                *("--name", name, "--url", "file:///backups", "--files", "/volume/app"),
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
                                {"name": "files", "mountPath": "/volume", "readOnly": True},
                                {"name": "tmp", "mountPath": "/tmp"},
                                {**OWN_FOLDER, "readOnly": False},
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
    """It sees the session's backups, no workspace's files, and no secret but a digest. It ends in any case."""
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
                            "volumeMounts": [{**OWN_FOLDER, "readOnly": True}],
                        }
                    ],
                    "volumes": [{"name": "backups", "persistentVolumeClaim": {"claimName": "backups"}}],
                    "tolerations": TOLERATIONS,
                },
            },
        },
    }
    remote = KubernetesConfig.of(replace(SETTINGS, backup_url="gs://bucket/backups", backup_role=ROLE))
    spec = job_objects.download_job("read-1", name, "d1", remote)["spec"]["template"]["spec"]
    assert [volume["name"] for volume in spec["volumes"]] == ["keys"]


def test_the_restore_job_is_the_other_way_round() -> None:
    """It writes the files and may not touch the backups; an object store needs no volume for them."""
    name = "app-abcd1234-20260101-000000.zip"
    spec = job_objects.backup_job("restore", ADA, name, 0.0, CHOICES)["spec"]["template"]["spec"]
    container = spec["containers"][0]
    assert "affinity" not in spec
    assert [mount["readOnly"] for mount in container["volumeMounts"] if "readOnly" in mount] == [False, True]
    limits = ["--max-bytes", "21474836480", "--max-entries", "2000000"]
    assert container["args"][-5:] == [*limits, "--user-id=ada@example.com"]
    remote = KubernetesConfig.of(replace(SETTINGS, backup_url="gs://bucket/backups", backup_role=ROLE))
    spec = job_objects.backup_job("restore", ADA, name, 0.0, remote)["spec"]["template"]["spec"]
    assert [volume["name"] for volume in spec["volumes"]] == ["files", "tmp", "keys"]


def test_a_restore_reads_the_folder_of_the_session_that_was_backed_up() -> None:
    """Which may be another one."""
    job = job_objects.backup_job("restore", ADA, "app-bbbb0002-20260101-000000.zip", 0.0, CHOICES)
    mounts = job["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert mounts[-1] == {
        "name": "backups",
        "mountPath": "/backups/bbbb0002",
        "subPath": "bbbb0002",
        "readOnly": True,
    }


def test_the_keys_of_a_job_are_in_a_secret_that_goes_with_it() -> None:
    """It is mounted as a file: neither the Job nor its environment holds a key."""
    keys = ArchiveKeys(new_key()).session("abcd1234")
    for job in (
        job_objects.backup_job("backup", ADA, NAME, 0.0, CHOICES, keyed=True),
        job_objects.download_job("read-1", NAME, "d1", CHOICES, keyed=True),
    ):
        name = job["metadata"]["name"]
        spec = job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["args"][-2:] == ["--keys-file", "/run/archive-keys/keys"]
        assert container["volumeMounts"][-1] == {"name": "keys", "mountPath": "/run/archive-keys", "readOnly": True}
        assert spec["volumes"][-1] == {"name": "keys", "secret": {"secretName": name, "defaultMode": 0o400}}

        created = {**job, "metadata": {**job["metadata"], "uid": "u1"}}
        secret = job_objects.secret(created, keys)
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "u1"}
        assert secret["metadata"] == {"name": name, "ownerReferences": [owner]}
        assert SessionKeys.from_text(secret["stringData"]["keys"]) == keys
        assert keys.keys[keys.newest].hex() not in json.dumps(job)


POINT = "point-abcd1234-p000000000000000"


def test_the_job_of_a_restore_point_reads_the_files_and_has_the_sessions_folder_and_keys() -> None:
    order = PointOrder(
        uuid="abcd1234",
        id="p000000000000000",
        at=12.5,
        trigger="sleep",
        keep=(3, 24, 7, 4),
        max_bytes=1,
        max_entries=2,
        identity={"user_id": "ada@example.com"},
    )
    job = job_objects.point_job(order, ADA, CHOICES, "node-1")
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    name = job["metadata"]["name"]
    assert name.startswith("point-abcd1234-")
    assert container["args"][:7] == ["point", "--name", POINT, "--url", "file:///backups", "--files", "/volume/app"]
    assert json.loads(container["args"][8]) == json.loads(json.dumps(asdict(order)))
    assert container["volumeMounts"] == [
        {"name": "files", "mountPath": "/volume", "readOnly": True},
        {"name": "tmp", "mountPath": "/tmp"},
        {**OWN_FOLDER, "readOnly": False},
        {"name": "keys", "mountPath": "/run/archive-keys", "readOnly": True},
    ]
    assert {"name": "keys", "secret": {"secretName": name, "defaultMode": 0o400}} in spec["volumes"]
    assert spec["affinity"]["nodeAffinity"]


def test_the_job_of_a_drill_only_reads_the_sessions_folder_and_mounts_no_volume_of_it() -> None:
    """What it restores is in the pod, within a limit that the node is asked for."""
    order = ProofOrder(uuid="abcd1234", id="p000000000000000", files=1_000, size=100 * 1024**2)
    job = job_objects.drill_job(order, CHOICES)
    spec = job["spec"]["template"]["spec"]
    container = spec["containers"][0]
    name = job["metadata"]["name"]
    assert name.startswith("drill-abcd1234-")
    assert container["args"][:7] == [
        "drill",
        "--name",
        POINT,
        "--url",
        "file:///backups",
        "--scratch",
        "/scratch/files",
    ]
    assert json.loads(container["args"][8]) == asdict(order)
    assert container["volumeMounts"] == [
        {"name": "scratch", "mountPath": "/scratch"},
        {"name": "tmp", "mountPath": "/tmp"},
        {**OWN_FOLDER, "readOnly": True},
        {"name": "keys", "mountPath": "/run/archive-keys", "readOnly": True},
    ]
    # 110 MiB of content, 4 of last blocks, 64 more.
    assert spec["volumes"][:2] == [
        {"name": "scratch", "emptyDir": {"sizeLimit": "178Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}},
    ]
    assert container["resources"]["requests"]["ephemeral-storage"] == "178Mi"
    assert container["resources"]["limits"]["ephemeral-storage"] == "1202Mi"
    assert not [each for each in spec["volumes"] if each["name"] == "files"]
    assert "affinity" not in spec
    assert job["metadata"]["labels"]["session-uuid"] == "abcd1234"


def test_a_restore_point_is_restored_from_the_folder_of_the_session_it_is_of() -> None:
    """Another one's, when a session is made of it."""
    other = replace(ADA, uuid="ffff0000")
    job = job_objects.backup_job("restore", other, POINT, 12.5, CHOICES, keyed=True)
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert {**OWN_FOLDER, "readOnly": False} in container["volumeMounts"]
    assert f"--user-id={ADA.user_id}" in container["args"]
    assert "--newer-than" not in container["args"]
    assert job["metadata"]["name"].startswith("restore-ffff0000-")
    assert job_objects.source_of(POINT) == "abcd1234"


def test_the_restore_of_a_lost_volume_is_told_how_old_a_point_may_be() -> None:
    job = job_objects.backup_job("restore", ADA, POINT, 12.5, CHOICES, newer_than=1.5)
    assert "--newer-than 1.5" in " ".join(job["spec"]["template"]["spec"]["containers"][0]["args"])


def test_the_restore_of_who_goes_back_is_told_so() -> None:
    for going_back in (True, False):
        job = job_objects.backup_job("restore", ADA, POINT, 12.5, CHOICES, going_back=going_back)
        assert ("--going-back" in job["spec"]["template"]["spec"]["containers"][0]["args"]) is going_back


@pytest.mark.parametrize("keyed", [True, False])
def test_a_job_with_a_credential_has_it_in_its_secret_and_no_account_of_the_clouds(keyed: bool) -> None:
    """Neither the Job nor its environment holds it."""
    config = KubernetesConfig.of(replace(SETTINGS, backup_url="s3://bucket", backup_role=ROLE))
    keys = ArchiveKeys(new_key() if keyed else "").session("abcd1234")
    for job in (
        job_objects.backup_job("backup", ADA, NAME, 0.0, config, keyed=keyed),
        job_objects.backup_job("restore", ADA, NAME, 0.0, config, keyed=keyed),
        job_objects.download_job("read-1", NAME, "d1", config, keyed=keyed),
    ):
        name, spec = job["metadata"]["name"], job["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        assert container["args"][-2:] == ["--credential-file", "/run/archive-keys/credential"]
        assert program.parsed(container["args"]).credential_file == Path("/run/archive-keys/credential")
        assert ("--keys-file" in container["args"]) is keyed
        assert container["volumeMounts"][-1] == {"name": "keys", "mountPath": "/run/archive-keys", "readOnly": True}
        assert spec["volumes"][-1] == {"name": "keys", "secret": {"secretName": name, "defaultMode": 0o400}}
        assert "serviceAccountName" not in spec
        assert spec["automountServiceAccountToken"] is False
        assert "env" not in container and "envFrom" not in container
        assert ROLE not in json.dumps(job)
        credential = Credential({"AWS_SESSION_TOKEN": "canary"}, 1.0)
        secret = job_objects.secret({**job, "metadata": {**job["metadata"], "uid": "u1"}}, keys, credential)
        assert sorted(secret["stringData"]) == (["credential", "keys"] if keyed else ["credential"])
        assert Credential.from_text(secret["stringData"]["credential"]) == credential
