"""The Jobs of backups, whole."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from app.core.storage.archive_keys import ArchiveKeys, SessionKeys, new_key
from app.core.storage.credential import Credential
from tests.unit.workers.runtime.kubernetes.test_objects import (
    ADA,
    CHOICES,
    CONTAINER,
    DISK,
    IDENTITY_TEXT,
    LABELS,
    POD,
    VOLUMES,
    choices,
)
from workers.job import program
from workers.runtime.base import PointOrder, ProofOrder
from workers.runtime.kubernetes import job_objects
from workers.runtime.kubernetes.names import Object

NAME = "app-abcd1234-20260101-000000.zip"
POINT = "point-abcd1234-p000000000000000"
ROLE = "arn:aws:iam::123456789012:role/archive"
OWN_FOLDER = {"name": "backups", "mountPath": "/backups/abcd1234", "subPath": "abcd1234"}
"""Of all backups, those of the session."""

FILES = {"name": "files", "mountPath": "/volume", "readOnly": True}
TMP = {"name": "tmp", "mountPath": "/tmp"}
KEYS = {"name": "keys", "mountPath": "/run/archive-keys", "readOnly": True}
BACKUPS = {"name": "backups", "persistentVolumeClaim": {"claimName": "backups"}}


def job(name: str, labels: dict[str, str], kept: int, spec: Object) -> Object:
    """A Job as all of ours are, kept for so many seconds when it has ended."""
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "backoffLimit": 0,
            "activeDeadlineSeconds": 3240,
            "ttlSecondsAfterFinished": kept,
            "template": {"metadata": {"labels": labels}, "spec": {**POD, "restartPolicy": "Never", **spec}},
        },
    }


def pod_of(job: Object) -> tuple[Object, Object]:
    """The spec of a Job's pod, and its container."""
    spec = job["spec"]["template"]["spec"]
    (container,) = spec["containers"]
    return spec, container


def restore_job(name: str = POINT, **more: Any) -> Object:
    return job_objects.backup_job("restore", ADA, name, 12.5, CHOICES, **more)


def test_the_backup_job() -> None:
    """It reads the files, writes the session's backups, holds no token, runs where the volume is mounted already."""
    here = {"matchFields": [{"key": "metadata.name", "operator": "In", "values": ["node-1"]}]}
    required = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [here]}}
    container = {
        **CONTAINER,
        "name": "archive",
        "command": ["archive-job"],
        "args": [
            "backup",
            *("--name", NAME, "--url", "file:///backups", "--files", "/volume/app"),
            *("--max-bytes", "21474836480", "--max-entries", "2000000"),
            *("--identity", IDENTITY_TEXT, "--at", "12.500"),
        ],
        "resources": {
            "requests": {"cpu": "250m", "memory": "256Mi", **DISK[0]},
            "limits": {"cpu": "2", "memory": "1Gi", **DISK[1]},
        },
        "volumeMounts": [FILES, TMP, {**OWN_FOLDER, "readOnly": False}],
    }
    spec = {
        "terminationGracePeriodSeconds": 30,
        "affinity": {"nodeAffinity": required},
        "containers": [container],
        "volumes": [*VOLUMES, BACKUPS],
    }
    made = job_objects.backup_job("backup", ADA, NAME, 12.5, CHOICES, "node-1")
    assert made == job("backup-abcd1234-2f91d41912", {**LABELS, "app": "workspace-archive"}, 300, spec)


def test_the_reader_job() -> None:
    """It sees the session's backups, no workspace's files, and no secret but a digest. It ends in any case."""
    container = {
        **CONTAINER,
        "name": "reader",
        "command": ["archive-job"],
        "args": [
            *("serve", "--name", NAME, "--url", "file:///backups"),
            *("--secret-digest", "d1", "--port", "8081", "--patience", "30"),
        ],
        "ports": [{"name": "http", "containerPort": 8081, "protocol": "TCP"}],
        "resources": {
            "requests": {"cpu": "50m", "memory": "64Mi", **DISK[0]},
            "limits": {"cpu": "1", "memory": "256Mi", **DISK[1]},
        },
        "volumeMounts": [{**OWN_FOLDER, "readOnly": True}],
    }
    spec = {"terminationGracePeriodSeconds": 1, "containers": [container], "volumes": [BACKUPS]}
    made = job_objects.download_job("read-1", NAME, "d1", CHOICES)
    assert made == job("read-1", {"app": "backup-reader"}, 5, spec)


def test_the_restore_job_is_the_other_way_round() -> None:
    """It writes the files and may not touch the backups."""
    spec, container = pod_of(restore_job(NAME))
    assert "affinity" not in spec
    assert [mount["readOnly"] for mount in container["volumeMounts"] if "readOnly" in mount] == [False, True]
    limits = ["--max-bytes", "21474836480", "--max-entries", "2000000"]
    assert container["args"][-5:] == [*limits, "--user-id=ada@example.com"]


def test_an_object_store_needs_no_volume_for_backups() -> None:
    remote = choices(backup_url="gs://bucket/backups", backup_role=ROLE)
    restore, _ = pod_of(job_objects.backup_job("restore", ADA, NAME, 0.0, remote))
    reader, _ = pod_of(job_objects.download_job("read-1", NAME, "d1", remote))
    assert [volume["name"] for volume in restore["volumes"]] == ["files", "tmp", "keys"]
    assert [volume["name"] for volume in reader["volumes"]] == ["keys"]


def test_a_restore_reads_the_folder_of_the_session_that_was_backed_up() -> None:
    """Which may be another one."""
    _, container = pod_of(restore_job("app-bbbb0002-20260101-000000.zip"))
    folder = {"name": "backups", "mountPath": "/backups/bbbb0002", "subPath": "bbbb0002", "readOnly": True}
    assert container["volumeMounts"][-1] == folder


def test_a_restore_point_is_restored_from_the_folder_of_the_session_it_is_of() -> None:
    """Another one's, when a session is made of it."""
    made = job_objects.backup_job("restore", replace(ADA, uuid="ffff0000"), POINT, 12.5, CHOICES, keyed=True)
    _, container = pod_of(made)
    assert {**OWN_FOLDER, "readOnly": False} in container["volumeMounts"]
    assert f"--user-id={ADA.user_id}" in container["args"]
    assert "--newer-than" not in container["args"]
    assert made["metadata"]["name"].startswith("restore-ffff0000-")
    assert job_objects.source_of(POINT) == "abcd1234"


def test_a_job_is_told_only_what_it_was_asked_for() -> None:
    """That a backup may be partial, how old the point of a lost volume may be, and that somebody goes back."""
    partial = job_objects.backup_job("backup", ADA, NAME, 0.0, CHOICES, partial=True)
    assert pod_of(partial)[1]["args"][-1] == "--partial"
    assert "--newer-than 1.5" in " ".join(pod_of(restore_job(newer_than=1.5))[1]["args"])
    assert "--going-back" in pod_of(restore_job(going_back=True))[1]["args"]
    assert "--going-back" not in pod_of(restore_job())[1]["args"]


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
    made = job_objects.point_job(order, ADA, CHOICES, "node-1")
    spec, container = pod_of(made)
    name = made["metadata"]["name"]
    assert name.startswith("point-abcd1234-")
    assert container["args"][:7] == ["point", "--name", POINT, "--url", "file:///backups", "--files", "/volume/app"]
    assert json.loads(container["args"][8]) == json.loads(json.dumps(asdict(order)))
    assert container["volumeMounts"] == [FILES, TMP, {**OWN_FOLDER, "readOnly": False}, KEYS]
    assert {"name": "keys", "secret": {"secretName": name, "defaultMode": 0o400}} in spec["volumes"]
    assert spec["affinity"]["nodeAffinity"]


def test_the_job_of_a_drill_only_reads_the_sessions_folder_and_mounts_no_volume_of_it() -> None:
    """What it restores is in the pod, within a limit that the node is asked for."""
    order = ProofOrder(uuid="abcd1234", id="p000000000000000", files=1_000, size=100 * 1024**2)
    made = job_objects.drill_job(order, CHOICES)
    spec, container = pod_of(made)
    assert made["metadata"]["name"].startswith("drill-abcd1234-")
    told = ["drill", "--name", POINT, "--url", "file:///backups", "--scratch", "/scratch/files"]
    assert container["args"][:7] == told
    assert json.loads(container["args"][8]) == asdict(order)
    scratch = {"name": "scratch", "mountPath": "/scratch"}
    assert container["volumeMounts"] == [scratch, TMP, {**OWN_FOLDER, "readOnly": True}, KEYS]
    # 110 MiB of content, 4 of last blocks, 64 more.
    assert spec["volumes"][:2] == [
        {"name": "scratch", "emptyDir": {"sizeLimit": "178Mi"}},
        {"name": "tmp", "emptyDir": {"sizeLimit": "1024Mi"}},
    ]
    assert container["resources"]["requests"]["ephemeral-storage"] == "178Mi"
    assert container["resources"]["limits"]["ephemeral-storage"] == "1202Mi"
    assert not [each for each in spec["volumes"] if each["name"] == "files"]
    assert "affinity" not in spec
    assert made["metadata"]["labels"]["session-uuid"] == "abcd1234"


def check_secret(job: Object, secret: Object) -> None:
    """It is the Job's, goes with it, and is mounted as a file."""
    name = job["metadata"]["name"]
    spec, container = pod_of(job)
    assert container["volumeMounts"][-1] == KEYS
    assert spec["volumes"][-1] == {"name": "keys", "secret": {"secretName": name, "defaultMode": 0o400}}
    owner = {"apiVersion": "batch/v1", "kind": "Job", "name": name, "uid": "u1"}
    assert secret["metadata"] == {"name": name, "ownerReferences": [owner]}


def test_the_keys_of_a_job_are_in_a_secret_that_goes_with_it() -> None:
    """Neither the Job nor its environment holds a key."""
    keys = ArchiveKeys(new_key()).session("abcd1234")
    for made in (
        job_objects.backup_job("backup", ADA, NAME, 0.0, CHOICES, keyed=True),
        job_objects.download_job("read-1", NAME, "d1", CHOICES, keyed=True),
    ):
        assert pod_of(made)[1]["args"][-2:] == ["--keys-file", "/run/archive-keys/keys"]
        assert keys.keys[keys.newest].hex() not in json.dumps(made)
        secret = job_objects.secret({**made, "metadata": {**made["metadata"], "uid": "u1"}}, keys)
        check_secret(made, secret)
        assert SessionKeys.from_text(secret["stringData"]["keys"]) == keys


@pytest.mark.parametrize(("keyed", "held"), [(True, ["credential", "keys"]), (False, ["credential"])])
def test_a_job_with_a_credential_has_it_in_its_secret_and_no_account_of_the_clouds(
    keyed: bool, held: list[str]
) -> None:
    """Neither the Job nor its environment holds it."""
    config = choices(backup_url="s3://bucket", backup_role=ROLE)
    keys = ArchiveKeys(new_key() if keyed else "").session("abcd1234")
    credential = Credential({"AWS_SESSION_TOKEN": "canary"}, 1.0)
    for made in (
        job_objects.backup_job("backup", ADA, NAME, 0.0, config, keyed=keyed),
        job_objects.backup_job("restore", ADA, NAME, 0.0, config, keyed=keyed),
        job_objects.download_job("read-1", NAME, "d1", config, keyed=keyed),
    ):
        spec, container = pod_of(made)
        assert container["args"][-2:] == ["--credential-file", "/run/archive-keys/credential"]
        assert program.parsed(container["args"]).credential_file == Path("/run/archive-keys/credential")
        assert ("--keys-file" in container["args"]) is keyed
        assert "serviceAccountName" not in spec
        assert spec["automountServiceAccountToken"] is False
        assert "env" not in container and "envFrom" not in container
        assert ROLE not in json.dumps(made)
        secret = job_objects.secret({**made, "metadata": {**made["metadata"], "uid": "u1"}}, keys, credential)
        check_secret(made, secret)
        assert sorted(secret["stringData"]) == held
        assert Credential.from_text(secret["stringData"]["credential"]) == credential
