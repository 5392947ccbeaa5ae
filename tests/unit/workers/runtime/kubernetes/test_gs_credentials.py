"""Access boundaries, and what Google is asked: of its real services nothing of this was tried."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from google.auth import downscoped, iam

from app.core.errors import RetryableError
from app.core.storage.credential import Credential
from tests.unit.workers.runtime.kubernetes import fake_cloud
from tests.unit.workers.runtime.kubernetes.fake_cloud import EXPIRES, EXPIRES_AT, FakeCloud
from workers.runtime.kubernetes import gs_credentials
from workers.runtime.kubernetes.job_access import Access, making, reading

ACCOUNT = "archive@project.iam.gserviceaccount.com"
NAME = "app-bbbb0002-20260101-000000.zip"
LIST = "api.getAttribute('storage.googleapis.com/objectListPrefix', '')"


def rule_of(access: Access, root: str) -> tuple[dict[str, Any], list[str]]:
    """The one rule of the boundary, and what its condition lets through."""
    (rule,) = gs_credentials.boundary("bucket", root, access).to_json()["accessBoundary"]["accessBoundaryRules"]
    return rule, rule["availabilityCondition"]["expression"].split(" || ")


def test_the_boundary_of_who_makes_a_backup_or_a_restore_point() -> None:
    """Its paths end in a slash, so that no uuid that begins alike is meant."""
    rule, allowed = rule_of(making("aaaa0001"), "kept")
    assert rule["availableResource"] == "//storage.googleapis.com/projects/_/buckets/bucket"
    assert rule["availablePermissions"] == ["inRole:roles/storage.objectUser"]
    assert allowed == [
        "resource.name.startsWith('projects/_/buckets/bucket/objects/kept/aaaa0001/')",
        f"{LIST} == 'kept/aaaa0001'",
        f"{LIST}.startsWith('kept/aaaa0001/')",
    ]


def test_the_boundary_of_who_reads_a_backup_has_its_files_only() -> None:
    rule, allowed = rule_of(reading(NAME), "")
    assert rule["availablePermissions"] == ["inRole:roles/storage.objectViewer"]
    assert allowed == [
        each
        for path in (f"bbbb0002/{NAME}", f"bbbb0002/{NAME}.json")
        for each in (
            f"resource.name == 'projects/_/buckets/bucket/objects/{path}'",
            f"{LIST}.startsWith('{path}')",
        )
    ]


def google(path: str) -> tuple[int, str]:
    """The tokens of a worker, then of the account, then the one with the boundary."""
    if path == "/own":
        return 200, json.dumps({"access_token": "canary-of-the-worker", "expires_in": 3600})
    if path == f"/{ACCOUNT}":
        return 200, json.dumps({"accessToken": "canary-of-the-account", "expireTime": EXPIRES})
    return 200, json.dumps({"access_token": "canary-of-the-job", "token_type": "Bearer"})


@pytest.fixture
def cloud(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeCloud]:
    with fake_cloud.serving(google) as served:
        key = rsa.generate_private_key(65_537, 2_048)
        own = {
            "type": "service_account",
            "client_email": "worker@project.iam.gserviceaccount.com",
            "private_key": key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode(),
            "private_key_id": "1",
            "project_id": "project",
            "token_uri": f"{served.url}/own",
        }
        (tmp_path / "own.json").write_text(json.dumps(own))
        monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(tmp_path / "own.json"))
        monkeypatch.setattr(iam, "_IAM_ENDPOINT", served.url + "/{}")
        monkeypatch.setattr(downscoped, "_STS_TOKEN_URL_PATTERN", served.url + "/exchange?{}")
        yield served


def issued() -> Credential:
    return gs_credentials.issue(ACCOUNT, "bucket", "kept", making("aaaa0001"), 3_300)


def test_the_accounts_token_is_exchanged_for_one_with_the_boundary_and_none_is_shown(
    cloud: FakeCloud, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    credential = issued()
    assert "canary" not in repr(credential) + caplog.text
    (_, (account, wanted), (_, exchanged)) = cloud.asked
    assert account == f"/{ACCOUNT}"
    assert (wanted["lifetime"], wanted["scope"]) == ("3300s", ["https://www.googleapis.com/auth/cloud-platform"])
    boundary = gs_credentials.boundary("bucket", "kept", making("aaaa0001")).to_json()
    assert json.loads(unquote(exchanged.pop("options"))) == boundary
    assert exchanged == {
        "grant_type": "urn:ietf:params:oauth:grant-type:token-exchange",
        "subject_token": "canary-of-the-account",
        "subject_token_type": "urn:ietf:params:oauth:token-type:access_token",
        "requested_token_type": "urn:ietf:params:oauth:token-type:access_token",
    }
    assert credential == Credential({"GOOGLE_ACCESS_TOKEN": "canary-of-the-job"}, EXPIRES_AT)


@pytest.mark.parametrize("refusing", [f"/{ACCOUNT}", "/exchange"])
def test_a_refusal_is_an_error_of_ours(cloud: FakeCloud, refusing: str) -> None:
    cloud.answer = lambda path: (403, '{"error": "canary"}') if path.startswith(refusing) else google(path)
    with pytest.raises(RetryableError, match="BACKUP_ROLE") as caught:
        issued()
    assert "canary" not in str(caught.value)
