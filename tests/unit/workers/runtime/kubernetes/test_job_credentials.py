"""Which Jobs are given a credential, of which cloud, and for how long."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.core.storage.credential import Credential
from tests.unit.workers.runtime.kubernetes.test_objects import SETTINGS
from workers.runtime.kubernetes import gs_credentials, s3_credentials
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.job_access import making
from workers.runtime.kubernetes.job_credentials import JobCredentials

ACCESS = making("aaaa0001")
GIVEN = Credential({}, 1.0)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, ...]]:
    calls: list[tuple[Any, ...]] = []
    for name, module in (("s3", s3_credentials), ("gs", gs_credentials)):

        def issue(*given: Any, cloud: str = name) -> Credential:
            calls.append((cloud, *given))
            return GIVEN

        monkeypatch.setattr(module, "issue", issue)
    return calls


def credentials(**settings: Any) -> JobCredentials:
    return JobCredentials(KubernetesConfig.of(replace(SETTINGS, **settings)))


def test_without_a_role_there_are_none(asked: list[tuple[Any, ...]]) -> None:
    assert credentials(backup_url="s3://bucket").issue("aaaa0001", ACCESS) is None
    assert asked == []


def test_the_stores_cloud_gives_them(asked: list[tuple[Any, ...]]) -> None:
    assert credentials(backup_url="s3://bucket/a/b/", backup_role="R").issue("aaaa0001", ACCESS) is GIVEN
    assert credentials(backup_url="gs://bucket", backup_role="R").issue("aaaa0001", ACCESS) is GIVEN
    assert asked == [
        ("s3", "R", "bucket", "a/b", "session-aaaa0001", ACCESS, 3_300),
        ("gs", "R", "bucket", "", ACCESS, 3_300),
    ]


@pytest.mark.parametrize(
    ("long_task_limit", "role_limit", "duration"),
    [(3_600.0, 3_600.0, 3_300), (60.0, 3_600.0, 900), (7_000.0, 3_600.0, 3_600), (7_000.0, 7_200.0, 6_360)],
)
def test_they_last_as_long_as_the_job_may_take_and_the_role_allows(
    asked: list[tuple[Any, ...]], long_task_limit: float, role_limit: float, duration: int
) -> None:
    """And as long as the shortest that STS gives."""
    given: dict[str, Any] = {"long_task_limit": long_task_limit, "backup_role_limit": role_limit}
    credentials(backup_url="s3://bucket", backup_role="R", **given).issue("aaaa0001", ACCESS)
    assert asked[0][-1] == duration
