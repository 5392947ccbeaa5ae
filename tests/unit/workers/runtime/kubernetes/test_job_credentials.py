"""What a Job is given of the store, by the kind of its work: which Jobs have a credential, of which cloud, and for how
long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock, call

import pytest

from app.core.errors import BackupNotFound
from app.core.storage.credential import Credential
from app.process.settings import SettingsError
from tests.unit.workers.runtime.kubernetes.test_objects import SETTINGS, choices
from workers.runtime.kubernetes import gs_credentials, s3_credentials
from workers.runtime.kubernetes.job_access import Access, making, proving, reading
from workers.runtime.kubernetes.job_credentials import JobCredentials

NAME = "app-bbbb0002-20260101-000000.zip"
POINT = "point-bbbb0002-p000000000000000"


@pytest.mark.parametrize(
    ("access", "paths", "may_write"),
    [
        (making("aaaa0001"), ("aaaa0001/",), True),
        (reading(NAME), (f"bbbb0002/{NAME}", f"bbbb0002/{NAME}.json"), False),
        (proving("aaaa0001"), ("aaaa0001/",), False),
        (reading(POINT), ("bbbb0002/",), True),
    ],
    ids=["makes a backup or a restore point", "reads a backup", "proves a point", "restores a point"],
)
def test_a_job_reaches_what_it_works_on_and_nothing_else(
    access: Access, paths: tuple[str, ...], may_write: bool
) -> None:
    assert access == Access(paths, may_write=may_write)


@pytest.mark.parametrize("name", ["", f"../{NAME}", "app-bbbb-20260101-000000.zip", "*"])
def test_an_invalid_name_opens_nothing(name: str) -> None:
    with pytest.raises(BackupNotFound):
        reading(name)


def test_paths_are_below_that_of_the_store() -> None:
    assert making("aaaa0001").below("kept/backups") == ("kept/backups/aaaa0001/",)
    assert making("aaaa0001").below("") == ("aaaa0001/",)


# Credentials

ACCESS = making("aaaa0001")
GIVEN = Credential({}, 1.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Mock:
    """The clouds, which give a credential to whoever asks."""
    clouds = Mock(**{"s3.return_value": GIVEN, "gs.return_value": GIVEN})
    monkeypatch.setattr(s3_credentials, "issue", clouds.s3)
    monkeypatch.setattr(gs_credentials, "issue", clouds.gs)
    return clouds


def issued(**settings: Any) -> Credential | None:
    return JobCredentials(choices(**settings)).issue("aaaa0001", ACCESS)


def test_without_a_role_there_are_none(asked: Mock) -> None:
    assert issued(backup_url="s3://bucket") is None
    assert asked.mock_calls == []


def test_the_stores_cloud_gives_them(asked: Mock) -> None:
    assert issued(backup_url="s3://bucket/a/b/", backup_role="R") is GIVEN
    assert issued(backup_url="gs://bucket", backup_role="R") is GIVEN
    assert asked.mock_calls == [
        call.s3("R", "bucket", "a/b", "session-aaaa0001", ACCESS, 3_300),
        call.gs("R", "bucket", "", ACCESS, 3_300),
    ]


@pytest.mark.parametrize(
    ("long_task_limit", "role_limit", "duration"),
    [(3_600.0, 3_600.0, 3_300), (60.0, 3_600.0, 900), (7_000.0, 3_600.0, 3_600), (7_000.0, 7_200.0, 6_360)],
)
def test_they_last_as_long_as_the_job_may_take_and_the_role_allows(
    asked: Mock, long_task_limit: float, role_limit: float, duration: int
) -> None:
    """And as long as the shortest that STS gives."""
    issued(backup_url="s3://bucket", backup_role="R", long_task_limit=long_task_limit, backup_role_limit=role_limit)
    assert asked.s3.call_args.args[-1] == duration


# Which values BACKUP_ROLE may have: a Job's credential must not depend on how a wrong one is read

ARN = "arn:aws:iam::123456789012:role/path/archive"
EMAIL = "archive@project.iam.gserviceaccount.com"
READY = replace(SETTINGS, ingress_forward_auth='{"a": "b"}')


@pytest.mark.parametrize(
    ("url", "role"),
    [
        ("s3://bucket/kept", ARN),
        ("s3://bucket", ARN.replace("aws", "aws-us-gov")),
        ("gs://bucket/kept", EMAIL),
        ("file:///backups", ""),
    ],
)
def test_a_role_of_the_stores_cloud_is_taken(url: str, role: str) -> None:
    assert replace(READY, backup_url=url, backup_role=role).checked().backup_role == role


@pytest.mark.parametrize(
    ("url", "role", "text"),
    [
        ("s3://bucket", EMAIL, "looks like arn:"),
        ("gs://bucket", ARN, "looks like archive@"),
        ("s3://bucket", "archive", "looks like arn:"),
        ("file:///backups", ARN, "for buckets"),
        ("/backups", ARN, "for buckets"),
        ("gs://bucket", "", "must be set for gs://"),
        ("s3://bucket", "", "must be set for s3://"),
        ("abfs://bucket", "", "must begin with file://, s3:// or gs://"),
        ("s3://bucket/all*", ARN, "letters, digits"),
        ("s3://bucket/kept?a=*", ARN, "letters, digits"),
        ("s3://bucket/kept#*", ARN, "letters, digits"),
        ("s3://", ARN, "letters, digits"),
        ("s3://bucket/${aws:username}", ARN, "letters, digits"),
        ("gs://bucket/it's", EMAIL, "letters, digits"),
    ],
)
def test_what_it_cannot_work_with_is_said(url: str, role: str, text: str) -> None:
    with pytest.raises(SettingsError, match="BACKUP_ROLE") as caught:
        replace(READY, backup_url=url, backup_role=role).checked()
    assert text in str(caught.value)


@pytest.mark.parametrize(
    ("given", "text"), [({"backup_role_limit": 60.0}, "900 to 43200"), ({"runtime": "local"}, "RUNTIME=kubernetes")]
)
def test_settings_that_do_not_go_with_it_are_said(given: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match="BACKUP_ROLE") as caught:
        replace(READY, backup_url="s3://bucket", backup_role=ARN, **given).checked()
    assert text in str(caught.value)
