"""SIGKILL, at every part of the service, while something is being done: what was asked for still happens.

Each part is killed right after the call was acknowledged, when its work is on the way; it comes
back by itself. In the end every session is as asked, no process is an orphan, and no file is lost.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests import sampling
from tests.faults.calls import ask, wait_status
from tests.service import Service
from tests.waiting import wait_for

PARTS = ["worker", "sweeper", "backup-worker", "delivery-worker", "gateway", "web", "beat", "observer", "traefik"]


@pytest.mark.parametrize("part", sampling.some(PARTS, 4, "kills"))
def test_a_session_survives_the_death_of(service: Service, part: str) -> None:
    """Killed during create, sleep, wake, backup and delete, in turn."""
    uuid = ask(service, "POST", "/session/create", {"user_id": part})["uuid"]
    service.kill(part)
    wait_status(service, uuid, "active", 1)
    (service.files(uuid) / "kept").write_bytes(os.urandom(5_000_000))
    content = (service.files(uuid) / "kept").read_bytes()

    ask(service, "POST", f"/session/{uuid}/sleep")
    service.kill(part)
    wait_status(service, uuid, "sleeping", 0)
    wait_for(lambda: service.processes(WORKSPACE_UUID=uuid) == [], "its processes to be gone")

    ask(service, "POST", f"/session/{uuid}/wake")
    service.kill(part)
    wait_status(service, uuid, "active", 1)
    assert (service.files(uuid) / "kept").read_bytes() == content

    ask(service, "POST", f"/session/{uuid}/backup")
    service.kill(part)

    def backups() -> int:
        return int(ask(service, "GET", f"/session/{uuid}/backups")["total"])

    wait_for(lambda: backups() >= 1, "the backup", seconds=120)

    ask(service, "DELETE", f"/session/{uuid}")
    service.kill(part)
    wait_status(service, uuid, "terminated", 0)
    assert service.processes(WORKSPACE_UUID=uuid) == []
    assert not service.files(uuid).parent.exists()

    name = ask(service, "GET", f"/session/{uuid}/backups")["backups"][0]["name"]
    restored = ask(service, "POST", f"/backups/{name}/restore")["uuid"]
    service.kill(part)
    wait_status(service, restored, "active", 1)
    assert (service.files(restored) / "kept").read_bytes() == content
    ask(service, "DELETE", f"/session/{restored}?backup=false")
    wait_status(service, restored, "terminated", 0)


def test_no_acknowledged_session_is_lost_when_redis_is_killed(service: Service) -> None:
    """SIGKILL between commands, again and again: what was answered with 201 is there afterwards."""
    acknowledged = []
    for round_ in range(5):
        for _ in range(3):
            acknowledged.append(ask(service, "POST", "/session/create", {"user_id": f"redis{round_}"})["uuid"])
        service.kill("redis")
    for uuid in acknowledged:
        wait_status(service, uuid, "active", 1)
    for uuid in acknowledged:
        ask(service, "DELETE", f"/session/{uuid}?backup=false")
    for uuid in acknowledged:
        wait_status(service, uuid, "terminated", 0)


def test_when_redis_lost_everything_every_session_and_its_user_come_back(service: Service) -> None:
    """From the metadata beside the volumes: running ones go on running, sleeping ones sleep, backups are listed."""
    up, down = service.create("ada"), service.create("bob")
    service.done("POST", f"/session/{down['uuid']}/scale-down")
    service.done("POST", f"/session/{down['uuid']}/backup")
    wait_for(lambda: service.done("GET", f"/session/{down['uuid']}/backups")["total"], "the backup")
    editors = {process.pid for process in service.processes(WORKSPACE_UUID=up["uuid"])}
    service.redis().flushall()
    wait_status(service, up["uuid"], "active", 1)
    wait_status(service, down["uuid"], "sleeping", 0)
    assert service.status(up["uuid"])["session"]["user_id"] == "ada"
    assert service.status(down["uuid"])["session"]["user_id"] == "bob"
    assert editors <= {process.pid for process in service.processes(WORKSPACE_UUID=up["uuid"])}, "it was not disturbed"
    wait_for(lambda: service.workspace(up).status_code in (200, 302), "the running workspace's URL")
    wait_for(lambda: service.done("GET", f"/session/{down['uuid']}/backups")["total"], "the backup in the list")
    for session in (up, down):
        service.done("DELETE", f"/session/{session['uuid']}?backup=false")


def test_a_workspace_outlives_everything_but_itself(service: Service) -> None:
    """All parts killed at once: the user's editor goes on, and is the same one afterwards."""
    session = service.create("ada")
    editors = {process.pid for process in service.processes(WORKSPACE_UUID=session["uuid"])}
    for part in [*PARTS, "redis"]:
        service.kill(part)
    wait_status(service, session["uuid"], "active", 1)
    assert editors <= {process.pid for process in service.processes(WORKSPACE_UUID=session["uuid"])}
    wait_for(lambda: ask(service, "GET", "/health")["status"] == "healthy", "health")
    ask(service, "DELETE", f"/session/{session['uuid']}?backup=false")
    wait_status(service, session["uuid"], "terminated", 0)


def test_a_killed_run_is_cleaned_up_by_the_next(tmp_path: Path, code_server: str) -> None:
    """Even scripts/run itself can be killed: the next one ends what is left and adopts what runs."""
    first = Service(tmp_path, code_server)
    first.start()
    session = first.create("ada")
    editors = {process.pid for process in first.processes(WORKSPACE_UUID=session["uuid"])}
    first.die()
    first.start()
    try:
        wait_status(first, session["uuid"], "active", 1)
        assert editors <= {process.pid for process in first.processes(WORKSPACE_UUID=session["uuid"])}
    finally:
        first.stop()
    assert first.processes() == []
