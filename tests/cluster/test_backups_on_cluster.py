"""Backups with the manager in the cluster: downloads through a reader, deletions, a delete during a backup, and sleeps
that make no restore point."""

from __future__ import annotations

import hashlib
import io
import subprocess
import zipfile
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests import sampling
from tests.cluster.product import SYSTEM, Api, kubectl, redis_says, stopped
from tests.waiting import wait_for

UNKNOWN = "app-zzzzzzzz-20261120-080000.zip"
SLEEPS = sampling.times(100, 5)

LARGE = 96
"""MiB that don't shrink: more than all buffers between a reader and its caller hold."""


@pytest.fixture
def session(api: Api) -> Iterator[str]:
    """A session with a file in it; gone afterwards, with its backups."""
    uuid = str(api.call("POST", "/session/create", {"user_id": "ada@example.com"})["uuid"])
    kubectl("exec", f"deployment/user-{uuid}", "--", "sh", "-c", "echo hello > /app/proof.txt")
    yield uuid
    assert api.ask("DELETE", f"/session/{uuid}?backup=false").ok
    for each in api.call("GET", f"/backups?uuid={uuid}")["backups"]:
        assert api.ask("DELETE", f"/backups/{each['name']}").status_code == 204


def backed_up(api: Api, uuid: str) -> dict[str, Any]:
    """A new backup of the session. Redis is asked, as calls of the API are counted."""
    before = redis_says("zcard", f"session:{uuid}:backups")
    api.call("POST", f"/session/{uuid}/backup")
    wait_for(lambda: redis_says("zcard", f"session:{uuid}:backups") != before, "the backup")
    newest: dict[str, Any] = api.call("GET", f"/session/{uuid}/backups")["backups"][0]
    return newest


def readers() -> list[str]:
    """The Jobs and pods of readers that are there, whatever they are at."""
    return kubectl("get", "jobs,pods", "-l", "app=backup-reader", "-o", "name").split()


def stored() -> list[str]:
    """The names of all files in the store."""
    return kubectl("exec", "deployment/backup-worker", "--", "ls", "-R", "/backups", namespace=SYSTEM).split()


def test_a_backup_made_here_is_downloaded_through_a_reader(api: Api, session: str) -> None:
    """Whole and in part, as its index says; and no reader is left."""
    backup = backed_up(api, session)
    path = f"/backups/{backup['name']}/download"
    answer = api.ask("GET", path)
    assert (answer.status_code, hashlib.sha256(answer.content).hexdigest()) == (200, backup["sha256"])
    assert answer.headers["ETag"] == f'"{backup["sha256"]}"'
    assert int(answer.headers["Content-Length"]) == backup["size"] == len(answer.content)
    assert zipfile.ZipFile(io.BytesIO(answer.content)).read("proof.txt") == b"hello\n"
    part = requests.get(api.url + path, headers={**api.headers, "Range": "bytes=10-19"}, timeout=90)
    assert (part.status_code, part.content) == (206, answer.content[10:20])
    wait_for(lambda: not readers(), "the readers to go")


def test_a_backup_that_does_not_exist_is_404_and_starts_nothing(api: Api) -> None:
    assert api.ask("GET", f"/backups/{UNKNOWN}/download").status_code == 404
    assert readers() == []


def test_a_backup_whose_file_is_gone_is_404(api: Api, session: str) -> None:
    """The index may be behind the store; the reader says so."""
    backup = backed_up(api, session)
    sidecar = f"/backups/{backup['uuid']}/{backup['name']}.json"
    kubectl("exec", "deployment/backup-worker", "--", "rm", sidecar, namespace=SYSTEM)
    assert api.ask("GET", f"/backups/{backup['name']}/download").status_code == 404
    wait_for(lambda: not readers(), "the reader to go")


def test_a_caller_that_leaves_ends_the_reader(api: Api, session: str) -> None:
    """Long before its deadline, and before it could have sent it all."""
    command = f"head -c {LARGE}M /dev/urandom > /app/large"
    kubectl("exec", f"deployment/user-{session}", "--", "sh", "-c", command)
    backup = backed_up(api, session)
    with api.ask("GET", f"/backups/{backup['name']}/download", stream=True) as answer:
        assert len(next(answer.iter_content(65_536))) > 0
        assert readers() != []
    wait_for(lambda: not readers(), "the reader to go")


def test_a_deleted_backup_is_gone_from_the_store_and_the_index(api: Api, session: str) -> None:
    """When that is answered; and what is gone can't be deleted again."""
    backup = backed_up(api, session)
    assert {backup["name"], f"{backup['name']}.json"} <= set(stored())
    assert api.ask("DELETE", f"/backups/{backup['name']}").status_code == 204
    assert not any(backup["name"] in each for each in stored())
    assert api.call("GET", f"/session/{session}/backups")["total"] == 0
    assert api.ask("DELETE", f"/backups/{backup['name']}").status_code == 404


@pytest.mark.parametrize("process", ["web", "worker"])
def test_what_faces_the_internet_has_no_backups(process: str) -> None:
    """Not even a folder of them."""
    with pytest.raises(subprocess.CalledProcessError):
        kubectl("exec", f"deployment/{process}", "--", "ls", "/backups", namespace=SYSTEM)


def test_a_delete_during_a_backup_needs_no_sweep(api: Api, session: str) -> None:
    """The backup's end resumes it: without beat no sweep would."""
    with stopped("beat"):
        api.call("POST", f"/session/{session}/backup")
        gone = api.call("DELETE", f"/session/{session}")
    assert (gone["status"], bool(gone["backup"])) == ("terminated", True)


def test_sleeps_of_an_unchanged_workspace_start_no_job(api: Api, session: str) -> None:
    """After the first, whose files are new. An agent that leaves knows that nothing changed."""

    def sleep() -> None:
        assert api.call("POST", f"/session/{session}/scale-down")["status"] == "success"
        wait_for(lambda: is_saved(session), "the files to be known as saved")

    sleep()
    begun = jobs_begun(session)
    assert len(begun) == 1
    for _ in range(SLEEPS):
        api.call("POST", f"/session/{session}/scale-up")
        wait_for(lambda: api.status(session) == "active", "the workspace")
        sleep()
    assert jobs_begun(session) == begun
    assert api.call("GET", f"/session/{session}/restore-points")["total"] == 1


def is_saved(uuid: str) -> bool:
    """Whether a sleeping session's files are known to be in a restore point."""
    point_at, ended = (redis_says("hget", f"session:{uuid}", name) for name in ("point_at", "compute_until"))
    return float(point_at or 0) >= float(ended)


def jobs_begun(uuid: str) -> set[str]:
    """The names of all Jobs of a session whose pods were made, in the last hour."""
    chosen = "involvedObject.kind=Job,reason=SuccessfulCreate"
    names = kubectl("get", "events", "--field-selector", chosen, "-o", "jsonpath={..involvedObject.name}").split()
    return {name for name in names if uuid in name}
