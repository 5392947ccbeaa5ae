"""Starting a reader in a cluster: where it is, and what becomes of one that does not start."""

from __future__ import annotations

import json
from dataclasses import replace
from unittest.mock import Mock

import pytest

from app.core.errors import BackupNotFound, RetryableError
from app.core.storage.credential import Credential
from app.process.settings import Settings
from tests.unit.fake_api import FakeApi
from workers.job.download_server import digest
from workers.runtime.kubernetes import jobs, s3_credentials
from workers.runtime.kubernetes.config import KubernetesConfig
from workers.runtime.kubernetes.download_job import DownloadJobs
from workers.runtime.kubernetes.job_access import reading
from workers.runtime.kubernetes.job_objects import DOWNLOAD_PORT
from workers.runtime.kubernetes.jobs import BackupJobs

NAME = "app-aaaa0001-20260101-000000.zip"
RUNS = {"phase": "Running", "podIP": "10.1.2.3", "containerStatuses": [{"state": {"running": {}}}]}
CREATING = {"phase": "Pending", "containerStatuses": [{"state": {"waiting": {"reason": "ContainerCreating"}}}]}


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs, "POLL", 0.01)


def readers(api: FakeApi, settings: Settings, start_timeout: float = 30.0) -> DownloadJobs:
    choices = KubernetesConfig.of(replace(settings, runtime="kubernetes", workspace_image="workspace:1"))
    return DownloadJobs(choices, BackupJobs(api.cluster(), start_timeout))


def pod_is(api: FakeApi, *statuses: object) -> None:
    """The pod of the one Job there is has these statuses, one at each look."""
    left = list(statuses)

    def next_look() -> None:
        [job] = api.named("jobs")
        labels = {"batch.kubernetes.io/controller-uid": api.get("jobs", job)["metadata"]["uid"]}
        api.put("pods", {"metadata": {"name": f"{job}-x", "labels": labels}, "spec": {}, "status": left.pop(0)})
        if left:
            api.before["GET pods"] = next_look

    api.before["GET pods"] = next_look


def test_a_reader_that_runs_has_an_address_and_a_secret_the_cluster_does_not_know(
    api: FakeApi, settings: Settings
) -> None:
    """Nor a log: what is shown of a reader leaves it out."""
    pod_is(api, CREATING, RUNS)
    reader = readers(api, settings).start(NAME)
    assert reader.answer == {"host": "10.1.2.3", "port": DOWNLOAD_PORT, "secret": reader.secret}
    job = json.dumps(api.get("jobs", reader.job))
    assert digest(reader.secret) in job
    assert reader.secret not in job
    assert reader.secret not in repr(reader)


def test_two_readers_of_one_backup_share_nothing(api: FakeApi, settings: Settings) -> None:
    pod_is(api, RUNS)
    first = readers(api, settings).start(NAME)
    readers(api, settings).end(first)
    assert api.kinds() == {"pods"}
    pod_is(api, RUNS)
    second = readers(api, settings).start(NAME)
    assert first.job != second.job
    assert first.secret != second.secret


def test_a_backup_that_is_not_there_is_said_and_no_job_is_left(api: FakeApi, settings: Settings) -> None:
    message = json.dumps({"error": "backup_not_found", "text": "There is none."})
    ended = {"phase": "Failed", "containerStatuses": [{"state": {"terminated": {"exitCode": 1, "message": message}}}]}
    pod_is(api, CREATING, ended)
    with pytest.raises(BackupNotFound):
        readers(api, settings).start(NAME)
    assert api.kinds() == {"pods"}


def test_a_reader_that_does_not_start_in_time_goes(api: FakeApi, settings: Settings) -> None:
    pod_is(api, CREATING)
    with pytest.raises(RetryableError, match="did not start"):
        readers(api, settings, start_timeout=0.1).start(NAME)
    assert api.kinds() == {"pods"}


def test_a_reader_that_ended_before_it_was_called_is_no_reader(api: FakeApi, settings: Settings) -> None:
    """Whatever it says."""
    pod_is(api, {"phase": "Succeeded", "containerStatuses": [{"state": {"terminated": {"message": "{}"}}}]})
    with pytest.raises(RetryableError):
        readers(api, settings).start(NAME)


def test_a_reader_has_a_credential_for_its_one_backup(
    api: FakeApi, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not in what is told to the caller."""
    issue = Mock(return_value=Credential({"AWS_SESSION_TOKEN": "canary"}, 1.0))
    monkeypatch.setattr(s3_credentials, "issue", issue)
    pod_is(api, RUNS)
    role = "arn:aws:iam::1:role/r"
    running = readers(api, replace(settings, backup_url="s3://bucket", backup_role=role))
    reader = running.start(NAME)
    assert [each.args[4] for each in issue.mock_calls] == [reading(NAME)]
    assert "canary" in api.get("secrets", reader.job)["stringData"]["credential"]
    assert "canary" not in json.dumps([reader.answer, api.get("jobs", reader.job)]) + repr(reader)
    running.end(reader)
    assert api.kinds() == {"pods"}
