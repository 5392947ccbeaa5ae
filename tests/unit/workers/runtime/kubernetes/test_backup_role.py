"""Which values BACKUP_ROLE may have: a Job's credential must not depend on how a wrong one is read."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.process.settings import SettingsError
from tests.unit.workers.runtime.kubernetes.test_objects import SETTINGS

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
    ("given", "text"),
    [
        ({"backup_url": "s3://bucket", "backup_role": EMAIL}, "looks like arn:"),
        ({"backup_url": "gs://bucket", "backup_role": ARN}, "looks like archive@"),
        ({"backup_url": "s3://bucket", "backup_role": "archive"}, "looks like arn:"),
        ({"backup_url": "file:///backups", "backup_role": ARN}, "for buckets"),
        ({"backup_url": "/backups", "backup_role": ARN}, "for buckets"),
        ({"backup_url": "gs://bucket", "backup_role": ""}, "must be set for gs://"),
        ({"backup_url": "s3://bucket", "backup_role": ""}, "must be set for s3://"),
        ({"backup_url": "abfs://bucket", "backup_role": ""}, "must begin with file://, s3:// or gs://"),
        ({"backup_url": "s3://bucket/all*", "backup_role": ARN}, "letters, digits"),
        ({"backup_url": "s3://bucket/kept?a=*", "backup_role": ARN}, "letters, digits"),
        ({"backup_url": "s3://bucket/kept#*", "backup_role": ARN}, "letters, digits"),
        ({"backup_url": "s3://", "backup_role": ARN}, "letters, digits"),
        ({"backup_url": "s3://bucket/${aws:username}", "backup_role": ARN}, "letters, digits"),
        ({"backup_url": "gs://bucket/it's", "backup_role": EMAIL}, "letters, digits"),
        ({"backup_url": "s3://bucket", "backup_role": ARN, "backup_role_limit": 60.0}, "900 to 43200"),
        ({"backup_url": "s3://bucket", "backup_role": ARN, "runtime": "local"}, "RUNTIME=kubernetes"),
    ],
)
def test_what_it_cannot_work_with_is_said(given: dict[str, Any], text: str) -> None:
    with pytest.raises(SettingsError, match="BACKUP_ROLE") as caught:
        replace(READY, **given).checked()
    assert text in str(caught.value)
