"""What the service does with nobody asking: sleep, expire, notice a death, stop and come back."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.service import Service
from tests.waiting import wait_for


def test_an_untouched_session_sleeps_and_an_expired_one_is_backed_up_and_gone(tmp_path: Path, code_server: str) -> None:
    """With IDLE_TIMEOUT=3, no grace after its start and the archive retention of 5 s, nobody does anything."""
    service = Service(tmp_path, code_server, IDLE_TIMEOUT="3", WAKE_GRACE="0", SESSION_TTL="5", ARCHIVE_RETENTION="5")
    service.start()
    try:
        uuid = service.done("POST", "/session/create", {"user_id": "ada"})["uuid"]
        service.wait_status(uuid, "terminated", replicas=0)
        assert service.states(uuid) == ["created", "active", "sleeping", "terminating", "terminated"]
        assert service.processes(WORKSPACE_UUID=uuid) == []
        backups = service.done("GET", "/backups?uuid=" + uuid)["backups"]
        assert [(backup["uuid"], backup["verified"]) for backup in backups] == [(uuid, True)]
        assert not service.files(uuid).parent.exists()
    finally:
        service.stop()


def test_a_dead_workspace_is_failed_with_its_last_words_and_wakes(service: Service) -> None:
    session = service.create("bob")
    uuid = session["uuid"]
    (service.files(uuid) / "kept").write_text("kept")
    for process in service.processes(WORKSPACE_UUID=uuid):
        os.kill(process.pid, signal.SIGKILL)
    failed = service.wait_status(uuid, "failed")
    assert "ended" in failed["session"]["reason"]
    service.done("POST", f"/session/{uuid}/scale-up")
    assert service.status(uuid)["session"]["reason"] in (None, "")
    assert (service.files(uuid) / "kept").read_text() == "kept"
    assert wait_for(lambda: service.workspace(session).status_code in (200, 302), "the workspace's URL")
    service.done("DELETE", f"/session/{uuid}?backup=false")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_leaves_no_process_and_a_second_run_finds_every_session(
    tmp_path: Path, code_server: str, number: int
) -> None:
    """Ctrl-C and SIGTERM alike; the same key, address of the workspace and files. What was up comes back up."""
    service = Service(tmp_path, code_server)
    service.start()
    up, down = service.create("ada"), service.create("bob")
    service.done("POST", f"/session/{down['uuid']}/scale-down")
    (service.files(up["uuid"]) / "kept").write_text("kept")
    assert service.stop(number) == 0
    assert service.processes() == []

    service.start()
    try:
        assert service.done("GET", "/sessions")["total"] == 2
        for session, status in ((up, "active"), (down, "sleeping")):
            seen = service.wait_status(session["uuid"], status, replicas=1 if status == "active" else 0)
            assert seen["session"]["user_id"] == session["user_id"]
            assert seen["session"]["workspace_url"] == session["workspace_url"]
            service.done("POST", f"/session/{session['uuid']}/scale-up")
        assert (service.files(up["uuid"]) / "kept").read_text() == "kept"
    finally:
        service.stop()
    assert service.processes() == []
