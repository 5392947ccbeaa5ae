"""Session policies, and what STS is asked. tests/integration/test_job_credentials.py tries them at a server."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fnmatch import fnmatchcase
from typing import Any

import pytest

from app.core.errors import ArchiveError, RetryableError
from app.core.storage.credential import Credential
from tests.ports import free_port
from tests.unit.workers.runtime.kubernetes import fake_cloud
from tests.unit.workers.runtime.kubernetes.fake_cloud import EXPIRES_AT, KEY_ID, SECRET, TOKEN, FakeCloud, refused
from workers.runtime.kubernetes import s3_credentials
from workers.runtime.kubernetes.job_access import Access, making, reading

ROLE = "arn:aws:iam::123456789012:role/archive"
NAME = "app-bbbb0002-20260101-000000.zip"
POINT = "point-bbbb0002-p000000000000000"


def test_the_policy_of_who_makes_a_backup_or_a_restore_point() -> None:
    assert s3_credentials.policy("bucket", "kept", making("aaaa0001")) == {
        "Version": "2012-10-17",
        "Statement": [
            {
                "Effect": "Allow",
                "Action": [
                    "s3:GetObject",
                    "s3:PutObject",
                    "s3:DeleteObject",
                    "s3:AbortMultipartUpload",
                    "s3:ListMultipartUploadParts",
                ],
                "Resource": ["arn:aws:s3:::bucket/kept/aaaa0001/*"],
            },
            {
                "Effect": "Allow",
                "Action": ["s3:ListBucket"],
                "Resource": ["arn:aws:s3:::bucket"],
                "Condition": {"StringLike": {"s3:prefix": ["kept/aaaa0001/*"]}},
            },
        ],
    }


def test_the_policy_of_who_reads_a_backup_has_its_files_only() -> None:
    files, _ = s3_credentials.policy("bucket", "", reading(NAME), "aws-cn")["Statement"]
    assert files["Action"] == ["s3:GetObject"]
    assert files["Resource"] == [
        f"arn:aws-cn:s3:::bucket/{path}" for path in (f"bbbb0002/{NAME}", f"bbbb0002/{NAME}.json")
    ]


@pytest.mark.parametrize("access", [making("bbbb0002"), reading(NAME), reading(POINT)])
@pytest.mark.parametrize("root", ["", "kept"])
def test_no_policy_reaches_another_session(access: Access, root: str) -> None:
    """Nor one whose uuid begins alike, nor the store itself."""
    files, lists = s3_credentials.policy("bucket", root, access)["Statement"]
    start = f"{root}/" if root else ""
    others = [f"{start}{each}" for each in ("bbbb00021/x", "bbbb0003/x", "bbbb000/x", "", "xbbbb0002/x", "bbbb0002")]
    others += [f"{start}app-bbbb0003-20260101-000000.zip", f"other/{start}bbbb0002/x"]
    for other in others:
        assert not [each for each in files["Resource"] if fnmatchcase(f"arn:aws:s3:::bucket/{other}", each)]
        assert not [each for each in lists["Condition"]["StringLike"]["s3:prefix"] if fnmatchcase(other, each)]


@pytest.mark.parametrize("access", [making("bbbb0002"), reading(NAME)])
def test_a_policy_is_as_short_as_sts_demands(access: Access) -> None:
    """2,048 characters."""
    text = json.dumps(s3_credentials.policy("b" * 63, "a/long/path/in/the/bucket/of/backups", access))
    assert len(text) < 2_048


@pytest.fixture
def sts(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    with fake_cloud.serving() as cloud:
        monkeypatch.setenv("AWS_ENDPOINT_URL_STS", cloud.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "the-workers-own")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "the-workers-own-secret")
        monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
        monkeypatch.setattr(s3_credentials, "TRIES", 1)
        for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_DEFAULT_REGION", "AWS_PROFILE"):
            monkeypatch.delenv(name, raising=False)
        yield cloud


def issued() -> Credential:
    return s3_credentials.issue(ROLE, "bucket", "kept", "session-aaaa0001", making("aaaa0001"), 3_300)


def test_sts_is_asked_for_the_role_with_the_policy_for_so_long_and_no_secret_is_shown(
    sts: FakeCloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    credential = issued()
    shown = repr(credential) + caplog.text
    assert not [each for each in (KEY_ID, SECRET, TOKEN, "the-workers-own") if each in shown]
    ((_, asked),) = sts.asked
    policy = json.loads(asked.pop("Policy"))
    assert asked == {
        "Action": "AssumeRole",
        "Version": "2011-06-15",
        "RoleArn": ROLE,
        "RoleSessionName": "session-aaaa0001",
        "DurationSeconds": "3300",
    }
    assert policy == s3_credentials.policy("bucket", "kept", making("aaaa0001"))
    assert credential.expires_at == EXPIRES_AT
    assert credential.variables == {
        "AWS_ACCESS_KEY_ID": KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_SESSION_TOKEN": TOKEN,
        "AWS_DEFAULT_REGION": "us-east-1",
    }


def test_a_job_finds_the_store_where_its_worker_does(sts: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-central-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "https://store.example.com")
    found: list[Any] = [issued().variables[name] for name in ("AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL_S3")]
    assert found == ["eu-central-1", "https://store.example.com"]
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "https://s3.example.com")
    assert issued().variables["AWS_ENDPOINT_URL_S3"] == "https://s3.example.com"


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (403, "AccessDenied", ArchiveError),
        (400, "ValidationError", ArchiveError),
        (400, "PackedPolicyTooLarge", ArchiveError),
        (400, "Throttling", RetryableError),
        (503, "ServiceUnavailable", RetryableError),
    ],
)
def test_a_refusal_says_why(sts: FakeCloud, status: int, code: str, kind: type[Exception]) -> None:
    """An operator must repair some of them. What STS writes of it is not repeated."""
    sts.answer = lambda _: (status, refused(code))
    with pytest.raises(kind, match=rf"BACKUP_ROLE \({code}\)") as caught:
        issued()
    assert type(caught.value) is kind
    assert SECRET not in str(caught.value)


def test_sts_that_is_away_is_tried_again(sts: FakeCloud, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_STS", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(RetryableError, match="BACKUP_ROLE"):
        issued()
